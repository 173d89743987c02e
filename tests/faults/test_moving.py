"""Entries move from a removed or damaged file into the journal: in slices, past any kill, and nobody waits for them."""

import contextlib
import itertools
import json
import logging
import os
import sqlite3
import subprocess
import threading
import time
import types

import pytest

from journals import begin, remove
from lastwords import DurableHandler, JournalError
from lastwords.journal import salvage, set_aside, tidy, transfer, wal
from lastwords.journal.line import Burial, Line
from lastwords.journal.new_schema import PAGE_SIZE
from lastwords.journal.store import Store
from lastwords.upkeep import keeper, recovery, removed_file


@pytest.fixture
def slices(monkeypatch):
    """They are small, and the second one comes when the test sets ``go``; ``took``: the seconds of each."""
    real, found = transfer.Transfer.step, types.SimpleNamespace(took=[], go=threading.Event())

    def step(self, store):
        began = time.monotonic()
        time.sleep(0.02)  # with the lock held: what a gigabyte would take
        more = real(self, store)
        found.took.append(time.monotonic() - began)
        return more

    monkeypatch.setattr(transfer.Transfer, "step", step)
    monkeypatch.setattr(transfer, "FIRST_ROWS", 50)
    monkeypatch.setattr(transfer, "MOST_ROWS", 50)
    keep_up = keeper.Keeper._keep_up
    monkeypatch.setattr(keeper.Keeper, "_keep_up", lambda self, pause=0.001: (found.go.wait(60), keep_up(self, pause)))
    yield found
    found.go.set()


def messages(path):
    """Of all that is pending; the file may be renamed while it is opened, or not be there for a moment."""
    for _ in range(100):
        try:
            with Line.open(path) as journal:
                return [entry.message for entry in journal.entries()]
        except JournalError:
            time.sleep(0.05)
    raise AssertionError("it cannot be opened")


def lose(handler, how):
    """Remove the file, or say that it is damaged."""
    if how == "removed":
        remove(handler)
    else:
        handler._engine.store.damaged = "said by the test"
    handler._engine.keeper.nudge()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["removed", "damaged"])
@pytest.mark.parametrize("room", [True, False])
def test_what_is_logged_meanwhile_is_committed_at_once_and_comes_after(tmp_path, poll, slices, how, room, monkeypatch):
    """Control: without the newest entry, which keeps room for those before it, it comes in between."""
    path = str(tmp_path / "j.db")
    handler, log = begin(path)
    if not room:
        monkeypatch.setattr(transfer.Transfer, "_keep_room", lambda self, conn: 0)
    lose(handler, how)
    assert poll(lambda: handler._engine.keeper.moving, 30)
    count, worst = 1500, 0.0
    while handler._engine.keeper.moving:
        began = time.monotonic()
        log.info("m%d", count)
        worst = max(worst, time.monotonic() - began)
        assert handler.stats().buffered == 0
        assert f"m{count}" in messages(path) or not handler._engine.keeper.moving
        count += 1
        if count == 1505:
            slices.go.set()
        time.sleep(0.005)
    log.info("m%d", count)
    assert poll(lambda: handler.stats().pending == count + 1, 30)
    assert count >= 1505
    assert worst < sum(slices.took)
    found = messages(path)
    assert sorted(found, key=lambda m: int(m[1:])) == [f"m{i}" for i in range(count + 1)]
    assert (found == [f"m{i}" for i in range(count + 1)]) is room
    handler.close()


