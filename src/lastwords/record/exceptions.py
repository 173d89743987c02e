"""Turns exceptions into a flat, bounded graph, and that into exceptions with real tracebacks.

Theory of operation
-------------------
A journal holds ``exc_info`` as a list; the first is the one that was logged, the
others are what it reaches by cause, context and group, named by their index, so
that a cycle is no problem. Each is rebuilt as an instance of a *stub class*: made
on the spot, named as the original, derived from the builtin that the original
derives from, never imported. Their frames are those of frames.py, their arguments
and attributes those of attributes.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from ..runtime.signals import pass_on
from . import attributes
from .frames import MAX_FRAMES, MAX_LINE, Frame, capture_frames, chain
from .read_values import READERS, read_text
from .write_values import Malformed, Writer, clean, guarded, type_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MAX_EXCEPTIONS = 100
MAX_EXPANDED = 1000  # a member of several groups is printed in each: shared ones multiply
MAX_NOTES = 100
MAX_CLASSES = 500

_Index = Annotated[int, msgspec.Meta(ge=0, le=MAX_EXCEPTIONS)]


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
    base: str = ""  # the builtin that it derives from, if not Exception or BaseException
    args: tuple[Any, ...] | None = None  # None: the text
    attrs: dict[str, Any] | None = None


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
        raised.frames = capture_frames(tb if exc is root else _get_traceback(exc), writer)
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
    seen = writer.seen.get(id(exc))  # as an argument
    known = None if seen is None else seen.text
    text = guarded(str, exc, "<exception str() failed>") if known is None else known  # traceback's words for it
    ordinary, group = issubclass(cls, Exception), issubclass(cls, BaseExceptionGroup)
    raised = Raised(
        type=writer.text(qualname, MAX_LINE),
        module=writer.text(module, MAX_LINE),
        text=writer.text(text),
        kind=("g" if ordinary else "h") if group else ("e" if ordinary else "b"),
        notes=_notes(exc, writer),
        suppress=_get_suppress_context(exc),
    )
    raised.attrs = attributes.attributes(exc, writer)
    if not group:
        raised.base = attributes.base_of(cls)
        raised.args = attributes.arguments(exc, text, writer)
    else:
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


def _graph(value: Any, writer: Writer) -> Any:
    """An exception, or a triple of sys.exc_info(), as plain JSON: for values that are or hold one."""
    triple = value if type(value) is tuple else (type(value), value, _get_traceback(value))
    return msgspec.to_builtins(capture(triple, writer) or ())


Writer.graph = staticmethod(_graph)


# ---- reading -----------------------------------------------------------------------------------------


def check(graph: tuple[Raised, ...]) -> None:
    """Raise Malformed unless ``rebuild`` can take ``graph``: indexes in range, groups without a cycle.

    Reads the values that it holds.
    """
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
        raised.args = None if raised.args is None else attributes.read_arguments(raised.args)
        raised.attrs = None if raised.attrs is None else attributes.read_attributes(raised.attrs)
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


def rebuild(graph: tuple[Raised, ...], rendered: str | None = None) -> tuple[Any, Any, Any]:
    """Return an ``exc_info`` triple of stub exceptions for a graph that passed ``check``.

    ``rendered``: as it was shown, live.
    """
    if not graph:
        return (None, None, None)
    made: dict[int, BaseException] = {}
    for index in _order(graph):
        raised = graph[index]
        made[index] = exc = _instance(raised, [made[member] for member in raised.group])
        exc.__traceback__ = chain(raised.frames)
        if raised.notes:
            exc.__notes__ = list(raised.notes)
        if rendered and raised.attrs:
            attributes.remind(exc, raised.attrs.get("name"), f"{raised.type}: {raised.text}", rendered)
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
    _repr = ""

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return self._repr or super().__repr__()


_KINDS: dict[str, type[BaseException]] = {
    "e": Exception,
    "b": BaseException,
    "g": ExceptionGroup,
    "h": BaseExceptionGroup,
}
_classes: dict[tuple[str, str, str], type[BaseException]] = {}


def _class(raised: Raised, kind: str, base: type[BaseException]) -> type[BaseException]:
    key = (f"{kind} {base.__name__}", raised.module, raised.type)
    cls = _classes.get(key)
    if cls is None:
        if len(_classes) >= MAX_CLASSES:
            _classes.clear()  # a hostile journal names a new class in every row
        name = raised.type.rpartition(".")[2].replace("\0", "?") or "?"
        body = {"__module__": raised.module, "__qualname__": raised.type}
        cls = _classes[key] = type(name, (_Stub, base), body)
    return cls


def _instance(raised: Raised, members: list[BaseException]) -> BaseException:
    kind, given = raised.kind, raised.attrs or {}
    if kind in "gh":
        if not members:  # cut by the writer's limit: a group cannot be empty
            kind = "e" if kind == "g" else "b"
        elif kind == "g" and not all(isinstance(member, Exception) for member in members):
            kind = "h"
    base = _KINDS[kind]
    if kind in "gh":
        exc = _class(raised, kind, base)(raised.message, members)
    else:
        base = attributes.fits(raised.base, ordinary=kind == "e", attributes=given) or base
        cls = _class(raised, kind, base)
        args = (raised.text,) if raised.args is None else raised.args
        exc = cls.__new__(cls)
        exc.args = args
    attributes.give(exc, given)
    exc._text = raised.text  # type: ignore[attr-defined]
    return exc


def _read_graph(fields: dict[str, Any]) -> tuple[Raised, ...]:
    try:
        graph: tuple[Raised, ...] = msgspec.convert(fields.get("v"), tuple[Raised, ...])
    except msgspec.ValidationError as error:
        raise Malformed(f"no graph of exceptions: {error}") from None
    check(graph)
    return graph


def _read_raised(fields: dict[str, Any], _depth: int) -> BaseException:
    graph = _read_graph(fields)
    if not graph:
        raise Malformed("an exception without itself")
    exc: BaseException = rebuild(graph)[1]
    exc._repr = read_text(fields, "repr", "")  # type: ignore[attr-defined]
    return exc


READERS["raised"] = _read_raised
READERS["exc_info"] = lambda fields, _: rebuild(_read_graph(fields))
