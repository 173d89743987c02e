"""The reading half of ``write_values.py``: strict, bounded, nothing imported or called by name."""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import enum
import uuid
from typing import TYPE_CHECKING, Any

from ..runtime.fork import importing
from .foreign import MAX_FIELDS
from .write_values import _ESCAPE, MAX_DECIMAL, MAX_INT_BITS, MAX_ITEMS, READ_DEPTH, TAG, Malformed

if TYPE_CHECKING:
    from collections.abc import Callable


class Stub:
    """Stands for an argument whose class is unknown here; renders as it did when it was logged."""

    __slots__ = ("_float", "_format", "_index", "_int", "_repr", "_str", "_type")

    def __init__(self, fields: dict[str, Any]) -> None:
        self._type = read_text(fields, "type")
        self._str = read_text(fields, "str")
        self._repr = read_text(fields, "repr", self._str)
        self._format = read_text(fields, "format", self._str)
        self._int = _field(fields, "int", int)
        self._float = _field(fields, "float", float)
        self._index = _field(fields, "index", int)

    def __str__(self) -> str:
        return self._str

    def __repr__(self) -> str:
        return self._repr

    def __format__(self, spec: str) -> str:
        if not spec:
            return self._format
        number = self._float if self._float is not None else self._int
        if number is not None:
            try:
                return format(number, spec)
            except ValueError:
                return format(self._str, spec)
        return format(self._str, spec)

    def __int__(self) -> int:
        return int(_known(self._int if self._int is not None else self._index, self._type))

    def __index__(self) -> int:
        return int(_known(self._index, self._type))

    def __float__(self) -> float:
        return float(_known(self._float if self._float is not None else self._index, self._type))


def _known(number: float | None, name: str) -> float:
    if number is None:
        raise TypeError(f"a journaled {name} that was not such a number")
    return number


class _Shown:
    """Mixin for data of an unknown subclass of a builtin: the data is real, the rendering as logged."""

    _shown: tuple[str, str, str] = ("", "", "")

    def __str__(self) -> str:
        return self._shown[0]

    def __repr__(self) -> str:
        return self._shown[1]

    def __format__(self, spec: str) -> str:
        return super().__format__(spec) if spec else self._shown[2]


class ShownStr(_Shown, str):  # noqa: SLOT000 - _shown lives in its __dict__
    """A str of an unknown subclass."""


class ShownLogger(ShownStr):
    """A logger, as structlog hands one on: its text, as of any extra, and its name."""

    name: str = ""


class ShownInt(_Shown, int):
    """An int of an unknown subclass."""


class ShownFloat(_Shown, float):
    """A float of an unknown subclass."""


class ShownDict(_Shown, dict[Any, Any]):
    """A dict of an unknown subclass."""


class ShownList(_Shown, list[Any]):
    """A list of an unknown subclass."""


class ShownTuple(_Shown, tuple[Any, ...]):  # noqa: SLOT001
    """A tuple of an unknown subclass."""


class ShownSet(_Shown, set[Any]):
    """A set of an unknown subclass."""


class ShownFrozenset(_Shown, frozenset[Any]):
    """A frozenset of an unknown subclass."""


class ShownBytes(_Shown, bytes):
    """A bytes of an unknown subclass."""


_SHOWN: dict[str, tuple[type, type[Any]]] = {
    "str": (str, ShownStr),
    "int": (int, ShownInt),
    "float": (float, ShownFloat),
    "dict": (dict, ShownDict),
    "list": (list, ShownList),
    "tuple": (tuple, ShownTuple),
    "set": (set, ShownSet),
    "frozenset": (frozenset, ShownFrozenset),
    "bytes": (bytes, ShownBytes),
}


def read(value: Any, depth: int = 0) -> Any:
    """Return the Python value of a decoded JSON value; raise Malformed (or ValueError) if it is not one."""
    kind = type(value)
    if kind is not list and kind is not dict:
        return value
    if depth > READ_DEPTH:
        raise Malformed("nested too deeply")
    if kind is list:
        return [read(item, depth + 1) for item in value]
    if TAG not in value:
        return {key: read(item, depth + 1) for key, item in value.items()}
    name = value[TAG]
    reader = READERS.get(name) if type(name) is str else None
    if reader is None:
        raise Malformed(f"unknown tag {str(name)[:40]!r}")
    return reader(value, depth + 1)


