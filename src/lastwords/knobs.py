"""Checks of the values a user types: a bad one is a ValueError that names the knob, the value and what is allowed."""

from __future__ import annotations

import logging
import math
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def seconds(name: str, value: object, *, least: float = 0.0) -> float:
    """A time: a number of seconds or a timedelta, at least ``least``."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} must be seconds (int, float or timedelta), not {value!r}")
    if not math.isfinite(value) or value < least:
        raise ValueError(f"{name} must be a finite number of seconds, at least {least:g}, not {value!r}")
    return float(value)


def whole(name: str, value: object, *, least: int = 1) -> int:
    """A whole number, at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be a whole number, at least {least}, not {value!r}")
    return value


def level(name: str, value: object) -> int:
    """A level: a number or the name of one."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str):
        number = logging.getLevelNamesMapping().get(value)
        if number is not None:
            return number
    known = ", ".join(logging.getLevelNamesMapping())
    raise ValueError(f"{name} must be a level number or one of {known}, not {value!r}")


def file_mode(name: str, value: object) -> int:
    """Permission bits: 0o600, or the same in a string (TOML and JSON have no octal numbers)."""
    if isinstance(value, str):
        try:
            value = int(value, 8)
        except ValueError:
            value = -1
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 0o777 or value & 0o600 != 0o600:
        raise ValueError(f'{name} must be permission bits that let the owner read and write, such as 0o600 or "600"')
    return value


def names(name: str, value: object) -> tuple[str, ...]:
    """Logger names."""
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        raise ValueError(f"{name} must be a list of logger names, not {value!r}")
    result = tuple(value)
    if not all(isinstance(item, str) and item for item in result):
        raise ValueError(f"{name} must be a list of logger names, not {value!r}")
    return result


def function(name: str, value: object) -> Callable[..., Any] | None:
    """Something that can be called, or None."""
    if value is not None and not callable(value):
        raise ValueError(f"{name} must be a function or None, not {value!r}")
    return value
