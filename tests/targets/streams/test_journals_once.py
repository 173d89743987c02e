"""Whatever becomes of a journal: each of its records is in the stream once. The same for each engine."""

import logging
import os
import shutil
import signal
import threading

import pytest

from cli.tools import log_to, run
from lastwords import DurableHandler, Rejected
from lastwords.targets import resolve

pytestmark = pytest.mark.slow
NAMES = iter(range(10**6))


class Place:
    """A stream of its own on an engine: ``url``, and the ids that it has."""

    def __init__(self, engine, server, admin):
        self.engine, self.server, self.admin, self.name = engine, server, admin, f"once{next(NAMES)}"
        if engine == "nats":
            admin.make(self.name, allow_atomic=True, duplicate_window=100_000_000)
        elif engine == "kafka":
            server.make(self.name, 2)
        self.url = server.url(self.name)

    def ids(self):
        if self.engine == "nats":
            return sorted(record["id"] for record in self.admin.read(self.name))
        if self.engine == "kafka":
            return sorted(id for _, id, _ in self.server.read(self.name))
        with self.server.client() as client:
            return sorted(fields[b"id"].decode() for _, fields in client.xrange(self.name))


@pytest.fixture(params=["nats", "redis", "kafka"])
def place(request):
    if request.param == "kafka":
        pytest.importorskip("confluent_kafka")
    server = request.getfixturevalue(request.param)
    return Place(request.param, server, request.getfixturevalue("admin") if request.param == "nats" else None)


def once(found, count):
    """Each of ``count`` entries, and none of them twice."""
    return len(found) == len(set(found)) == count


SLEEPER = """
import logging, os, signal, sys, threading
from lastwords import DurableHandler
from lastwords.targets import resolve
url, journal, place = sys.argv[1:]
target = resolve(url)
deliver, slept, committed = target.deliver, [], threading.Event()
def sleepy(entries):
    sleeps = entries[0].seq > 5 and not slept  # it knows what the stream had before it fell asleep
    if sleeps:
        slept.append(committed.wait(30))  # asleep in a transaction it would keep everybody out
        if place == "before":
            os.kill(os.getpid(), signal.SIGSTOP)
    deliver(entries)
    if sleeps and place == "after":
        os.kill(os.getpid(), signal.SIGSTOP)
target.deliver = sleepy
handler = DurableHandler(target, journal, retry_min=0.05)
log = logging.getLogger("app")
log.addHandler(handler)
for first in (0, 5):
    for number in range(first, first + 5):
        log.warning("%d", number)
    handler.flush()
    if first:
        committed.set()
    handler.drain(30)
log.warning("the last one")
print(handler.drain(30), handler.stats().pending, handler.stats().dead)
"""


@pytest.mark.parametrize("where", ["before", "after"])
def test_a_holder_that_slept_while_cron_took_over(place, children, tmp_path, where):
    """Before it sent its batch, or before it marked it: its late write and its late mark change nothing."""
    journal = tmp_path / "j.db"
    child = children.start(SLEEPER, place.url, journal, where)
    assert os.WIFSTOPPED(os.waitpid(child.pid, os.WUNTRACED)[1])
    taken = run("flush", "--takeover", "--to", place.url, "--timeout", "40", journal)
    assert taken.code == 0, taken.err
    child.send_signal(signal.SIGCONT)
    out, err = child.communicate(timeout=120)
    assert out == b"True 0 0\n", err
    assert once(place.ids(), 11)


def test_two_processes_on_one_journal_and_a_flush(place, children, tmp_path):
    """Whoever delivers, and however often it changes hands."""
    journal = tmp_path / "j.db"
    code = """
    import logging, sys
    from lastwords import DurableHandler
    log = logging.getLogger("app")
    log.addHandler(DurableHandler(*sys.argv[1:], drain_timeout=30))
    for number in range(60):
        log.warning("%d", number)
    """
    both = [children.start(code, place.url, journal) for _ in range(2)]
    for child in both:
        _, err = child.communicate(timeout=120)
        assert child.returncode == 0, err
    assert run("flush", "--to", place.url, "--timeout", "40", journal).code == 0
    assert once(place.ids(), 120)


def test_a_requeued_dead_letter_and_a_copy_of_the_journal(place, tmp_path):
    """Both keep the ids of what was logged; what is logged into the copy gets other ones."""
    journal, backup = log_to(tmp_path / "j.db", 6), str(tmp_path / "backup.db")
    shutil.copyfile(journal, backup)
    target = resolve(place.url)

    def picky(entries):
        target.deliver([entry for entry in entries if entry.seq != 3])
        refused = [entry for entry in entries if entry.seq == 3]
        if refused:
            raise Rejected("not today", refused)

    handler = DurableHandler(picky, journal)
    assert handler.drain(60) and handler.stats().dead == 1
    handler.close()
    target.close()
    assert len(place.ids()) == 5
    assert run("dead", "retry", "--all", journal).code == 0
    assert run("flush", "--to", place.url, "--timeout", "40", journal).code == 0
    assert len(place.ids()) == 6
    handler = DurableHandler(place.url, backup)
    handler.handle(logging.LogRecord("app", logging.ERROR, "app.py", 1, "new", (), None))
    assert handler.drain(60)
    handler.close()
    assert once(place.ids(), 7)


def test_a_journal_that_is_removed_under_its_process(place, tmp_path):
    """What was in it is moved into a new file with its ids: half of it is in the stream already, and not marked."""
    journal = tmp_path / "j.db"
    target, may = resolve(place.url), threading.Event()

    def half(entries):
        whole = may.is_set()  # once: it may be set meanwhile
        target.deliver(entries if whole else entries[: len(entries) // 2])
        if not whole:
            raise ConnectionError("it is there, and we do not know")

    handler = DurableHandler(half, journal, retry_min=0.05, retry_max=0.1)
    log = logging.Logger("app")  # noqa: LOG001 - of nobody's tree
    log.addHandler(handler)
    for number in range(8):
        log.error("%d", number)
    while handler.stats().retries < 2:
        handler.drain(0.1)
    journal.unlink()
    for number in range(8, 12):
        log.error("%d", number)
    may.set()
    assert handler.drain(40), handler.stats()
    handler.close()
    target.close()
    assert once(place.ids(), 12)
