"""A program is killed at named points and at single SQL statements: every promise holds after reopening.

The points are wrapped around the functions from outside, in the child that is to die, so they cost the product nothing.
"""

import json
import logging
import sqlite3
import subprocess
import sys

import pytest

from cli import tools as cli
from lastwords import DurableHandler

pytestmark = pytest.mark.filterwarnings("ignore:journal .* was used for __main__")  # what is next is this process

# name: (module, attribute). A kill before and after each.
POINTS = {
    "append": ("lastwords.append.committer", "Committer._append_first"),
    "commit of several": ("lastwords.journal.inserts", "Inserts._execute"),
    "sync": ("lastwords.journal.wal", "sync"),
    "read": ("lastwords.journal.line", "Line.read"),
    "accept": ("lastwords.delivery.loop", "Delivery._call"),
    "settle": ("lastwords.journal.line", "Line.settle"),
    "bury": ("lastwords.journal.line", "Line._bury"),
    "mark": ("lastwords.journal.line", "Line.mark"),
    "fail": ("lastwords.journal.line", "Line.fail"),
    "requeue": ("lastwords.journal.line", "Line._redrive"),
    "tell of drops": ("lastwords.journal.line", "Line.tell_drops"),
    "prune": ("lastwords.journal.tidy", "prune_slice"),
    "shed": ("lastwords.journal.tidy", "_shed_slice"),
    "checkpoint": ("lastwords.journal.wal", "checkpoint"),
    "backfill": ("lastwords.journal.wal", "Backfill.run"),
    "migrate": ("lastwords.journal.schema", "_migrate"),
    "epoch": ("lastwords.journal.continuity", "go_on"),
    "takeover": ("lastwords.delivery.lease", "Lease.take_over"),
    "fence": ("lastwords.journal.line", "Line.raise_fence"),
    "lease": ("lastwords.delivery.lease", "Lease._own"),
    "fork": ("lastwords.journal.store", "Store.before_fork"),
}

SERVICE = """
import importlib, json, logging, os, signal, sqlite3, sys, time
from lastwords import DurableHandler, Rejected; from lastwords.append import committer; from lastwords.journal import store, tidy, wal; from lastwords.upkeep import keeper
from lastwords.delivery.lease import Lease
journal, received, acks, how = sys.argv[1], sys.argv[2], sys.argv[3], json.loads(sys.argv[4])
keeper.CHECKPOINT_BYTES, keeper.TIDY_SECONDS, tidy.SHED_SPARES, tidy.PRUNE_ROWS = 30_000, 0.01, 5, 10

def die():
    os._exit(9) if how["by"] == "exit" else os.kill(os.getpid(), signal.SIGKILL)

hits = [0]
def hit():
    hits[0] += 1
    if hits[0] == how["nth"]:
        die()

if how["kind"] == "point":
    owner = importlib.import_module(how["module"])
    *path, name = how["attribute"].split(".")
    for part in path: owner = getattr(owner, part)
    real = getattr(owner, name)
    def wrapped(*a, **k):
        if how["when"] == "before": hit()
        result = real(*a, **k)
        if how["when"] == "after": hit()
        return result
    setattr(owner, name, wrapped)
elif how["kind"] == "statement":
    connect = sqlite3.connect
    class Killing(sqlite3.Connection):
        def execute(self, *a):
            hit()
            result = super().execute(*a)
            hit()
            return result
    store.sqlite3.connect = lambda *a, **k: connect(*a, factory=Killing, **k)

calls, down = [0], [False]
def deliver(entries):
    calls[0] += 1
    if calls[0] in (2, 3) or down[0]: raise ConnectionResetError
    bad = [e for e in entries if e.message.endswith("7")]
    with open(received, "a") as f:
        for e in entries:
            if e not in bad: f.write(f"{e.id} {e.message}\\n")
    if bad: raise Rejected("seven", entries=bad)

h = DurableHandler(deliver, journal, batch_size=5, sync_interval=0.01, retry_min=0.01, retry_max=0.02)
log = logging.Logger("s"); log.addHandler(h)
out = open(acks, "a")
def say(i):
    log.log(40 if i % 3 == 0 else 20, "m%d", i)
    out.write(f"m{i}\\n"); out.flush()
for i in range(60): say(i)
h.drain(30)
engine = h._engine
lease = Lease(journal); lease.take_over(); engine.journal.raise_fence(); lease.release()
engine.journal.retry_dead()
if os.fork() == 0: os._exit(0)
os.wait()
down[0] = True  # else all may be delivered before there is anything to shed
for i in range(60, 100): say(i)
tidy.shed(engine.store, 20_000)
down[0] = False
h.flush(); h.drain(30)
wal.checkpoint(engine.store, shrink=True)
time.sleep(0.1)
print("hits", hits[0], flush=True)
os._exit(0)
"""


def go_on(journal, received):
    """The next start, in this process: whatever is pending is delivered."""

    def deliver(entries):
        with open(received, "a") as f:
            f.writelines(f"{e.id} {e.message}\n" for e in entries)

    handler = DurableHandler(deliver, journal, batch_size=5)
    try:
        assert handler.drain(60), handler.stats()
    finally:
        handler.close()


