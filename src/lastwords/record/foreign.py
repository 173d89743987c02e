"""What is asked of a value of an unknown class: how it is shown, whether it has its own way, which fields it has.

Rules
-----
* A metaclass may raise or lie: each question is in a guard, and its answer "no" costs only how the value is kept.
* To show a value may be expensive: how the message showed an argument is remembered, and it is not shown once more.
"""

from __future__ import annotations

import logging
from typing import Any

from ..runtime.signals import pass_on

MAX_FIELDS = 200  # of a dataclass


class Seen:
    """Stands for a foreign argument while the message is formatted, and remembers how it was shown."""

    __slots__ = ("_value", "rendered", "text")

    def __init__(self, value: Any) -> None:
        self._value = value
        self.text: str | None = None
        self.rendered: str | None = None

    def __str__(self) -> str:
        if self.text is None:
            self.text = str.__str__(str(self._value))
        return self.text

    def __repr__(self) -> str:
        if self.rendered is None:
            self.rendered = str.__str__(repr(self._value))
        return self.rendered

    def __int__(self) -> int:
        return int(self._value)

    def __index__(self) -> int:
        index: int = self._value.__index__()
        return index

    def __float__(self) -> float:
        return float(self._value)


def overrides(value: Any, name: str, base: type) -> bool:
    """True if the value's class has a method ``name`` of its own, not that of ``base``."""
    try:
        return getattr(type(value), name) is not getattr(base, name)
    except BaseException as exc:  # a metaclass
        pass_on(exc)
        return True


def data_fields(value: Any) -> list[str] | None:
    """The names of a dataclass's fields, None if it is not a dataclass."""
    try:
        fields = type(value).__dataclass_fields__
        if type(fields) is not dict or len(fields) > MAX_FIELDS:
            return None
        return [name for name, field in fields.items() if type(name) is str and field._field_type.name == "_FIELD"]
    except BaseException as exc:  # no dataclass, a metaclass, or something that only looks like one
        pass_on(exc)
        return None


def logger_name(value: Any) -> str | None:
    """The name of a logger: structlog passes one on in ``_logger``, and its processors read it; None for all else."""
    try:
        if issubclass(type(value), logging.Logger) and type(name := object.__getattribute__(value, "name")) is str:
            return name
    except BaseException as exc:  # a subclass with ways of its own
        pass_on(exc)
    return None
