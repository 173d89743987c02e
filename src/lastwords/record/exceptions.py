"""Exceptions to a flat, bounded graph and back to exceptions with real tracebacks.

Theory of operation
-------------------
A journal holds ``exc_info`` as a list; the first is the one that was logged, the
others are what it reaches by cause, context and group, named by their index, so
that a cycle is no problem. Each is rebuilt as an instance of a *stub class*: made
on the spot, named as the original, derived from ``Exception`` (or its group or
base form), never imported. Frames are real frames of an empty function that
carries the journaled name, so that ``traceback``, structlog and rich accept them.

The file name hole
------------------
A traceback printer opens the file that a frame names. With a forged journal that
would print any file the *delivering* user can read (root's cron, say). Neither
``__loader__`` nor a lazy linecache entry helps: linecache prefers a file that
exists. What it, rich and the C printer all refuse to open is ``<...>``, so a
rebuilt frame is called ``</srv/app/main.py>``. The source lines were journaled,
and are offered under that name in ``linecache.cache``, which no real file and
none of the interpreter's own names (``<string>``) can be, as it holds a slash.
"""

from __future__ import annotations

import linecache
import sys
import types
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, overload

import msgspec

from ..runtime.signals import pass_on
from .write_values import Malformed, Writer, clean, guarded, type_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_EXCEPTIONS = 100
MAX_FRAMES = 64  # of each end: a RecursionError's thousand frames say nothing in the middle
MAX_EXPANDED = 1000  # a member of several groups is printed in each: shared ones multiply
MAX_NOTES = 100
MAX_LINE = 1000  # characters of a source line
MAX_LINENO = 2**31 - 1  # a C int in code objects
MAX_SOURCES = 200  # files and lines per file kept in linecache
MAX_LISTED = 200_000  # line numbers beyond this get no source text: list(lines) must stay small
MAX_CLASSES = 500

_Line = Annotated[int, msgspec.Meta(ge=0, le=MAX_LINENO)]
_Index = Annotated[int, msgspec.Meta(ge=0, le=MAX_EXCEPTIONS)]


class Frame(msgspec.Struct, array_like=True, frozen=True):
    """One line of a traceback: a JSON array of file, line number, function, source line."""

    file: str
    line: _Line
    name: str
    source: str = ""


