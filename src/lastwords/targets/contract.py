"""The contract between lastwords and whatever takes its entries.

``deliver(entries)`` is called on one thread at a time, with the oldest entries first, and says by how it ends what
became of them:

=====================================  ==========================================================================
it returns                             all were accepted; they are settled and never offered again
it raises ``TryAgain(accepted=n)``     the first n were accepted; the rest is offered again (``after=`` seconds)
it raises ``Rejected(entries=...)``    the named ones will never be accepted: buried as dead letters; all others of
                                       the call were accepted. Without names: one entry is buried, of several the
                                       culprit is found by halving
it raises anything else                none was accepted, try again with backoff. Connection errors and timeouts never
                                       speak against an entry; other errors do when they repeat
=====================================  ==========================================================================

A target must not return before it knows: an entry that it only keeps in memory is lost with the process. It may see an
entry twice (a kill between its acceptance and our mark), always with the same ``Entry.id``: send the id along. What it
logs while delivering enters no journal. No lock of lastwords or of logging is held during the call.

An ``async def`` or a generator function does nothing when it is called: it is refused, and one that a function returns
is a failure, never an acceptance.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from types import AsyncGeneratorType, CoroutineType, GeneratorType, MethodType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterable, Sequence

    from ..record.codec import Entry


class Target(ABC):
    """Base class of targets. Only :meth:`deliver` must be written; see the module for its contract.

    ``record_at_a_time``: ``deliver`` wants exactly one entry per call. ``label``: the destination in words, without
    credentials; the journal remembers it. ``warnings``: reasons why this target cannot acknowledge, said at
    construction. ``batch_size`` and ``linger`` (seconds): what suits it where the user says nothing. ``narrows``: after
    a timeout fewer entries are offered at once; False where that would not make the target faster, only busier.
    ``front``: a handler whose level and filters apply in the caller, before the journal. ``in_the_call``: called there
    with each record, returns it, or a copy that knows what only exists in the logging call (a span). ``meanwhile``: set
    during a call of ``deliver`` that others will probably follow: a target that waits for an answer may iterate over it
    once, from any place inside the call but on its thread. That reads the entries of the next call, some at a time.
    """

    record_at_a_time: bool = False
    label: str = ""
    warnings: tuple[str, ...] = ()
    batch_size: int = 100
    linger: float = 0.0
    narrows: bool = True
    front: logging.Handler | None = None
    in_the_call: Callable[[logging.LogRecord], logging.LogRecord] | None = None
    meanwhile: Iterable[Sequence[Entry]] | None = None

    @property
    def formatter(self) -> logging.Formatter | None:
        """What it formats with before somebody sets one; None: whatever it is given.

        ``logging.basicConfig`` gives its own format to each handler that says it has none, so one that does not format
        has one that nobody uses.
        """
        return unused_formatter()

    @abstractmethod
    def deliver(self, entries: Sequence[Entry]) -> None:
        """Take the entries, or raise: see the module."""

    def close(self) -> None:
        """Let go of connections, on the thread that delivers. A handler that is logged to again delivers again."""

    def set_formatter(self, fmt: logging.Formatter | None) -> None:
        """Format records with ``fmt`` from now on. ValueError for a target that does not format."""
        if fmt is not None:
            raise ValueError(f"{type(self).__name__} does not use a formatter")

    def rebuild(self) -> bool:
        """After a failure: start afresh if that can help; True if it was done. Raises what building raises."""
        return False

    def after_fork_in_child(self) -> None:
        """Drop connections that are shared with the parent, without using them."""


@functools.cache
def unused_formatter() -> logging.Formatter:
    """Stands for the formatter of a target that does not format."""
    import logging  # noqa: PLC0415 - nothing else here needs it

    return logging.Formatter()


_SUSPENDED = (CoroutineType, GeneratorType, AsyncGeneratorType)
# By the flags of its code object (inspect.CO_*): importing inspect takes longer than the rest of us.
_KINDS = {
    0x080: "an async function: nothing of it runs when it is called. Write a plain one, which may call asyncio.run()",
    0x200: "an async generator function: nothing of it runs when it is called. Write a plain one, without yield",
    0x020: "a generator function: nothing of it runs when it is called. Write a plain one, without yield",
}


def refuse_suspended(function: Any) -> None:
    """TypeError for a function whose call runs nothing of it: all entries would be taken for accepted."""
    code = getattr(_innermost(function), "__code__", None)
    if code is None:
        call = getattr(type(_innermost(function)), "__call__", None)  # noqa: B004 - it is looked at, not looked for
        code = getattr(_innermost(call), "__code__", None)
    flags = getattr(code, "co_flags", 0)
    for flag, what in _KINDS.items() if isinstance(flags, int) else ():
        if flags & flag:
            raise TypeError(f"target {_name(function)} is {what}")


def _innermost(function: Any) -> Any:
    """Without the partials and methods around it; ``__wrapped__`` is not followed: a wrapper may run what it wraps."""
    while isinstance(function, functools.partial | MethodType):
        function = function.func if isinstance(function, functools.partial) else function.__func__
    return function


class CallableTarget(Target):
    """A plain function or object: ``deliver(entries)``, with an optional ``close()``."""

    def __init__(self, deliver: Callable[[Sequence[Entry]], None]) -> None:
        refuse_suspended(deliver)
        self._deliver: Callable[[Sequence[Entry]], object] = deliver
        self.label = _name(deliver)

    def deliver(self, entries: Sequence[Entry]) -> None:
        result = self._deliver(entries)
        if isinstance(result, _SUSPENDED):
            if not isinstance(result, AsyncGeneratorType):
                result.close()  # or Python warns that it was never awaited
            kind = type(result).__name__.replace("_", " ")
            raise TypeError(f"target {self.label} returned a {kind}, of which nothing has run: nothing was delivered")

    def close(self) -> None:
        close = getattr(self._deliver, "close", None)
        if callable(close):
            close()


def _name(deliver: Any) -> str:
    """``module:qualname``, the same in every run."""
    while isinstance(deliver, functools.partial):
        deliver = deliver.func
    owner = getattr(deliver, "__self__", deliver)  # the list of a list's append, which has no module itself
    module = getattr(deliver, "__module__", None) or type(owner).__module__
    if module == "__mp_main__":  # the main module, in a child that multiprocessing has spawned
        module = "__main__"
    return f"{module}:{getattr(deliver, '__qualname__', type(deliver).__qualname__)}"