def _field(fields: dict[str, Any], name: str, kind: type) -> Any:
    value = read(fields.get(name))
    if value is not None and type(value) is not kind:
        raise Malformed(f"{name} of a tag is {type(value).__name__}, not {kind.__name__}")
    return value


def read_text(fields: dict[str, Any], name: str, default: str | None = None) -> str:
    """A text of a tag; raise Malformed if it is not a text."""
    value = read(fields.get(name, default))
    if type(value) is not str:
        raise Malformed(f"{name} of a tag is not text")
    return str(value)


def _plain(fields: dict[str, Any]) -> str:
    value = fields.get("v")
    if type(value) is not str:
        raise Malformed("the value of a tag is not text")
    return value


def _items(fields: dict[str, Any]) -> list[Any]:
    value = fields.get("v")
    if type(value) is not list:
        raise Malformed("the value of a tag is not a list")
    return value


def _several(fields: dict[str, Any], depth: int) -> list[Any]:
    items = _items(fields)
    if len(items) > MAX_ITEMS + 1:  # one more than the writer's items: the marker
        raise Malformed("too many items")
    return [read(item, depth + 1) for item in items]


def _int(fields: dict[str, Any], _depth: int) -> int:
    text = _plain(fields)
    if len(text) > MAX_INT_BITS // 4 + 4 or "x" not in text:
        raise Malformed("not an int")
    return int(text, 16)


def _float(fields: dict[str, Any], _depth: int) -> float:
    text = _plain(fields)
    if text not in ("nan", "inf", "-inf"):
        raise Malformed("not a float")
    return float(text)


def _str(fields: dict[str, Any], _depth: int) -> str:
    text = _plain(fields)
    if "\\" in _ESCAPE.sub("", text):
        raise Malformed("bad escape")
    return _ESCAPE.sub(lambda found: chr(int(found[1], 16)) if found[1] else "\\", text)


def _bytes(fields: dict[str, Any], _depth: int) -> bytes:
    return base64.b64decode(_plain(fields), validate=True)


def _dict(fields: dict[str, Any], depth: int) -> dict[Any, Any]:
    out: dict[Any, Any] = {}
    pairs = _items(fields)
    if len(pairs) > MAX_ITEMS + 1:
        raise Malformed("too many items")
    for pair in pairs:
        if type(pair) is list and len(pair) == 2:
            out[_hashable(read(pair[0], depth + 2))] = read(pair[1], depth + 2)
        elif type(pair) is str:
            out["..."] = pair  # the writer's marker for what was left out
        else:
            raise Malformed("not a pair")
    return out


def _hashable(value: Any) -> Any:
    try:
        hash(value)
    except TypeError:
        return repr(value)
    return value


def _decimal(fields: dict[str, Any], _depth: int) -> decimal.Decimal:
    text = _plain(fields)
    if len(text) > MAX_DECIMAL + 32:
        raise Malformed("decimal too long")
    try:
        value = decimal.Decimal(text)
    except decimal.InvalidOperation:
        raise Malformed("not a decimal") from None
    exponent = value.as_tuple().exponent
    if type(exponent) is int and abs(exponent) > MAX_DECIMAL:
        raise Malformed("decimal exponent out of range")
    return value


def _complex(fields: dict[str, Any], depth: int) -> complex:
    real, imag = _several(fields, depth)
    if type(real) is not float or type(imag) is not float:
        raise Malformed("not a complex number")
    return complex(real, imag)


def _timedelta(fields: dict[str, Any], _depth: int) -> dt.timedelta:
    days, seconds, microseconds = _items(fields)
    if not type(days) is type(seconds) is type(microseconds) is int:
        raise Malformed("not a timedelta")
    return dt.timedelta(days, seconds, microseconds)


