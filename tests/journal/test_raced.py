"""Openings that siblings are in the way of: they make the journal, set it aside or renew it at the worst moment."""

import fcntl
import logging
import os
import pathlib

import pytest

from lastwords import DurableHandler
from lastwords.errors import JournalBusy, JournalDamaged
from lastwords.journal import files, set_aside, store, void
from lastwords.journal.readonly import ReadonlyStore
from lastwords.journal.store import Store
from lastwords.upkeep import damaged_file

from ..journals import pending


def once(monkeypatch, module, name, *, before=lambda: None, after=lambda: None, result=None):
    """``module.name`` does this at its first call, too; ``result``: what that one returns."""
    original = getattr(module, name)
    calls = []

    def patched(*args, **kwargs):
        calls.append(args)
        if len(calls) > 1:
            return original(*args, **kwargs)
        before()
        found = original(*args, **kwargs)
        after()
        return found if result is None else result()

    monkeypatch.setattr(module, name, patched)
    return calls


def replace(path):
    """As a sibling does that found the file damaged; it is not there then."""
    set_aside.set_aside(path, files.identify(path), "by a test")


def asides(path):
    return [name for name in os.listdir(os.path.dirname(path)) if set_aside.DAMAGED in name]


@pytest.mark.parametrize("is_made", [False, True], ids=["nothing", "empty"])
def test_a_journal_that_a_sibling_is_just_making_is_not_taken_for_a_removed_one(tmp_path, monkeypatch, is_made):
    """The path was seen empty, then the sibling's -wal: with frames, while its -shm was not there or not locked."""
    path = str(tmp_path / "j.db")
    if is_made:
        files.create_file(path, 0o600)
    made = []
    once(monkeypatch, files, "check_file", after=lambda: made.append(Store(path)))
    once(monkeypatch, void, "are_in_use", result=lambda: False)
    late = Store(path)
    try:
        assert late.identity == made[0].identity == files.identify(path)
        assert asides(path) == []
    finally:
        late.close()
        made[0].close()


def test_side_files_that_a_sibling_made_meanwhile_are_not_removed(tmp_path, monkeypatch):
    """Two find what is left of a removed journal, its lock file removed, too: the later one waits for the earlier."""
    path = str(tmp_path / "j.db")
    pathlib.Path(path + "-wal").touch()
    made = []
    once(monkeypatch, void, "refuse_to_lose", after=lambda: made.append(Store(path)))
    late = Store(path)
    try:
        assert made[0].sqlite_files.are_at_path()
        assert late.identity == made[0].identity
    finally:
        late.close()
        made[0].close()


@pytest.mark.parametrize("moment", ["look_at", "_new_connection"])
@pytest.mark.parametrize("end", ["before", "after"])
def test_a_file_that_a_sibling_replaces_while_it_is_opened_is_opened_anew(tmp_path, monkeypatch, moment, end):
    """A constructor does not fail because of that, whether the file is gone, or another one is looked at than opened."""
    path = str(tmp_path / "j.db")
    pending(path, 3)
    once(monkeypatch, store if moment == "look_at" else Store, moment, **{end: lambda: replace(path)})
    handler = DurableHandler(None, path)
    try:
        handler.handle(logging.makeLogRecord({"msg": "x"}))
        assert handler._engine.store.identity == files.identify(path)
    finally:
        handler.close()


def test_a_file_that_is_replaced_all_the_time_is_said_to_be(tmp_path, monkeypatch):
    """The constructor does not try for ever."""
    path = str(tmp_path / "j.db")

    def replace_and_make(path):
        replace(path)
        files.create_file(path, 0o600)

    monkeypatch.setattr(store, "look_at", replace_and_make)
    with pytest.raises(JournalBusy, match="was replaced while it was opened"):
        Store(path, lock_timeout=0.1)


def test_what_only_reads_sees_the_file_that_replaced_the_one_it_looked_at(tmp_path, monkeypatch):
    """A sibling set a journal aside, and made it anew, while it was looked at."""
    path = str(tmp_path / "j.db")
    pending(path, 3)
    once(monkeypatch, files, "check_beside", before=lambda: replace(path), after=lambda: Store(path).close())
    reader = ReadonlyStore(path)
    try:
        with reader.lock, reader.reading() as conn:
            assert conn.execute("SELECT count(*) FROM entries").fetchone() == (0,)
    finally:
        reader.close()


def test_the_journal_that_a_sibling_made_of_a_damaged_one_is_not_set_aside(tmp_path, monkeypatch):
    """Two find the damage; what the slower one says of the file that was there is not held against the new one."""
    path = str(tmp_path / "j.db")
    pending(path, 3)
    pathlib.Path(path).write_bytes(b"no database " * 400)
    made = []

    def repair():
        damage = JournalDamaged(path, "is damaged")
        damaged_file.clear(path, files.identify(path), damage)
        made.append(Store(path))

    once(monkeypatch, damaged_file, "is_ours", before=repair)
    late = damaged_file.open_repaired(path, 0o600)
    try:
        assert late.identity == made[0].identity
        assert len([name for name in asides(path) if name.endswith(set_aside.MARKER)]) == 1
    finally:
        late.close()
        made[0].close()


def test_a_marker_that_cannot_be_read_now_is_not_removed(tmp_path, monkeypatch):
    """No descriptor is free, say: the file that was set aside waits to be salvaged."""
    path = str(tmp_path / "j.db")
    pending(path, 3)
    replace(path)
    with monkeypatch.context() as patch:
        patch.setattr(set_aside, "read", lambda _: None)
        set_aside.finish_unfinished(path)
    assert set_aside.unfinished(path)


def test_a_journal_is_set_aside_by_one_at_a_time_also_if_its_lock_file_is_gone(tmp_path, monkeypatch):
    """Two that found only a -wal: the slower one found no file to mark, and its constructor failed."""
    path = str(tmp_path / "j.db")
    pending(path, 3)
    os.unlink(path + ".commit")

    def is_locked():
        with open(path + ".commit") as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)

    calls = once(monkeypatch, set_aside, "_mark", before=is_locked)
    replace(path)
    assert len(calls) == 1
    assert set_aside.unfinished(path)
