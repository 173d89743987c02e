"""Descriptors closed by somebody: nothing of ours goes to a number that is not ours, and records are committed."""

import json
import os
import sqlite3
import subprocess

import pytest

from lastwords import Journal
from lastwords.journal.line import Line
from lastwords.journal.sqlite_files import SqliteFiles, open_numbers
from lastwords.journal.store import Store
from lastwords.runtime import descriptor as descriptor_module
from lastwords.runtime.descriptor import Descriptor

SERVICE = """
import json, logging, os, sys, time
from lastwords import DurableHandler, Journal
path, folder, out = sys.argv[1], sys.argv[2], sys.argv[3]
def deliver(entries):
    with open(out, "a") as f:
        f.writelines(e.message + "\\n" for e in entries)
handler = DurableHandler(deliver, path, drain_timeout=2)
log = logging.Logger("t"); log.addHandler(handler)
def number(suffix):
    store = handler._engine.store
    return store.commit_lock._fd if suffix == ".commit" else store.sqlite_files._all[suffix].number
theirs = {}
def reuse(at):
    fd = os.open(f"{folder}/theirs-{len(theirs)}", os.O_RDWR | os.O_CREAT)
    if at is not None:
        os.dup2(fd, at)
        os.close(fd)
    theirs[fd if at is None else at] = f"{folder}/theirs-{len(theirs)}"
def unharmed():
    return all(os.path.samestat(os.fstat(n), os.stat(p)) and not os.path.getsize(p) for n, p in theirs.items())
for i in range(6):
    log.info("m%d", i)
handler.drain(60)
"""
MORE = """
for i in range(6, 12):
    log.info("m%d", i)
log.error("m12")
"""
SAY = "print(json.dumps([handler.drain(60), handler.stats().buffered, unharmed()]), flush=True)\n"
AT_EXIT = """
import atexit
@atexit.register  # after ours, which was registered later
def look():
    print(json.dumps(unharmed()), flush=True)
"""


def everything(path):
    with Journal(path) as journal:
        return [entry.message for entry in journal.entries()]


def run(children, tmp_path, happens, then=MORE + SAY):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    code = SERVICE + AT_EXIT + happens + then
    out, err, _ = children.run(code, tmp_path / "j.db", theirs, tmp_path / "out")
    assert [p for p in theirs.iterdir() if p.stat().st_size] == [], "nothing of ours is in their files"
    return [json.loads(line) for line in out.splitlines()], err


HAPPENS = {
    "all closed": "os.closerange(3, 512)",
    "all closed, the numbers used": "os.closerange(3, 512)\nfor _ in range(40): reuse(None)",
    "-wal closed": "os.close(number('-wal'))",
    "-wal used": "reuse(number('-wal'))",
    "-shm closed": "os.close(number('-shm'))",
    "-shm used": "reuse(number('-shm'))",
    "main file closed": "os.close(number(''))",
    "main file used": "reuse(number(''))",
    ".commit used": "log.error('m5a')\nreuse(number('.commit'))",
    "all closed, all numbers used": "os.closerange(3, 512)\nfor _ in range(200): reuse(None)",
    "main file and -wal used": "reuse(number(''))\nreuse(number('-wal'))",
}


QUICK = ("all closed", "all closed, the numbers used", "-wal used", "-shm used")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in HAPPENS]
)
def test_what_was_closed_is_opened_again_and_what_is_used_is_left_alone(children, tmp_path, name):
    """All is committed at once, and delivered; neither a file nor a descriptor of the program's own suffers."""
    (said, at_exit), err = run(children, tmp_path, HAPPENS[name])
    assert said == [True, 0, True]
    assert at_exit is True
    delivered = (tmp_path / "out").read_text().split()
    assert [m for m in delivered if m != "m5a"] == [f"m{i}" for i in range(13)]
    assert err.count("has closed descriptors") == (name != ".commit used")


ALONE = """
import json, logging, os, socket, sys
from lastwords import DurableHandler
handler = DurableHandler(None, sys.argv[1])
log = logging.Logger("t"); log.addHandler(handler)
store, said, taken = handler._engine.store, 0, False
while not taken and said < 10_000:
    log.info("m%d", said)
    with store.lock:  # not while the keeper lets the snapshot go
        said += 1
        if store.snapshot.is_held:
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            theirs.setblocking(False)
            os.dup2(ours.fileno(), store.sqlite_files._all[sys.argv[2]].number)
            log.info("m%d", said)
            taken = True
log.info("m%d", said + 1)
try:
    got = len(theirs.recv(100))
except BlockingIOError:
    got = 0
print(json.dumps([taken, handler.stats().buffered, got, said + 2]))
"""


