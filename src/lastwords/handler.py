"""DurableHandler: filter, encode, append, wake.

The caller's path, and all that may happen in it: the filters of the proxy and of the target, the codec, one commit,
and a ring if the courier sleeps. It takes no logging lock (``handle`` does not acquire ``self.lock``: commits are
shared between threads, which that lock would prevent), never calls the target, and never raises for the journal's sake.
"""

from __future__ import annotations

import logging
import warnings
import weakref
from typing import TYPE_CHECKING, NamedTuple

from . import knobs, targets
from .engine import Engine
from .journal import files
from .record import codec
from .runtime.guard import guard, is_passive
from .runtime.signals import is_interrupt
from .runtime.stderr import say
from .runtime.visible import encodable, visible

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable
    from datetime import timedelta

    from .journal.line import Stats
    from .targets.contract import Target


class Inside(NamedTuple):
    """What the command line takes from a handler that it has built, or found."""

    engine: Engine
    target: Target | None


def inside(handler: DurableHandler) -> Inside:
    """See :class:`Inside`."""
    return Inside(handler._engine, handler._target)


class DurableHandler(logging.Handler):
    """Commits each record to a local journal before the logging call returns, and delivers it from there.

    ``target``: where entries go: a ``logging.Handler``, a callable ``deliver(entries)``, a :class:`lastwords.Target`, a
    URL, a dictConfig-style mapping (``{"class": ...}``; it can be built anew after a failure), or None (commit only; a
    cron job delivers). ``journal``: the path of its file, one per destination.

    Times are seconds (float or timedelta), levels numbers or names:

    - ``level``: records below it are not taken. Filters and level of the target apply as well, in the caller.
    - ``sync_level``: from this level on the commit is on the medium when the call returns, with all logged before it.
      ``sync_interval``: what is below is synced that often.
    - ``batch_size``: entries in one call of a callable or URL target (None: what suits the target: 100, a digest
      1,000); handlers get one record at a time. ``linger``: the wait for a fuller batch (None: 0, a digest 10 s).
    - ``retry_min``, ``retry_max``: the pause after a failure grows from one to the other.
    - ``suspect_after``: failed attempts before an entry is suspected to be poison.
      ``max_age``: entries that waited longer become dead letters (None: they wait for ever).
    - ``max_bytes``: of the journal; above it the least severe, oldest entries are dropped and counted.
    - ``memory_limit``: bytes of records kept in memory while the journal cannot take them.
    - ``keep_delivered``: how long delivered entries stay in the journal, for ``lastwords replay --delivered``.
    - ``drain_timeout``: how long the end of the process, or ``close()``, waits for delivery.
    - ``mode``: permission bits of the journal. ``ignore_loggers``: names of loggers, with their children, whose
      records are not taken: for client libraries that log from threads of their own.
    - ``prepare``: called with each record in the logging call, returns the record to be journaled; see :meth:`prepare`.

    Raises TypeError for an unknown knob, ValueError for a bad value, :class:`lastwords.JournalError` if the journal
    cannot be used. Afterwards no logging call raises for the journal's sake; what a signal handler raises meanwhile
    (a time limit) reaches the application. Thread-safe. A forked child goes on with connections and threads of its own.
    """

    __slots__ = ("_engine",)  # where eventlet's monkey_patch does not look for locks, see runtime/fork.py

    def __init__(
        self,
        target: object,
        journal: str | os.PathLike[str],
        *,
        level: int | str = logging.NOTSET,
        sync_level: int | str = logging.ERROR,
        sync_interval: float | timedelta = 1.0,
        batch_size: int | None = None,
        linger: float | timedelta | None = None,
        retry_min: float | timedelta = 1.0,
        retry_max: float | timedelta = 60.0,
        suspect_after: int = 8,
        max_age: float | timedelta | None = None,
        max_bytes: int = 2**30,
        memory_limit: int = 16 * 2**20,
        keep_delivered: float | timedelta = 0.0,
        drain_timeout: float | timedelta = 5.0,
        mode: int | str = 0o600,
        ignore_loggers: Iterable[str] = (),
        prepare: Callable[[logging.LogRecord], logging.LogRecord] | None = None,
    ) -> None:
        path = files.absolute(journal)
        self._ignored = knobs.names("ignore_loggers", ignore_loggers)
        self._prepare = knobs.function("prepare", prepare)
        self._failed_steps: set[str] = set()
        first = knobs.seconds("retry_min", retry_min, least=0.001)
        longest = knobs.seconds("retry_max", retry_max, least=0.001)
        if longest < first:
            raise ValueError(f"retry_max must be at least retry_min ({first:g} s), not {longest:g}")
        settings = {
            "mode": knobs.file_mode("mode", mode),
            "sync_level": knobs.level("sync_level", sync_level),
            "sync_interval": knobs.seconds("sync_interval", sync_interval, least=0.001),
            "memory_limit": knobs.whole("memory_limit", memory_limit, least=1),
            "max_bytes": knobs.whole("max_bytes", max_bytes, least=2**20),
            "keep_delivered": knobs.seconds("keep_delivered", keep_delivered),
            "drain_timeout": knobs.seconds("drain_timeout", drain_timeout),
            "linger": None if linger is None else knobs.seconds("linger", linger),
            "batch_size": None if batch_size is None else knobs.whole("batch_size", batch_size),
            "suspect_after": knobs.whole("suspect_after", suspect_after),
            "retry_min": first,
            "retry_max": longest,
            "max_age": None if max_age is None else knobs.seconds("max_age", max_age),
        }
        threshold = knobs.level("level", level)
        self._target = targets.resolve(target)
        self._front = None if self._target is None else self._target.front
        self._in_the_call = None if self._target is None else self._target.in_the_call
        overridden = type(self).prepare is not DurableHandler.prepare
        self._encodes = type(self).encode is not DurableHandler.encode
        self._prepares = prepare is not None or overridden or self._in_the_call is not None
        self._engine = Engine(path, self._target, **settings)  # type: ignore[arg-type]
        # Last: it enters logging's shutdown list, where half a handler would raise at exit.
        super().__init__(threshold)
        if self._target is not None:
            self.formatter = self._target.formatter
        # No atexit: the exit pass is there for that. The callback must not refer to the handler.
        weakref.finalize(self, self._engine.retire).atexit = False
        try:
            self._introduce()
        except BaseException:  # a warning that is to be an error
            self._engine.close()
            raise

    def _introduce(self) -> None:
        """Say what the user should know of this target and this journal."""
        names = files.count_names(self._engine.store.path)
        if names > 1:
            warnings.warn(
                f"journal {self._engine.store.path} has {names} names (hard links): a process that opens it by"
                " another one makes a -wal of that name, and damages it; remove the others",
                RuntimeWarning,
                stacklevel=3,
            )
        if self._target is None:
            return
        for warning in self._target.warnings:
            warnings.warn(f"{self._engine.store.path}: {warning}", RuntimeWarning, stacklevel=3)
        label = encodable(self._target.label)
        known = self._engine.journal.get_meta("destination")
        if label and known and known != label:
            warnings.warn(
                f"journal {self._engine.store.path} was used for {visible(known)}; what is pending there goes to"
                f" {label} now",
                RuntimeWarning,
                stacklevel=3,
            )
        if label and known != label and not is_passive():
            self._engine.remember("destination", label)

    @property
    def journal(self) -> str:
        """The absolute path of the journal."""
        return self._engine.store.path

    # --- the caller's path ----------------------------------------------------------------------------

    def handle(self, record: logging.LogRecord) -> logging.LogRecord | bool:  # type: ignore[override]
        """Take the record if the filters let it pass. Does not acquire the handler's lock."""
        if guard.depth or (self._ignored and self._is_ignored(record.name)):
            return False
        passed = self.filter(record)
        if not passed:
            return False
        if isinstance(passed, logging.LogRecord):  # Python 3.12 and newer: a filter may replace the record
            record = passed
        front = self._front
        if front is not None:
            level: object = record.levelno  # None, if it came over a wire (makeLogRecord)
            if isinstance(level, int) and level < front.level:
                return False
            passed = front.filter(record)
            if not passed:
                return False
            if isinstance(passed, logging.LogRecord):
                record = passed
        self.emit(record)
        return record

    def _is_ignored(self, name: str) -> bool:
        return any(name == ignored or name.startswith(ignored + ".") for ignored in self._ignored)

    def emit(self, record: logging.LogRecord) -> None:
        """Encode and commit ``record``. It is in the journal when this returns, or counted in ``stats().buffered``."""
        if self._prepares:
            record = self._prepared(record)
        self._engine.append(self._encoded(record) if self._encodes else codec.encode(record))

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """The record to be journaled, as in ``logging.handlers.QueueHandler.prepare``; override, or use the knob.

        Runs in the thread and the context of the logging call, before the record is encoded: the place for what only
        exists there (a request, a context variable, the current span, an object's state) and for redaction. Other
        handlers get the same record: change a copy where that matters. If it raises, the record is journaled as it
        was, and that is said once on stderr.
        """
        return record if self._prepare is None else self._prepare(record)

    def _prepared(self, record: logging.LogRecord) -> logging.LogRecord:
        try:
            made = self.prepare(record)
            if not isinstance(made, logging.LogRecord):
                raise TypeError(f"it returned a {type(made).__name__}, not a LogRecord")  # noqa: TRY301 - said as any other
            if self._in_the_call is not None:
                made = self._in_the_call(made)
        except BaseException as error:
            if is_interrupt(error):
                raise
            self._say_failed("prepare", error)
            return record
        return made

    def _encoded(self, record: logging.LogRecord) -> tuple[float, int, str, int]:
        try:
            row = self.encode(record)
            if type(row) is not tuple or [type(value) for value in row] != [float, int, str, int]:
                raise TypeError("it returned something that is no row")  # noqa: TRY301 - said as any other
        except BaseException as error:
            if is_interrupt(error):
                raise
            self._say_failed("encode", error)
            return codec.encode(record)
        return row

    def _say_failed(self, step: str, error: BaseException) -> None:
        if step not in self._failed_steps:
            self._failed_steps.add(step)
            say(f"journal {self.journal}: {step}() failed, records are journaled as they are: {error!r}")

    def encode(self, record: logging.LogRecord) -> tuple[float, int, str, int]:
        """The record as a row of the journal. Total: odd values never raise; override to redact before the disk.

        If an override raises, the record is journaled as it was, and that is said once on stderr.
        """
        return codec.encode(record)

    # --- for users ------------------------------------------------------------------------------------

    def setFormatter(self, fmt: logging.Formatter | None) -> None:  # noqa: N802 - logging's name
        """Goes to the target, which does the formatting."""
        super().setFormatter(fmt)
        if self._target is not None:
            self._target.set_formatter(fmt)

    def drain(self, timeout: float | timedelta | None = None) -> bool:
        """Wait until all that was committed before this call is settled, by whichever process.

        ``timeout``: seconds, None waits for ever. True if so, False if the time was up. Raises nothing of the target's.
        """
        return self._engine.drain(None if timeout is None else knobs.seconds("timeout", timeout))

    def flush(self) -> None:
        """What is journaled is synced and the courier is woken. Never waits for a target."""
        self._engine.flush()

    def close(self) -> None:
        """Deliver within ``drain_timeout``, leave the rest in the journal. Idempotent.

        A handler that is logged to again begins anew, as ``FileHandler`` opens its file again; while the process ends,
        such a record is only journaled, for the next run.
        """
        self._engine.close()
        super().close()

    def stats(self) -> Stats:
        """The journal in numbers, from the file, so true across processes; what was known last if it cannot be read."""
        return self._engine.stats()

    def __repr__(self) -> str:
        label = "no target" if self._target is None else self._target.label or type(self._target).__name__
        return f"<{type(self).__name__} {self._engine.store.path} -> {label} ({logging.getLevelName(self.level)})>"
