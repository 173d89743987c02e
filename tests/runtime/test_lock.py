"""The lock knows who holds it, on every Python, and nothing that a signal handler raises keeps it."""

import queue
import random
import signal
import threading
import time

import pytest

from lastwords.runtime.lock import GuardedLock, Lock, depth_told, is_mine_told, new_lock


class Told(Lock):
    """What Python 3.11.2 has, and one without any private method."""

    is_mine = is_mine_told
    depth = depth_told


KINDS = [Lock, GuardedLock, Told]


@pytest.fixture
def other():
    """Have a function called by another thread; gives its answer."""
    asked, answered = queue.SimpleQueue(), queue.SimpleQueue()

    def work():
        while (call := asked.get()) is not None:
            answered.put(call())

    thread = threading.Thread(target=work, daemon=True)
    thread.start()

    def ask(call):
        asked.put(call)
        return answered.get(timeout=10)

    yield ask
    asked.put(None)
    thread.join(10)


@pytest.mark.parametrize("kind", KINDS)
def test_it_tells_its_owner_how_deep_it_is_and_others_that_it_is_not_theirs(kind, other):
    """A nested call must know that it is one."""
    lock = kind()
    assert (lock.is_mine(), lock.depth()) == (False, 0)
    with lock:
        assert (lock.is_mine(), lock.depth()) == (True, 1)
        with lock:
            assert (lock.is_mine(), lock.depth()) == (True, 2)
            assert other(lambda: (lock.is_mine(), lock.depth())) == (False, 0)
            assert other(lambda: lock.acquire(timeout=0.01)) is False
        assert lock.depth() == 1
    assert (lock.is_mine(), lock.depth()) == (False, 0)
    with pytest.raises(RuntimeError):
        lock.release()
    assert other(lambda: lock.acquire(timeout=1) and lock.release()) is None


@pytest.mark.parametrize("nested", [False, True], ids=["first", "nested"])
def test_a_signal_handler_that_raises_anywhere_leaves_no_lock_taken(other, nested):
    """Also just as it has been taken, and while the exception is kept with its traceback, as error reporters do."""

    class TimeIsUp(Exception):  # noqa: N818 - what an application might call it
        pass

    def strike(signum, frame):
        raise TimeIsUp

    lock, kept = new_lock(), []

    def take():
        signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 1e-4))
        for _ in range(3_000):
            with lock:
                if nested:
                    with lock:
                        pass

    before = signal.signal(signal.SIGALRM, strike)
    until = time.monotonic() + 0.2
    try:
        while time.monotonic() < until:
            try:
                take()
            except TimeIsUp as error:
                kept.append(error)
            assert lock.depth() == 0
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(kept) > 20
    assert other(lambda: lock.acquire(timeout=5))