@pytest.mark.parametrize("suffix", ["", pytest.param("-wal", marks=pytest.mark.slow)])
def test_a_socket_that_does_not_block_gets_nothing(children, tmp_path, suffix):
    """It has the bit by which the quick look knows what is ours; SQLite cannot write to it, and the long way looks."""
    out, _, _ = children.run(ALONE, tmp_path / "j.db", suffix)
    *said, records = json.loads(out)
    assert said == [True, 0, 0]
    assert everything(tmp_path / "j.db") == [f"m{i}" for i in range(records)]


@pytest.mark.slow
def test_a_fork_and_a_close_after_everything_was_used(children, tmp_path):
    """Neither closes what is not ours."""
    happens = "os.closerange(3, 512)\nfor _ in range(200): reuse(None)\n"
    then = """
pid = os.fork()
if not pid:
    print(json.dumps(unharmed()), flush=True)
    os._exit(0)
os.waitpid(pid, 0)
handler.close()
print(json.dumps(unharmed()), flush=True)
"""
    said, _ = run(children, tmp_path, happens, then)
    assert said == [True, True, True]


@pytest.mark.parametrize("suffix", ["", *(pytest.param(suffix, marks=pytest.mark.slow) for suffix in ("-wal", "-shm"))])
def test_an_end_right_after_it(children, tmp_path, suffix):
    """The interpreter's end closes every connection that is left, and would write the -wal into the main file."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    code = SERVICE + f"import atexit\natexit.register(lambda: print(unharmed()))\nreuse(number({suffix!r}))\n"
    out, _, seconds = children.run(code, tmp_path / "j.db", folder, tmp_path / "out")
    assert out == "True\n"
    assert [p.stat().st_size for p in folder.iterdir()] == [0]


@pytest.mark.slow
def test_records_wait_in_memory_while_nothing_can_be_committed(children, tmp_path):
    """All connections of a process share the -shm, and the file is too large to be copied in a caller.

    Once its number is free, all is committed.
    """
    happens = "from lastwords.journal import renewed_file\nrenewed_file.MOST_BYTES = 0\n"
    happens += "at = number('-shm')\nreuse(at)\n"
    then = """
log.info("m6")
print(json.dumps([handler._engine.committer.buffered, unharmed()]), flush=True)
theirs.clear()
os.close(at)
handler._engine.keeper.nudge()
print(json.dumps(handler.drain(60)), flush=True)
"""
    said, err = run(children, tmp_path, happens, then)
    assert said == [[1, True], True, True]
    assert everything(tmp_path / "j.db") == [] or "m6" in (tmp_path / "out").read_text().split()
    assert "uses their numbers for files of its own" in err


@pytest.mark.parametrize("at", ["rename", "remove_side_files"])
def test_a_kill_while_the_file_is_copied_loses_nothing(children, tmp_path, at):
    """Neither before the copy is put in place nor after it, while the frames that it has lie beside it."""
    happens = (
        "from lastwords.journal import renewed_file\n"
        f"owner = renewed_file.os if {at!r} == 'rename' else renewed_file.files\n"
        f"setattr(owner, {at!r}, lambda *_: os._exit(0))\n"
        "reuse(number('-shm'))\nlog.info('m6')\n"
    )
    run(children, tmp_path, happens, "os._exit(1)\n")
    with Line.open(tmp_path / "j.db") as journal:
        rows = journal.entries(pending=True, settled=True)
        assert [entry.message for entry in rows] == [f"m{i}" for i in range(6)]
        ids = [entry.id for entry in journal.entries(pending=True, settled=True)]
        assert len({id_.split("-")[0] for id_ in ids}) == 1, "they keep their ids"


def test_the_file_of_another_process_is_not_copied(children, tmp_path):
    """It would go on with the old one. The records wait in memory, as that one's -shm is shared."""
    happens = "reuse(number('-shm'))\nlog.info('m6')\n"
    other = Store(str(tmp_path / "j.db"))
    inode = os.stat(tmp_path / "j.db").st_ino
    then = "print(json.dumps(handler._engine.committer.buffered), flush=True)\nos._exit(0)\n"
    (buffered,), err = run(children, tmp_path, happens, then)
    assert buffered == 1
    assert os.stat(tmp_path / "j.db").st_ino == inode
    other.close()
    assert "uses their numbers for files of its own" in err


