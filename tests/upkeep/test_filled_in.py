"""Old entries are filled in at their own places while another process, which knows nothing of it, delivers."""

import collections
import os

import pytest

from journals import pending
from lastwords import Journal, Rejected
from lastwords.delivery.lease import Lease
from lastwords.delivery.loop import Delivery
from lastwords.journal import transfer
from lastwords.journal.line import Fenced, Line
from lastwords.journal.store import Store
from lastwords.runtime.bell import Bell
from lastwords.targets.contract import CallableTarget
from lastwords.upkeep.recovery import Mover

COUNT = 60


def drain(path, take):
    """As a process that was started just now; True unless what it had delivered was not marked."""
    with Line.open(path) as journal:
        delivery = Delivery(journal, CallableTarget(take), Lease(path), Bell(), batch_size=COUNT)
        try:
            delivery.drain(once=True)
        except Fenced:
            return False
    return True


@pytest.mark.parametrize("refuses", [False, True])
@pytest.mark.parametrize("moves", [True, False])
def test_what_is_filled_in_behind_a_batch_is_delivered(tmp_path, monkeypatch, moves, refuses):
    """The batch had the newest entry, which keeps their room. The control: nothing comes in while it is delivered.

    If the target refused one of it, the others come once more.
    """
    path = str(tmp_path / "j.db")
    for name in ("FIRST_ROWS", "LEAST_ROWS", "MOST_ROWS"):
        monkeypatch.setattr(transfer, name, 20)
    pending(path, COUNT)
    store = Store(path)
    with store.lock:
        store.connection()
    for name in os.listdir(tmp_path):
        os.unlink(tmp_path / name)
    mover = Mover(store)
    assert mover.step(None)
    arrived, refused = collections.Counter(), refuses

    def take(entries):
        arrived.update(entry.record.getMessage() for entry in entries)
        if moves:
            mover.step(None)
        if refuses:
            raise Rejected("no", entries=[entries[-1].id])

    whole = [drain(path, take)]
    mover.run(None)
    were_moved, moves, refuses = moves, False, False
    whole += [drain(path, take) for _ in range(2)]
    store.close()
    assert sorted(arrived) == sorted(f"m{i}" for i in range(COUNT))
    assert whole == [not (refused and were_moved), True, True]
    assert set(arrived.values()) == ({1} if all(whole) else {1, 2})
    stats = Journal(path).stats()
    assert (stats.pending, stats.delivered + stats.dead) == (0, COUNT)