KILLED = """
import logging, os, signal, sys, time
from lastwords import DurableHandler
path, how = sys.argv[1:]
from lastwords.journal import transfer
from lastwords.upkeep import keeper
transfer.FIRST_ROWS = transfer.MOST_ROWS = 20
keeper.Keeper._keep_up = lambda self, seconds: time.sleep(60)  # between two slices, until the kill
handler = DurableHandler(None, path, sync_interval=0.05); log = logging.Logger("x"); log.addHandler(handler)
for i in range(1500): log.info("m%d", i)
if how == "removed":
    with handler._engine.store.lock:  # at once, as far as the keeper can tell
        for suffix in ("-wal", "-shm", ".commit", ""): os.unlink(path + suffix)
else:
    handler._engine.store.damaged = "said by the test"
handler._engine.keeper.nudge()
while not handler._engine.keeper.moving: time.sleep(0.001)
for i in range(100): log.error("late%d", i)
assert handler._engine.keeper.moving
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["removed", "damaged"])
def test_what_was_acknowledged_amid_it_survives_a_kill(children, tmp_path, how):
    """Acknowledged means journaled, also then. And nothing stays pending that is nowhere any more."""
    path = tmp_path / "j.db"
    children.run(KILLED, path, how, check=-9)
    got = []
    handler = DurableHandler(got.extend, path)
    assert handler.drain(60)
    assert handler.stats().pending == 0
    handler.close()
    names = [entry.message for entry in got]
    assert len(names) == len(set(names))
    assert {f"late{i}" for i in range(100)} <= set(names)
    if how == "damaged":
        assert names == [*(f"m{i}" for i in range(1500)), *(f"late{i}" for i in range(100))]


SIDE = {
    "-wal unlinked": lambda path: os.unlink(path + "-wal"),
    "-wal renamed": lambda path: os.rename(path + "-wal", path + "-wal.old"),
    "-shm unlinked": lambda path: os.unlink(path + "-shm"),
    "both replaced": lambda path: [os.unlink(path + s) or open(path + s, "x").close() for s in ("-wal", "-shm")],
    "main file cut": lambda path: os.truncate(path, 0),
    "-wal cut to nothing": lambda path: os.truncate(path + "-wal", 0),
    "-wal cut to a part": lambda path: os.truncate(path + "-wal", os.path.getsize(path + "-wal") // 2),
    "-wal cut in its last frame": lambda path: os.truncate(path + "-wal", os.path.getsize(path + "-wal") - 4_110),
    "-wal overwritten": lambda path: overwrite(path + "-wal"),
}


def overwrite(path):
    """With zeros, in place."""
    with open(path, "r+b") as file:
        file.write(bytes(os.path.getsize(path)))


@pytest.mark.parametrize("level", ["INFO", "ERROR"])
@pytest.mark.parametrize("how", SIDE)
def test_a_side_file_that_is_gone_is_noticed_like_a_removed_file(tmp_path, poll, capfd, how, level):
    """Another process would not see what is committed, nor a later one: all of it goes into a sound file."""
    path = str(tmp_path / "j.db")
    handler, log = begin(path, 30)
    number = getattr(logging, level)
    with handler._engine.store.lock:  # at once, as far as the keeper can tell
        SIDE[how](path)
    log.log(number, "m30")
    said = []
    copied = "pending records were copied"  # 30 or 31 of them: the keeper may be faster than the next record
    # Less than a block is missing: no stat tells. The keeper's look does, which is a minute away once all is synced.
    seconds = 75 if how == "-wal cut in its last frame" else 30
    assert poll(lambda: said.append(capfd.readouterr().err) or copied in "".join(said), seconds), said
    log.log(number, "m31")
    assert messages(path) == [f"m{i}" for i in range(32)]
    assert poll(lambda: handler.stats().pending == 32)  # the file that was set aside is searched, too
    handler.close()
    assert messages(path) == [f"m{i}" for i in range(32)]


@pytest.mark.slow
def test_what_is_still_to_be_moved_is_pending(tmp_path, poll, slices):
    """For stats and for drain, which must not say that all was settled."""
    handler, _ = begin(str(tmp_path / "j.db"))
    lose(handler, "removed")
    assert poll(lambda: handler._engine.keeper.moving, 30)
    assert handler.stats().pending == 1500
    assert not handler.drain(0.01)
    slices.go.set()
    handler.close()
    assert len(messages(handler.journal)) == 1500


@pytest.mark.parametrize("noted", [True, False])
def test_what_one_process_has_moved_and_delivered_another_does_not_move_again(tmp_path, noted, monkeypatch):
    """It was pruned meanwhile, so its id is not there to be seen. Control: without the note of how far the first was."""
    path = str(tmp_path / "j.db")
    handler, log = begin(path, 200)
    handler._engine.keeper.stop()
    assert handler._engine.keeper.join(10)
    other = Store(path)
    lose(handler, "removed")
    handler._engine.keeper.move()
    journal = handler._engine.journal
    log.info("after")
    journal.settle(journal.cursor(), 200, 200)
    assert tidy.prune_slice(handler._engine.store, 0.0, 1000) == 200
    if not noted:
        monkeypatch.setattr(transfer.Rescue, "_noted", lambda self, conn: (self.at, self._dead_at))
    with other.lock:
        assert removed_file.begin(other) is not None
    again = [] if noted else [f"m{i}" for i in range(199)]  # the newest is noted, too: as the one that keeps room
    assert messages(path) == ["after", *again]
    other.close()
    handler.close()


@pytest.mark.slow
@pytest.mark.parametrize("checked", [True, False])
def test_nothing_is_delivered_from_a_file_that_is_not_the_journal(tmp_path, poll, monkeypatch, checked):
    """Its marks would count for nobody, and another process delivers the same. Control: without the look."""
    path = str(tmp_path / "j.db")
    got = []
    handler = DurableHandler(got.extend, path, sync_interval=0.05)
    log = logging.Logger("x")
    log.addHandler(handler)
    log.info("a")
    assert handler.drain(60)
    assert poll(lambda: handler._engine.courier.asleep)  # else it may have looked just before, and read just after
    with monkeypatch.context() as patched:
        patched.setattr(recovery.removed_file, "begin", lambda *_: None)  # the keeper is late
        delivery, looks = handler._engine.courier.delivery, []
        look = delivery.check if checked else lambda: None
        delivery.check = lambda: (looks.append(True), look())
        os.unlink(path)
        log.info("b")
        assert poll(lambda: len(looks) > 1 if checked else len(got) > 1)
        assert ([entry.message for entry in got] == ["a"]) is checked
    handler.flush()
    assert poll(lambda: [entry.message for entry in got] == ["a", "b"], 30)
    handler.close()


def test_a_handler_that_is_closed_when_its_journal_was_removed_delivers_all_the_same(tmp_path):
    """Out of the file that is there now."""
    got = []
    handler = DurableHandler(got.extend, str(tmp_path / "j.db"), linger=0.5)
    log = logging.Logger("x")
    log.addHandler(handler)
    for i in range(5):
        log.info("m%d", i)
    lose(handler, "removed")
    handler.close()
    assert [entry.message for entry in got] == [f"m{i}" for i in range(5)]


def test_a_buried_entry_that_is_no_text_is_rescued_too(tmp_path, poll):
    """A flipped bit made its payload no UTF-8, so it was buried; then somebody removed the journal."""
    path = str(tmp_path / "j.db")
    handler = DurableHandler(lambda entries: None, path, sync_interval=0.05)
    log = logging.Logger("x")
    log.addHandler(handler)
    handler._engine.courier.delivery.target.deliver = lambda entries: (_ for _ in ()).throw(ConnectionError())
    log.info("whole")
    with handler._engine.store.lock, handler._engine.store.writing() as conn:
        conn.execute("UPDATE entries SET payload = CAST(x'7bff' AS TEXT)")
    del handler._engine.courier.delivery.target.deliver
    handler.flush()
    assert poll(lambda: handler.stats().dead == 1, 30)
    lose(handler, "removed")
    assert poll(lambda: os.path.exists(path), 30)
    assert poll(lambda: handler.stats().dead == 1, 30)
    log.info("after")
    assert handler.drain(60)
    with sqlite3.connect(path) as conn:
        assert conn.execute("SELECT CAST(payload AS BLOB), typeof(payload) FROM dead_letters").fetchall() == [
            (b"{\xff", "text")
        ]
    handler.close()


def test_dead_letters_and_ids_of_many_slices_come_along(tmp_path, monkeypatch):
    """Each once, as text; and what others have moved is looked at in slices, too."""
    monkeypatch.setattr(transfer, "FIRST_ROWS", 7)
    monkeypatch.setattr(transfer, "MOST_ROWS", 7)
    monkeypatch.setattr(transfer, "LOOK_ROWS", 11)
    path = str(tmp_path / "j.db")
    handler, _ = begin(path, 100)
    handler._engine.keeper.stop()
    assert handler._engine.keeper.join(10)
    journal = handler._engine.journal
    burials = [Burial(seq, "no", None, 1, None) for seq in range(1, 31)]
    journal.mark(journal.cursor(), upto=30, delivered=0, buried=burials, attempts=0, probe=0)
    expected = [row.id for row in journal.read(30, 200)]
    lose(handler, "removed")
    first = Store(path)  # another process had them, too
    with first.lock, first.writing() as conn:
        conn.executemany("INSERT INTO entries (created, level, payload, checksum, id) VALUES (1.0, 20, '{}', 0, ?)",
                         [(id_,) for id_ in expected[:40]])  # fmt: skip
    first.close()
    handler._engine.keeper.move()
    assert [row.id for row in journal.read(0, 200)] == expected
    assert journal.stats().dead == len(list(journal.dead_letters())) == 30
    with sqlite3.connect(path) as conn:
        assert conn.execute("SELECT DISTINCT typeof(payload) FROM dead_letters").fetchall() == [("text",)]
    handler.close()


@pytest.mark.slow
def test_a_removed_file_that_is_damaged_as_well(tmp_path, capfd):
    """What can be read comes along, and the new file, which is whole, is not set aside for it."""
    path = str(tmp_path / "j.db")
    handler, _ = begin(path, 3000)
    handler._engine.keeper.stop()
    assert handler._engine.keeper.join(10)
    wal.checkpoint(handler._engine.store, shrink=True)
    pages = os.path.getsize(path) // PAGE_SIZE
    with open(path, "r+b") as f:
        for page in (pages // 3, pages // 2):
            f.seek(page * PAGE_SIZE)
            f.write(b"\xff" * PAGE_SIZE)
    lose(handler, "removed")
    with handler._engine.store.lock:
        handler._engine.store._conn.execute("PRAGMA shrink_memory")  # else it has not to read them
    handler._engine.keeper.move()
    left = handler.stats().pending
    assert 2900 < left < 3000
    assert f"{left:,} pending records were copied into the file that is there now, {3000 - left} could not be read" in (
        capfd.readouterr().err
    )
    assert handler._engine.store.damaged is None
    handler.close()


AMID = """
import logging, os, sys, time
from lastwords import DurableHandler; from lastwords.journal.line import Line; from lastwords.journal import set_aside, transfer, wal; from lastwords.upkeep import recovery, removed_file, keeper
path, how = sys.argv[1:]
transfer.FIRST_ROWS = transfer.MOST_ROWS = 50
real = transfer.Transfer.step
def step(self, store):
    time.sleep(0.02)
    return real(self, store)