def test_the_locks_are_taken_again(children, tmp_path):
    """Else the next one to close the journal elsewhere would take itself for the last, and remove the -wal."""
    happens = "os.closerange(3, 512)\nlog.info('m6')\nprint(json.dumps(1), flush=True)\nsys.stdin.readline()\n"
    files = [tmp_path / "j.db", tmp_path, tmp_path / "out"]
    child = children.start(SERVICE + happens + MORE + SAY, *files, stdin=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "1\n"
    other = sqlite3.connect(tmp_path / "j.db")
    assert other.execute("SELECT count(*) FROM entries").fetchone()[0] > 0
    other.close()
    assert os.path.exists(tmp_path / "j.db-wal")
    child.stdin.write("\n")
    child.stdin.flush()
    assert json.loads(child.stdout.readline()) == [True, 0, True]


@pytest.mark.parametrize("marks", [True, False])
def test_a_descriptor_knows_whether_it_is_ours(tmp_path, monkeypatch, marks):
    """Also where files cannot be marked."""
    if not marks:
        monkeypatch.setattr(descriptor_module, "_SET", None)
    one = os.open(tmp_path / "one", os.O_RDWR | os.O_CREAT)
    mine = Descriptor(one)
    assert mine.is_ours()
    other = os.open(tmp_path / "two", os.O_RDWR | os.O_CREAT)
    os.dup2(other, one)
    assert not mine.is_ours()
    assert not mine.is_free()
    mine.close()
    assert os.fstat(one)
    os.close(one)
    assert mine.is_free()
    mine.close()
    ours = Descriptor(other)
    ours.close()
    assert ours.is_free()


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR])
def test_a_file_opened_for_reading_while_sqlite_opens_its_own_is_not_taken_for_it(tmp_path, flags):
    """The keeper syncs the -wal through a descriptor of its own, and closes it. Control: one opened for writing is."""
    path = str(tmp_path / "j.db")
    store = Store(path)
    with store.lock, store.writing() as conn:
        conn.execute("PRAGMA user_version").fetchone()
        ours = os.open(path + "-wal", flags)
        try:
            found = SqliteFiles(path)
            before = open_numbers()
            del before[ours]
            found.find(before)
            assert ("-wal" in found._all) is (flags == os.O_RDWR)
            found.forget()
        finally:
            os.close(ours)
    store.close()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_number_that_another_thread_gives_back_while_a_journal_is_opened_is_found(tmp_path, monkeypatch, count):
    """SQLite gets it. Control: a cut is told of, for which all three of its files must be known."""
    path = str(tmp_path / "j.db")
    Store(path).close()
    theirs = [os.open(os.devnull, os.O_RDONLY) for _ in range(count)]
    real = Store._new_connection

    def connect(self, timeout, mode="mode=rw"):
        while theirs:
            os.close(theirs.pop())
        return real(self, timeout, mode)

    monkeypatch.setattr(Store, "_new_connection", connect)
    store = Store(path)
    assert not theirs
    assert sorted(store.sqlite_files._all) == ["", "-shm", "-wal"]
    with store.lock, store.writing() as conn:
        conn.execute("INSERT INTO meta VALUES ('key', 'value')")
        os.truncate(path + "-wal", 100)
        assert not store.sqlite_files.are_whole()
    store.close()


@pytest.mark.parametrize("is_removed", [True, False])
def test_a_removed_file_is_not_freed_while_sqlite_closes_it(tmp_path, is_removed):
    """Every commit of the process would wait for that. One with a name is left to SQLite: its locks would be dropped."""
    path = str(tmp_path / "j.db")
    store = Store(path)
    conn, status = store._conn, os.stat(path)

    def is_open():
        return (status.st_dev, status.st_ino) in {file for file, _ in open_numbers().values()}

    if is_removed:
        os.unlink(path)
    with store.sqlite_files.kept():
        store._conn = None
        conn.close()
        assert is_open() is is_removed
    assert not is_open()