def _enum(fields: dict[str, Any], depth: int) -> Any:
    """A member of an Enum of that name, with that value; its class has no other member."""
    text, rendered = read_text(fields, "str"), read_text(fields, "repr")
    formatted = read_text(fields, "format", text)
    name, value = read_text(fields, "name"), read(fields.get("v"), depth + 1)
    base = _SHOWN.get(read_text(fields, "base", ""), (None, None))[0]
    if "base" in fields and (base is None or not isinstance(value, base)):
        raise Malformed("the value of an Enum's member is not of its base")
    try:
        make: Any = enum.Enum
        cls = make(_last_name(fields), {name: value}, type=base)
        member = next(iter(cls))
    except Exception as error:  # a name that Enum does not take, as "mro"
        raise Malformed(f"no member of an Enum: {error}") from None
    cls.__str__, cls.__repr__ = (lambda _: text), (lambda _: rendered)
    cls.__format__ = lambda _, spec: format(value if base is not None else text, spec) if spec else formatted
    return member


def _last_name(fields: dict[str, Any]) -> str:
    return read_text(fields, "type").rpartition(".")[2].replace("\0", "?") or "?"


class _Data:
    """What every rebuilt instance of a dataclass has: how it was shown."""

    __slots__ = ("_shown",)
    _shown: tuple[str, str]

    def __str__(self) -> str:
        return self._shown[0]

    def __repr__(self) -> str:
        return self._shown[1]


def _data(fields: dict[str, Any], depth: int) -> Any:
    """An instance of a dataclass of that name, with those fields and no code of its own."""
    raw = fields.get("v")
    if type(raw) is not dict or len(raw) > MAX_FIELDS:
        raise Malformed("the fields of a dataclass are no object")
    values = {name: read(value, depth + 1) for name, value in raw.items()}
    with importing():
        import dataclasses  # noqa: PLC0415 - 14 ms (inspect), and few log one
    try:
        named = [(name, object) for name in values]
        cls: Any = dataclasses.make_dataclass(
            _class_name(fields), named, bases=(_Data,), init=False, repr=False, eq=False
        )
    except (TypeError, ValueError) as error:  # names that are none
        raise Malformed(f"no dataclass: {error}") from None
    made = cls.__new__(cls)
    made.__dict__.update(values)
    text = read_text(fields, "str")
    made._shown = (text, read_text(fields, "repr", text))
    return made


def _class_name(fields: dict[str, Any]) -> str:
    name = _last_name(fields)
    return name if name.isidentifier() else "Data"


def _sub(fields: dict[str, Any], depth: int) -> Any:
    known = _SHOWN.get(read_text(fields, "base"))
    if known is None:
        raise Malformed("unknown base")
    data = read(fields.get("v"), depth + 1)
    if type(data) is not known[0]:
        return data if type(data) is str else repr(data)  # the writer had to cut it
    value = known[1](data)
    if "name" in fields and known[0] is str:
        value = ShownLogger(data)
        value.name = read_text(fields, "name")
    text = read_text(fields, "str")
    value._shown = (text, read_text(fields, "repr"), read_text(fields, "format", text))
    return value


READERS: dict[str, Callable[[dict[str, Any], int], Any]] = {
    "int": _int,
    "float": _float,
    "str": _str,
    "bytes": _bytes,
    "bytearray": lambda fields, depth: bytearray(_bytes(fields, depth)),
    "tuple": lambda fields, depth: tuple(_several(fields, depth)),
    "set": lambda fields, depth: {_hashable(item) for item in _several(fields, depth)},
    "frozenset": lambda fields, depth: frozenset(_hashable(item) for item in _several(fields, depth)),
    "dict": _dict,
    "decimal": _decimal,
    "complex": _complex,
    "date": lambda fields, _: dt.date.fromisoformat(_plain(fields)),
    "time": lambda fields, _: dt.time.fromisoformat(_plain(fields)).replace(fold=int("fold" in fields)),
    "datetime": lambda fields, _: dt.datetime.fromisoformat(_plain(fields)).replace(fold=int("fold" in fields)),
    "timedelta": _timedelta,
    "uuid": lambda fields, _: uuid.UUID(_plain(fields)),
    "sub": _sub,
    "enum": _enum,
    "data": _data,
    "obj": lambda fields, _: Stub(fields),
}
