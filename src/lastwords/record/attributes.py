"""What an exception says beyond its text: its arguments, errno, filename, code and the like; and its builtin base.

Rules
-----
* Nothing of the exception's own code is called: the real slots are read, and its ``__dict__``.
* Small plain values only. Of ``args``, which its text shows anyway, containers too; of ``__dict__`` numbers, short
  texts and members of Enums: the parameters of a statement, say, may be what its text was told to hide.
* A rebuilt exception derives from the builtin that the original derives from, by a fixed list: ``isinstance(exc,
  OSError)`` is true, and a SyntaxError shows its line. What a printer would *act* upon is left out: for ``name_from``
  of an ImportError, ``traceback`` imports the module of that name; for ``name`` of a NameError or AttributeError it
  looks for similar ones, which are not here: it gets one to find if it had found one (see :func:`remind`).
"""

from __future__ import annotations

import builtins
import datetime as dt
import decimal
import enum
import re
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from .read_values import read
from .write_values import Malformed, type_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .write_values import Writer

MAX_ARGS = 20
MAX_ATTRIBUTES = 20
MAX_KEPT = 2000  # characters of an argument
MAX_SHORT = 200  # and of an attribute
MAX_NAME = 100
MAX_BITS = 64
MAX_PLACE = 1 << 16  # a column or line of a SyntaxError: printers draw as many carets

BASES: dict[str, type[BaseException]] = {
    cls.__name__: cls
    for cls in vars(builtins).values()
    if isinstance(cls, type) and issubclass(cls, BaseException) and not issubclass(cls, BaseExceptionGroup)
}
_BUILTIN = frozenset(BASES.values()) - {Exception, BaseException}

_UNICODE = ("encoding", "object", "start", "end", "reason")
_SLOTS: dict[type[BaseException], tuple[str, ...]] = {
    OSError: ("errno", "strerror", "filename", "filename2"),
    SystemExit: ("code",),
    StopIteration: ("value",),
    ImportError: ("name", "path"),
    NameError: ("name",),
    AttributeError: ("name",),
    SyntaxError: ("msg", "filename", "lineno", "offset", "text", "end_lineno", "end_offset"),
    UnicodeDecodeError: _UNICODE,
    UnicodeEncodeError: _UNICODE,
}

_SCALARS = frozenset({type(None), bool, int, float, str})
_SMALL = frozenset({bytes, decimal.Decimal, dt.datetime, dt.date, dt.time, dt.timedelta, uuid.UUID})


# ---- writing -----------------------------------------------------------------------------------------


def base_of(cls: type) -> str:
    """The name of the nearest builtin exception that ``cls`` is or derives from; "" if that says no more."""
    for each in type.__dict__["__mro__"].__get__(cls):
        if each in _BUILTIN:
            return str(each.__name__)
    return ""


_get_args = BaseException.__dict__["args"].__get__
_get_dict = BaseException.__dict__["__dict__"].__get__


def arguments(exc: BaseException, text: str, writer: Writer) -> tuple[Any, ...] | None:
    """Its ``args``; None if they are what the text is."""
    args = _get_args(exc)
    if type(args) is not tuple or (len(args) == 1 and (not _is_small(args[0]) or args[0] == text)):
        return None
    return tuple([writer.value(each) if _is_small(each) else _stands_for(each, writer) for each in args[:MAX_ARGS]])


def _stands_for(value: object, writer: Writer) -> Any:
    if issubclass(type(value), str):
        return writer.text(str.__str__(value), MAX_KEPT)
    return writer.text(f"<{type_name(value)}>", MAX_KEPT)


def attributes(exc: BaseException, writer: Writer) -> dict[str, Any] | None:
    """Those that are worth keeping; None if there is none."""
    found = {}
    for cls, names in _SLOTS.items():
        if issubclass(type(exc), cls):
            for name in names:
                with suppress(AttributeError, TypeError):  # not set: somebody's __init__ did not call super
                    value = cls.__dict__[name].__get__(exc)
                    if value is not None and _is_small(value):
                        found[name] = writer.value(value)
    for name, value in dict(_get_dict(exc) or {}).items():
        if len(found) >= MAX_ATTRIBUTES:
            break
        if _may_be_set(name) and name not in found and _is_short(value):
            found[name] = writer.value(value)
    return found or None


def _is_short(value: Any) -> bool:
    return _is_small(value, MAX_SHORT) and (type(value) in _SCALARS or issubclass(type(value), enum.Enum))


