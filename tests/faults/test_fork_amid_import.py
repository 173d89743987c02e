"""A fork while a thread of ours imports something: the child could never import it."""

import pytest

SERVER = """
import logging, os, sys, time
sys.path.insert(0, sys.argv[1])
import lastwords
from lastwords.runtime import fork
if sys.argv[2] == "unguarded":
    fork.IMPORT_SECONDS = 0.0
began = sys.argv[1] + "/began"
def deliver(entries):
    import slow_client
handler = lastwords.DurableHandler(deliver, sys.argv[1] + "/j.db")
log = logging.Logger("x"); log.addHandler(handler)
log.info("before the fork")
while not os.path.exists(began):
    time.sleep(0.001)
pid = os.fork()
if pid == 0:
    import signal
    signal.alarm(50)
    import slow_client
    log.info("in the child")
    assert handler.drain(40), handler.stats()
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
os._exit(0)
"""

SLOW = """
import os, time
open(os.path.dirname(__file__) + "/began", "w").close()
time.sleep(0.4)
"""


@pytest.mark.slow
def test_a_fork_waits_for_what_a_courier_imports(children, tmp_path):
    """A prefork server forks right after its handlers were made, and the client library imports the rest of itself."""
    (tmp_path / "slow_client.py").write_text(SLOW)
    out, _, _ = children.run(SERVER, tmp_path, "guarded", timeout=60)
    assert out.strip() == "0"


@pytest.mark.slow
def test_without_the_wait_the_child_hangs(children, tmp_path):
    """The control: it is ended by its alarm."""
    (tmp_path / "slow_client.py").write_text(SLOW.replace("0.4", "2"))
    out, _, _ = children.run(SERVER.replace("alarm(50)", "alarm(3)"), tmp_path, "unguarded", timeout=60)
    assert out.strip() == "-14"


@pytest.mark.slow
def test_a_target_that_hangs_does_not_keep_a_program_from_forking(children, tmp_path):
    """The wait has an end."""
    (tmp_path / "slow_client.py").write_text(SLOW.replace("0.4", "30"))
    code = SERVER.replace("    import slow_client\n    log.info", "    log.info").replace(
        "    assert handler.drain(40), handler.stats()\n", ""
    )
    out, _, seconds = children.run(code, tmp_path, "guarded", timeout=60)
    assert out.strip() == "0" and seconds < 20


LOCKED = """
import os, signal, sys, threading
from lastwords.runtime import fork
signal.alarm(20)

class Member:
    fork_lock = fork.new_lock()
    def before_fork(self): pass
    after_fork_in_parent = after_fork_in_child = before_fork

member = Member()
fork.follow_forks(member)
locked = threading.Event()

def open_journal():
    with member.fork_lock:
        locked.set()
        while fork._locks.gate.acquire(blocking=False):  # until the fork has it
            fork._locks.gate.release()
        with fork.importing():
            import tenacity

thread = threading.Thread(target=open_journal)
thread.start()
locked.wait()
pid = os.fork()
if pid == 0:
    os._exit(0)
thread.join()
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


@pytest.mark.slow
def test_a_thread_that_holds_a_journal_may_import_amid_a_fork(children):
    """One that opens a locked journal imports tenacity; the fork waits for that journal, and does not bar the import."""
    out, _, _ = children.run(LOCKED, timeout=60)
    assert out.strip() == "0"
