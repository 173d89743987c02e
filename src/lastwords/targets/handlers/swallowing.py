"""Handlers of others that hide what becomes of a record: read in their source, where there is one.

``logging`` asks a handler to call ``handleError``. Four ways to look as if all had been delivered:

* to catch the exception, print it and go on: an ``except`` around a call that sends, which neither raises nor calls
  ``handleError``; or ``contextlib.suppress``;
* to send by HTTP and never look at the answer;
* to leave the sending to a thread or a task that is started for each record;
* to collect records in a list, which is sent and emptied when it is long enough.

Read are ``emit`` and ``handle`` with the methods that they call on themselves; for a list that is collected, all
methods.
"""

from __future__ import annotations

import ast
import textwrap
from types import FunctionType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import logging

_SENDS = frozenset(
    "emit execute insert notify patch post publish push put put_log_events put_record put_records request send"
    " send_mail send_message send_messages sendall sendmail sendto submit upload urlopen write xadd".split()
)
_BROAD = frozenset({"Exception", "BaseException", "OSError", "IOError", "EnvironmentError", "error"})
_SPEAKING = ("Error", "Exception", "Timeout")
_OF_DATA = frozenset(  # what is caught to look something up or to convert it, not to hide a failure to send
    "AttributeError ImportError IndexError KeyError LookupError NameError StopIteration TypeError UnicodeDecodeError"
    " UnicodeEncodeError UnicodeError ValueError JSONDecodeError ModuleNotFoundError".split()
)
_COLLECTS = frozenset({"append", "appendleft", "add", "extend"})
_EMPTIES = frozenset({"clear", "pop", "popleft"})
_NOT_SENDING = frozenset({"__init__", "clear", "close", "reset"})  # what a handler for tests has, too
_POSTS = frozenset({"post", "request"})
_LOOKS = frozenset("code error getcode is_error is_success ok raise_for_status status status_code".split())
_STARTS = frozenset(
    "Process Thread Timer call_soon_threadsafe create_task ensure_future run_coroutine_threadsafe run_in_executor spawn"
    " start_new_thread submit".split()
)


def hides(handler: logging.Handler) -> str:
    """What is wrong with ``handler``, and what helps; "" if nothing is seen."""
    swallower = swallows(handler)
    if swallower:
        return (
            f"{swallower}() swallows exceptions: what fails there counts as delivered; let it raise, or call"
            " self.handleError(record)"
        )
    methods = _Methods(type(handler))
    nodes = [node for name in methods.called_from("emit") for node in methods.nodes(name)]
    calls = {_name(node.func) for node in nodes if isinstance(node, ast.Call)}
    started = sorted(calls & _STARTS)
    if started:
        return (
            f"emit() leaves the sending to a thread or a task ({started[0]}), so it cannot acknowledge; send in emit()"
            " itself, and name the loggers of its client in ignore_loggers"
        )
    kept = methods.collected()
    if kept:
        return (
            f"emit() collects records in self.{kept}, so it cannot acknowledge; send in emit() itself, or derive it"
            " from logging.handlers.BufferingHandler, which is flushed before its entries count as delivered"
        )
    posted = {_name(node.func) for node in nodes if isinstance(node, ast.Call) and not _own_call(node)} & _POSTS
    if posted and not any(isinstance(node, ast.Attribute) and node.attr in _LOOKS for node in nodes):
        return (
            "emit() never looks at the status of the answer: a refused record counts as delivered; raise for it"
            " (raise_for_status())"
        )
    return ""


def swallows(handler: logging.Handler) -> str:
    """The method of ``handler`` that hides failures; "" if none is seen."""
    methods = _Methods(type(handler))
    for name in methods.called_from("emit", "handle"):
        for node in methods.nodes(name):
            if isinstance(node, ast.Try) and methods.sends(node.body) and any(map(methods.hides, node.handlers)):
                return name
            if isinstance(node, ast.With) and methods.sends(node.body) and any(map(_suppresses, node.items)):
                return name
    return ""