class Raised(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One exception of the graph; ``kind`` is e (Exception), b (BaseException), g or h (their groups)."""

    type: str
    module: str = "builtins"
    text: str = ""
    kind: str = "e"
    frames: Annotated[tuple[Frame, ...], msgspec.Meta(max_length=2 * MAX_FRAMES + 1)] = ()
    notes: Annotated[tuple[str, ...], msgspec.Meta(max_length=MAX_NOTES + 1)] = ()
    cause: _Index | None = None
    context: _Index | None = None
    suppress: bool = False
    message: str = ""
    group: tuple[_Index, ...] = ()


# ---- writing -----------------------------------------------------------------------------------------


def _slot(cls: type, name: str) -> Callable[[BaseException], Any]:
    """Return a getter of the real attribute: a subclass may have laid a property over it."""
    getter: Callable[[BaseException], Any] = cls.__dict__[name].__get__
    return getter


_get_traceback = _slot(BaseException, "__traceback__")
_get_cause = _slot(BaseException, "__cause__")
_get_context = _slot(BaseException, "__context__")
_get_suppress_context = _slot(BaseException, "__suppress_context__")
_group_of = _slot(BaseExceptionGroup, "exceptions")
_message_of = _slot(BaseExceptionGroup, "message")


def capture(exc_info: Any, writer: Writer) -> tuple[Raised, ...] | None:
    """Return the graph below a record's ``exc_info``, ``()`` for (None, None, None), None for no triple."""
    if type(exc_info) is not tuple or len(exc_info) != 3:
        return None
    _, root, tb = exc_info
    if root is None:
        return ()
    if not issubclass(type(root), BaseException):
        return None
    graph = _Graph(root)
    out = []
    for exc in graph.queue:  # grows while it runs
        raised = _describe(exc, writer)
        raised.frames = _frames(tb if exc is root else _get_traceback(exc), writer)
        if raised.kind in ("g", "h"):
            members = map(graph.number, _group_of(exc))
            raised.group = tuple(member for member in members if member is not None)
        raised.cause = graph.number(_get_cause(exc))
        raised.context = graph.number(_get_context(exc))
        out.append(raised)
    if _expanded(out) > MAX_EXPANDED:
        for raised in out:
            raised.group = ()
    return tuple(out)


class _Graph:
    """Numbers exceptions in the order in which they are met."""

    def __init__(self, root: BaseException) -> None:
        self.queue = [root]
        self.numbers = {id(root): 0}

    def number(self, exc: BaseException | None) -> int | None:
        if exc is None or (id(exc) not in self.numbers and len(self.queue) >= MAX_EXCEPTIONS):
            return None
        if id(exc) not in self.numbers:
            self.numbers[id(exc)] = len(self.queue)
            self.queue.append(exc)
        return self.numbers[id(exc)]


def _describe(exc: BaseException, writer: Writer) -> Raised:
    cls = type(exc)
    qualname = clean(type.__dict__["__qualname__"].__get__(cls))
    found = type.__dict__["__module__"].__get__(cls)
    module = clean(found) if type(found) is str else "?"
    text = guarded(str, exc, "<exception str() failed>")  # traceback's words for it
    ordinary, group = issubclass(cls, Exception), issubclass(cls, BaseExceptionGroup)
    raised = Raised(
        type=writer.text(qualname, MAX_LINE),
        module=writer.text(module, MAX_LINE),
        text=writer.text(text),
        kind=("g" if ordinary else "h") if group else ("e" if ordinary else "b"),
        notes=_notes(exc, writer),
        suppress=_get_suppress_context(exc),
    )
    if group:
        raised.message = writer.text(guarded(str, _message_of(exc)))
    return raised


def _notes(exc: BaseException, writer: Writer) -> tuple[str, ...]:
    try:
        notes = getattr(exc, "__notes__", None)
    except BaseException as trouble:
        pass_on(trouble)
        return (f"<lastwords: __notes__ raised {type_name(trouble)}>",)
    if notes is None:
        return ()
    if type(notes) is not list and type(notes) is not tuple:
        return (writer.text(guarded(repr, notes)),)
    shown = [writer.text(guarded(str, note)) for note in notes[:MAX_NOTES]]
    if len(notes) > MAX_NOTES:
        shown.append(f"<lastwords: {len(notes) - MAX_NOTES} notes left out>")
    return tuple(shown)


def _walk(tb: types.TracebackType | None) -> Iterator[types.TracebackType]:
    while tb is not None:
        yield tb
        tb = tb.tb_next


def _frames(tb: Any, writer: Writer) -> tuple[Frame, ...]:
    if type(tb) is not types.TracebackType:
        return ()
    tbs = list(_walk(tb))
    if len(tbs) <= 2 * MAX_FRAMES:
        return tuple(_frame(each, writer) for each in tbs)
    left_out = Frame("lastwords", 0, f"<{len(tbs) - 2 * MAX_FRAMES} frames left out>")
    head = [_frame(each, writer) for each in tbs[:MAX_FRAMES]]
    return (*head, left_out, *(_frame(each, writer) for each in tbs[-MAX_FRAMES:]))


def _frame(tb: types.TracebackType, writer: Writer) -> Frame:
    code = tb.tb_frame.f_code
    line = tb.tb_lineno if tb.tb_lineno is not None and tb.tb_lineno > 0 else 0
    source = linecache.getline(code.co_filename, line, tb.tb_frame.f_globals).strip() if line else ""
    file, name, source = (writer.text(each, MAX_LINE) for each in (code.co_filename, code.co_name, source))
    return Frame(file, line, name, source)


# ---- reading -----------------------------------------------------------------------------------------


def check(graph: tuple[Raised, ...]) -> None:
    """Raise Malformed unless ``rebuild`` can take ``graph``: indexes in range, groups without a cycle."""
    if len(graph) > MAX_EXCEPTIONS:
        raise Malformed("too many exceptions")
    for raised in graph:
        if raised.kind not in ("e", "b", "g", "h"):
            raise Malformed("unknown kind of exception")
        if len(raised.group) > MAX_EXCEPTIONS or (raised.group and raised.kind not in ("g", "h")):
            raise Malformed("an exception that is no group has members")
        for index in (raised.cause, raised.context, *raised.group):
            if index is not None and index >= len(graph):
                raise Malformed("an exception refers to one that is not there")
    if _expanded(graph) > MAX_EXPANDED:
        raise Malformed("exception groups share too many members")


def _expanded(graph: Sequence[Raised]) -> int:
    """Return how many exceptions a printer that follows the groups would meet."""
    sizes: dict[int, int] = {}
    for index in _order(graph):
        sizes[index] = 1 + sum(sizes[member] for member in graph[index].group)
    return max(sizes.values(), default=0)


def _order(graph: Sequence[Raised]) -> list[int]:
    """Return the indexes with the members of every group before the group."""
    order: list[int] = []
    state = [0] * len(graph)  # 1: being visited, 2: done
    for start in range(len(graph)):
        stack = [start]
        while stack:
            here = stack[-1]
            if state[here] == 0:
                state[here] = 1
                for member in graph[here].group:
                    if state[member] == 1:
                        raise Malformed("an exception group contains itself")
                    if state[member] == 0:
                        stack.append(member)
            else:
                stack.pop()
                if state[here] == 1:
                    state[here] = 2
                    order.append(here)
    return order


def rebuild(graph: tuple[Raised, ...]) -> tuple[Any, Any, Any]:
    """Return an ``exc_info`` triple of stub exceptions for a graph that passed ``check``."""
    if not graph:
        return (None, None, None)
    made: dict[int, BaseException] = {}
    for index in _order(graph):
        raised = graph[index]
        made[index] = exc = _instance(raised, [made[member] for member in raised.group])
        exc.__traceback__ = _chain(raised.frames)
        if raised.notes:
            exc.__notes__ = list(raised.notes)
    for index, exc in made.items():
        raised = graph[index]
        exc.__cause__ = None if raised.cause is None else made[raised.cause]
        exc.__context__ = None if raised.context is None else made[raised.context]
        exc.__suppress_context__ = raised.suppress  # setting a cause sets it
    root = made[0]
    return (type(root), root, root.__traceback__)


class _Stub:
    """What every rebuilt exception has: the text it had when it was logged."""

    _text = ""

    def __str__(self) -> str:
        return self._text


_KINDS: dict[str, type[BaseException]] = {
    "e": Exception,
    "b": BaseException,
    "g": ExceptionGroup,
    "h": BaseExceptionGroup,
}
_classes: dict[tuple[str, str, str], type[BaseException]] = {}


def _class(raised: Raised, kind: str) -> type[BaseException]:
    key = (kind, raised.module, raised.type)
    cls = _classes.get(key)
    if cls is None:
        if len(_classes) >= MAX_CLASSES:
            _classes.clear()  # a hostile journal names a new class in every row
        name = raised.type.rpartition(".")[2].replace("\0", "?") or "?"
        body = {"__module__": raised.module, "__qualname__": raised.type}
        cls = _classes[key] = type(name, (_Stub, _KINDS[kind]), body)
    return cls


def _instance(raised: Raised, members: list[BaseException]) -> BaseException:
    kind = raised.kind
    if kind in "gh":
        if not members:  # cut by the writer's limit: a group cannot be empty
            kind = "e" if kind == "g" else "b"
        elif kind == "g" and not all(isinstance(member, Exception) for member in members):
            kind = "h"
    cls = _class(raised, kind)
    exc = cls(raised.message, members) if kind in "gh" else cls(raised.text)
    exc._text = raised.text  # type: ignore[attr-defined]
    return exc


# The empty function behind every frame. No positions, so that no carets are
# drawn; its globals hold nothing, so that no printer finds a loader in them.
_CODE = compile("def f(): return g()", "<lastwords>", "exec").co_consts[0]


def _frame_named(filename: str, line: int, name: str) -> types.FrameType:
    code = _CODE.replace(co_filename=filename, co_name=name, co_qualname=name, co_firstlineno=line)
    space: dict[str, Any] = {"__name__": "<journal>", "__builtins__": {}, "g": _caller}
    frame: types.FrameType = types.FunctionType(code, space)()
    return frame


def _caller() -> types.FrameType:
    return sys._getframe(1)


def _chain(frames: tuple[Frame, ...]) -> types.TracebackType | None:
    tb = None
    for frame in reversed(frames):
        shown = shown_name(frame.file)
        if frame.source:
            _offer(shown, frame.line, frame.source)
        # tb_lasti -1 has no position of its own, so every printer takes tb_lineno
        tb = types.TracebackType(tb, _frame_named(shown, frame.line, frame.name), -1, frame.line)
    return tb


def shown_name(path: str) -> str:
    """Return ``path`` as a name that nothing opens and that is no name of the interpreter's own."""
    inert = len(path) > 1 and path.startswith("<") and path.endswith(">") and "/" not in path
    if inert and path not in linecache.cache:  # <string> and the like; but not a notebook's cell
        return path
    return f"<{path}>" if "/" in path else f"<./{path}>"


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


_offered: dict[str, _Lines] = {}


def _offer(shown: str, line: int, source: str) -> None:
    """Let traceback printers find ``source``, without touching any entry that is not ours."""
    if not 0 < line <= MAX_LISTED or "/" not in shown:
        return
    entry: Any = linecache.cache.get(shown)
    lines = _offered.get(shown)
    if lines is None or len(lines.known) >= MAX_SOURCES:
        if len(_offered) >= MAX_SOURCES:
            linecache.cache.pop(oldest := next(iter(_offered)), None)
            _offered.pop(oldest, None)
        lines = _offered[shown] = _Lines()
    lines.known[line - 1] = source + "\n"
    lines.length = max(lines.length, line)
    if entry is None or entry[2] is not lines:
        # mtime None: checkcache takes it for a loader's and leaves it alone
        linecache.cache[shown] = (0, None, lines, shown)  # type: ignore[assignment]
