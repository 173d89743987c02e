"""What receivers are told of an entry: as text, as JSON, with nothing in it that could act on the reader's side."""

from __future__ import annotations

import dataclasses
import enum
import functools
import logging
import os
import socket
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from ..record.codec import usual
from ..record.payload import HAS_TASK_NAME, level_name
from ..record.replayed import rendered
from ..runtime.jsonbytes import to_bytes
from ..runtime.visible import first_line, visible

if TYPE_CHECKING:
    from ..record.codec import Entry

_DEEPEST = 20
_MAX_INT = 2**63

TEXT_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def clean(text: str) -> str:
    r"""``text`` with control characters and lone surrogates written as ``\x1b``; line ends and tabs stay."""
    return visible(text.replace("\r\n", "\n"), keep="\n\t")


def one_line(text: str, most: int = 200) -> str:
    """The first line of ``text``, cut visibly at ``most`` characters. Fit for a header, whatever is in it."""
    line = clean(first_line(text)).replace("\t", " ")
    return line if len(line) <= most else line[: most - 1] + "\u2026"


def clip(text: str, most: int, *, head: float = 0.5) -> str:
    """At most about ``most`` characters of ``text``: its beginning and its end, and how much was cut between them.

    ``head``: the part of ``most`` that goes to the beginning. The end of a traceback says more than its beginning.
    """
    if len(text) <= most:
        return text
    first = int(most * head)
    last = most - first
    gap = f"[... {len(text) - most:,} characters cut ...]"
    return f"{text[:first]}\n{gap}\n{text[-last:] if last else ''}"


def utc(created: float, *, zulu: str = "Z") -> str:
    """ISO 8601 in UTC, with microseconds. A time beyond the calendar's years is given in seconds."""
    try:
        second = int(created)
        micro = round((created - second) * 1e6)  # exactly as datetime rounds
        if 0 <= micro < 1_000_000 and second > 0:
            return f"{_second(second)}.{micro:06d}{zulu}"
        return datetime.fromtimestamp(created, UTC).isoformat(timespec="microseconds")[:-6] + zulu
    except (ValueError, OverflowError, OSError):
        return f"{created:.6f}"


@functools.lru_cache(64)  # neighbours share their second, and the calendar is most of the work
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).isoformat()[:-6]


def trace(entry: Entry) -> str:
    """The traceback as it was rendered when the record was logged, or ""."""
    return rendered(entry.record)


def app_name() -> str:
    """The running program's name; "" if that is lastwords' own command line, which delivers for others."""
    name = os.path.basename(sys.argv[0] if sys.argv else "")
    return "" if name in ("lastwords", "__main__.py", "-c", "-m", "") else name.removesuffix(".py")


def host_name() -> str:
    """The name of this computer."""
    return socket.gethostname() or "localhost"


# --- JSON ----------------------------------------------------------------------------------------------------------


class _Line(msgspec.Struct, omit_defaults=True, gc=False):
    """What ``fields`` says, in the same order, of a record whose attributes are all of their usual types."""

    id: str
    time: datetime | str
    created: float
    level: str
    levelno: int
    logger: str
    message: str
    template: str | None = None
    exception: str | None = None
    stack: str | None = None
    file: str | None = None
    line: int | None = None
    function: str | None = None
    process: int | None = None
    process_name: str | None = None
    thread: int | None = None
    thread_name: str | None = None
    task: str | None = None
    extra: Any = None


def as_json(entry: Entry) -> bytes:
    """The entry as one line of JSON, without the line end. Total: odd values become text."""
    return _usual_json(entry) or _any_json(entry)


def _usual_json(entry: Entry) -> bytes:
    """The bytes of ``_any_json`` at a fraction of its cost, without a LogRecord; empty if anything is unusual."""
    p = usual(entry)
    if p is None:
        return b""
    extra, task = p.extra or None, p.taskName
    if not HAS_TASK_NAME:
        task = extra.get("taskName") if extra else None  # type: ignore[assignment]
        if task is not None and type(task) is not str:
            return b""
    return to_bytes(
        _Line(
            entry.id,
            _moment(entry.created),
            entry.created,
            p.levelname or level_name(entry.level),
            entry.level,
            p.logger,
            p.message,
            ((p.message if p.msg is msgspec.UNSET else p.msg) or None) if p.args else None,
            None,
            None,
            p.pathname or None,
            p.lineno,
            p.funcName or None,
            p.process,
            p.processName or None,
            p.thread,
            p.threadName or None,
            task or None,
            extra,
        )
    )