class _Methods:
    """The methods of a class by name, as syntax; those of logging itself are known."""

    def __init__(self, cls: type) -> None:
        self._cls = cls
        self._trees: dict[str, ast.AST | None] = {}

    def tree(self, name: str) -> ast.AST | None:
        if name not in self._trees:
            self._trees[name] = _parsed(getattr(self._cls, name, None))
        return self._trees[name]

    def nodes(self, name: str) -> list[ast.AST]:
        tree = self.tree(name)
        return [] if tree is None else list(ast.walk(tree))

    def collected(self) -> str:
        """The attribute in which ``emit`` leaves records for later; "" if there is none."""
        straight = self._straight()
        if any(isinstance(node, ast.Call) and _name(node.func) in _SENDS for node in straight):
            return ""
        names = {name for cls in self._cls.__mro__ for name in vars(cls)} - _NOT_SENDING
        everywhere = [node for name in names for node in self.nodes(name)]
        for nodes in map(self.nodes, self.called_from("emit")):
            given = _given(nodes)
            for node in nodes:
                kept = _on_own(node, _COLLECTS)
                if kept and _names(node) & given and _emptied(kept, everywhere) and not _emptied(kept, straight):
                    return kept
        return ""

    def _straight(self) -> list[ast.AST]:
        """What ``emit`` does with each record, whatever is the case."""
        found, called = [], ["emit"]
        for name in called:  # grows meanwhile
            todo: list[ast.AST] = [tree] if (tree := self.tree(name)) is not None else []
            for node in todo:  # grows meanwhile
                found.append(node)
                if not isinstance(node, ast.If | ast.While | ast.ExceptHandler):
                    todo += ast.iter_child_nodes(node)
                if (own := _own_call(node)) and own not in called:
                    called.append(own)
        return found

    def called_from(self, *names: str) -> list[str]:
        found = list(names)
        for name in found:  # grows meanwhile
            found.extend(called for node in self.nodes(name) if (called := _own_call(node)) and called not in found)
        return found

    def sends(self, body: list[ast.stmt]) -> bool:
        nodes = [node for statement in body for node in ast.walk(statement) if isinstance(node, ast.Call)]
        if any(_name(node.func) in _SENDS for node in nodes):
            return True
        own = {called for node in nodes if (called := _own_call(node))}
        below = [node for name in self.called_from(*own) for node in self.nodes(name)]
        return any(isinstance(node, ast.Call) and _name(node.func) in _SENDS for node in below)

    def hides(self, clause: ast.ExceptHandler) -> bool:
        return _is_broad(clause.type) and not self._speaks(clause.body)

    def _speaks(self, body: list[ast.stmt]) -> bool:
        nodes = [node for statement in body for node in ast.walk(statement)]
        own = {called for node in nodes if (called := _own_call(node))}
        nodes += [node for name in self.called_from(*own) for node in self.nodes(name)]
        return any(
            isinstance(node, ast.Raise) or (isinstance(node, ast.Call) and _name(node.func) == "handleError")
            for node in nodes
        )


def _parsed(function: Any) -> ast.AST | None:
    import inspect  # noqa: PLC0415 - slow to import, and needed for handlers of others only

    if not isinstance(function, FunctionType) or function.__module__ in ("logging", "logging.handlers"):
        return None
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, SyntaxError, TypeError):
        return None


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _own_call(node: ast.AST) -> str:
    """The name of a method that ``node`` calls on self, or ""."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and _name(node.func.value) == "self":
        return node.func.attr
    return ""


def _is_broad(caught: ast.expr | None) -> bool:
    """True for what a failure to send would be."""
    if caught is None:
        return True
    if isinstance(caught, ast.Tuple):
        return any(map(_is_broad, caught.elts))
    name = _name(caught)
    return name in _BROAD or (name.endswith(_SPEAKING) and name not in _OF_DATA)


def _suppresses(item: ast.withitem) -> bool:
    call = item.context_expr
    return isinstance(call, ast.Call) and _name(call.func) == "suppress" and any(map(_is_broad, call.args))


def _attribute(node: ast.AST) -> str:
    """The name of ``self.NAME``, or ""."""
    return node.attr if isinstance(node, ast.Attribute) and _name(node.value) == "self" else ""


def _on_own(node: ast.AST, methods: frozenset[str]) -> str:
    """The attribute of self, one of whose ``methods`` is called, or ""."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in methods:
        return _attribute(node.func.value)
    return ""


def _names(node: ast.AST) -> set[str]:
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)} - {"self"}


def _given(nodes: list[ast.AST]) -> set[str]:
    """The names in a method that stand for what it was given, or for something made of it: no clock, no counter."""
    names = {node.arg for node in nodes if isinstance(node, ast.arg)} - {"self"}
    for node in sorted(nodes, key=lambda node: getattr(node, "lineno", 0)):
        if isinstance(node, ast.Assign) and _names(node.value) & names:
            names |= {name for target in node.targets for name in _names(target)}
    return names


def _emptied(kept: str, nodes: list[ast.AST]) -> bool:
    """Whether ``self.kept`` is emptied, set or deleted."""
    return any(
        _on_own(node, _EMPTIES) == kept
        or (
            isinstance(node, ast.Attribute | ast.Subscript)
            and not isinstance(node.ctx, ast.Load)
            and kept in _parts(node)
        )
        for node in nodes
    )


def _parts(node: ast.Attribute | ast.Subscript) -> tuple[str, str]:
    return _attribute(node), _attribute(node.value)
