"""``--config``: the application's own dictConfig, of which only the DurableHandlers are built.

Rules
-----
* No logger is configured, and no other handler is ever constructed: a FileHandler with mode "w" would truncate its
  file. The one exception is a handler that a DurableHandler names as its target (``cfg://handlers.mail``).
* Formatters and filters are built if one of these handlers names them.
* The handlers are built inside ``process.passive()``: they start no courier of their own.
* A journal that is not there is not made: cron often runs as another user than the service, which could not open it.
* The configuration itself is not changed: an application may have imported it too.
"""

from __future__ import annotations

import logging.config
import os
import re
import shlex
import warnings
from typing import TYPE_CHECKING, Any

from lastwords.errors import JournalError
from lastwords.handler import DurableHandler
from lastwords.journal import files

from .. import output
from . import config_files, destination

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_CFG_HANDLER = "cfg://handlers."


def load(source: str) -> Mapping[str, Any]:
    """The dictConfig in a file (see config_files.py) or at module:NAME. Raises Misconfigured."""
    text = source.strip()
    if config_files.kind_of(text) in config_files.KINDS or os.sep in text or os.path.isfile(text):
        return _logging_part(config_files.read(text), source)
    return _logging_part(destination.as_mapping(destination.find(text, "--config"), source), source)


def _logging_part(found: Mapping[str, Any], source: str) -> Mapping[str, Any]:
    """The dictConfig itself, which may be a table ``logging`` of a larger file."""
    for part in (found, found.get("logging"), found.get("LOGGING")):
        if isinstance(part, dict) and isinstance(part.get("handlers"), dict):
            if part.get("version") != 1:
                raise output.Misconfigured(f"--config {source}: is no dictConfig: it has no version = 1")
            return part
    raise output.Misconfigured(f"--config {source}: has no handlers")


def _copy(value: Any) -> Any:
    """A copy of the containers, not of what is in them: a dictConfig in Python may hold any object."""
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copy(item) for item in value]
    return value


