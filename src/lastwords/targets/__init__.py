"""Targets: where entries go."""

from __future__ import annotations

import logging

from .contract import CallableTarget, Target


def resolve(spec: object, *, configurator: object = None) -> Target | None:
    """Provisional."""
    from .handlers import HandlerTarget

    if spec is None or isinstance(spec, Target):
        return spec
    if isinstance(spec, logging.Handler):
        return HandlerTarget(spec)
    if callable(spec):
        return CallableTarget(spec)
    raise TypeError("target ...")
