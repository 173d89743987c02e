"""Delivering from one journal: what ``flush``, ``replay`` and ``courier`` share. The drain is that of the handler.

What is damaged is set aside and salvaged, as its service would do it, and delivery goes on with what could be read.
Likewise what is removed under our hands: others that have it open move it to a new file, and would deliver it again.
A holder of the lease that does not deliver, because it is stopped or its target hangs, is said to be in the way.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from lastwords.delivery.lease import Lease, look
from lastwords.delivery.loop import Delivery, Outcome
from lastwords.errors import JournalDamaged, JournalError
from lastwords.journal import tidy, wal
from lastwords.journal.line import Fenced, Line
from lastwords.upkeep import keeper, recovery

from ...journal import readonly
from ...journal.explain import TROUBLE, explain, explained, reason_of
from ...runtime.visible import encodable
from .job import kept

if TYPE_CHECKING:
    from collections.abc import Callable

    from lastwords.journal.store import Store

    from .job import Job

LEASE_TRIES = 5  # `status` holds the lock for an instant when it looks which process has it


def settle(job: Job, *, deadline: float | None, once: bool, take_over: bool) -> None:
    """Deliver and settle what is pending, then tidy. Everything that happens is written into ``job``."""
    try:
        with job.as_owner():
            _settle(job, deadline, once=once, take_over=take_over)
            if isinstance(job.error, JournalDamaged) and job.salvaged_as is None:
                _salvage(job, job.error)
                _settle(job, deadline, once=once, take_over=take_over)
    except JournalError as error:
        job.error = error


def _salvage(job: Job, error: JournalDamaged) -> None:
    """As a handler would: its service may be gone for good. Raises JournalError."""
    with explained(job.path):
        recovery.salvage(job.path, error)
    job.salvaged_as = "; ".join(readonly.set_aside_files(job.path))
    job.error = None
    job.damaged += 1
    job.notes.append(f"{job.path}: {error.problem}; set aside as {job.salvaged_as}, and what can be read is delivered")


def _settle(job: Job, deadline: float | None, *, once: bool, take_over: bool) -> None:
    assert job.way is not None
    job.begin()
    journal = None
    try:
        open_already = job.way.journal if job.salvaged_as is None else None
        journal = open_already or Line.open(job.path)
        if job.delivery is None:
            job.delivery = _delivery(job, journal)
        job.delivery.journal, job.delivery.deadline = journal, deadline
        _note_destination(job, journal)
        job.outcome = _drain(job, job.delivery, once=once, take_over=take_over)
        job.remaining = journal.stats().pending
        _tidy(job, journal)
    except Fenced:
        job.outcome = Outcome.BUSY  # another process took the lease over
    except (*TROUBLE, ValueError, TypeError) as error:
        job.error = explain(job.path, error)
    finally:
        if job.delivery is not None:
            job.delivered, job.buried = job.delivery.delivered, job.delivery.buried
            job.last_error = job.delivery.last_error
        if journal is not None:
            journal.close()
        job.end()


def _note_destination(job: Job, journal: Line) -> None:
    """As its service would. Not before the delivery: whoever only looks, or is asked and says no, changes nothing."""
    assert job.way is not None
    label = encodable(job.way.target.label)
    if job.way.own and label and label != job.destination:
        journal.set_meta("destination", label)
        job.destination = label


def _delivery(job: Job, journal: Line) -> Delivery:
    assert job.way is not None
    delivery = Delivery(
        journal, job.way.target, Lease(job.path), job.bell, check=lambda: _check(delivery), **job.way.knobs
    )
    delivery.hurry = True
    delivery.on_pause = lambda seconds: job.pauses(delivery.last_error, seconds)
    if job.limit is not None:
        _stop_at(job.limit, delivery)
    return delivery


def _check(delivery: Delivery) -> None:
    if delivery.journal.store.is_replaced():
        raise Fenced


def _stop_at(limit: int, delivery: Delivery) -> None:
    most = delivery.batch_size

    def count(_delivered: int) -> None:
        left = limit - delivery.delivered - delivery.buried
        delivery.batch_size = max(1, min(most, left))
        if left <= 0:
            delivery.bell.set()

    delivery.on_settled = count
    count(0)


def _drain(job: Job, delivery: Delivery, *, once: bool, take_over: bool) -> Outcome:
    job.holder = None
    for _ in range(LEASE_TRIES):
        try:
            outcome = delivery.drain(take_over=take_over, once=once)
        except Fenced:
            if not delivery.journal.store.is_replaced():
                raise
            recovery.Mover(delivery.journal.store).run(None)
            outcome = delivery.drain(take_over=take_over, once=once)
        if outcome is not Outcome.BUSY:
            break
        job.holder = look(job.path)
        if job.holder is not None:
            break
        time.sleep(0.02)
    return outcome


def _tidy(job: Job, journal: Line) -> None:
    """What the keeper of a service does: the marks reach the medium, what is settled is pruned."""
    keep = job.way.keep_delivered if job.way is not None else None
    try:
        make_tidy(journal.store, kept(journal) if keep is None else keep, lambda: job.stopping)
    except TROUBLE as error:
        job.notes.append(f"{job.path}: could not be tidied: {reason_of(error)}")


def make_tidy(store: Store, keep: float, stop: Callable[[], bool]) -> int:
    """Sync, prune, give space back, checkpoint if that is due; how many rows were pruned."""
    wal.sync(store)
    pruned = 0
    while not stop() and (count := tidy.prune_slice(store, keep)):
        pruned += count
    while not stop() and tidy.vacuum_slice(store):
        pass
    if wal.file_size(store) > keeper.CHECKPOINT_BYTES:
        wal.checkpoint(store, shrink=True)
    return pruned
