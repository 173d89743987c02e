"""Programs that have patched the standard library: greenlets, and clocks that stand still."""

import importlib.util
import os
import pathlib
import re
import subprocess
import sys
import textwrap

import pytest

import lastwords

HEAD = """
import sys, time
def patch():
    {patch}
if {early}:
    patch()
import logging
from lastwords import DurableHandler
if {early} is False:
    patch()
came = []
log = logging.getLogger("app")
"""
GREEN = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "eventlet": "import warnings; warnings.simplefilter('ignore'); import eventlet; eventlet.monkey_patch()",
}


def play(patch, early, text):
    """Run ``text`` in a child of its own, patched before (``early``) or after our import; what it printed.

    None: ``text`` calls ``patch()`` itself.
    """
    source = HEAD.format(patch=patch, early=early) + textwrap.dedent(text)
    child = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=False, env=dict(os.environ)
    )
    assert child.returncode == 0, child.stderr
    return child.stdout.split()


@pytest.mark.slow
@pytest.mark.parametrize("early", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("library", list(GREEN))
def test_the_hub_runs_on_while_a_target_hangs(library, early, tmp_path):
    """Delivery, a drain and a close with a target that waits in C keep no greenlet waiting; all is delivered."""
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"needs {library}")
    out = play(
        GREEN[library],
        early,
        f"""
        import ctypes, {library} as green
        turns = 0
        def tick():
            global turns
            while True:
                green.sleep(0.005)
                turns += 1
        def deliver(entries):
            tries = 0
            while turns <= 10 and tries < 3_000:
                ctypes.CDLL(None).usleep(10_000)
                tries += 1
            came.extend(entry.message for entry in entries)
        green.spawn(tick)
        handler = DurableHandler(deliver, {str(tmp_path / "j.db")!r}, drain_timeout=50)
        log.addHandler(handler)
        log.error("one")
        print(handler.drain(50), came == ["one"], turns > 10)
        turns = 0
        log.error("two")
        handler.close()
        print(came == ["one", "two"], turns > 10)
        """,
    )
    assert out == ["True"] * 5


@pytest.mark.slow
def test_records_from_native_threads_and_greenlets_are_all_delivered(tmp_path):
    """Whichever of them was first and started the delivery."""
    pytest.importorskip("gevent")
    out = play(
        GREEN["gevent"],
        True,
        f"""
        import gevent
        from gevent.threadpool import ThreadPool
        handler = DurableHandler(lambda entries: came.extend(e.message for e in entries), {str(tmp_path / "j.db")!r})
        log.addHandler(handler)
        def work(name):
            for n in range(30):
                log.error("%s-%d", name, n)
                gevent.sleep(0.001)
        pool = ThreadPool(2)
        pool.spawn(log.error, "first").get(timeout=60)
        jobs = [pool.spawn(work, f"pool{{k}}") for k in range(2)] + [gevent.spawn(work, f"green{{k}}") for k in range(2)]
        gevent.joinall(jobs, timeout=60)
        print(handler.drain(10), len(set(came)), len(came))
        """,
    )
    assert out == ["True", "121", "121"]


def test_deadlines_are_measured_with_the_clock_that_nobody_freezes():
    """Nothing of ours asks time.monotonic(), which a test of the application may have frozen."""
    folder = pathlib.Path(lastwords.__file__).parent
    calls = re.compile(r"\b(time\.monotonic|perf_counter)\(\)(?!``)")
    assert [str(p) for p in folder.rglob("*.py") if calls.search(p.read_text())] == []


@pytest.mark.slow
@pytest.mark.parametrize("early", [True, False], ids=["before", "after"])
@pytest.mark.parametrize(
    ("library", "patch"),
    [
        ("freezegun", "import freezegun; freezegun.freeze_time('2020-01-01').start()"),
        ("time_machine", "import time_machine; time_machine.travel(0, tick=False).start()"),
        ("time", "time.monotonic = time.time = lambda: 1.0"),
    ],
    ids=["freezegun", "time_machine", "by hand"],
)
def test_clocks_that_stand_still_stop_no_deadline(library, patch, early, tmp_path):
    """A drain and a close end in time while the target is down, and what it takes later is delivered."""
    pytest.importorskip(library)
    out = play(
        patch,
        early,
        f"""
        down = [True]
        def deliver(entries):
            if down:
                raise ConnectionError("down")
            came.extend(entry.message for entry in entries)
        handler = DurableHandler(deliver, {str(tmp_path / "j.db")!r}, drain_timeout=0.2, retry_min=0.01)
        log.addHandler(handler)
        log.error("one")
        print(handler.drain(0.1))
        down.clear()
        print(handler.drain(20), came == ["one"])
        down.append(True)
        log.error("two")
        handler.close()
        """,
    )
    assert out == ["False", "True", "True"]


@pytest.mark.slow
@pytest.mark.parametrize("library", list(GREEN))
def test_a_handler_that_was_made_before_the_patch_goes_on(library, tmp_path):
    """eventlet replaces each RLock that it finds in modules and objects by one that other threads cannot wait for."""
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"needs {library}")
    out = play(
        GREEN[library],
        None,
        f"""
        import {library} as green
        from lastwords.runtime import fork
        from lastwords.runtime.lock import Lock
        class Control:
            pass
        control = Control()  # found, where the library looks for any
        control.lock = fork.new_lock()
        deliver = lambda entries: came.extend(e.message for e in entries)
        handler = DurableHandler(deliver, {str(tmp_path / "j.db")!r}, sync_interval=0.01)
        log.addHandler(handler)
        log.warning("0")
        patch()
        for n in range(1, 60):
            log.warning("%d", n)
            green.sleep(0.01)
        print(handler.drain(30), came == [str(n) for n in range(60)])
        print(*(isinstance(lock, Lock) for lock in (handler._engine.store.lock, fork._locks.fds, fork._locks.gate)))
        print(isinstance(control.lock, Lock))
        """,
    )
    assert out == ["True"] * 5 + [str(library != "eventlet")]
