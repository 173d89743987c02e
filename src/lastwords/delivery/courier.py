"""The courier: a daemon thread that runs the delivery loop.

Theory of operation
-------------------
The thread starts with the first record (or at construction, if something is pending) and sleeps without polling when
nothing is. A caller rings it only while it is ``asleep``; under load it finds the next batch by itself.

Why a daemon thread: a non-daemon one is joined before atexit callbacks run, so a hung target would hold the process
for ever. What a daemon thread may lose, the journal keeps.

Ways to stop, all through the same two fields: ``finish(deadline)`` (atexit, close) lets it deliver until the deadline
and end; ``retire()`` (the handler was collected) lets it deliver what the target takes at the first try and end.
``join`` waits, and where no thread can live (CPython 3.12.0 to 3.12.2 cannot start one in atexit) drains inline.

The target is built, called and closed by one thread at a time and belongs to the courier: it closes it at its end.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from ..journal.explain import TROUBLE, reason_of
from ..journal.line import Fenced
from ..runtime.bell import Bell
from ..runtime.clock import monotonic
from ..runtime.exit import arm
from ..runtime.guard import delivering, is_delivering, is_passive
from ..runtime.lock import is_held
from ..runtime.native import is_patched, pause
from ..runtime.signals import is_interrupt
from ..runtime.stderr import say
from ..runtime.thread import Worker
from .lease import Lease
from .loop import Delivery, Outcome
from .reasons import describe
from .voice import Voice

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..journal.line import Line
    from ..runtime.thread import AnyThread
    from ..targets.contract import Target

TROUBLE_SECONDS = 5.0  # between looks at a journal that cannot be read
LEAVE_SECONDS = 0.25  # an end leaves what is pending to the holder of the lease, if that is not ending just now itself
MOVING_SECONDS = 0.05  # between the first two looks at one whose file was removed or replaced; then more


class Replaced(Fenced):
    """The file is not the journal any more: what it holds is moved to the one that is, and delivered from there."""


class Courier:
    """Delivers ``journal`` to ``target`` on a thread of its own. Thread-safe; see :meth:`after_fork_in_child`.

    A :class:`~lastwords.runtime.exit.Finisher` of its own once its handler is gone.

    ``knobs``: the keyword arguments of :class:`lastwords.delivery.loop.Delivery`.
    """

    def __init__(
        self,
        journal: Line,
        target: Target,
        *,
        linger: float | None,
        on_settled: Callable[[int], None],
        on_damage: Callable[[], None],
        **knobs: float | None,
    ) -> None:
        self._journal = journal
        self._target = target
        self._linger = target.linger if linger is None else linger
        self._on_settled = on_settled
        self._on_damage = on_damage
        self.knobs = knobs
        self.voice = Voice(journal)
        self._worker = Worker("lastwords-courier")
        self._before: AnyThread | None = None  # the thread of a courier that was closed, see successor()
        self._target_closed = False
        self.drain_timeout = 0.0
        self._closing = False  # all is delivered or left, only the target is still to be closed
        self._reset()

    def _reset(self) -> None:
        self.bell = Bell()
        self.asleep = True  # a caller that commits now must ring
        self._ending = False
        self._retired = False
        self._waiters: list[tuple[int, Bell]] = []
        self._left = False  # the last drain did not deliver all
        self._last_trouble = ""
        self._moving_seconds = MOVING_SECONDS
        self.delivery = Delivery(
            self._journal,
            self._target,
            Lease(self._journal.path),
            self.bell,
            linger=self._linger,
            on_settled=self._settled,
            check=self._check,
            **self.knobs,  # type: ignore[arg-type]
        )
        self.delivery.on_pause = lambda seconds: self.voice.pauses(self.delivery.last_error, seconds)

    # --- called by others ------------------------------------------------------------------------------

    @property
    def thread(self) -> AnyThread | None:
        """The thread while it lives."""
        thread = self._worker.thread
        return thread if thread is not None and thread.is_alive() else None

    @property
    def is_short(self) -> bool:
        """True if no thread could be started for it."""
        return self._worker.is_short

    @property
    def leaves(self) -> bool:
        """True if entries wait that it did not deliver, and that no other live process delivers."""
        return (self._left or self.thread is not None) and not self.delivery.waits_for_lease

    def successor(self) -> Courier:
        """A courier for the same target, after :meth:`finish`: it begins when the thread of this one has ended."""
        heir = Courier(
            self._journal,
            self._target,
            linger=self._linger,
            on_settled=self._on_settled,
            on_damage=self._on_damage,
            **self.knobs,
        )
        heir._before = self.thread
        with suppress(*TROUBLE):  # the first record tells of it
            heir.delivery.look_on()
        return heir

    def wake(self) -> None:
        """Something was committed, or a pause is to be cut short. Safe in signal handlers; never blocks for long."""
        self.asleep = False
        try:
            if self._worker.thread is None:
                self._start()
            else:
                self.bell.ring()
        except BaseException:  # a signal handler's: the next record is to try again
            self.asleep = True
            raise

    def _start(self) -> None:
        if not (self._ending or is_passive() or self._worker.start(self._run)):
            self.asleep = True  # the interpreter is ending: join() drains inline

    def retire(self, drain_timeout: float) -> None:
        """End when the target has been offered what is pending, once. Takes no lock; safe in ``__del__``.

        If the process ends meanwhile, it waits: another one that ended may have left its entries to us.
        """
        self._retired = True
        self.drain_timeout = drain_timeout
        if self.thread is not None:
            arm(self)
        self.bell.ring()

    def finish(self, deadline: float) -> None:
        """End at ``deadline`` (``time.monotonic()``) at the latest; returns at once."""
        if self._worker.thread is None and self._may_be_pending():
            self._start()
        self.delivery.deadline = deadline
        self.delivery.hurry = True
        self._ending = True
        self.bell.ring()

    def join(self, deadline: float) -> None:
        """Wait for the thread until ``deadline``; deliver inline if there is none. A hung target is left behind."""
        thread = self._worker.thread
        if thread is None:
            self._drain_inline()
            return
        while thread.is_alive() and monotonic() < deadline:
            if self._closing and is_held(logging._lock):  # type: ignore[attr-defined]
                return  # dictConfig holds that lock while it closes us, and the target's Handler.close() waits for it
            thread.join(min(0.05, max(0.0, deadline - monotonic())))

    def drain_until(self, done: Callable[[], bool], newest: int, deadline: float) -> bool:
        """Wait until ``done()`` or ``deadline``; deliveries of other processes are looked for every 50 ms.

        ``newest``: the seq that is waited for; a mark below it is no reason to wake up.
        """
        bell = Bell()
        waiter = (newest, bell)
        self._waiters.append(waiter)
        self.bell.ring()  # once more: the thread may have looked for waiters between wake() and here, and linger
        try:
            while not done():
                left = deadline - monotonic()
                if left <= 0:
                    return False
                if not self._waiters_served():
                    self._drain_inline(deadline)
                if is_patched():
                    pause(left)
                else:
                    bell.wait(min(0.05, left))
            return True
        finally:
            self._waiters.remove(waiter)

    def _waiters_served(self) -> bool:
        """False if nobody but the caller can deliver."""
        return self._worker.thread is not None or is_passive() or self._ending

    def after_fork_in_child(self) -> None:
        """The thread and the lease stayed in the parent; the target starts afresh at its next use."""
        self.delivery.lease.forget()
        self._target.after_fork_in_child()
        self._worker.forget()
        self._before = None
        self._reset()

    # --- the thread ------------------------------------------------------------------------------------

    def _run(self) -> None:
        if self._before is not None:
            self._before.join(1e6)  # one thread at a time is inside the target
            self._before = None
        while self._rest():
            self.bell.clear()  # a ring that brought us here must not cut the first pause short
            self._wait_for_more()
            ending = self._ending  # before: what was logged while this drain ended is still to be delivered
            outcome = self._drain_once()
            fenced = outcome is None and self.delivery.time_left() > 0
            if (ending or self._retired) and not fenced and outcome is not Outcome.DONE:
                break  # else look again: others that ended meanwhile may have left theirs to us
        self._close_target()

    def _wait_for_more(self) -> None:
        """Linger, for a fuller batch; not when somebody waits for the end."""
        until = monotonic() + self._linger
        while not (self._ending or self._retired or self._waiters) and monotonic() < until:
            self.bell.wait(until - monotonic())

    def _rest(self) -> bool:
        """Sleep until something is pending; False when it is time to end."""
        while True:
            self.asleep = True
            try:
                pending = self._journal.has_pending()
            except Exception as error:  # whatever it is: nobody else delivers, see _drain_once
                pending = False
                self._trouble(error)
                if self._ending or self._retired:
                    return False
                self.bell.wait(TROUBLE_SECONDS)
                continue
            if pending:
                self.asleep = False
                return True
            if self._ending or self._retired:
                return False
            self.bell.wait(None)

    def _drain_once(self) -> Outcome | None:
        self._left = True
        try:
            outcome = self.delivery.drain(
                wait_for_lease=not self._ending, once=self._retired, patience=LEAVE_SECONDS if self._ending else 0.0
            )
        except (Replaced, FileNotFoundError):  # the latter of the lease, for which there is no file to be a model
            self._on_damage()  # the keeper is to turn to the file that is there now, or make one
            self.bell.wait(MOVING_SECONDS if self._ending else self._moving_seconds)
            self._moving_seconds = min(self._moving_seconds * 2, TROUBLE_SECONDS)
            return None
        except Fenced:
            return None  # another process took over: look again, and wait for the lease
        except Exception as error:  # also no memory, or a defect of ours: it is said, and the thread must go on
            self._trouble(error)
            if not self._ending:
                self.bell.wait(TROUBLE_SECONDS)
            return Outcome.REMAIN
        self._moving_seconds = MOVING_SECONDS
        self._left = outcome is not Outcome.DONE
        return outcome

    def _drain_inline(self, deadline: float | None = None) -> None:
        if is_delivering():
            return  # a target that drains its own journal
        if deadline is not None:
            self.delivery.deadline = deadline
        while self._may_be_pending() and self._drain_once() is Outcome.DONE:
            pass  # others that ended meanwhile may have left theirs to us

    def _may_be_pending(self) -> bool:
        try:
            return self._journal.has_pending()
        except TROUBLE as error:
            self._trouble(error)
            return False

    def _check(self) -> None:
        # The keeper of a handler that was collected is gone: nobody moves anything.
        store = self._journal.store
        if not self._retired and (store.filling or store.is_replaced()):
            raise Replaced

    def _settled(self, delivered: int) -> None:
        if delivered:
            self.voice.accepted()
        self._on_settled(delivered)
        for newest, bell in self._waiters:
            if self.delivery.settled >= newest:
                bell.ring()

    def _trouble(self, error: Exception) -> None:
        if self._journal.store.blames_file(error):
            self._on_damage()  # the repair will say so
        elif (what := reason_of(error)) != self._last_trouble:  # once, not every time
            self._last_trouble = what
            say(f"journal {self._journal.path} cannot be delivered: {what}")

    def _close_target(self) -> None:
        if self._target_closed:
            return
        self._target_closed = self._closing = True
        try:
            with delivering():
                self._target.close()
        except BaseException as error:  # the target's own code
            if is_interrupt(error):
                raise
            say(f"closing the target of {self._journal.path}: {describe(error)}")
        finally:
            self._closing = False
