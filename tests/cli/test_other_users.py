"""Journals of other users, who are hostile: what root's verbs and a service's start do with what they prepared."""

import json
import logging
import os
import shutil
import signal
import sqlite3
import stat
import threading
import time

import pytest

from cli.tools import log_to, run, spawn
from lastwords import DurableHandler
from lastwords.errors import JournalDenied
from lastwords.journal import files, first_look, ownership, set_aside
from lastwords.journal.store import Store
from lastwords.runtime import identity

MALLORY, ALICE = 12345, 12346
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become other users")


def as_user(uid, work):
    """What ``work()`` returns in a process of ``uid``, or the exception that it raised, as text."""
    ownership._import_all()  # they may be out of the user's reach
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            said = work()
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(write, json.dumps(said).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    return json.loads(said or '"no answer"')


def home(public, name, uid):
    folder = public / name
    folder.mkdir(mode=0o755)
    os.chown(folder, uid, uid)
    return folder


def journal_of(uid, path, count=3, **kwargs):
    assert as_user(uid, lambda: log_to(path, count, **kwargs)) == str(path)
    return str(path)


@pytest.fixture
def mallory(public):
    """Her folder, with a journal."""
    folder = home(public, "mallory", MALLORY)
    return folder, journal_of(MALLORY, folder / "j.db", text="of mallory %d")


@pytest.fixture
def roots(public):
    """A folder of root's."""
    folder = public / "root"
    folder.mkdir(mode=0o755)
    return folder


def after_the_look(monkeypatch, change):
    """``change()`` happens between root's look at the path and all that it does there."""
    real = ownership.walk

    def walk(path):
        found = real(path)
        change()
        return found

    monkeypatch.setattr(ownership, "walk", walk)


VERBS = (
    ("status",),
    ("list",),
    ("doctor",),
    ("prune", "--keep", "0"),
    ("dead", "list"),
    ("dead", "retry", "--all"),
    ("flush", "--to", "SINK:deliver"),
    ("replay", "--to", "SINK:deliver"),
    ("replay", "--level", "debug", "--to", "SINK:deliver"),
    ("replay", "--dry-run", "--to", "SINK:deliver"),
)


@pytest.fixture
def verb(request, sink):
    return [word.replace("SINK", sink.name) for word in request.param]


QUICK = ("status", "prune", "flush")  # what looks, what deletes, what delivers: the others take as long again
each_verb = pytest.mark.parametrize(
    "verb",
    [verb if verb[0] in QUICK else pytest.param(verb, marks=pytest.mark.slow) for verb in VERBS],
    ids=" ".join,
    indirect=True,
)


# --- what works -------------------------------------------------------------------------------------------


@each_verb
def test_root_works_on_another_users_journal_as_its_owner(mallory, verb):
    """And leaves nothing there that the owner could not have made; afterwards root is root again."""
    folder, path = mallory
    result = run(*verb, path)
    assert result.code == 0, result
    for name in os.listdir(folder):
        status = os.stat(folder / name)
        assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (MALLORY, 0o600), name
    with open("/proc/thread-self/status") as file:
        said = dict(line.rstrip("\n").split(":\t", 1) for line in file)
    assert set(said["Uid"].split() + said["Gid"].split()) == {"0"}
    assert not identity.is_acting()


@pytest.mark.slow
def test_a_target_of_root_is_called_as_root_and_one_of_a_configuration_as_the_owner(mallory, roots, public):
    """--to is the choice of who typed it; what the application would have made, root's cron must not own."""
    folder, path = mallory
    roots.chmod(0o700)
    assert run("replay", "--level", "debug", "--to", f"file:{roots / 'out'}", path).code == 0
    assert os.stat(roots / "out").st_uid == 0
    config = public / "logging.json"
    handler = {
        "class": "lastwords.DurableHandler",
        "journal": path,
        "target": {"class": "logging.FileHandler", "filename": str(folder / "app.log")},
    }
    config.write_text(json.dumps({"version": 1, "handlers": {"app": handler}}))
    assert spawn("flush", "--config", config).code == 0
    assert os.stat(folder / "app.log").st_uid == MALLORY
    assert (folder / "app.log").read_text().count("of mallory") == 3


@pytest.mark.slow
def test_journals_of_several_owners_are_delivered_in_one_run(mallory, public, sink, journal):
    """Each as its owner, beside each other."""
    alice = journal_of(ALICE, home(public, "alice", ALICE) / "j.db", text="of alice %d")
    result = spawn("flush", "--to", f"{sink.name}:deliver", mallory[1], alice, journal())
    assert result.code == 0, result
    assert sorted(sink.messages()) == sorted(
        [f"of {who} {i}" for who in ("mallory", "alice") for i in range(3)] + [f"message {i}" for i in range(10)]
    )


def test_threads_are_several_users_at_once(public):
    """What one of them becomes changes nothing for the others."""
    folders = {uid: home(public, str(uid), uid) for uid in (MALLORY, ALICE)}
    met = threading.Barrier(3)

    def make(uid):
        with identity.acting_as(identity.User(uid, uid, ())):
            met.wait(10)
            (folders[uid] / "mine").touch()
            met.wait(10)

    threads = [threading.Thread(target=make, args=(uid,)) for uid in folders]
    for thread in threads:
        thread.start()
    met.wait(10)
    (public / "roots").touch()
    met.wait(10)
    for thread in threads:
        thread.join()
    assert os.stat(public / "roots").st_uid == 0
    assert {os.stat(folder / "mine").st_uid for folder in folders.values()} == {MALLORY, ALICE}


def test_where_threads_cannot_differ_the_whole_process_changes_and_changes_back(mallory, roots, monkeypatch):
    """macOS, or a Python without ctypes."""
    monkeypatch.setattr(identity, "_chosen", identity._WholeProcess())
    roots.chmod(0o700)
    result = run("flush", "--to", f"file:{roots / 'out'}", mallory[1])
    assert result.code == 0, result
    assert (roots / "out").read_text().count("of mallory") == 3
    assert {os.stat(mallory[0] / name).st_uid for name in os.listdir(mallory[0])} == {MALLORY}
    assert (os.geteuid(), os.getegid()) == (0, 0)


def test_a_copy_in_a_folder_that_only_root_can_write_may_be_of_any_owner(roots, sink):
    """A backup that kept its owner: there is nobody to fear, and the owner could not enter."""
    path = log_to(roots / "j.db", 3)
    for name in os.listdir(roots):
        os.chown(roots / name, ALICE, ALICE)
    roots.chmod(0o700)
    assert run("replay", "--to", f"{sink.name}:deliver", path).code == 0
    assert len(sink.lines()) == 3


def test_root_that_may_not_become_another_user_says_so(mallory, monkeypatch):
    """A container without the capabilities."""

    def refuse(user):
        if user.uid:
            raise identity.CannotBecome(1, "Operation not permitted")

    monkeypatch.setattr(identity._way(), "become", refuse)
    result = run("status", mallory[1])
    assert result.code == 77 and "cannot become" in result.err


# --- swaps ------------------------------------------------------------------------------------------------


@each_verb
def test_a_folder_that_becomes_a_link_gains_nothing(mallory, roots, monkeypatch, verb):
    """Root would make lock files there, or deliver and delete what is not hers."""
    folder, path = mallory
    log_to(roots / "j.db", 2, text="of root %d")
    before = sorted(os.listdir(roots))

    def swap():
        if not folder.is_symlink():
            folder.rename(folder.with_name("away"))
            folder.symlink_to(roots)

    after_the_look(monkeypatch, swap)
    result = run(*verb, path)
    assert result.code in {66, 77}, result
    assert "of root" not in result.out
    assert sorted(os.listdir(roots)) == before


@each_verb
def test_a_journal_that_becomes_another_users_gains_nothing(mallory, public, monkeypatch, sink, verb):
    """Also one that everybody may read and write."""
    _, path = mallory
    alices = home(public, "alice", ALICE)
    secret = journal_of(ALICE, alices / "secret.db", text="secret %d", mode=0o666)

    def swap():
        if os.stat(path).st_uid == MALLORY:
            os.unlink(path)
            os.link(secret, path)

    after_the_look(monkeypatch, swap)
    result = run(*verb, path)
    assert result.code == 77, result
    assert "secret" not in result.out and sink.lines() == []


@each_verb
def test_another_users_link_to_somebodys_folder_is_not_followed(public, sink, verb):
    """Alice's journal is not to be worked on because Mallory says so; through a link of Alice's own it is."""
    alices, mallorys = home(public, "alice", ALICE), home(public, "mallory", MALLORY)
    journal_of(ALICE, alices / "j.db", text="of alice %d")
    for owner, code in ((MALLORY, 77), (ALICE, 0)):
        link = mallorys / f"link{owner}"
        link.symlink_to(alices)
        os.lchown(link, owner, owner)
        result = run(*verb, link / "j.db")
        assert result.code == code, result
        if code == 77:
            assert "symbolic link of another user" in result.err and sink.lines() == []


def test_a_swap_again_and_again_never_hangs_and_never_leaks(mallory, roots, monkeypatch):
    """A real racer: FIFO, link and journal change places while root looks."""
    folder, path = mallory
    monkeypatch.setattr(first_look, "HANG_SECONDS", 0.5)
    precious = log_to(roots / "precious.db", 2, text="of root %d", mode=0o600)

    def race():
        end = time.monotonic() + 30
        os.chdir(folder)
        os.rename("j.db", "real")
        os.symlink(precious, "link")
        os.mkfifo("fifo")
        while time.monotonic() < end:
            for name in ("real", "link", "fifo"):
                os.rename(name, "j.db")
                os.rename("j.db", name)
        return "done"

    pid = os.fork()
    if pid == 0:
        os.setgid(MALLORY)
        os.setuid(MALLORY)
        race()
        os._exit(0)
    try:
        codes = set()
        for _ in range(15):
            result = run("list", path)
            codes.add(result.code)
            assert "of root" not in result.out
        assert codes <= {0, 65, 66, 75, 77, 78}
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert sorted(os.listdir(roots))[0] == "precious.db"


@pytest.mark.parametrize("verb", VERBS[:3], ids=" ".join, indirect=True)
def test_a_fifo_that_takes_the_journals_place_is_not_waited_for(mallory, monkeypatch, verb):
    """Between the look and the opening, and nobody ever writes into it."""
    _, path = mallory
    monkeypatch.setattr(first_look, "HANG_SECONDS", 0.3)
    real = files.check_beside
    before = set(threading.enumerate())  # another test's may wait at a FIFO that is gone

    def swapped(*args, **kwargs):
        real(*args, **kwargs)
        if not stat.S_ISFIFO(os.stat(path).st_mode):
            os.unlink(path)
            os.mkfifo(path)

    monkeypatch.setattr(files, "check_beside", swapped)
    began = time.monotonic()
    result = run(*verb, path)
    assert result.code == 75 and "FIFO" in result.err, result
    assert time.monotonic() - began < 60
    writer = os.open(path, os.O_RDWR | os.O_NONBLOCK)  # lets the thread go
    left = [thread for thread in set(threading.enumerate()) - before if thread.name == "lastwords-open"]
    for thread in left:
        thread.join(10)
    os.close(writer)
    assert not any(thread.is_alive() for thread in left)


@each_verb
def test_a_fifo_a_folder_or_a_device_at_the_path_is_one_line(public, verb):
    """None is opened."""
    folder = home(public, "mallory", MALLORY)
    os.mkfifo(folder / "fifo.db")
    os.chown(folder / "fifo.db", MALLORY, MALLORY)
    (folder / "folder.db").mkdir()
    for name in ("fifo.db", "folder.db"):
        result = run(*verb, folder / name)
        assert result.code in {77, 78} and result.err.count("\n") == 1, (name, result)


# --- what was planted -----------------------------------------------------------------------------------------


@each_verb
def test_a_planted_rollback_journal_deletes_nothing(mallory, roots, verb):
    """It names a super-journal, which SQLite deletes: any file of root's."""
    _, path = mallory
    precious = roots / "precious"
    precious.write_text("precious")
    magic = bytes.fromhex("d9d505f920a163d7")
    name = os.fsencode(precious)
    header = magic + bytes(8) + (1).to_bytes(4, "big") + (512).to_bytes(4, "big") + (4096).to_bytes(4, "big")
    tail = name + len(name).to_bytes(4, "big") + sum(name).to_bytes(4, "big") + magic
    hot = path + "-journal"
    with open(hot, "wb") as file:
        file.write(header.ljust(512, b"\0") + bytes(4) + tail)
    os.chown(hot, MALLORY, MALLORY)
    result = run(*verb, path)
    assert precious.exists()
    assert result.code == 77 and "-journal" in result.err, result


@pytest.mark.parametrize("suffix", [".commit", ".lock", "-wal", "-shm", "-journal"])
@pytest.mark.parametrize("kind", ["file", "fifo"])
def test_what_another_user_made_beside_it_in_a_shared_folder_is_refused(public, suffix, kind):
    """In a folder like /tmp: held for ever, or a FIFO, or a -wal whose frames are hers."""
    shared = public / "tmp"
    shared.mkdir()
    shared.chmod(0o1777)
    path = str(shared / "j.db")

    def plant():
        if kind == "fifo":
            os.mkfifo(path + suffix, 0o666)
        else:
            os.close(os.open(path + suffix, os.O_CREAT | os.O_WRONLY, 0o666))
        os.chmod(path + suffix, 0o666)

    as_user(MALLORY, plant)

    def start():
        DurableHandler(print, path)
        return "started"

    for uid in (ALICE, 0):
        began = time.monotonic()
        said = as_user(uid, start)
        assert said.startswith("JournalDenied") and suffix in said, said
        assert time.monotonic() - began < 30
        if uid and os.path.exists(path):
            os.unlink(path)


def test_a_forged_damaged_file_is_not_salvaged(public):
    """With a marker beside it, her entries would be delivered as the service's own. A marker of its own is honoured."""
    shared = public / "tmp"
    shared.mkdir()
    shared.chmod(0o1777)
    path = str(shared / "j.db")
    aside = f"{path}.damaged-20200101T000000Z"

    def forge():
        log_to(aside, 5, text="forged %d", mode=0o666)
        with open(aside + set_aside.MARKER, "w") as file:
            json.dump({"inode": os.stat(aside).st_ino, "reason": "forged"}, file)
        os.chmod(aside + set_aside.MARKER, 0o666)

    as_user(MALLORY, forge)

    def start():
        handler = DurableHandler(None, path)
        pending = handler.stats().pending
        handler.close()
        return pending

    assert as_user(ALICE, start) == 0
    code = run("status", path).code
    assert code == 0, "her file is no predecessor of ours"
    for name in os.listdir(shared):
        if name.startswith("j.db.damaged-"):
            os.chown(shared / name, ALICE, ALICE)
    assert as_user(ALICE, start) == 5, "negative control: a marker of the owner's counts"


@pytest.mark.parametrize("kind", ["garbage", "fifo", "folder", "link"])
def test_a_marker_that_is_none_hangs_and_crashes_nothing(public, kind):
    """The constructor, status and doctor go on without it."""
    shared = public / "tmp"
    shared.mkdir()
    shared.chmod(0o1777)
    path = journal_of(ALICE, shared / "j.db")
    marker = f"{path}.damaged-20200101T000000Z{set_aside.MARKER}"

    def plant():
        if kind == "fifo":
            os.mkfifo(marker)
        elif kind == "folder":
            os.mkdir(marker)
        elif kind == "link":
            os.symlink("/etc/passwd", marker)
        else:
            with open(marker, "w") as file:
                file.write("garbage")

    as_user(MALLORY, plant)

    def start():
        handler = DurableHandler(None, path)
        logger = logging.Logger("x")
        logger.addHandler(handler)
        logger.error("on")
        pending = handler.stats().pending
        handler.close()
        return pending

    assert as_user(ALICE, start) == 4
    for word in ("status", "doctor"):
        assert run(word, path).code == 0
    assert os.path.lexists(marker)


def test_a_lock_file_of_another_user_is_not_taken_for_a_holder(mallory):
    """`status` shows no pid that somebody else wrote."""
    folder, path = mallory
    (folder / "j.db.lock").write_text("1\n")
    assert run("status", path).code == 77
    shutil.rmtree(folder)


def test_a_service_that_changed_its_user_is_told_what_to_do(public):
    """The journal was made as root, and the process is not root any more when it opens it again."""
    folder = public / "shared"
    folder.mkdir()
    folder.chmod(0o777)
    path = log_to(folder / "j.db", 1)

    def reopen():
        try:
            Store(path)
        except JournalDenied as error:
            return error.hint
        return "opened"

    assert f"give the journal to uid {ALICE}" in as_user(ALICE, reopen)


def test_a_reader_makes_no_shared_memory_of_its_own(public):
    """A -shm of another user would keep the service from its own journal."""
    folder = home(public, "alice", ALICE)
    path = journal_of(ALICE, folder / "j.db", mode=0o644)
    folder.chmod(0o777)

    def leave_a_wal():
        conn = sqlite3.connect(path)
        conn.execute("PRAGMA wal_autocheckpoint=0")
        conn.execute("UPDATE cursor SET retries = 1")
        conn.commit()
        os._exit(0)

    pid = os.fork()
    if pid == 0:
        os.setgid(ALICE)
        os.setuid(ALICE)
        leave_a_wal()
    os.waitpid(pid, 0)
    os.unlink(path + "-shm")

    def look():
        from lastwords.journal import readonly

        try:
            with readonly.explained(path), readonly.look(path) as journal:
                return journal.stats().pending
        except JournalDenied as error:
            return f"refused: {error}"

    as_user(MALLORY, look)
    assert not os.path.exists(path + "-shm") or os.stat(path + "-shm").st_uid == ALICE