def _is_small(value: Any, length: int = MAX_KEPT, depth: int = 0) -> bool:
    kind = type(value)
    if kind is int:
        return bool(value.bit_length() <= MAX_BITS)
    if kind in _SCALARS or kind in _SMALL:
        return (kind is not str and kind is not bytes) or len(value) <= length
    if kind is tuple or kind is list or kind is dict:
        inside = [*value.keys(), *value.values()] if kind is dict else [*value]
        return depth < 2 and len(inside) <= 2 * MAX_ARGS and all(_is_small(each, length, depth + 1) for each in inside)
    return issubclass(kind, enum.Enum)


def _may_be_set(name: object) -> bool:
    return (
        type(name) is str
        and len(name) <= MAX_NAME
        and name.isidentifier()
        and not name.startswith("_")
        and name not in _TAKEN
    )


_TAKEN = frozenset(dir(BaseExceptionGroup))


# ---- reading -----------------------------------------------------------------------------------------


def read_arguments(args: Sequence[Any]) -> tuple[Any, ...]:
    """Raises Malformed."""
    if len(args) > MAX_ARGS:
        raise Malformed("an exception has too many arguments")
    return tuple([read(each, 1) for each in args])


def read_attributes(given: Mapping[str, Any]) -> dict[str, Any]:
    """Raises Malformed."""
    if len(given) > MAX_ATTRIBUTES or not all(map(_may_be_set, given)):
        raise Malformed("an exception has attributes that it may not have")
    return {name: read(value, 1) for name, value in given.items()}


def fits(base: str, *, ordinary: bool, attributes: Mapping[str, Any]) -> type[BaseException] | None:
    """The builtin of that name, if an exception with these attributes may derive from it."""
    cls = BASES.get(base)
    if cls is None or issubclass(cls, Exception) is not ordinary:
        return None
    if issubclass(cls, SyntaxError) and not all(_is_place(name, attributes.get(name)) for name in _SLOTS[SyntaxError]):
        return None
    if issubclass(cls, UnicodeError):
        return cls if all(type(attributes.get(name)) is kind for name, kind in _kinds_of(cls)) else None
    return cls


def _is_place(name: str, value: Any) -> bool:
    if value is None:
        return True
    if name in ("msg", "filename", "text"):
        return type(value) is str
    return type(value) is int and value <= MAX_PLACE


def _kinds_of(cls: type[UnicodeError]) -> list[tuple[str, type]]:
    if not issubclass(cls, UnicodeDecodeError | UnicodeEncodeError):
        return []
    return list(zip(_UNICODE, (str, bytes if issubclass(cls, UnicodeDecodeError) else str, int, int, str), strict=True))


def give(exc: BaseException, given: Mapping[str, Any]) -> None:
    """Set the attributes that the exception takes."""
    for name, value in given.items():
        if hasattr(type(exc), name) and not _is_slot(exc, name):
            continue
        with suppress(AttributeError, TypeError, ValueError, OverflowError):  # a builtin's slot of another type
            setattr(exc, name, value)


def _is_slot(exc: BaseException, name: str) -> bool:
    if name == "name" and isinstance(exc, _LOOKED_FOR):
        return False
    return any(name in names for cls, names in _SLOTS.items() if isinstance(exc, cls))


_LOOKED_FOR = (NameError, AttributeError)
_HINT = r"\. Did you (?:mean:? '\.?([^'\n]*)'(?: instead of '[^'\n]*')?\?|forget to import '[^'\n]*')"


class _Near:
    """What an attribute was not found on: all that is known of it is a similar one."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __dir__(self) -> list[str]:
        return [self._name]


def remind(exc: BaseException, name: object, shown: str, rendered: str) -> None:
    """Let ``traceback`` find the similar name that it proposed behind ``shown`` in the live text."""
    if not isinstance(exc, _LOOKED_FOR) or type(name) is not str:
        return
    at = rendered.find(shown + ". Did you ")
    found = re.compile(_HINT).match(rendered, at + len(shown)) if at >= 0 else None
    if found is None:
        return
    exc.name = name
    if isinstance(exc, AttributeError):
        exc.obj = _Near(found[1] or "")
    elif found[1]:
        tb = exc.__traceback__
        while tb is not None and tb.tb_next is not None:
            tb = tb.tb_next
        if tb is not None:
            tb.tb_frame.f_globals[found[1]] = None  # where it looks; of this frame alone
