"""The shape of a payload, and what both directions have to agree on."""

import os.path
import struct
import sys
from typing import Annotated, Any
from zlib import crc32

import msgspec

from .exceptions import Raised
from .write_values import TAG

MAX_PAYLOAD = 16 << 20  # bytes; beyond it the slow path cuts, visibly
MAX_SITES = 2000
HAS_TASK_NAME = sys.version_info >= (3, 12)

pack = struct.Struct("<dq").pack


class Payload(msgspec.Struct, omit_defaults=True, gc=False):
    """The top level of a payload. The order of the fields is that of ``STANDARD``.

    Nothing in it knows it, so that it is in no cycle, and the collector need not look at a batch of them.
    """

    logger: str
    message: str
    args: tuple[Any, ...] | dict[str, Any] = ()
    pathname: str | None = None
    lineno: int | None = None
    funcName: str | None = None  # noqa: N815 - LogRecord's names
    process: int | None = None
    processName: str | None = "MainProcess"  # noqa: N815
    thread: int | None = None
    threadName: str | None = "MainThread"  # noqa: N815
    msecs: float | None = None
    relativeCreated: float | None = None  # noqa: N815
    levelname: str | None = None
    filename: str | None = None
    module: str | None = None
    exc_info: tuple[Raised, ...] | None = None
    exc_text: str | None = None
    stack_info: str | None = None
    taskName: str | None = None  # noqa: N815
    msg: Any = msgspec.UNSET
    extra: dict[str, Any] | None = None
    odd: dict[str, Any] | None = None
    rendered: str | None = None  # the traceback as logging renders it, where the record itself had no exc_text


_Text = Annotated[str, msgspec.Meta(min_length=1)]
_Int = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_Flat = str | _Int | float | bool | None
_Plain = _Flat | list[_Flat] | dict[str, _Flat]
_Nested = _Flat | list[_Plain] | dict[str, _Plain]


class Usual(Payload, gc=False):
    """What nearly all payloads are: no exception, no stack, nothing odd, and plain values, none of them a tag.

    All but the last msgspec finds out while it parses. What is one can be said in JSON again as it stands.
    """

    logger: _Text
    message: _Text
    args: tuple[_Flat, ...] = ()
    lineno: _Int | None = None
    process: _Int | None = None
    thread: _Int | None = None
    levelname: _Text | None = None
    exc_info: None = None
    exc_text: None = None
    stack_info: None = None
    msg: str | msgspec.UnsetType = msgspec.UNSET
    extra: dict[str, _Nested] | None = None
    odd: None = None
    rendered: None = None


STANDARD = (
    "name", "msg", "args", "pathname", "lineno", "funcName", "process", "processName", "thread", "threadName",
    "msecs", "relativeCreated", "levelname", "filename", "module", "exc_info", "exc_text", "stack_info",
    *(["taskName"] if HAS_TASK_NAME else []),
)  # fmt: skip
FORMATTERS = frozenset({"message", "asctime"})  # written onto a record by any Formatter it meets
RESERVED = frozenset({*STANDARD, "levelno", "created"}) | FORMATTERS
NOT_EXTRA = RESERVED | {TAG}  # an extra that looks like a tag has to take the slow path
COUNT = len(STANDARD) + 2

EXPECTED: dict[str, type] = {
    "pathname": str, "lineno": int, "funcName": str, "process": int, "processName": str, "thread": int,
    "threadName": str, "msecs": float, "relativeCreated": float, "levelname": str, "filename": str,
    "module": str, "exc_text": str, "stack_info": str, "taskName": str,
}  # fmt: skip
ODD = frozenset({*EXPECTED, "name", "args", "created", "levelno", "message", "rendered"})

LEVELS = {0: "NOTSET", 10: "DEBUG", 20: "INFO", 30: "WARNING", 40: "ERROR", 50: "CRITICAL"}
from_json = msgspec.json.Decoder(Payload).decode
usual_from_json = msgspec.json.Decoder(Usual).decode
_derived: dict[str, tuple[str, str]] = {}


def level_name(level: int) -> str:
    """Return the name of a level as ``logging`` has it before anyone renames one."""
    return LEVELS.get(level) or f"Level {level}"


def checksum(created: float, level: int, payload: str | bytes) -> int:
    """Return the crc32 over the three columns of a row; any flipped bit in one of them changes it."""
    if isinstance(payload, str):
        payload = payload.encode("utf-8", "surrogatepass")
    return crc32(payload, crc32(pack(created, level)))


def derive(pathname: str) -> tuple[str, str]:
    """Return filename and module as LogRecord makes them of ``pathname``; cached, as there are few."""
    found = _derived.get(pathname)
    if found is None:
        if len(_derived) >= MAX_SITES:
            _derived.clear()
        filename = os.path.basename(pathname)
        found = _derived[pathname] = (filename, os.path.splitext(filename)[0])
    return found
