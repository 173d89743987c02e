"""A target from a mapping, as in dictConfig: ``{"class": ...}`` or ``{"()": ...}``, built by logging's own code.

It can be built anew after a failure, which revives handlers that cannot be revived otherwise (not those of the standard
library: their adapters revive them, and know what a new one would not); and if building it needs
a server that is down (OSError), it is built when the first entry is delivered. Any other error is a mistake in the
configuration and is raised at construction.

The mapping may come from dictConfig (then formatters and filters are named as usual) or stand alone (then ``formatter``
is a mapping such as ``{"format": "..."}`` or a ``logging.Formatter``, and ``filters`` are mappings or objects).
"""

from __future__ import annotations

import copy
import logging
import logging.config
from typing import TYPE_CHECKING, Any

from ...runtime.stderr import say
from ..contract import Target, unused_formatter
from .wrap import wrap

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ...record.codec import Entry
    from .wrap import HandlerTarget


def resolve_mapping(spec: Mapping[str, Any]) -> SpecTarget:
    """The target for ``spec``. ValueError says what is wrong with it."""
    configurator = getattr(spec, "configurator", None)
    _refuse_reference(spec, configurator)
    if "class" not in spec and "()" not in spec:
        raise ValueError(f'target: a mapping must have a key "class" or "()"; this one has {sorted(map(str, spec))}')
    return SpecTarget(dict(spec), configurator)


def _refuse_reference(spec: Mapping[str, Any], configurator: Any) -> None:
    """``cfg://handlers.NAME`` gives the bare mapping when NAME sorts after our own name (CPython gh-92929)."""
    if configurator is None:
        return
    handlers = configurator.config.get("handlers") or {}
    for name, handler in dict.items(handlers):
        if handler is spec:
            raise ValueError(
                f"target: cfg://handlers.{name} is not built yet, because dictConfig builds handlers in the order of "
                f"their names: nest the mapping of {name!r} as the target, or rename it to come first"
            )


class SpecTarget(Target):
    """A handler target that can be built anew. ``spec``: its own copy."""

    record_at_a_time = True

    def __init__(self, spec: dict[str, Any], configurator: Any = None) -> None:
        self._configurator = configurator
        self._spec = {key: _own(value) for key, value in spec.items()}
        self._formatter: logging.Formatter | None = None
        self._inner: HandlerTarget | None = None
        self._name = str(spec.get("class", spec.get("()")))
        try:
            inner = self._inner = self._build()
        except OSError as error:
            # The server is down: the courier tries again. Level and filters are needed in the caller even so. No label:
            # the one that the handler will have is not known, and a makeshift would look like another destination.
            self.front = self._front_only()
            if isinstance(error, FileNotFoundError | PermissionError | NotADirectoryError | IsADirectoryError):
                self.warnings = (f"{self._name} cannot be built yet, its entries wait in the journal: {error}",)
            return
        self.front = inner.front
        self.label, self.warnings = inner.label, inner.warnings
        self.record_at_a_time, self.batch_size = inner.record_at_a_time, inner.batch_size
        self.narrows, self.in_the_call = inner.narrows, inner.in_the_call

    def _build(self) -> HandlerTarget:
        try:
            handler = self._configure()
        except OSError:
            raise
        except Exception as error:
            cause: BaseException | None = error
            while cause is not None:  # dictConfig's code wraps what a constructor raised
                if isinstance(cause, OSError):
                    raise cause from error
                cause = cause.__cause__
            raise ValueError(f"target: cannot build {self._name}: {error}") from error
        if not isinstance(handler, logging.Handler):
            raise ValueError(f"target: {self._name} made a {type(handler).__name__}, not a logging.Handler")
        target = wrap(handler)
        if self._formatter is not None:
            target.set_formatter(self._formatter)
        return target

    def _configure(self) -> Any:
        spec = {key: _own(value) for key, value in self._spec.items()}
        configurator = self._configurator
        formatter, filters = None, []
        if configurator is None:
            configurator = logging.config.DictConfigurator({"version": 1})
            formatter = spec.pop("formatter", None)
            if isinstance(formatter, dict):
                formatter = configurator.configure_formatter(formatter)
            elif formatter is not None and not isinstance(formatter, logging.Formatter):
                raise ValueError(f"formatter must be a mapping or a logging.Formatter here, not {formatter!r}")
            filters = _filters(spec.pop("filters", None), configurator)
        mapping: Any = logging.config.ConvertingDict(spec)
        mapping.configurator = configurator
        handler = configurator.configure_handler(mapping)
        if formatter is not None:
            handler.setFormatter(formatter)
        for each in filters:
            handler.addFilter(each)
        return handler

    def _front_only(self) -> logging.Handler:
        """The level and the filters of the handler that cannot be built yet."""
        front = logging.NullHandler()
        level = self._spec.get("level")
        if level is not None:
            front.setLevel(level)
        configurator = self._configurator
        if configurator is None:
            for each in _filters(self._spec.get("filters"), logging.config.DictConfigurator({"version": 1})):
                front.addFilter(each)
        elif self._spec.get("filters"):
            configurator.add_filters(front, self._spec["filters"])
        return front

    def deliver(self, entries: Sequence[Entry]) -> None:
        if self._inner is None:
            self._inner = self._build()
            if not self.label:
                self.label = self._inner.label
                for warning in self._inner.warnings:  # not said at construction
                    say(f"{self.label}: {warning}")
        self._inner.deliver(entries)

    def rebuild(self) -> bool:
        inner = self._inner
        if inner is None or not inner.rebuild_helps:
            return False
        self._inner = None
        try:
            inner.close()
        except Exception as error:  # it failed a moment ago, which was reported; the next one counts
            say(f"{self.label}: closing it before building it anew: {type(error).__name__}: {error}")
        return True

    def close(self) -> None:
        inner, self._inner = self._inner, None
        if inner is not None:
            inner.close()

    @property
    def formatter(self) -> logging.Formatter | None:
        if self._inner is not None:
            return self._inner.formatter
        return (
            unused_formatter() if self._spec.get("formatter") else None
        )  # it has one of its own as soon as it is built

    def set_formatter(self, fmt: logging.Formatter | None) -> None:
        self._formatter = fmt
        if self._inner is not None:
            self._inner.set_formatter(fmt)

    def after_fork_in_child(self) -> None:
        if self._inner is not None:
            self._inner.after_fork_in_child()


def _filters(given: Any, configurator: Any) -> list[Any]:
    """The filters of a mapping that stands alone. A wrong one must not wait until the first record to be found."""
    filters = []
    for each in given or ():
        if isinstance(each, dict):
            mapping: Any = logging.config.ConvertingDict(_own(each))
            mapping.configurator = configurator
            filters.append(configurator.configure_filter(mapping))
        elif callable(each) or callable(getattr(each, "filter", None)):
            filters.append(each)
        else:
            raise ValueError(f"target: filters must be mappings or filters here, not {each!r}")
    return filters


def _own(value: Any) -> Any:
    """A copy of what dictConfig's code would change; objects stay what they are."""
    if isinstance(value, dict):
        return {key: _own(dict.__getitem__(value, key)) for key in dict.keys(value)}
    if isinstance(value, list):
        return [_own(item) for item in list.__iter__(value)]
    try:
        return copy.copy(value) if isinstance(value, set | bytearray) else value
    except TypeError:
        return value
