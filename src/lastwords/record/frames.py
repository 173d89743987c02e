"""The frames of a traceback, to an array of plain values and back to frames that printers take for live ones.

Theory of operation
-------------------
A rebuilt frame is one of an empty generator whose code has the journaled file, name, line and columns, so that
``traceback``, structlog, rich, Django and Sentry read of it what they would have read of the live one; carets are
drawn where they were. A generator that does not run was called by nobody: ``f_back`` is None, where the frame of a
function would lead to the thread that delivers.

A traceback printer opens the file that a frame names. With a forged journal that would print any file that the
*delivering* user can read (root's cron, say). So a printer must find the source elsewhere, and find it first:

* ``linecache.cache`` gets an entry under the file's name, with the lines that were journaled and nothing else. Its
  mtime is None, which ``checkcache`` takes for a loader's and leaves alone. It goes with the last frame that needs it.
* ``__loader__`` in the frame's globals answers ``get_source`` with the same lines: Django and Sentry ask it first.

Two names are left alone, since their source is the process's own: one that linecache has read already, and one of a
module that is loaded here; but only if the journaled line is what stands there, so that nobody who writes a journal
learns by it what he did not know. Otherwise, and beyond ``MAX_FILES`` names at once, a frame is called ``<path>``,
which nothing opens.
"""

from __future__ import annotations

import linecache
import sys
import types
from collections.abc import Sequence
from itertools import groupby, islice
from typing import TYPE_CHECKING, Annotated, Any, overload

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .write_values import Writer

MAX_FRAMES = 64  # of each end: a RecursionError's thousand frames say nothing in the middle
MAX_REPEATED = 5000  # tracebacks of one exception: a recursion is one frame, many times
MAX_LINE = 1000  # characters of a name
MAX_SOURCE = 2000  # characters of a statement
MAX_SOURCE_LINES = 12  # of a statement; traceback shows the first and the last
MAX_LINENO = 2**31 - 1  # a C int in code objects
MAX_LISTED = 200_000  # line numbers beyond this get no source text: list(lines) must stay small
MAX_FILES = 200  # names that linecache is given at once
MAX_COLUMN = 1 << 16

_Line = Annotated[int, msgspec.Meta(ge=0, le=MAX_LINENO)]
_Column = Annotated[int, msgspec.Meta(ge=-1, le=MAX_COLUMN)]


class Frame(msgspec.Struct, array_like=True, frozen=True):
    """One line of a traceback: file, line, function, source; module, further lines, columns (-1: unknown).

    ``down``: how many lines below the beginning of its function it is. ``times``: in a row.
    """

    file: str
    line: _Line
    name: str
    source: str = ""
    module: str = ""
    more: Annotated[int, msgspec.Meta(ge=0, le=MAX_LINENO)] = 0
    column: _Column = -1
    end_column: _Column = -1
    down: _Line = 0
    times: Annotated[int, msgspec.Meta(ge=1, le=MAX_LINENO)] = 1


# ---- writing -----------------------------------------------------------------------------------------


def _walk(tb: types.TracebackType | None) -> Iterator[types.TracebackType]:
    while tb is not None:
        yield tb
        tb = tb.tb_next


def capture_frames(tb: Any, writer: Writer) -> tuple[Frame, ...]:
    """The frames of a traceback, outermost first; the middle of a very long one is left out, and that is said."""
    if type(tb) is not types.TracebackType:
        return ()
    tbs = list(_walk(tb))
    if len(tbs) <= 2 * MAX_FRAMES:
        return tuple(_frame(each, writer) for each in tbs)
    runs = _runs(tbs)
    if len(runs) <= 2 * MAX_FRAMES:
        return tuple(_frame(each, writer, times) for each, times in runs)
    hidden = sum(times for _, times in runs[MAX_FRAMES:-MAX_FRAMES])
    head = [_frame(each, writer, times) for each, times in runs[:MAX_FRAMES]]
    tail = [_frame(each, writer, times) for each, times in runs[-MAX_FRAMES:]]
    return (*head, Frame("lastwords", 0, f"<{hidden} frames left out>"), *tail)