def _moment(created: float) -> datetime | str:
    """What msgspec writes as ``utc`` does; it would leave out a fraction of nothing."""
    try:
        moment = datetime.fromtimestamp(created, UTC)
    except (ValueError, OverflowError, OSError):
        return utc(created)
    return moment if moment.microsecond else utc(created)


def _any_json(entry: Entry) -> bytes:
    return to_bytes({key: value for key, value in fields(entry).items() if value not in (None, "")})


def fields(entry: Entry) -> dict[str, Any]:
    """What is said of an entry in JSON. None and empty texts are left out of it."""
    record = entry.record
    kind = record.exc_info[0] if record.exc_info else None
    message, data, raised = entry.message, None, ""
    if isinstance(record.msg, Mapping):  # structlog's event dict, or a program that logs one
        message, data, raised = _structured(record.msg, entry.message)
    return {
        "id": entry.id,
        "time": utc(entry.created),
        "created": entry.created,
        "level": _plain(record.levelname, 0),
        "levelno": entry.level,
        "logger": _plain(entry.logger, 0),
        "message": message,
        "template": _plain(record.msg, 0) if record.args and isinstance(record.msg, str) else None,
        "exception": _plain(trace(entry) or raised, 0),
        "exception_type": None if kind is None else _plain(kind.__qualname__, 0),
        "stack": _plain(record.stack_info, 0),
        "file": _plain(record.pathname, 0),
        "line": _plain(record.lineno, 0),
        "function": _plain(record.funcName, 0),
        "process": _plain(record.process, 0),
        "process_name": _plain(record.processName, 0),
        "thread": _plain(record.thread, 0),
        "thread_name": _plain(record.threadName, 0),
        "task": _plain(getattr(record, "taskName", None), 0),
        "data": data,
        "extra": _plain(_without_private(entry.extra, data), 0) if entry.extra else None,
    }


def _structured(msg: Mapping[Any, Any], text: str) -> tuple[str, Any, str]:
    """A message that is a dict: what it says in words, its values, and the exception in it as text."""
    data, raised = dict(msg), ""
    found = data.get("exc_info")
    if isinstance(found, BaseException):
        found = (type(found), found, found.__traceback__)
    if isinstance(found, tuple) and len(found) == 3 and isinstance(found[1], BaseException):
        del data["exc_info"]
        raised = logging.Formatter().formatException(found)
    words = next((data[key] for key in ("event", "message", "msg") if isinstance(data.get(key), str)), None)
    shown = _plain(data, 0)
    return words or to_bytes(shown).decode() or text, shown, raised


def _without_private(extra: Mapping[str, Any], data: Any) -> Mapping[str, Any]:
    """Without the logger that structlog hands along with an event dict: it says nothing to a receiver."""
    return extra if data is None else {key: value for key, value in extra.items() if not key.startswith("_")}


def _plain(value: Any, depth: int) -> Any:
    """``value`` as JSON can say it; what it cannot say becomes text."""
    if isinstance(value, str):
        plain = type(value) is str and value.isascii()  # most are, and encoding them costs a sixth of a whole line
        return value if plain else str(value).encode("utf-8", "backslashreplace").decode("utf-8")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value) if -_MAX_INT <= value < _MAX_INT else _said(value)
    if isinstance(value, float):
        return float(value) if value - value == 0.0 else _said(float(value))
    if depth >= _DEEPEST:
        return _said(value)
    if isinstance(value, Mapping):
        return {_key(key): _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, enum.Enum):
        return _plain(value.value, depth + 1)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name, None), depth + 1) for field in dataclasses.fields(value)}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item, depth + 1) for item in value]
    return _said(value)


def _key(key: Any) -> str:
    return str(_plain(key, 0)) if isinstance(key, str) else _said(key)


def _said(value: Any) -> str:
    try:
        text = str(value)
    except Exception as error:  # somebody's __str__, or an int of more digits than Python converts
        text = f"<{type(value).__name__}: {type(error).__name__}>"
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
