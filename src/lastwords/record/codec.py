"""A log record to one row of the journal and back: pure, total, never mutating, never executing.

Theory of operation
-------------------
``encode`` makes a row (created, level, payload, checksum) of a live LogRecord, ``decode``
an :class:`Entry` of a row. The payload is a JSON object that any tool can read:

    logger, message   always there (the view ``records`` extracts them)
    msg, args         the template and its arguments, where there are arguments
    pathname, lineno, funcName, process, thread, threadName, processName, msecs,
    relativeCreated, taskName, exc_text, stack_info     as the LogRecord has them
    levelname, filename, module    only where they do not follow from level and pathname
    extra             what the application added
    exc_info          the graph of exceptions, see exceptions.py
    rendered          the traceback as text, where exc_text was not set
    odd               attributes whose value is not of their usual type, tagged

What equals its default is left out. Unknown keys are ignored (a later version may add
some); every known one must have its type. Values that JSON cannot hold are tagged, see
write_values.py. Two paths lead to the same format: the fast one takes records whose values
are all of exactly the usual types (msgspec would silently change NaN, tuples, bytes,
Decimal, Enum, so types are compared, never tested by isinstance); any doubt leads to
the slow one, which takes everything.

Reading is strict, for a journal is input: what does not decode raises DecodeError here
and nowhere later. An Entry that was made can always be rendered.
"""

from __future__ import annotations

import logging
import types
from itertools import islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any
from zlib import crc32

import msgspec

from ..runtime.jsonbytes import to_json
from ..runtime.signals import pass_on
from .any_record import encode_any, render
from .exceptions import capture, check
from .payload import (
    COUNT,
    FORMATTERS,
    HAS_TASK_NAME,
    LEVELS,
    MAX_PAYLOAD,
    NOT_EXTRA,
    ODD,
    STANDARD,
    Payload,
    Usual,
    checksum,
    derive,
    from_json,
    level_name,
    pack,
    usual_from_json,
)
from .read_values import read
from .replayed import replay
from .write_values import TAG, Malformed, Writer

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["DecodeError", "Entry", "checksum", "decode", "encode", "usual"]

FAST_DEPTH = 4
FAST_ITEMS = 500

# The types that the values of an ordinary record have, in the order of STANDARD: one comparison
# tells whether all of them are. Exceptions and stack_info multiply the shapes; common ones first.
_S, _I, _F, _N = str, int, float, type(None)
_ALWAYS = (_S, _I, _S, _I, _S, _I, _S, _F, _F, _S, _S, _S)
_USUAL = tuple(
    (_S, _S, args, *_ALWAYS, exc_info, exc_text, stack_info, *task)
    for exc_info, exc_text in ((_N, _N), (tuple, _N), (tuple, _S))
    for stack_info in (_N, _S)
    for args in (tuple, dict)
    for task in (((_N,), (_S,)) if HAS_TASK_NAME else ((),))
)
_MSECS, _RELATIVE, _PATHNAME = (STANDARD.index(name) for name in ("msecs", "relativeCreated", "pathname"))
_ONLY_STR = frozenset({str})
_SCALAR = frozenset({str, int, bool, type(None)})
_FLAT = _SCALAR | {float}
_fetch = itemgetter(*STANDARD)


class DecodeError(ValueError):
    """A row that is not what ``encode`` writes: damaged, forged, or of a newer format."""


# ---- writing -----------------------------------------------------------------------------------------


def encode(record: logging.LogRecord) -> tuple[float, int, str, int]:
    """Return (created, level, payload, checksum) for a record; the payload is JSON text, valid UTF-8.

    Never raises but for what is not about the record (KeyboardInterrupt, SystemExit, what a signal handler raises),
    never changes the record. Thread-safe; touches no file but the source lines of a traceback.
    """
    try:
        fields = record.__dict__
        values = _fetch(fields)
        created = fields["created"]
        level = fields["levelno"]
        if tuple(map(type, values)) in _USUAL and type(created) is float and type(level) is int:
            p = Payload(*values)
            times = created + values[_MSECS] + values[_RELATIVE]
            if times - times == 0.0 and _fill(p, record, fields):  # else NaN or infinite
                if LEVELS.get(level) == p.levelname:
                    p.levelname = None
                if derive(values[_PATHNAME]) == (p.filename, p.module):
                    p.filename = p.module = None
                payload = to_json(p)
                if len(payload) <= MAX_PAYLOAD:
                    return created, level, payload.decode(), crc32(payload, crc32(pack(created, level)))
    except BaseException as exc:
        pass_on(exc)  # whatever else it is, the slow path finds words for it
    return encode_any(record)


def _fill(p: Payload, record: logging.LogRecord, fields: dict[str, Any]) -> bool:
    """Complete ``p``, which has the template in ``message``; False if a value is not plain JSON."""
    args = p.args
    if args:
        # A mapping's own keys count as well, so it is weighed as a whole.
        if type(args) is dict:
            if _weigh(args, 0) > FAST_ITEMS:
                return False
        elif not _SCALAR.issuperset(map(type, args)) and _weigh([*args], 0) > FAST_ITEMS:
            return False
        p.msg = p.message
        p.message = record.getMessage()
        if type(p.message) is not str:
            return False
    elif type(args) is dict or (type(record) is not logging.LogRecord and record.getMessage() != p.message):
        return False
    if p.exc_info is not None and not _fill_exception(p):
        return False
    return len(fields) == COUNT or _fill_extra(p, fields)


def _fill_exception(p: Payload) -> bool:
    exc_info = p.exc_info
    p.exc_info = capture(exc_info, Writer())
    if p.exc_text is None:
        p.rendered = render(exc_info)
    return p.exc_info is not None


