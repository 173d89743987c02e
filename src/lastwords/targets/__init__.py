"""Targets: where entries go. ``resolve`` makes one of whatever a user may give; ``contract`` says what it promises."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from .contract import CallableTarget, Target

__all__ = ["SMTPDigest", "Target", "resolve"]


def resolve(spec: object) -> Target | None:
    """The target for ``spec``: a handler, a callable, a Target, a URL, a mapping, or None.

    Raises TypeError for what can be no target, ValueError for what is one but wrongly written.
    """
    if spec is None or isinstance(spec, Target):
        return spec
    if isinstance(spec, logging.Handler):
        from .handlers import wrap  # noqa: PLC0415 - lazily: each kind of target imports what it needs

        return wrap(spec)
    if isinstance(spec, type):
        raise TypeError(f"target must be an instance, not the class {spec.__name__}: call it, or use a mapping")
    if isinstance(spec, Mapping):
        from .spec import resolve_mapping  # noqa: PLC0415

        return resolve_mapping(spec)
    if isinstance(spec, str):
        return _from_text(spec)
    if callable(spec):
        return CallableTarget(spec)
    raise TypeError(
        "target must be a logging.Handler, a callable, a Target, a URL, a mapping with a class, or None, "
        f"not {type(spec).__name__}"
    )


def _from_text(text: str) -> Target | None:
    if text.startswith("ext://"):
        return resolve(_external(text.removeprefix("ext://")))
    if text.startswith("cfg://"):
        raise ValueError(f"target {text!r} works inside dictConfig only: nest the handler's mapping instead")
    if "://" in text or text.startswith(("file:", "stdout:", "stderr:")):
        from .urls import from_url  # noqa: PLC0415

        target: Target = from_url(text)
        return target
    raise ValueError(
        f"target {text!r} is not a URL; for a handler of the same dictConfig write cfg://handlers.{text}, "
        "or nest its mapping"
    )


def _external(name: str) -> Any:
    import logging.config  # noqa: PLC0415

    return logging.config.BaseConfigurator({}).resolve(name)


def __getattr__(name: str) -> Any:
    if name == "SMTPDigest":
        from .digest import SMTPDigest  # noqa: PLC0415

        return SMTPDigest
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