class Configuration:
    """The DurableHandlers of a dictConfig, built one by one when they are wanted. Raises Misconfigured."""

    def __init__(self, source: str) -> None:
        self.source = source
        destination.current_folder_last()  # the classes that it names may be there
        self._configurator = logging.config.DictConfigurator(_copy(load(source)))
        self._config = self._configurator.config
        self._unknown: list[str] = []
        file = os.path.expanduser(source.strip())
        self._folder = os.path.dirname(os.path.abspath(file)) if os.path.isfile(file) else None
        self.relative: dict[str, str] = {}  # by handler: what is wrong with a journal that is not there, seen from here
        self.journals = dict(self._find())
        if not self.journals:
            hint = f" (these could not be imported: {', '.join(self._unknown)})" if self._unknown else ""
            raise output.Misconfigured(f"--config {source}: has no lastwords.DurableHandler{hint}")

    def _find(self) -> Iterator[tuple[str, str | None]]:
        """The names of the DurableHandlers, with their journals where the configuration says them."""
        handlers = self._config["handlers"]
        for name in handlers:
            raw = handlers[name]  # not through items(), which would not convert ext:// and cfg://
            if not isinstance(raw, dict):
                continue
            maker = raw["()"] if "()" in raw else raw.get("class")
            if isinstance(maker, str):
                maker = self._import(maker)
            ours = isinstance(maker, type) and issubclass(maker, DurableHandler)
            factory = maker is not None and not isinstance(maker, type) and "journal" in raw  # a function
            if ours or factory:
                yield name, self._journal(name, raw)

    def _import(self, name: str) -> Any:
        if name.startswith("logging."):
            return None  # none of these is ours
        try:
            return self._configurator.resolve(name)
        except Exception as error:  # a handler of the application that cannot be imported here is none of ours
            self._unknown.append(f"{name}: {destination.say(error)}")
            return None

    def _journal(self, name: str, raw: Mapping[str, Any]) -> str | None:
        if "journal" not in raw:
            return None  # a subclass that knows it itself
        try:
            path = files.absolute(raw["journal"])  # resolves ext:// and cfg://
        except Exception as error:
            raise output.Misconfigured(
                f"--config {self.source}: handler {name!r}: journal: {destination.say(error)}"
            ) from error
        text = os.path.expanduser(raw["journal"])
        if not os.path.isabs(text) and not os.path.lexists(path):
            self.relative[name] = f"{path} is not there, and the path is relative: {self._remedy(text)}"
        return path

    def _remedy(self, text: str) -> str:
        """It is not taken from the configuration's folder: the target's own paths would still be meant from here."""
        if self._folder is not None and os.path.lexists(os.path.join(self._folder, text)):
            return f"it is in {self._folder}; start there, as the service does: cd {shlex.quote(self._folder)} && ..."
        return "start in the folder that the service is started in, or name the JOURNAL"

    def for_path(self, path: str, handler: str | None) -> str:
        """The name of the handler whose target is meant for the journal at ``path``."""
        if handler is not None:
            return self.named(handler)
        same = [name for name, journal in self.journals.items() if journal is not None and _is_same(journal, path)]
        if same:
            return same[0]
        if len(self.journals) == 1:
            return next(iter(self.journals))
        raise output.Misconfigured(
            f"{path} is no journal of --config {self.source}; choose a target with --handler {'|'.join(self.journals)}"
        )

    def is_of(self, name: str, path: str) -> bool:
        """True if the journal at ``path`` is the one that the handler ``name`` writes."""
        journal = self.journals[name]
        return journal is None or _is_same(journal, path)

    def refuse_elsewhere(self, name: str, destination: str | None) -> None:
        """Raise Misconfigured if the target's own path is relative, and meant from another folder than this one.

        The service left in the journal where it delivers. Here the same words would make another file, in silence.
        """
        for text in _strings(self._config["handlers"], dict.get(self._config["handlers"], name)):
            path = text.removeprefix("file:").partition("?")[0]
            if not path or not destination or os.path.isabs(os.path.expanduser(path)):
                continue
            there = re.search(rf"(?:^|[ :])(/.*)/{re.escape(os.path.normpath(path))}$", destination.partition("?")[0])
            if there and os.path.isdir(there[1]) and not _is_same(there[1], os.curdir):
                raise output.Misconfigured(
                    f"--config {self.source}: handler {name!r}: {path} is relative, and its service means the one in"
                    f" {there[1]}; start there: cd {shlex.quote(there[1])} && ..."
                )

    def named(self, handler: str) -> str:
        """``handler``, if it is one of the DurableHandlers."""
        if handler not in self.journals:
            raise output.Misconfigured(
                f"--handler {handler}: --config {self.source} has the DurableHandlers {', '.join(self.journals)}"
            )
        return handler

    def build(self, name: str, journal: str | None) -> tuple[DurableHandler, list[str]]:
        """The handler, on ``journal`` (None: its own), and what it warned of. Inside ``process.passive()``."""
        raw = self._config["handlers"][name]
        if journal is not None and "journal" in raw:
            raw["journal"] = journal
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                built = self._build(name)
            except JournalError:
                raise
            except Exception as error:  # the application's own classes, and its values
                cause = f": {destination.say(error.__cause__)}" if error.__cause__ else ""
                raise output.Misconfigured(
                    f"--config {self.source}: handler {name!r} cannot be built: {destination.say(error)}{cause}"
                ) from error
        if not isinstance(built, DurableHandler):
            raise output.Misconfigured(f"--config {self.source}: handler {name!r} is a {type(built).__name__}")
        return built, [str(warning.message) for warning in caught]

    def _build(self, name: str) -> logging.Handler:
        handlers = self._config["handlers"]
        raw = handlers[name]
        if isinstance(raw, logging.Handler):
            return raw
        self._prepare(raw, bare=name not in self.journals)
        built = handlers[name] = self._configurator.configure_handler(raw)
        built.name = name
        return built

    def _prepare(self, raw: Any, *, bare: bool) -> None:
        """Build what ``raw`` refers to: formatters, filters, and the handler that is its target.

        ``bare``: a target may be a plain name, as a MemoryHandler's is. A DurableHandler refuses one, and says why.
        """
        if not isinstance(raw, dict):
            return
        for key, value in dict.items(raw):  # not converted: a reference is to be seen as such
            if key == "formatter":
                self._make("formatters", value, self._configurator.configure_formatter)
            elif key == "filters" and isinstance(value, list | tuple):
                for one in value:
                    self._make("filters", one, self._configurator.configure_filter)
            elif isinstance(value, str):
                self._follow(key, value, bare=bare)
            else:
                self._prepare(value, bare=True)

    def _follow(self, key: str, value: str, *, bare: bool) -> None:
        handlers = self._config["handlers"]
        if value.startswith(_CFG_HANDLER):
            name = value.removeprefix(_CFG_HANDLER)
        elif bare and key == "target" and value in handlers:
            name = value
        else:
            return
        if isinstance(handlers.get(name), dict):
            self._build(name)

    def _make(self, kind: str, name: Any, maker: Any) -> None:
        parts = self._config.get(kind, {})
        if isinstance(name, str) and isinstance(parts.get(name), dict):
            parts[name] = maker(parts[name])


def _strings(handlers: dict[str, Any], part: Any) -> Iterator[str]:
    """All strings in a handler's part of the configuration, and in that of the handler that it refers to."""
    if isinstance(part, str):
        if part.startswith(_CFG_HANDLER):
            yield from _strings({}, dict.get(handlers, part.removeprefix(_CFG_HANDLER)))
        yield part
    elif isinstance(part, dict):
        for value in dict.values(part):
            yield from _strings(handlers, value)
    elif isinstance(part, list | tuple):
        for value in part:
            yield from _strings(handlers, value)
    elif isinstance(part, config_files.Late):
        yield from part.strings


def _is_same(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return one == other
