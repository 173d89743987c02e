"""What comes next is read while the target waits for its answer, and given out only where a read would find the same."""

import logging
import sqlite3

import pytest

from journals import pending
from lastwords import DurableHandler, Rejected, TryAgain
from lastwords.delivery import supply
from lastwords.delivery.lease import Lease
from lastwords.delivery.loop import COALESCE_SECONDS, Delivery, Outcome
from lastwords.journal import line
from lastwords.journal.line import Line
from lastwords.runtime.bell import Bell
from lastwords.targets.contract import Target

SIZE = 4


class Waiting(Target):
    """Reads ahead in each call, then raises what ``outcomes`` has for it. ``ahead``: how much of each call was."""

    batch_size = SIZE

    def __init__(self, outcomes=()):
        self.outcomes, self.calls, self.accepted, self.ahead = dict(outcomes), 0, [], []
        self._read = []

    def deliver(self, entries):
        self.calls += 1
        self.ahead.append(sum(entry is one for entry, one in zip(entries, self._read, strict=False)))
        self._read = [entry for some in self.meanwhile or () for entry in some]
        outcome = self.outcomes.get(self.calls)
        refused = []
        if isinstance(outcome, Rejected):
            refused = outcome.entries = [entries[1]]
        elif outcome is not None:
            self.accepted += [entry.seq for entry in entries[: getattr(outcome, "accepted", 0)]]
            raise outcome
        self.accepted += [entry.seq for entry in entries if entry not in refused]
        if refused:
            raise outcome


def delivered(tmp_path, target, count=15, between=None):
    path = tmp_path / "j.db"
    pending(path, count, level=logging.ERROR)
    if between is not None:
        between(path)
    handler = DurableHandler(target, path, retry_min=0.01, retry_max=0.02)
    try:
        assert handler.drain(60)
        return handler.stats()
    finally:
        handler.close()


@pytest.mark.parametrize("slice_", [1, 3, 50])
def test_full_batches_are_read_ahead_and_the_last_one_is_not(tmp_path, monkeypatch, slice_):
    """Each entry once and in order; behind a batch that is not full more may have been committed meanwhile."""
    monkeypatch.setattr(supply, "SLICE", slice_)
    target = Waiting()
    assert delivered(tmp_path, target).delivered == 15
    assert target.accepted == list(range(1, 16))
    assert target.ahead == [0, 0, 4, 0]  # none in the first call, which may connect; the last one has three entries


def test_batches_of_large_entries_are_read_ahead_too(tmp_path, monkeypatch):
    """One that is cut for its bytes is whole: what was read ahead of it is not thrown away, and nobody waits for more."""
    monkeypatch.setattr(line, "MAX_READ_BYTES", 1)
    monkeypatch.setattr(supply, "MOST_BYTES", 1)
    waits, wait = [], Bell.wait
    monkeypatch.setattr(Bell, "wait", lambda bell, timeout=None: waits.append(timeout) or wait(bell, timeout))
    target = Waiting()
    assert delivered(tmp_path, target, 5).delivered == 5
    assert target.accepted == [1, 2, 3, 4, 5]
    assert target.ahead == [0, 0, 1, 1, 1]
    assert COALESCE_SECONDS not in waits


@pytest.mark.parametrize(
    "outcome", [ConnectionError("gone"), RuntimeError("no"), TryAgain("later"), TryAgain("some", accepted=2)]
)
def test_what_was_read_ahead_of_a_failure_is_forgotten(tmp_path, outcome):
    """Nothing is skipped, nothing comes twice."""
    target = Waiting({2: outcome, 3: ConnectionError("gone")})
    assert delivered(tmp_path, target).dead == 0
    assert target.accepted == list(range(1, 16))


def test_an_entry_that_is_refused_does_not_shift_what_was_read_ahead(tmp_path):
    """It is buried, its successors arrive."""
    target = Waiting({2: Rejected("not this one")})
    stats = delivered(tmp_path, target)
    assert (stats.delivered, stats.dead) == (14, 1)
    assert target.accepted == [seq for seq in range(1, 16) if seq != 6]


def test_a_row_that_does_not_decode_is_buried_in_its_turn(tmp_path):
    """Also if it was come upon while reading ahead."""

    def damage(path):
        with sqlite3.connect(path) as conn:
            conn.execute("UPDATE entries SET payload = '{}' WHERE seq = 10")
        conn.close()

    target = Waiting()
    stats = delivered(tmp_path, target, between=damage)
    assert (stats.delivered, stats.dead) == (14, 1)
    assert target.accepted == [seq for seq in range(1, 16) if seq != 10]


def test_a_journal_that_cannot_be_read_ahead_is_no_failure_of_the_target(tmp_path, monkeypatch):
    """The same is read again in its turn, and told then."""

    class Broken(supply.Ahead):
        def __init__(self, journal, after, most):
            super().__init__(None, after, most)

    monkeypatch.setattr(supply, "Ahead", Broken)
    target = Waiting()
    assert delivered(tmp_path, target).retries == 0
    assert target.accepted == list(range(1, 16))


def test_what_was_read_long_ago_is_read_again(tmp_path, monkeypatch):
    """It may have been shed, and counted, while the target took its time."""
    monkeypatch.setattr(supply, "FRESH_SECONDS", 0.0)
    target = Waiting()
    assert delivered(tmp_path, target).delivered == 15
    assert target.ahead == [0, 0, 0, 0]


def test_each_drain_reads_the_journal_that_it_was_given(tmp_path):
    """A resident courier opens it for each try, and closes it again."""
    path = tmp_path / "j.db"
    target = Waiting()
    delivery, journals = None, []
    for number in range(3):
        handler = DurableHandler(None, path)
        handler.handle(logging.makeLogRecord({"msg": str(number)}))
        handler.close()
        with Line.open(path) as journal:
            delivery = delivery or Delivery(journal, target, Lease(journal.path), Bell())
            delivery.journal, delivery.hurry = journal, True
            assert delivery.drain() is Outcome.DONE
        journals.append(journal)
    assert not any(journal.store.is_open for journal in journals)
    assert target.accepted == [1, 2, 3]