transfer.Transfer.step = step
handler = DurableHandler(None, path, sync_interval=0.05); log = logging.Logger("x"); log.addHandler(handler)
for i in range(1500): log.info("m%d", i)
with handler._engine.store.lock:  # at once, as far as the keeper can tell
    for suffix in ("", "-wal", "-shm", ".commit"): os.unlink(path + suffix)
handler._engine.keeper.nudge()
while not handler._engine.keeper.moving: time.sleep(0.001)
log.info("m1500")
if how == "exit":
    sys.exit()
if how == "close":
    handler.close(); os._exit(0)
pid = os.fork()
log.info("m1502" if pid else "m1501")
if pid == 0:
    os._exit(0)
os.waitpid(pid, 0)
handler.close()
os._exit(0)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["exit", "close", "fork"])
def test_an_end_amid_it(tmp_path, children, how):
    """The old connection dies with the process, or is closed by the fork: all is moved before that."""
    children.run(AMID, tmp_path / "j.db", how)
    found = messages(tmp_path / "j.db")
    last = 1502 if how == "fork" else 1500
    assert sorted(found, key=lambda m: int(m[1:])) == [f"m{i}" for i in range(last + 1)]


# --- kills amid a salvage -----------------------------------------------------------------------------

DAMAGED = """
import json, logging, os, signal, sqlite3, sys, time
from lastwords import DurableHandler; from lastwords.journal.line import Line; from lastwords.journal import store, transfer
path, ids, nth = sys.argv[1], sys.argv[2], int(sys.argv[3])
transfer.FIRST_ROWS = transfer.MOST_ROWS = 40; transfer.AIM_SECONDS = 1e6  # however busy the machine is: as many points
hits, armed = [0], [False]
def hit(*_):
    if armed[0]:
        hits[0] += 1
        if hits[0] == nth: os.kill(os.getpid(), signal.SIGKILL)
connect = sqlite3.connect
class Killing(sqlite3.Connection):
    def execute(self, *a):
        hit(); result = super().execute(*a); hit(); return result
    def executemany(self, *a):
        hit(); result = super().executemany(*a); hit(); return result
sqlite3.connect = lambda *a, **k: connect(*a, factory=Killing, **k)
handler = DurableHandler(None, path, sync_interval=0.05); log = logging.Logger("x"); log.addHandler(handler)
for i in range(150): log.info("m%d", i)
engine = handler._engine
from lastwords.journal import wal; wal.checkpoint(engine.store, shrink=True)
for i in range(150, 250): log.info("m%d", i)  # these are in the -wal
engine.journal.settle(engine.journal.cursor(), 20, 20)
with open(ids, "w") as f:
    json.dump([[row.id, json.loads(row.payload)["message"]] for row in engine.journal.read(20, 500)], f)
engine.keeper.stop(); engine.keeper.join(5)
other = connect(path); other.execute("SELECT * FROM cursor").fetchall()  # else the -wal goes when the file is closed
changes = {"open", "os.rename", "os.remove", "os.truncate"}
folder = os.path.dirname(path)  # whatever Python opens elsewhere, to import: that is another number in each run
sys.addaudithook(lambda event, args: hit() if event in changes and folder in str(args[0]) else None)
engine.store.damaged = "said by the test"
armed[0] = True
engine.keeper.tick()
armed[0] = False
assert engine.store.damaged is None and not engine.keeper.moving
print(hits[0], flush=True)
os._exit(0)
"""


