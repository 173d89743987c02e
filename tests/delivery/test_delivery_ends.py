"""What must not end a delivery early: a free lease that is being taken, a target whose rebuild() fails."""

import asyncio
import logging
import threading
import time

import pytest

from lastwords import DurableHandler, Target
from lastwords.delivery.lease import Lease
from lastwords.record.codec import encode
from lastwords.runtime.guard import passive


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
    handler = DurableHandler(got.extend, tmp_path / "j.db", drain_timeout=60)
    other = Lease(handler.journal)
    assert other.acquire(until=time.monotonic(), give_up=lambda: True)
    log = logging.Logger("x")
    log.addHandler(handler)
    log.error("one")
    began = time.monotonic()
    handler.close()
    assert time.monotonic() - began < 20
    assert got == []
    other.release()


class Odd(BaseException):
    pass


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError, Odd])
@pytest.mark.parametrize("where", ["deliver", "rebuild", "close"])
def test_whatever_a_target_raises_the_courier_goes_on(tmp_path, capsys, kind, where):
    """An asyncio client raises CancelledError when its loop is torn down: delivery ended for good, unsaid."""

    class Breaks(Target):
        calls = 0

        def deliver(self, entries):
            self.calls += 1
            if self.calls == 1:
                raise kind("deliver") if where == "deliver" else RuntimeError

        def rebuild(self):
            if where == "rebuild":
                raise kind("rebuild")

        def close(self):
            if where == "close":
                raise kind("close")

    target = Breaks()
    handler = DurableHandler(target, tmp_path / "j.db", retry_min=0.01)
    log = logging.Logger("x")
    log.addHandler(handler)
    log.error("one")
    assert handler.drain(60)
    handler.close()
    assert target.calls == 2
    assert f"{kind.__name__}: {where}" in capsys.readouterr().err


def test_control_c_in_a_delivery_that_the_main_thread_makes_ends_it(tmp_path):
    """The control: `flush` is ended by it."""

    def deliver(entries):
        raise KeyboardInterrupt

    handler = DurableHandler(None, tmp_path / "j.db")
    log = logging.Logger("x")
    log.addHandler(handler)
    log.error("one")
    handler.close()
    with passive():
        handler = DurableHandler(deliver, tmp_path / "j.db", drain_timeout=0.01)
    with pytest.raises(KeyboardInterrupt):
        handler._engine.courier._drain_inline(time.monotonic() + 5)
    handler.close()


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
    assert handler.drain(60)
    assert target.calls == 3
    handler.close()
    assert "cannot be built now" in capsys.readouterr().err


def _held_by_another(handler):
    other = Lease(handler.journal)
    assert other.acquire(until=time.monotonic(), give_up=lambda: True)
    return other


def _logs_one(handler):
    log = logging.Logger("x")
    log.addHandler(handler)
    log.error("one")


@pytest.mark.slow
def test_an_end_that_gets_the_lease_as_it_gives_up_waiting_delivers(tmp_path, monkeypatch, poll):
    """It came back with the lease taken by its thread, and others that ended left what was pending to it."""
    got = []
    handler = DurableHandler(got.extend, tmp_path / "j.db", drain_timeout=20)
    other = _held_by_another(handler)
    own, held = Lease._own, threading.Event()

    def slowly(self, fd):
        held.set()
        time.sleep(0.4)  # a busy machine
        own(self, fd)

    _logs_one(handler)
    assert poll(lambda: handler._engine.courier.delivery.waits_for_lease)
    monkeypatch.setattr(Lease, "_own", slowly)
    ends = threading.Thread(target=handler.close)
    ends.start()
    time.sleep(0.1)
    other.release()
    ends.join(20)
    assert [entry.message for entry in got] == (["one"] if held.is_set() else [])


@pytest.mark.slow
def test_an_end_is_patient_each_time_it_finds_the_lease_taken(tmp_path, monkeypatch, poll):
    """Once it has delivered for long, another that held the lease for a moment as it gave up made it leave the rest."""
    came, others = [], []

    def deliver(entries):
        came.extend(entry.message for entry in entries)
        if len(came) == 1:
            time.sleep(0.4)  # longer than it waits for another one that ends

    handler = DurableHandler(deliver, tmp_path / "j.db", drain_timeout=20)
    plain_release, plain_try = Lease.release, Lease._try

    def release(self):
        plain_release(self)
        if came == ["one"] and not others:  # an end that comes late, gives up, and leaves its record
            monkeypatch.setattr(Lease, "release", plain_release)
            others.append(Lease(handler.journal))
            assert plain_try(others[0])
            two = logging.makeLogRecord({"msg": "two", "levelno": logging.ERROR})
            handler._engine.committer.append(encode(two))  # as another process does: nobody is woken

    def try_(self):
        taken = plain_try(self)
        if not taken:
            time.sleep(0.1)
            others[0].release()
        return taken

    monkeypatch.setattr(Lease, "release", release)
    _logs_one(handler)
    assert poll(lambda: came)
    monkeypatch.setattr(Lease, "_try", try_)
    handler.close()
    assert came == ["one", "two"]


def test_who_leaves_the_rest_to_another_does_not_say_that_it_waits(tmp_path, capfd, monkeypatch):
    """It is being delivered; the next run finds nothing."""
    handler = DurableHandler(lambda entries: None, tmp_path / "j.db")
    other = _held_by_another(handler)
    _logs_one(handler)
    monkeypatch.setattr("lastwords.engine.exit_deadline", lambda: 1.0)  # as if this process ended
    handler.close()
    other.release()
    assert "for the next run" not in capfd.readouterr().err


def test_what_others_logged_after_our_last_look_is_not_ours_to_tell(tmp_path, capfd, monkeypatch):
    """They deliver it; the control: what we leave ourselves is said."""
    said = []
    for name, wrong in (("good", False), ("bad", True)):

        def deliver(entries, wrong=wrong):
            if wrong:
                raise OSError("down")

        handler = DurableHandler(deliver, tmp_path / f"{name}.db", drain_timeout=0.1 if wrong else 20)
        _logs_one(handler)
        monkeypatch.setattr("lastwords.engine.exit_deadline", lambda: 1.0)
        close = handler._engine.courier._close_target

        def late(close=close, committer=handler._engine.committer):
            committer.append(encode(logging.makeLogRecord({"msg": "of another", "levelno": logging.ERROR})))
            close()

        handler._engine.courier._close_target = late
        handler.close()
        said.append("for the next run" in capfd.readouterr().err)
    assert said == [False, True]


@pytest.mark.slow
def test_the_exit_waits_for_what_a_collected_handler_delivers(children, tmp_path):
    """Its process may hold the lease, and others have left theirs to it."""
    children.run(
        """
        import gc, logging, sys, threading
        from lastwords import DurableHandler
        began = threading.Event()
        def deliver(entries):
            began.set()
            threading.Event().wait(0.3)
            with open(sys.argv[2], "a") as f: f.writelines(e.message for e in entries)
        handler = DurableHandler(deliver, sys.argv[1], drain_timeout=30)
        handler.handle(logging.makeLogRecord({"msg": "one", "levelno": 40}))
        began.wait(20)
        del handler
        gc.collect()
        """,
        tmp_path / "j.db",
        tmp_path / "out",
    )
    assert (tmp_path / "out").read_text() == "one"
