r"""Any Python value to plain JSON values and back: total, bounded, never executing.

Theory of operation
-------------------
A payload is JSON. ``None``, ``bool``, finite ``float``, ``int``, ``str``, ``list`` and
``dict`` with ``str`` keys are themselves; everything else is a *tag*, an object
whose key ``"~"`` names what it was::

    {"~": "tuple", "v": [1, 2]}            {"~": "float", "v": "nan"}
    {"~": "bytes", "v": "aGk="}            {"~": "str", "v": "caf\udce9"}
    {"~": "dict", "v": [[1, "a"], ...]}    {"~": "decimal", "v": "1.50"}
    {"~": "sub", "type": "collections.OrderedDict", "v": {...}, "str": ..., "repr": ...}
    {"~": "obj", "type": "app.User", "str": "bob", "repr": "<User bob>", "int": 7}
    {"~": "enum", "type": "app.Colour", "name": "RED", "v": "red", "str": ..., "repr": ...}
    {"~": "data", "type": "app.Line", "v": {"sku": "x9", "count": 2}, "str": ..., "repr": ...}
    {"~": "raised", "v": [...], "repr": ...}    {"~": "exc_info", "v": [...]}    see exceptions.py

Rules
-----
* Only ``type(value)`` is trusted: ``__class__`` lies, ``isinstance`` asks it.
* Of a foreign value nothing is called but ``str``, ``repr``, ``format``, ``int``
  and ``float``, each in a guard; what it raises becomes a visible marker.
  What is not the value's fault passes (signals.py).
* A budget of characters, items and depth bounds every payload, also for cyclic
  or exponentially shared containers. What is cut says how much was cut.
* Reading is strict (a journal is input): an unknown tag, a wrong type, too much
  depth raise. No name found in a journal is ever imported or called; a value of
  an unknown class comes back as an inert stand-in that renders as it did.
"""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import enum
import re
import uuid
from typing import TYPE_CHECKING, Any, ClassVar

from ..runtime.jsonbytes import to_json
from ..runtime.signals import pass_on
from .foreign import Seen, data_fields, logger_name, overrides

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

TAG = "~"
MAX_DEPTH = 32  # nesting kept by the writer; json_extract of SQLite stops at 1,000
READ_DEPTH = 3 * MAX_DEPTH + 8  # a tag costs up to three levels of JSON
MAX_ITEMS = 10_000  # also bounds sets and odd-keyed dicts, whose hashes an attacker could make collide
MAX_CHARS = 12 << 20  # of JSON; the payload as a whole stays below 16 MiB
MAX_TEXT = 8 << 20  # of one string
MAX_DECIMAL = 10_000  # digits and exponent: int(Decimal("1e999999999")) would fill the memory
MAX_INT_BITS = 1 << 18
SMALL = 4096  # up to here escaping is not worth measuring
_INT_LOW, _INT_HIGH = -(1 << 63), 1 << 64

_SURROGATE = re.compile("[\ud800-\udfff]")
_ESCAPE = re.compile(r"\\(?:\\|u(d[89a-f][0-9a-f]{2}))")
_NUMBERS = ("int", "float", "index")


class Malformed(ValueError):  # noqa: N818 - what the caller raises is DecodeError
    """What was read is not something the writer writes."""


def type_name(value: object) -> str:
    """Return the dotted class name of ``value``, without asking the value or its metaclass."""
    cls = type(value)
    try:
        name = type.__dict__["__qualname__"].__get__(cls)
        module = type.__dict__["__module__"].__get__(cls)
    except (AttributeError, TypeError):
        return "?"
    return clean(f"{module}.{name}" if type(module) is str and module != "builtins" else name)


def guarded(call: Callable[[Any], Any], value: object, failed: str = "") -> str:
    """Return ``str(value)`` or the like as an exact str; ``failed``, or what it raised, if it raises."""
    try:
        return str.__str__(call(value))
    except BaseException as exc:  # RecursionError, MemoryError, whatever a __repr__ comes up with
        pass_on(exc)
        what = getattr(call, "__name__", "str")
        return failed or f"<lastwords: {what}() of {type_name(value)} raised {type_name(exc)}>"


