"""A run that cannot mark what it delivers delivers nothing."""

import logging

from lastwords import DurableHandler
from lastwords.delivery.lease import Lease
from lastwords.delivery.loop import Delivery, Outcome
from lastwords.errors import JournalFull
from lastwords.journal.line import Line
from lastwords.journal.store import Store
from lastwords.runtime.bell import Bell
from lastwords.targets.contract import CallableTarget


def test_a_run_that_cannot_write_delivers_nothing(tmp_path, monkeypatch):
    """On a full disk cron's runs, which know nothing of each other, delivered the same entries every minute."""
    handler = DurableHandler(None, tmp_path / "j.db")
    logger = logging.Logger("x")
    logger.addHandler(handler)
    logger.error("once")
    handler.close()
    got = []
    with Line.open(tmp_path / "j.db") as journal:

        def full(self):
            raise JournalFull(self.path, "the disk is full")

        with monkeypatch.context() as patched:
            patched.setattr(Store, "writing", full)
            for _ in range(3):
                delivery = Delivery(journal, CallableTarget(got.extend), Lease(journal.path), Bell())
                assert delivery.drain(once=True) is Outcome.REMAIN
                assert "full" in delivery.last_error
        assert got == []
        assert delivery.drain(once=True) is Outcome.DONE  # there is room again
    assert [entry.message for entry in got] == ["once"]