def check(tmp_path):
    """What a kill left: nothing acknowledged is missing, ids are unique, the file is sound."""
    journal, received, acks = tmp_path / "j.db", tmp_path / "received", tmp_path / "acks"
    if not acks.exists():
        return  # killed before the first call returned
    go_on(journal, received)
    with sqlite3.connect(journal) as conn:
        assert conn.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        dropped, pending = conn.execute(
            "SELECT dropped, (SELECT coalesce(max(seq), 0) FROM entries) - consumed FROM cursor"
        ).fetchone()
        dead = {json.loads(p)["message"]: i for i, p in conn.execute("SELECT id, payload FROM dead_letters")}
    assert pending == 0
    lines = [line.split(" ", 1) for line in received.read_text().splitlines()]
    names = {}
    for id_, message in [*lines, *((i, m) for m, i in dead.items())]:
        assert names.setdefault(id_, message) == message
    missing = set(acks.read_text().split()) - {message for _, message in lines} - set(dead)
    assert len(missing) <= dropped
    # The batch in flight at the kill; a requeued dead letter is delivered by its redelivery.
    assert len(lines) - len({id_ for id_, _ in lines}) <= 10


def run(children, tmp_path, **how):
    args = (tmp_path / "j.db", tmp_path / "received", tmp_path / "acks", json.dumps(how))
    (tmp_path / "received").touch()
    out, err, _ = children.run(SERVICE, *args, check=None, timeout=60)
    return out, err


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("name", POINTS)
def test_a_kill_at_a_named_point(children, tmp_path, name, when):
    """The third time it is reached, or the first where it is reached once."""
    module, attribute = POINTS[name]
    once = name in {
        "migrate",
        "epoch",
        "takeover",
        "fence",
        "requeue",
        "tell of drops",
        "shed",
        "fork",
        "fail",
        "backfill",
    }
    by = "kill" if when == "before" else "exit"
    how = {"kind": "point", "module": module, "attribute": attribute, "when": when, "by": by}
    out, err = run(children, tmp_path, nth=1 if once else 3, **how)
    assert "Traceback" not in err, err  # it ended by the kill, not by a mistake of its own
    if name not in {"tell of drops", "commit of several"}:  # those depend on timing
        assert "hits" not in out, f"{name} was not reached: {out} {err}"
    check(tmp_path)


NTH = [1, 3, 7, 12, 18, 25, 33, 42, 60, 80, 110, 150, 200, 260, 330, 400, 480, 560, 640, 720]


@pytest.mark.parametrize(
    "nth", [*NTH[::4], *(pytest.param(nth, marks=pytest.mark.slow) for nth in NTH if nth not in NTH[::4])]
)
def test_a_kill_around_any_statement(children, tmp_path, nth):
    """Before or after the nth call into SQLite, of any thread."""
    run(children, tmp_path, kind="statement", nth=nth, by="kill")
    check(tmp_path)


MADE = """
import os, signal, sqlite3, sys
from lastwords import DurableHandler
nth, hits, connect = int(sys.argv[2]), [0], sqlite3.connect
def hit():
    hits[0] += 1
    if hits[0] == nth: os.kill(os.getpid(), signal.SIGKILL)
class Killing(sqlite3.Connection):
    def execute(self, *a):
        hit(); result = super().execute(*a); hit(); return result
sqlite3.connect = lambda *a, **k: connect(*a, factory=Killing, **k)
DurableHandler(None, sys.argv[1])
print(hits[0], flush=True)
os._exit(0)
"""


@pytest.fixture(scope="module")
def calls_of_making(tmp_path_factory):
    """How many calls into SQLite it takes to make a journal, with the point before and the point after each."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "made.py").write_text(MADE)
    made = [sys.executable, folder / "made.py", folder / "whole.db", "-1"]
    return int(subprocess.run(made, capture_output=True, check=True, timeout=60).stdout)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(24))
def test_a_kill_while_the_journal_is_made_leaves_one_that_opens(children, tmp_path, calls_of_making, part):
    """Half a schema is no other program's database, nor damage: for those who look, and for the next start."""
    path = tmp_path / "j.db"
    nth = 1 + part * (calls_of_making - 1) // 23
    children.run(MADE, path, nth, check=-9)
    said = cli.run("status", path).err
    assert not any(word in said for word in ("damage", "another program", "ids"))
    handler = DurableHandler(None, path)
    logger = logging.Logger("x")
    logger.addHandler(handler)
    logger.info("m")
    handler.close()
    with sqlite3.connect(path) as conn:
        assert [json.loads(p)["message"] for (p,) in conn.execute("SELECT payload FROM entries")] == ["m"]
        assert conn.execute("PRAGMA auto_vacuum").fetchone() == (2,)


@pytest.mark.slow
def test_the_service_reaches_its_end_without_a_kill(children, tmp_path):
    """The control: the points are there to be reached, and the check sees complete work."""
    out, err = run(children, tmp_path, kind="statement", nth=-1, by="kill")
    assert out.startswith("hits "), err
    assert int(out.split()[1]) > 720
    check(tmp_path)
    assert len((tmp_path / "acks").read_text().split()) == 100


@pytest.mark.slow
def test_settling_before_delivery_is_caught(children, tmp_path):
    """The control of the check: a wrong order of acceptance and mark loses what was in flight."""
    wrong = SERVICE.replace(
        "h = DurableHandler(",
        "from lastwords.delivery.loop import Delivery\n"
        "real_offer = Delivery._offer\n"
        "def first_settle(self, cursor, state, entries):\n"
        "    self._cursor = self.journal.settle(cursor, entries[-1].seq, len(entries))\n"
        "    self._call(entries)\n"
        "    from lastwords.delivery.marks import Did\n"
        "    return Did.PROGRESS\n"
        "Delivery._offer = first_settle\n"
        "h = DurableHandler(",
    )
    how = {
        "kind": "point",
        "module": "lastwords.journal.line",
        "attribute": "Line.settle",
        "when": "after",
        "nth": 3,
    }
    (tmp_path / "received").touch()
    args = (tmp_path / "j.db", tmp_path / "received", tmp_path / "acks", json.dumps({**how, "by": "kill"}))
    children.run(wrong, *args, check=None, timeout=60)
    with pytest.raises(AssertionError):
        check(tmp_path)