def _fill_extra(p: Payload, fields: dict[str, Any]) -> bool:
    # LogRecord.__init__ sets its own attributes first, so what comes after them is the extras,
    # unless someone deleted one; then a standard name is among them, and that is looked for.
    extra: dict[str, Any] = {}
    for key in islice(fields, COUNT, None):
        value = fields[key]
        if type(key) is not str or (type(value) not in _SCALAR and _weigh(value, 0) > FAST_ITEMS):
            return False
        if key not in NOT_EXTRA:
            extra[key] = value
        elif key not in FORMATTERS:
            return False
    p.extra = extra or None
    return True


def _weigh(value: Any, depth: int) -> int:
    """Return the number of values in ``value``, more than FAST_ITEMS if it is not plain JSON."""
    kind = type(value)
    if kind in _SCALAR:
        return 1
    if kind is float:
        return 1 if value - value == 0.0 else FAST_ITEMS + 1
    if depth > FAST_DEPTH or (kind is not list and kind is not dict) or len(value) > FAST_ITEMS:
        return FAST_ITEMS + 1
    if kind is dict:
        if TAG in value or not _ONLY_STR.issuperset(map(type, value)):
            return FAST_ITEMS + 1
        value = value.values()
    weight = 1
    for item in value:
        weight += 1 if type(item) in _SCALAR else _weigh(item, depth + 1)
        if weight > FAST_ITEMS:
            break
    return weight


# ---- reading -----------------------------------------------------------------------------------------


class Entry(msgspec.Struct, eq=False):
    """One committed log record, as a target gets it.

    ``seq``      its place in the journal
    ``id``       its name, the same however often it is delivered: for receivers that deduplicate
    ``created``  when it was logged, seconds since the epoch
    ``level``    its number, as in ``logging``
    ``logger``   the logger's name
    ``message``  the text, arguments merged; always encodable as UTF-8
    ``extra``    read-only mapping of what the application added
    ``record``   the LogRecord, rebuilt on first use; it is this entry's own, a Formatter may write on it

    Two entries are equal when their ids are. Not thread-safe beyond reading.
    """

    seq: int
    id: str
    created: float
    level: int
    _payload: Payload
    _record: logging.LogRecord | None = None

    @property
    def logger(self) -> str:
        return self._payload.logger

    @property
    def message(self) -> str:
        return self._payload.message

    @property
    def extra(self) -> Mapping[str, Any]:
        extra = self._payload.extra
        return types.MappingProxyType(extra) if extra else _NOTHING

    @property
    def record(self) -> logging.LogRecord:
        record = self._record
        if record is None:
            record = self._record = replay(self._payload, self.created, self.level)
        return record

    def __eq__(self, other: object) -> bool:
        return self.id == other.id if isinstance(other, Entry) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<Entry {self.id} {level_name(self.level)} {self.logger!r}>"


def usual(entry: Entry) -> Usual | None:
    """What the row says, where it says all that the record would.

    None also if the record was asked for: whoever has it may write on it, and then that is what counts.
    """
    p = entry._payload
    return p if type(p) is Usual and entry._record is None else None


_NOTHING: Mapping[str, Any] = types.MappingProxyType({})


def decode(seq: int, id: str, created: float, level: int, payload: str | bytes) -> Entry:  # noqa: A002
    """Return the Entry of a row. Raises DecodeError if it is not what ``encode`` writes."""
    try:
        text = payload if type(payload) is bytes else _as_bytes(payload)
        if type(created) is not float or created - created != 0.0 or type(level) is not int or len(text) > MAX_PAYLOAD:
            raise Malformed("created or level is not a finite number, or the payload too large")  # noqa: TRY301 - a call less for each entry
        try:
            p: Payload = usual_from_json(text)
        except msgspec.ValidationError:
            p = _unusual(text)
        else:
            if p.extra is not None and _has_tag(p.extra):
                p = _unusual(text)
    except (KeyboardInterrupt, SystemExit):
        raise
    except Exception as exc:
        raise DecodeError(f"entry {id} does not decode: {type(exc).__name__}: {str(exc)[:200]}") from exc
    return Entry(seq, id, created, level, p)


def _has_tag(value: Any) -> bool:
    if type(value) is dict:
        return TAG in value or (not _FLAT.issuperset(map(type, value.values())) and any(map(_has_tag, value.values())))
    return type(value) is list and any(map(_has_tag, value))


def _unusual(text: bytes) -> Payload:
    p = from_json(text)
    _read_values(p)
    if p.exc_info is not None:
        check(p.exc_info)
    return p


def _as_bytes(payload: object) -> bytes:
    if type(payload) is not str:
        raise Malformed("the payload is not text")
    return payload.encode()


def _read_values(p: Payload) -> None:
    """Replace the tagged values of ``p`` by what they stand for."""
    if type(p.args) is tuple:
        p.args = tuple([read(value, 1) for value in p.args])
    else:
        p.args = read(p.args)
        if type(p.args) is not dict:
            raise Malformed("args is neither a list nor an object")
    p.msg = p.msg if p.msg is msgspec.UNSET else read(p.msg)
    if p.extra is not None:
        extra = read(p.extra)
        if type(extra) is not dict:
            raise Malformed("extra is not an object")
        p.extra = extra
    if p.odd is not None:
        p.odd = {key: read(value) for key, value in p.odd.items()}
        _check_odd(p.odd)


def _check_odd(odd: dict[str, Any]) -> None:
    if not odd.keys() <= ODD:
        raise Malformed("odd names an attribute that it may not")
    if type(odd.get("message", "")) is not str or type(odd.get("rendered", "")) is not str:
        raise Malformed("message or rendered is not text")