def _runs(tbs: list[types.TracebackType]) -> list[tuple[types.TracebackType, int]]:
    """Those that are at the same place one after the other, as ``traceback`` shows them: once, and how often."""
    return [(next(run), 1 + sum(1 for _ in run)) for _, run in groupby(tbs, _place)]


def _place(tb: types.TracebackType) -> tuple[types.CodeType, int, int]:
    return tb.tb_frame.f_code, tb.tb_lineno, tb.tb_lasti


def _frame(tb: types.TracebackType, writer: Writer, times: int = 1) -> Frame:
    code, space = tb.tb_frame.f_code, tb.tb_frame.f_globals
    line = tb.tb_lineno if tb.tb_lineno is not None and tb.tb_lineno > 0 else 0
    more, column, end_column = _span(code, tb.tb_lasti, line)
    lines = [linecache.getline(code.co_filename, line, space)] if line else []
    lines += [linecache.getline(code.co_filename, line + k) for k in range(1, min(more + 1, MAX_SOURCE_LINES))]
    source = writer.text("".join(lines).rstrip(), MAX_SOURCE)
    module = space.get("__name__")
    file, name = (writer.text(each, MAX_LINE) for each in (code.co_filename, code.co_name))
    where = writer.text(module, MAX_LINE) if type(module) is str else ""
    return Frame(file, line, name, source, where, more, column, end_column, max(line - code.co_firstlineno, 0), times)


