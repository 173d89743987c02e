"""What must not end a delivery early: a free lease that is being taken, a target whose rebuild() fails."""

import logging
import time

from lastwords import DurableHandler, Target
from lastwords.delivery.lease import Lease


def test_close_delivers_what_nobody_else_does(tmp_path, monkeypatch):
    """Taking a free lease is no waiting for another process: close() came back with the record undelivered."""
    took = []
    plain = Lease._try

    def slowly(self):
        time.sleep(0.2)
        took.append(plain(self))
        return took[-1]

    monkeypatch.setattr(Lease, "_try", slowly)
    got = []
    handler = DurableHandler(got.extend, tmp_path / "j.db")
    log = logging.Logger("x")
    log.addHandler(handler)
    log.error("one")
    handler.close()
    assert [entry.message for entry in got] == ["one"]
    assert took == [True]


def test_close_does_not_wait_for_what_another_holder_delivers(tmp_path):
    """The control: with the lease taken, it leaves at once."""
    got = []
    handler = DurableHandler(got.extend, tmp_path / "j.db")
    other = Lease(handler.journal)
    assert other.acquire(until=time.monotonic(), give_up=lambda: True)
    log = logging.Logger("x")
    log.addHandler(handler)
    log.error("one")
    began = time.monotonic()
    handler.close()
    assert time.monotonic() - began < 2.5
    assert got == []
    other.release()


def test_a_target_whose_rebuild_fails_is_tried_again(tmp_path, capsys):
    """The courier lives on; the failure is said."""

    class Breaks(Target):
        calls = 0

        def deliver(self, entries):
            self.calls += 1
            if self.calls < 3:
                raise RuntimeError("not yet")

        def rebuild(self):
            raise ValueError("cannot be built now")

    target = Breaks()
    handler = DurableHandler(target, tmp_path / "j.db", retry_min=0.01, retry_max=0.02)
    log = logging.Logger("x")
    log.addHandler(handler)
    log.error("one")
    assert handler.drain(10)
    assert target.calls == 3
    handler.close()
    assert "cannot be built now" in capsys.readouterr().err