@pytest.fixture(scope="module")
def total(tmp_path_factory):
    """How many points there are."""
    from conftest import Children

    children = Children(tmp_path_factory.mktemp("total"))
    out, _, _ = children.run(DAMAGED, children.folder / "j.db", children.folder / "ids", -1)
    assert int(out) > 60
    return int(out)


def kill_and_go_on(children, tmp_path, nth):
    """What there was, and what the next start delivers: that of this process."""
    out, err, _ = children.run(DAMAGED, tmp_path / "j.db", tmp_path / "ids", nth, check=None)
    assert "Traceback" not in err
    assert not out or int(out) < nth  # it was killed, or, once in a while, there is a point less than in `total`
    expected, got = json.loads((tmp_path / "ids").read_text()), []
    assert len(expected) == 230
    handler = DurableHandler(got.extend, tmp_path / "j.db")
    assert handler.drain(60), handler.stats()
    handler.close()
    return expected, [[entry.id, entry.message] for entry in got]


@pytest.mark.slow
@pytest.mark.parametrize("part", range(40))
def test_a_kill_anywhere_in_a_salvage_loses_nothing(children, tmp_path, total, part):
    """Between any two renames, statements, or files opened; nothing twice either, for nothing was delivered yet."""
    nth = 1 + part * (total - 1) // 39
    expected, received = kill_and_go_on(children, tmp_path, nth)
    assert received == expected
    names = [p for p in tmp_path.iterdir() if p.name.endswith(".salvage")]
    assert len(names) <= 1  # it goes at a look a minute later
    for name in names:
        os.utime(name, (0, 0))
    handler, _ = begin(tmp_path / "j.db", 0)
    assert handler.stats().pending == 0
    handler.close()
    assert not any(name.exists() for name in names)


