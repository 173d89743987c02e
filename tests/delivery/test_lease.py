"""The lease: one deliverer at a time, whatever happens to it."""

import logging
import os
import signal
import time

import pytest

from conftest import stop
from lastwords import DurableHandler
from lastwords.delivery.lease import Lease, holder
from lastwords.journal.line import Line
from lastwords.journal.store import Store


def never():
    return False


def test_one_at_a_time_in_order_of_release(tmp_path):
    """A second claim fails until the first lets go; status can name the holder."""
    path = str(tmp_path / "j.db")
    Store(path).close()
    one, two = Lease(path), Lease(path)
    assert one.acquire(until=time.monotonic(), give_up=never)
    assert one.held
    assert holder(path) == os.getpid()
    assert not two.acquire(until=time.monotonic() + 0.05, give_up=never)
    one.release()
    assert holder(path) is None
    assert two.acquire(until=time.monotonic(), give_up=never)
    two.release()


def test_what_the_holder_does_is_not_noted_in_somebody_elses_file(tmp_path):
    """The program has put a file of its own at the number. Control: while it is ours, it is noted."""
    path = str(tmp_path / "j.db")
    Store(path).close()
    lease = Lease(path)
    assert lease.acquire(until=time.monotonic(), give_up=never)
    assert os.path.getsize(path + ".lock") > 0
    with open(tmp_path / "theirs", "wb") as theirs:
        os.dup2(theirs.fileno(), lease._fd)
        number = lease._fd
        lease.note("waiting", time.time() + 100)
        lease.release()
        os.fstat(number)  # nor is it closed
        os.close(number)
    assert (tmp_path / "theirs").read_bytes() == b""


def test_a_killed_holder_frees_it_at_once(children, tmp_path, poll):
    """No heartbeat: the kernel lets go."""
    path = tmp_path / "j.db"
    Store(str(path)).close()
    code = """
    import sys, time
    from lastwords.delivery.lease import Lease
    lease = Lease(sys.argv[1]); assert lease.acquire(until=None, give_up=lambda: False)
    print("held", flush=True); time.sleep(60)
    """
    child = children.start(code, path)
    assert child.stdout.readline() == b"held\n"
    assert holder(str(path)) == child.pid
    lease = Lease(str(path))
    assert not lease.acquire(until=time.monotonic(), give_up=never)
    child.kill()
    child.wait()
    assert holder(str(path)) is None  # the file still names the dead pid
    assert lease.acquire(until=time.monotonic() + 1, give_up=never)
    lease.release()


def test_a_waiter_on_a_replaced_lock_file_gets_no_worthless_lease(tmp_path, poll):
    """The old file's lock is let go after a takeover: whoever waited on it must not believe it has the lease."""
    import threading

    path = str(tmp_path / "j.db")
    Store(path).close()
    stopped, waiter, taker = Lease(path), Lease(path), Lease(path)
    assert stopped.acquire(until=None, give_up=never)
    got = []
    thread = threading.Thread(target=lambda: got.append(waiter.acquire(until=None, give_up=never)), daemon=True)
    thread.start()
    time.sleep(0.1)
    taker.take_over()
    assert taker.held
    assert not stopped.held
    stopped.release()
    time.sleep(0.2)
    assert got == []  # still waiting, now for the taker
    taker.release()
    assert poll(lambda: got == [True])
    assert waiter.held
    waiter.release()


@pytest.mark.slow
def test_a_stopped_holder_is_taken_over_and_fenced_off(children, tmp_path, poll):
    """SIGSTOP in the middle of a delivery, a takeover by another process, SIGCONT: nothing lost, marks not undone."""
    path, received = tmp_path / "j.db", tmp_path / "received"
    code = """
    import logging, sys, time
    from lastwords import DurableHandler
    def slow(entries):
        for e in entries:
            with open(sys.argv[2], "a") as f: f.write(f"{e.id} {e.message}\\n")
            time.sleep(0.05)
    log = logging.Logger("x"); h = DurableHandler(slow, sys.argv[1], batch_size=5, drain_timeout=20)
    log.addHandler(h)
    for i in range(100): log.error("m%d", i)
    print("logged", flush=True)
    h.drain(30)
    """
    child = children.start(code, path, received)
    assert child.stdout.readline() == b"logged\n"
    assert poll(lambda: received.exists() and len(received.read_text().splitlines()) > 7)
    stop(child.pid)
    before = len(received.read_text().splitlines())

    from lastwords.delivery.loop import Delivery, Outcome
    from lastwords.runtime.bell import Bell
    from lastwords.targets.contract import CallableTarget

    def collect(entries):
        with open(received, "a") as f:
            for e in entries:
                f.write(f"{e.id} {e.message}\n")

    with Line.open(path) as journal:
        delivery = Delivery(journal, CallableTarget(collect), Lease(journal.path), Bell(), retry_min=0.01)
        assert delivery.drain() is Outcome.BUSY
        assert delivery.drain(take_over=True) is Outcome.DONE
        settled = journal.cursor().settled
        child.send_signal(signal.SIGCONT)
        assert child.wait(40) == 0
        assert journal.cursor().settled == settled
        assert journal.stats().pending == 0
    lines = received.read_text().splitlines()
    assert {line.split(" ")[1] for line in lines} == {f"m{i}" for i in range(100)}
    assert len(lines) - 100 <= 5 + 5  # its batch in flight, before and after
    assert before < 100


@pytest.mark.slow
def test_a_waiter_delivers_after_a_takeover_from_a_holder_that_stays_stopped(children, tmp_path, poll):
    """It waits for the lease of a stopped process; another one takes that over and ends: nobody is in the way any more."""
    path = tmp_path / "j.db"
    stopped = children.start(
        """
        import sys, time
        from lastwords import DurableHandler
        from lastwords.delivery.lease import Lease
        DurableHandler(None, sys.argv[1]).close()
        lease = Lease(sys.argv[1])
        assert lease.acquire(until=0, give_up=lambda: True)
        print("held", flush=True)
        time.sleep(600)
        """,
        path,
    )
    assert stopped.stdout.readline() == b"held\n"
    got = []
    handler = DurableHandler(lambda entries: got.extend(entry.message for entry in entries), path)
    log = logging.Logger("x")
    log.addHandler(handler)
    log.error("one")
    assert poll(lambda: handler._engine.courier.delivery.waits_for_lease, 30)
    stop(stopped.pid)
    taker = Lease(str(path))
    taker.take_over()
    assert got == []
    taker.release()
    assert poll(lambda: got == ["one"], 30)
    handler.close()