def _span(code: types.CodeType, at: int, line: int) -> tuple[int, int, int]:
    """How many lines the statement goes on for, and its columns."""
    if at < 0:
        return 0, -1, -1
    found = next(islice(code.co_positions(), at // 2, None), (None, None, None, None))
    first, last, column, end_column = found
    if first != line or last is None or column is None or end_column is None or last < line:
        return 0, -1, -1
    return last - line, min(column, MAX_COLUMN), min(end_column, MAX_COLUMN)


# ---- reading -----------------------------------------------------------------------------------------


def chain(frames: Sequence[Frame]) -> types.TracebackType | None:
    """A traceback of ``frames``, outermost first."""
    tb, spare = None, MAX_REPEATED
    sources: dict[str, _Source] = {}
    for frame in frames:
        if not _is_of_nobody(frame.file) and not _is_known(frame):
            source = sources.get(frame.file)
            if source is None:
                source = sources[frame.file] = _Source(frame.file)
            source.add(frame)
    for source in sources.values():
        source.offer()
    for frame in reversed(frames):
        frame_ = _rebuilt(frame, sources.get(frame.file))
        times = min(frame.times, 1 + spare)
        spare -= times - 1
        for _ in range(times):
            tb = types.TracebackType(tb, frame_, 0, frame.line)
    return tb


def _is_of_nobody(path: str) -> bool:
    """<string> and the like, which nothing opens; but not a notebook's cell, which linecache knows."""
    inert = len(path) > 1 and path.startswith("<") and path.endswith(">") and "/" not in path
    return inert and path not in linecache.cache


def _is_known(frame: Frame) -> bool:
    """True if the source stands in this process already, and is what was journaled."""
    if frame.file not in linecache.cache and not _is_loaded(frame.file):
        return False
    if frame.file in _offered or not frame.source:
        return False
    return linecache.getline(frame.file, frame.line).strip() == frame.source.split("\n", 1)[0].strip()


_loaded: tuple[int, frozenset[str]] = (0, frozenset())


def _is_loaded(path: str) -> bool:
    """True for the file of a module of this process."""
    global _loaded  # noqa: PLW0603 - what it was made of changes rarely
    modules = sys.modules
    if len(modules) != _loaded[0]:
        names = (getattr(module, "__file__", None) for module in list(modules.values()))
        _loaded = (len(modules), frozenset(name for name in names if type(name) is str))
    return path in _loaded[1]


# The empty generator behind every frame.
_CODE = compile("def f(): yield", "<lastwords>", "exec").co_consts[0]


def _rebuilt(frame: Frame, source: _Source | None) -> types.FrameType:
    shown = frame.file if source is None else source.shown
    code = _CODE.replace(
        co_filename=shown,
        co_name=frame.name,
        co_qualname=frame.name,
        co_firstlineno=max(frame.line - frame.down, 0),
        co_linetable=_line_table(frame, len(_CODE.co_code) // 2),
    )
    space: dict[str, Any] = {"__name__": frame.module or "<journal>", "__builtins__": {}}
    if source is not None:
        space["__loader__"] = source
    made: types.FrameType = types.FunctionType(code, space)().gi_frame
    return made


def _line_table(frame: Frame, units: int) -> bytes:
    """The same position for each instruction (CPython's Objects/locations.md: long form 14, without columns 13)."""
    table = bytearray()
    down = min(frame.down, frame.line)
    while units > 0:
        length = min(8, units)
        units -= length
        if frame.column < 0 or frame.end_column < 0:
            table.append(0x80 | (13 << 3) | (length - 1))
            table += _varint(down << 1)  # signed, from the line before
        else:
            table.append(0x80 | (14 << 3) | (length - 1))
            for number in (down << 1, frame.more, frame.column + 1, frame.end_column + 1):
                table += _varint(number)
        down = 0
    return bytes(table)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number >= 64:
        out.append(64 | (number & 63))
        number >>= 6
    out.append(number)
    return bytes(out)


class _Lines(Sequence[str]):
    """The few known lines of a file, for linecache: long as the file, but no larger than what is known."""

    __slots__ = ("known", "length")

    def __init__(self) -> None:
        self.known: dict[int, str] = {}
        self.length = 0

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(self.length))]
        if not -self.length <= index < self.length:
            raise IndexError(index)
        return self.known.get(index % self.length, "\n")


class _Offered:
    """What linecache has of one name, and how many tracebacks need it."""

    __slots__ = ("lines", "users")

    def __init__(self) -> None:
        self.lines = _Lines()
        self.users = 0


_offered: dict[str, _Offered] = {}


class _Source:
    """The journaled lines of one file, in one traceback; a loader for those who ask for one (PEP 302)."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._frames: list[Frame] = []
        self._offered: _Offered | None = None
        self.shown = f"<{path}>" if "/" in path else f"<./{path}>"

    def add(self, frame: Frame) -> None:
        """The lines of one more frame."""
        self._frames.append(frame)

    def offer(self) -> None:
        """Let printers find the lines under the file's own name, if nobody else's are there."""
        offered = _offered.get(self._path)
        if offered is None:
            if len(_offered) >= MAX_FILES or self._path in linecache.cache or _is_loaded(self._path):
                self._fill(self._inert())
                return
            offered = _offered[self._path] = _Offered()
        offered.users += 1
        self._offered = offered
        self.shown = self._path
        self._fill(offered.lines)
        linecache.cache[self._path] = (0, None, offered.lines, self._path)  # type: ignore[assignment]

    def _inert(self) -> _Lines:
        lines = _Lines()
        linecache.cache[self.shown] = (0, None, lines, self.shown)  # type: ignore[assignment]
        return lines

    def _fill(self, lines: _Lines) -> None:
        for frame in self._frames:
            for number, text in enumerate(frame.source.split("\n")[:MAX_SOURCE_LINES], frame.line):
                if 0 < number <= MAX_LISTED:
                    lines.known[number - 1] = text + "\n"
                    lines.length = max(lines.length, number)

    def get_source(self, _name: str | None = None) -> str:
        """The file as far as it is known; never None, so that nobody opens it."""
        entry: Any = linecache.cache.get(self.shown)
        return "" if entry is None or not isinstance(entry[2], _Lines) else "".join(entry[2])

    def __del__(self) -> None:
        offered = self._offered
        if offered is None:
            linecache.cache.pop(self.shown, None)
            return
        offered.users -= 1
        if offered.users == 0:
            _offered.pop(self._path, None)
            entry: Any = linecache.cache.get(self._path)
            if entry is not None and entry[2] is offered.lines:
                linecache.cache.pop(self._path, None)