@pytest.mark.slow
def test_without_the_marker_it_would_be_lost(children, tmp_path, total, monkeypatch):
    """The control."""
    monkeypatch.setattr(set_aside, "unfinished", lambda path: [])
    _, received = kill_and_go_on(children, tmp_path, total // 2)
    assert len(received) < 230


@pytest.mark.slow
def test_a_process_that_has_the_journal_open_goes_on_with_it(children, tmp_path, poll, total):
    """It finds the file replaced, or gone, and what is set aside not salvaged."""
    handler, log = begin(tmp_path / "j.db", 0)
    children.run(DAMAGED, tmp_path / "j.db", tmp_path / "ids", total // 2, check=-9)
    expected = {message for _, message in json.loads((tmp_path / "ids").read_text())}
    log.error("after")
    assert poll(lambda: set(messages(tmp_path / "j.db")) >= {"after", *expected}, 30)
    found = messages(tmp_path / "j.db")
    assert len(found) == len(set(found))
    handler.close()


WRITES_ON = """
import logging, os, signal, sys
from lastwords import DurableHandler; from lastwords.upkeep import recovery
recovery.Mover.run = lambda *_, **__: None  # it has not noticed yet
handler = DurableHandler(None, sys.argv[1]); log = logging.Logger("x"); log.addHandler(handler)
log.error("early")
print("ready", flush=True)
sys.stdin.readline()
log.error("late")
print("acknowledged", flush=True)
if sys.argv[2] == "killed": os.kill(os.getpid(), signal.SIGKILL)
sys.stdin.readline()
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["killed", "alive"])
def test_what_a_sibling_still_wrote_to_the_damaged_file_before_it_was_killed(
    children, tmp_path, poll, how, monkeypatch
):
    """Its commit went into a file that was set aside already: found by the second look, and by nobody twice."""
    real, passed = recovery.monotonic, [0.0]
    monkeypatch.setattr(recovery, "monotonic", lambda: real() + passed[0])
    path = tmp_path / "j.db"
    writer = children.start(WRITES_ON, path, how, stdin=subprocess.PIPE)
    assert writer.stdout.readline() == b"ready\n"
    handler, log = begin(path, 5)
    assert handler.stats().pending == 6
    handler._engine.store.damaged = "said by the test"
    handler._engine.keeper.nudge()
    assert poll(lambda: list(tmp_path.glob("*.salvage")), 30)
    assert poll(lambda: set(messages(path)) == {"early", *(f"m{i}" for i in range(5))}, 30)
    writer.stdin.write(b"go\n")
    writer.stdin.flush()
    assert writer.stdout.readline() == b"acknowledged\n"
    if how == "killed":
        assert writer.wait(60) == -9
    assert poll(lambda: handler._engine.keeper._mover._look_again_at < float("inf")), "it knows when"
    for marker in tmp_path.glob("*.salvage"):  # a minute passes
        os.utime(marker, (0, 0))
    passed[0] = set_aside.LATE_SECONDS + 1
    log.info("after")  # or the keeper would look in a minute
    assert poll(lambda: "late" in messages(path))
    assert sorted(messages(path)) == sorted(["early", "late", "after", *(f"m{i}" for i in range(5))])

    def is_done():  # a keeper without anything to do looks once a minute
        handler._engine.keeper.nudge()
        return not list(tmp_path.glob("*.salvage"))

    assert poll(is_done)
    handler.close()


@pytest.mark.parametrize("is_whole", [True, False])
def test_the_pages_of_a_file_that_reads_are_searched_at_no_look(tmp_path, monkeypatch, is_whole):
    """It was only said to be damaged: SQLite reads it in a fifteenth of the time. The control: an entry is missing."""
    handler, _ = begin(str(tmp_path / "j.db"), 3)
    handler._engine.keeper.stop()
    assert handler._engine.keeper.join(10)
    store, searched, real = handler._engine.store, [], salvage.RawRows
    if not is_whole:
        with store.lock, store.writing() as conn:
            conn.execute("DELETE FROM entries WHERE seq = 2")
    monkeypatch.setattr(salvage, "RawRows", lambda *args: searched.append(args) or real(*args))
    store.damaged = "said by the test"
    handler._engine.keeper.tick()
    handler._engine.keeper._mover.expect()  # a minute later
    handler._engine.keeper.move()
    assert len(searched) == (0 if is_whole else 2)
    handler.close()


def test_what_came_through_the_connection_is_not_searched_for_in_the_pages(tmp_path, monkeypatch):
    """An older cursor is found there: what was delivered since would come again."""
    handler, _ = begin(path := str(tmp_path / "j.db"), 3)
    handler._engine.keeper.stop()
    assert handler._engine.keeper.join(10)
    searched, real = [], salvage.RawRows
    monkeypatch.setattr(salvage, "RawRows", lambda *args: searched.append(args) or real(*args))
    SIDE["-wal overwritten"](path)
    handler._engine.keeper.move()
    assert list(tmp_path.glob("j.db.damaged-*"))
    assert searched == []
    assert messages(path) == ["m0", "m1", "m2"]
    handler.close()


def test_a_second_look_brings_no_dead_letter_back(tmp_path, monkeypatch):
    """Somebody dropped it meanwhile."""
    path = str(tmp_path / "j.db")
    handler, _ = begin(path, 3)
    handler._engine.keeper.stop()
    assert handler._engine.keeper.join(10)
    journal = handler._engine.journal
    journal.mark(journal.cursor(), upto=1, delivered=0, buried=[Burial(1, "no", None, 1, None)])
    handler._engine.store.damaged = "said by the test"
    assert handler._engine.keeper.tick() is not None
    assert (handler.stats().dead, handler.stats().pending) == (1, 2)
    assert journal.drop_dead() == 1
    monkeypatch.setattr(set_aside, "LATE_SECONDS", 0.0)
    handler._engine.keeper._mover.expect()
    handler._engine.keeper.move()
    assert (handler.stats().dead, handler.stats().pending) == (0, 2)
    assert not list(tmp_path.glob("*.salvage"))
    handler.close()


@pytest.mark.slow
@pytest.mark.parametrize("carried", [True, False])
def test_a_journal_that_is_damaged_again_and_again(tmp_path, monkeypatch, carried):
    """Within a minute, so that all of them are looked at once more: none of what they held comes twice.

    Control: without the notes of what was moved from the older ones.
    """
    if not carried:
        monkeypatch.setattr(transfer.Transfer, "_carry_notes", lambda *_: None)
    path = str(tmp_path / "j.db")
    handler, log = begin(path, 3)
    engine = handler._engine
    engine.keeper.stop()
    assert engine.keeper.join(10)
    twice = -3  # those of the beginning
    for i in range(3, 15):
        log.info("m%d", i)
        engine.store.damaged = "said by the test"
        engine.keeper.tick()
        pending = len(engine.journal.read(engine.journal.cursor().settled, 100))
        twice += pending - 1
        engine.journal.settle(engine.journal.cursor(), engine.journal.newest_seq(), pending)
        log.info("the newest row is not pruned")
        engine.journal.settle(engine.journal.cursor(), engine.journal.newest_seq(), 1)
        assert tidy.prune_slice(engine.store, 0.0) > 0
    names = set_aside.unfinished(path)
    assert len(names) == 12
    assert names == sorted(names, key=lambda name: os.stat(name + ".salvage").st_mtime_ns)
    assert (twice == 0) is carried
    monkeypatch.setattr(set_aside, "LATE_SECONDS", 0.0)
    engine.keeper._mover.expect()
    engine.keeper.move()
    assert not engine.journal.has_pending()
    assert set_aside.unfinished(path) == []
    handler.close()


@pytest.mark.parametrize("turns", ["01", "0" + "1" * 20, "1" + "0" * 20, "001", "011"])  # who has the last slice
def test_two_processes_at_the_same_damaged_file_share_the_work(tmp_path, monkeypatch, capfd, turns):
    """A slice in turn, until either has the last: nothing comes twice, and both say what was salvaged in all."""
    path = str(tmp_path / "j.db")
    handler, _ = begin(path, 400)
    engine = handler._engine
    engine.keeper.stop()
    assert engine.keeper.join(10)
    monkeypatch.setattr(transfer, "MOST_ROWS", 50)
    monkeypatch.setattr(transfer, "FIRST_ROWS", 50)
    set_aside.set_aside(path, engine.store.identity, "said by the test", engine.store.epochs)
    stores = [Store(path) for _ in range(2)]
    movers = [recovery.Mover(store) for store in stores]
    left = [True, True]
    for turn in itertools.islice(itertools.cycle(map(int, turns)), 1_000):
        left[turn] = left[turn] and movers[turn].step(None)
        seqs = [row[0] for row in stores[0].connection().execute("SELECT seq FROM entries")]
        assert len(seqs) == len(set(seqs))
        if not any(left):
            break
    assert messages(path) == [f"m{i}" for i in range(400)]
    said = [line for line in capfd.readouterr().err.splitlines() if "records were salvaged" in line]
    assert len(said) == 2
    assert all("; 400 pending records were salvaged, 0 could not be read" in line for line in said)
    for store in stores:
        store.close()
    handler.close()


@pytest.mark.slow
def test_doctor_says_that_a_salvage_is_not_done(children, tmp_path, total):
    """And the marker is no journal, nor a second predecessor."""
    from click.testing import CliRunner

    from lastwords.cli.main import cli

    children.run(DAMAGED, tmp_path / "j.db", tmp_path / "ids", total // 2, check=-9)
    done = CliRunner().invoke(cli, ["doctor", str(tmp_path / "j.db")])
    assert "goes on with it" in done.output
    (state,) = json.loads(CliRunner().invoke(cli, ["status", "--json", str(tmp_path / "j.db")]).output)
    (name,) = state["set_aside"]
    assert not name.endswith(".salvage")
    os.utime(name + ".salvage", (0, 0))
    handler, _ = begin(tmp_path / "j.db", 0)
    handler.close()
    assert "says what was salvaged of it" in CliRunner().invoke(cli, ["doctor", str(tmp_path / "j.db")]).output


def test_a_forged_marker_moves_no_file(tmp_path):
    """It is input: of another inode, no JSON at all, a link, or of a file that is not there."""
    path = str(tmp_path / "j.db")
    begin(path, 3)[0].close()
    secret = tmp_path / "secret"
    secret.write_text("inode")
    for i, text in enumerate(['{"inode": 1, "reason": "x"}', "", "[" * 9_000, '{"inode": "x"}', "{}"]):
        (tmp_path / f"j.db.damaged-{i}.salvage").write_text(text)
    (tmp_path / "j.db.damaged-5.salvage").symlink_to(secret)
    (tmp_path / "j.db.damaged-6").symlink_to(secret)
    (tmp_path / "j.db.damaged-6.salvage").write_text('{"inode": 1, "reason": "x"}')
    handler, log = begin(path, 0)
    log.info("after")
    handler.close()
    assert messages(path) == ["m0", "m1", "m2", "after"]
    assert secret.read_text() == "inode"


@pytest.mark.slow
@pytest.mark.parametrize("waits", [True, False])
def test_a_fork_waits_for_what_is_read_of_the_old_file(tmp_path, monkeypatch, waits):
    """SQLite's mutexes may be taken then, and nobody would give them back in the child. Control: no lock is held."""
    handler, _ = begin(str(tmp_path / "j.db"), 50)
    engine = handler._engine
    engine.keeper.stop()
    assert engine.keeper.join(10)
    reading, may_end = threading.Event(), threading.Event()
    fetch = transfer.Transfer.fetch

    def slow(self):
        reading.set()
        may_end.wait(1.0 if waits else 60)  # so long the fork below has to wait
        fetch(self)
        ended.append(True)

    ended = []
    monkeypatch.setattr(transfer.Transfer, "fetch", slow)
    monkeypatch.setattr(transfer, "FIRST_ROWS", 20)
    mover = engine.keeper._mover
    if not waits:
        mover._forks = types.SimpleNamespace(fork_lock=contextlib.nullcontext())
    remove(handler)
    mover.step(None)
    thread = threading.Thread(target=mover.step, args=(None,))
    thread.start()
    assert reading.wait(60)
    monkeypatch.setattr(transfer.Transfer, "fetch", fetch)  # the fork finishes the move
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    assert bool(ended) is waits
    may_end.set()
    assert os.waitpid(pid, 0)[1] == 0
    thread.join(60)
    handler.close()
    assert sorted(messages(handler.journal)) == sorted(f"m{i}" for i in range(50))
