"""Processes forked by C code, as by uWSGI: none of Python's fork hooks runs."""

import os
import subprocess
import sys
import textwrap

import pytest

HEAD = """
import ctypes, logging, os, re, sys, threading, time
from lastwords import DurableHandler, Journal
folder = sys.argv[1]
log = logging.getLogger("app")
def deliver(entries):
    with open(folder + "/out", "a") as file:
        file.writelines(e.message + "\\n" for e in entries)
def switches():
    return [open(f"/proc/self/task/{tid}/stat").read().split()[2:3] + re.findall("switches:.*", open(f"/proc/self/task/{tid}/status").read())
            for tid in os.listdir("/proc/self/task") if int(tid) != os.getpid()]
def fork():
    before = None  # no thread waits for the GIL: CPython itself hangs in the child of such a fork
    while before != (before := switches()):
        time.sleep(0.3)
    return ctypes.PyDLL(None).fork()
def out():
    try:
        return open(folder + "/out").read().split()
    except FileNotFoundError:
        return []
def soon(condition):
    until = time.monotonic() + 40
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)
    return condition()
def end(code=0):
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
"""


@pytest.fixture
def play(tmp_path):
    def run(text, timeout=60):
        source = HEAD + textwrap.dedent(text)
        child = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", source, str(tmp_path)],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env=dict(os.environ),
        )
        assert child.returncode == 0, child.stderr
        return child.stdout.split(), child.stderr

    return run


@pytest.mark.slow
def test_a_child_delivers_while_its_parent_lives_and_says_what_to_set(play):
    """It trusts neither threads nor connections of its parent; each record comes once."""
    said, complaints = play("""
        handler = DurableHandler(deliver, folder + "/j.db")
        log.addHandler(handler)
        log.error("parent")
        handler.drain(30)
        pid = fork()
        if not pid:
            log.error("child")
            print(soon(lambda: "child" in out()))
            log.warning("more")
            handler.close()
            end()
        os.waitpid(pid, 0)
        print(*sorted(out()), handler.stats().pending)
    """)
    assert said == ["True", "child", "more", "parent", "0"]
    assert complaints.count("py-call-uwsgi-fork-hooks") == 1
    assert "lazy-apps" in complaints


@pytest.mark.slow
def test_what_a_child_commits_survives_its_parent(play):
    """Its locks are its own: the parent's end, and whoever comes then, do not take the WAL away under it."""
    said, _ = play("""
        handler = DurableHandler(None, folder + "/j.db", sync_level="NOTSET")
        log.addHandler(handler)
        log.error("parent")
        ready, go = os.pipe(), os.pipe()
        pid = fork()
        if not pid:
            log.error("first")
            os.write(ready[1], b"x")
            os.read(go[0], 1)
            for n in range(20):
                log.error("child %d", n)
            end()
        os.read(ready[0], 1)
        handler.close()
        import sqlite3, subprocess
        other = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT 1 FROM entries'); c.close()"
        subprocess.run([sys.executable, "-c", other, folder + "/j.db"], check=True)
        os.write(go[1], b"x")
        os.waitpid(pid, 0)
        print(Journal(folder + "/j.db").stats().pending)
    """)
    assert said == ["22"]


@pytest.mark.slow
def test_a_target_that_the_parent_was_calling_is_free_in_the_child(play):
    """Its handler's lock is held by a thread that is not there."""
    said, _ = play("""
        inside = threading.Event()
        class Slow(logging.Handler):
            def emit(self, record):
                if record.getMessage() == "parent":
                    inside.set()
                    time.sleep(1.5)
                with open(folder + "/out", "a") as file:
                    file.write(record.getMessage() + "\\n")
        handler = DurableHandler(Slow(), folder + "/j.db", drain_timeout=20)
        log.addHandler(handler)
        log.error("parent")
        inside.wait()
        pid = fork()
        if not pid:
            log.error("child")
            handler.close()
            end()
        os.waitpid(pid, 0)
        print(soon(lambda: sorted(out()) == ["child", "parent"]))
    """)
    assert said == ["True"]


@pytest.mark.slow
def test_a_child_forks_itself_with_the_hooks_and_ends_in_good_order(play):
    """Before it has logged anything; and one that never logs ends at once."""
    said, _ = play("""
        handler = DurableHandler(deliver, folder + "/j.db", drain_timeout=40)
        log.addHandler(handler)
        log.error("parent")
        handler.drain(30)
        pid = fork()
        if not pid:
            grandchild = os.fork()
            if not grandchild:
                log.error("grandchild")
                handler.close()
                end()
            os.waitpid(grandchild, 0)
            began = time.monotonic()
            from lastwords.runtime.exit import exit_pass
            exit_pass()
            end(time.monotonic() - began > 20)
        print(os.waitpid(pid, 0)[1], *sorted(out()))
    """)
    assert said == ["0", "grandchild", "parent"]


# From 3.13 on CPython itself aborts there: PyOS_AfterFork_Child gives back an import lock that nobody took.
if sys.version_info < (3, 13):

    @pytest.mark.slow
    def test_only_the_hook_after_a_fork_runs(play):
        """uWSGI's py-call-osafterfork."""
        said, complaints = play("""
            handler = DurableHandler(deliver, folder + "/j.db")
            log.addHandler(handler)
            log.error("parent")
            handler.drain(30)
            pid = fork()
            if not pid:
                ctypes.pythonapi.PyOS_AfterFork_Child()
                log.error("child")
                handler.close()
                end()
            os.waitpid(pid, 0)
            print(*sorted(out()))
        """)
        assert said == ["child", "parent"]
        assert "Error" not in complaints