def clean(text: str) -> str:
    r"""Return ``text`` with lone surrogates shown as ``\udc80``: SQLite's TEXT is UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return text


def _cost(text: str) -> int:
    """Return the bytes that ``text`` takes in JSON, or a little more."""
    if len(text) <= SMALL:
        return len(text)
    return len(to_json(text))


def _plain_format(value: object) -> str:
    return format(value)


class Writer:
    """Turns the values of one record into plain JSON values within one budget."""

    __slots__ = ("chars", "items", "seen", "stubs", "watched")

    # Set by exceptions.py, which is built on this module: the graph of an exception as plain JSON, within the budget.
    graph: ClassVar[Callable[[Any, Writer], Any]]

    def __init__(self) -> None:
        self.chars = MAX_CHARS
        self.items = MAX_ITEMS
        self.stubs = False  # keep repr and numbers of foreign values (args) or just their text (extras)
        self.seen: dict[int, Seen] = {}  # by id: arguments, and how the message showed them
        self.watched = False  # the message was formatted under our eyes

    def text(self, text: str, limit: int = MAX_TEXT) -> str:
        """Return ``text``, cleaned, cut to the budget; a cut says how many characters went."""
        if len(text) <= SMALL and len(text) <= limit and self.chars > 6 * SMALL:
            self.chars -= len(text)
            return clean(text)
        return self._cut(clean(text), max(0, min(limit, self.chars)))

    def _cut(self, text: str, limit: int) -> str:
        total, cost = len(text), _cost(text)
        while cost > limit:
            keep = max(0, min(len(text) - 1, len(text) * limit // cost))
            text = text[:keep]
            cost = _cost(text)
        self.chars -= cost
        return text if len(text) == total else f"{text}... <lastwords: {total - len(text)} characters cut>"

    def value(self, value: Any, depth: int = 0) -> Any:
        """Return the JSON form of any value. Total; see the module's rules."""
        self.items -= 1
        self.chars -= 8
        write = _WRITERS.get(type(value))
        if write is not None:
            return write(self, value, depth)
        if issubclass(type(value), enum.Enum):
            return self._enum(value, depth)
        for base in _BASES:
            if issubclass(type(value), base):
                return self._sub(base, value, depth)
        return self._obj(value, depth)

    def _spent(self, depth: int) -> bool:
        return depth >= MAX_DEPTH or self.items <= 0 or self.chars <= 0

    def _int(self, value: int, _depth: int) -> Any:
        if _INT_LOW <= value < _INT_HIGH:
            return value
        if value.bit_length() > MAX_INT_BITS:
            return f"<lastwords: an int of {value.bit_length()} bits left out>"
        return {TAG: "int", "v": self.text(hex(value))}  # hex: linear, and free of the 4,300 digit limit

    def _float(self, value: float, _depth: int) -> Any:
        return value if value - value == 0.0 else {TAG: "float", "v": repr(value)}

    def _str(self, value: str, _depth: int) -> Any:
        if _SURROGATE.search(value) is None:
            return self.text(value)
        if len(value) > SMALL:
            return self.text(value)
        escaped = value.replace("\\", "\\\\").encode("utf-8", "backslashreplace").decode()
        return {TAG: "str", "v": self.text(escaped)}

    def _many(self, values: Iterable[Any], total: int, depth: int) -> list[Any]:
        """Encode a snapshot of a container: a value's ``__str__`` may change the container."""
        if self._spent(depth):
            return [f"<lastwords: nested too deeply, {total} items left out>"] if total else []
        out: list[Any] = []
        for value in values:
            if self.items <= 0 or self.chars <= 0:
                out.append(f"<lastwords: {total - len(out)} of {total} items left out>")
                break
            out.append(self.value(value, depth + 1))
        return out

    def _list(self, value: list[Any], depth: int) -> Any:
        return self._many(value[:], len(value), depth)

    def _tuple(self, value: tuple[Any, ...], depth: int) -> Any:
        if len(value) == 3 and not self.stubs and issubclass(type(value[1]), BaseException):
            return {TAG: "exc_info", "v": Writer.graph(value, self)}  # sys.exc_info(), as structlog passes it on
        return {TAG: "tuple", "v": self._many(value, len(value), depth)}

    def _set(self, value: set[Any], depth: int) -> Any:
        return {TAG: "set", "v": self._many(list(value), len(value), depth)}

    def _frozenset(self, value: frozenset[Any], depth: int) -> Any:
        return {TAG: "frozenset", "v": self._many(list(value), len(value), depth)}

    def _dict(self, value: dict[Any, Any], depth: int) -> Any:
        pairs = list(value.items())
        if self._spent(depth):
            return {"...": f"<lastwords: nested too deeply, {len(pairs)} items left out>"} if pairs else {}
        if not all(type(key) is str and key != TAG and _SURROGATE.search(key) is None for key, _ in pairs):
            return {TAG: "dict", "v": self._many([_Pair(pair) for pair in pairs], len(pairs), depth)}
        out: dict[str, Any] = {}
        for key, item in pairs:
            if self.items <= 0 or self.chars <= 0:
                out["..."] = f"<lastwords: {len(pairs) - len(out)} of {len(pairs)} items left out>"
                break
            out[self.text(key)] = self.value(item, depth + 1)
        return out

    def _pair(self, value: _Pair, depth: int) -> Any:
        return [self.value(part, depth) for part in value]

    def _bytes(self, value: bytes | bytearray, _depth: int) -> Any:
        keep = min(len(value), MAX_TEXT // 2, max(0, self.chars * 3 // 4))
        if keep < len(value):
            return self.text(f"{bytes(value[:64])!r}... <lastwords: {len(value) - 64} bytes cut>")
        return {TAG: type(value).__name__, "v": self.text(base64.b64encode(value).decode())}

    def _decimal(self, value: decimal.Decimal, _depth: int) -> Any:
        _, digits, exponent = value.as_tuple()
        if len(digits) > MAX_DECIMAL or (type(exponent) is int and abs(exponent) > MAX_DECIMAL):
            return self._obj(value)
        return {TAG: "decimal", "v": decimal.Decimal.__str__(value)}

    def _complex(self, value: complex, depth: int) -> Any:
        return {TAG: "complex", "v": [self._float(value.real, depth), self._float(value.imag, depth)]}

    def _moment(self, value: Any, _depth: int) -> Any:
        tz = getattr(value, "tzinfo", None)
        if tz is not None and type(tz) is not dt.timezone:
            return self._obj(value)  # a zone cannot be rebuilt from its offset; its text can
        out = {TAG: type(value).__name__, "v": value.isoformat()}
        return out | {"fold": 1} if getattr(value, "fold", 0) else out

    def _timedelta(self, value: dt.timedelta, _depth: int) -> Any:
        return {TAG: "timedelta", "v": [value.days, value.seconds, value.microseconds]}

    def _uuid(self, value: uuid.UUID, _depth: int) -> Any:
        return {TAG: "uuid", "v": guarded(str, value)}

    def _sub(self, base: type, value: Any, depth: int) -> Any:
        """A subclass of a builtin: its data, and how it renders where that differs."""
        data = _BARE[base](value)
        text, rendered = self.shown(value)
        formatted = guarded(_plain_format, value) if overrides(value, "__format__", base) else text
        if (text, rendered) == (guarded(str, data), guarded(repr, data)) and formatted == guarded(_plain_format, data):
            return self.value(data, depth)
        out = {TAG: "sub", "type": type_name(value), "base": base.__name__, "v": self.value(data, depth)}
        shown = {"str": text, "repr": rendered} | ({} if formatted == text else {"format": formatted})
        return out | {key: self._str(said, depth) for key, said in shown.items()}

    def shown(self, value: Any) -> tuple[str, str]:
        """``str`` and ``repr`` of a foreign value, which is shown twice at most in one logging call.

        To show one may be expensive, or ask a database. What formatting the message showed counts, of values inside
        containers, too; one that has no ``__str__`` of its own is shown alike both ways. Where the message has shown
        one way and nobody knows which, the other stands for it.
        """
        seen = self.seen.get(id(value))
        text, rendered = (None, None) if seen is None else (seen.text, seen.rendered)
        if not overrides(value, "__str__", object):
            rendered = text = rendered or text or guarded(repr, value)
        elif seen is None and self.stubs and self.watched:  # in a container, which the message has shown by its repr
            rendered = text = guarded(repr, value)
        else:
            text = guarded(str, value) if text is None else text
            rendered = guarded(repr, value) if rendered is None else rendered
        if seen is not None:  # the same value may be there again
            seen.text, seen.rendered = text, rendered
        return text, rendered

    def _obj(self, value: Any, depth: int = 0) -> Any:
        """Anything else. In extras its text, shown both ways; in args a stand-in, for receivers that format anew."""
        if issubclass(type(value), BaseException):
            self.seen.setdefault(id(value), Seen(value))
            text, rendered = self.shown(value)
            return {TAG: "raised", "v": Writer.graph(value, self), "repr": self._str(rendered, 0)}
        names = data_fields(value)
        if names is not None and not self._spent(depth):
            return self._data(value, names, depth)
        text, rendered = self.shown(value)
        if not self.stubs:
            shown = {"str": self._str(text, 0), "repr": self._str(rendered, 0)}
            shown |= {} if (name := logger_name(value)) is None else {"name": self._str(name, 0)}
            return {TAG: "sub", "type": type_name(value), "base": "str", "v": shown["str"], **shown}
        out: dict[str, Any] = {TAG: "obj", "type": type_name(value), "str": self._str(text, 0)}
        if rendered != text:
            out["repr"] = self._str(rendered, 0)
        if overrides(value, "__format__", object):  # else it is str's
            formatted = guarded(_plain_format, value)
            if formatted != text:
                out["format"] = self._str(formatted, 0)
        for name in _NUMBERS:
            number = _number(value, name)
            if number is not None:
                out[name] = self.value(number)
        return out

    def _enum(self, value: Any, depth: int) -> Any:
        """A member of an Enum: JSON formatters write its value. One that is an int or a str, too, stays one."""
        base = next((base for base in _BASES if issubclass(type(value), base)), None)
        try:
            name, inner = str.__str__(value._name_), value._value_
        except BaseException as exc:  # a combination of flags has no name
            pass_on(exc)
            return self._str(guarded(str, value), 0) if base is None else self._sub(base, value, depth)
        text, rendered = self.shown(value)
        out = {TAG: "enum", "type": type_name(value), "name": self._str(name, 0), "v": self.value(inner, depth + 1)}
        if base is not None:
            out["base"] = base.__name__
            formatted = guarded(_plain_format, value)
            if formatted != text:
                out["format"] = self._str(formatted, 0)
        return out | {"str": self._str(text, 0), "repr": self._str(rendered, 0)}

    def _data(self, value: Any, names: list[str], depth: int) -> Any:
        """An instance of a dataclass: JSON formatters write its fields."""
        fields: dict[str, Any] = {}
        for name in names:
            try:
                fields[name] = self.value(object.__getattribute__(value, name), depth + 1)
            except BaseException as exc:
                pass_on(exc)
                fields[name] = f"<lastwords: {type_name(exc)}>"
        text, rendered = self.shown(value)
        out = {TAG: "data", "type": type_name(value), "v": fields, "str": self._str(text, 0)}
        return out if rendered == text else out | {"repr": self._str(rendered, 0)}


def is_foreign(value: Any) -> bool:
    """True for a value whose own code shows it."""
    return type(value) not in _WRITERS


class _Pair(tuple[Any, Any]):
    """A key and a value of a dict whose keys JSON cannot hold."""

    __slots__ = ()


def _number(value: Any, name: str) -> int | float | None:
    """Return what ``%d``, ``%f`` or ``%x`` would make of ``value``; None if it is no such number."""
    try:
        method = getattr(type(value), f"__{name}__", None)
        number = None if method is None else method(value)
        if type(number) is int and name != "float":
            return number if number.bit_length() <= MAX_INT_BITS else None
        if type(number) is float and name == "float":
            return number
    except BaseException as exc:  # then it is not a number, and its text is kept all the same
        pass_on(exc)
    return None


_BARE: dict[type, Callable[[Any], Any]] = {
    str: str.__str__,
    int: int.__int__,
    float: float.__float__,
    dict: lambda value: dict(dict.items(value)),
    list: lambda value: list.__getitem__(value, slice(None)),
    tuple: lambda value: tuple.__getitem__(value, slice(None)),
    frozenset: lambda value: frozenset(frozenset.__iter__(value)),
    set: lambda value: set(set.__iter__(value)),
    bytes: lambda value: bytes.__getitem__(value, slice(None)),
}
_BASES = tuple(_BARE)


def _as_is(_writer: Writer, value: Any, _depth: int) -> Any:
    return value


_WRITERS: dict[type, Callable[[Writer, Any, int], Any]] = {
    type(None): _as_is,
    bool: _as_is,
    int: Writer._int,
    float: Writer._float,
    str: Writer._str,
    list: Writer._list,
    tuple: Writer._tuple,
    dict: Writer._dict,
    set: Writer._set,
    frozenset: Writer._frozenset,
    _Pair: Writer._pair,
    bytes: Writer._bytes,
    bytearray: Writer._bytes,
    complex: Writer._complex,
    decimal.Decimal: Writer._decimal,
    dt.datetime: Writer._moment,
    dt.date: Writer._moment,
    dt.time: Writer._moment,
    dt.timedelta: Writer._timedelta,
    uuid.UUID: Writer._uuid,
}
