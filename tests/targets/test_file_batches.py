"""Batches into files, and files that several processes rotate."""

import gc
import logging
import logging.handlers
import os
import time

import pytest

from lastwords import DurableHandler, Journal, TryAgain
from lastwords.journal import files
from lastwords.targets import resolve
from lastwords.targets.handlers import stream


@pytest.fixture
def synced(monkeypatch):
    """The inodes that were synced, in order."""
    inodes = []
    plain = files.sync_descriptor

    def sync(fd):
        inodes.append(os.fstat(fd).st_ino)
        plain(fd)

    monkeypatch.setattr(files, "sync_descriptor", sync)
    return inodes


def lines(folder):
    """Of the file and of what was rotated away, the oldest file first."""
    paths = sorted(folder.glob("x.log*"), key=lambda path: path.stat().st_mtime_ns)
    return [path.read_text().splitlines() for path in paths]


@pytest.mark.parametrize("make", [logging.FileHandler, logging.handlers.WatchedFileHandler, "file:{}".format])
def test_a_batch_is_written_in_order_and_synced_once(entry, tmp_path, synced, make):
    """One fsync for all of its records; it was one for each."""
    target = resolve(make(str(tmp_path / "x.log")))
    target.deliver([entry(f"{n}") for n in range(100)])
    assert len(synced) == 1
    text = (tmp_path / "x.log").read_text().split()
    assert [word for word in text if word.isdigit() and len(word) < 4] == [str(n) for n in range(100)]
    target.close()


def test_what_a_batch_rotates_away_is_synced_with_it(entry, tmp_path, synced):
    """Each file of the batch, though the handler has closed it."""
    target = resolve(logging.handlers.RotatingFileHandler(tmp_path / "x.log", maxBytes=100, backupCount=50))
    target.deliver([entry(f"record {n:03}") for n in range(40)])
    written = lines(tmp_path)
    assert sorted(sum(written, [])) == [f"record {n:03}" for n in range(40)]
    assert len(written) > 3
    assert set(synced) == {path.stat().st_ino for path in tmp_path.glob("x.log*")}
    target.close()


def test_a_batch_larger_than_all_that_is_kept_is_accepted(entry, tmp_path):
    """backupCount is the user's wish: the handler's own rotation may remove what it has just written."""
    target = resolve(logging.handlers.RotatingFileHandler(tmp_path / "x.log", maxBytes=100, backupCount=1))
    target.deliver([entry(f"record {n:03}") for n in range(100)])
    assert lines(tmp_path)[-1][-1] == "record 099"
    target.close()


class Picky(logging.Formatter):
    def format(self, record):
        if "bad" in record.getMessage():
            raise ValueError("not this one")
        return super().format(record)


def test_a_record_that_cannot_be_formatted_is_the_only_one_that_is_buried(tmp_path):
    """Those before it are accepted and never written again; those after it follow."""
    inner = logging.FileHandler(tmp_path / "x.log")
    inner.setFormatter(Picky())
    with pytest.raises(TryAgain) as failure:
        writer = logging.FileHandler(tmp_path / "y.log")
        writer.setFormatter(Picky())
        made = [logging.LogRecord("x", 20, "f", 1, m, (), None) for m in ("a", "b", "bad", "c")]
        resolve(writer).deliver([type("E", (), {"record": record, "id": "i"})() for record in made])
    assert failure.value.accepted == 2
    handler = DurableHandler(None, tmp_path / "j.db")
    logger = logging.Logger("x")
    logger.addHandler(handler)
    for n in range(30):
        logger.error("bad %d" if n == 10 else "good %d", n)
    handler.close()
    handler = DurableHandler(inner, tmp_path / "j.db", retry_min=0.001, retry_max=0.002, suspect_after=2)
    assert handler.drain(60)
    handler.close()
    with Journal(tmp_path / "j.db") as journal:
        assert len(journal.dead_letters()) == 1
    written = (tmp_path / "x.log").read_text().splitlines()
    assert sorted(written) == sorted(f"good {n}" for n in range(30) if n != 10)


def test_two_rotating_handlers_on_one_file_take_turns(entry, tmp_path):
    """As two processes do: neither writes to a file that the other has rotated away, nor rotates a new one."""
    made = [
        resolve(logging.handlers.RotatingFileHandler(tmp_path / "x.log", maxBytes=500, backupCount=100))
        for _ in range(2)
    ]
    for n in range(60):
        made[n % 2].deliver([entry(f"record {n:03}")])
    written = lines(tmp_path)
    assert sum(written, []) == [f"record {n:03}" for n in range(60)]
    assert all(len(each) > 35 for each in written[:-1])
    for target in made:
        target.close()


def test_two_timed_handlers_on_one_file_lose_nothing(entry, tmp_path):
    """The second one, whose time has come as well, goes on with the new file instead of rotating it over the old."""
    made = [
        resolve(logging.handlers.TimedRotatingFileHandler(tmp_path / "x.log", when="S", interval=2)) for _ in range(2)
    ]
    made[0].deliver([entry("first")])
    for target in made:
        target.handler.rolloverAt = int(time.time())
    made[0].deliver([entry("second")])
    made[1].deliver([entry("third")])
    assert sorted(sum(lines(tmp_path), [])) == ["first", "second", "third"]
    assert len(lines(tmp_path)) == 2
    for target in made:
        target.close()


def test_a_rotation_never_replaces_an_earlier_one(entry, tmp_path):
    """A clock that was set back, or a restart, gives the same name again; stdlib removes the file that has it."""
    target = resolve(logging.handlers.TimedRotatingFileHandler(tmp_path / "x.log", when="H"))
    for n in range(4):
        target.deliver([entry(f"{n}")])
        target.handler.rolloverAt = 1_000_000_000
    assert sorted(sum(lines(tmp_path), [])) == ["0", "1", "2", "3"]
    assert "rotation_filename" not in vars(target.handler)
    target.close()


@pytest.mark.parametrize("make", [logging.FileHandler, "file:{}".format])
def test_what_was_written_into_a_removed_file_is_not_accepted(entry, tmp_path, monkeypatch, make):
    """`rm` between the write and the sync; the next try makes a new file."""
    target = resolve(make(str(tmp_path / "x.log")))
    target.deliver([entry("before")])
    plain = files.sync_descriptor

    def removed(fd):
        plain(fd)
        (tmp_path / "x.log").unlink()

    with monkeypatch.context() as patched:
        patched.setattr(files, "sync_descriptor", removed)
        with pytest.raises(FileNotFoundError):
            target.deliver([entry("after")])
    target.deliver([entry("after")])
    assert "after" in (tmp_path / "x.log").read_text()
    target.close()


def test_logrotate_is_followed_by_a_plain_file_handler(entry, tmp_path):
    """Renamed away: the next batch goes to a new file at the path."""
    target = resolve(logging.FileHandler(tmp_path / "x.log", mode="w"))
    target.deliver([entry("before")])
    (tmp_path / "x.log").rename(tmp_path / "x.log.1")
    target.deliver([entry("after")])
    assert (tmp_path / "x.log").read_text() == "after\n"
    assert (tmp_path / "x.log.1").read_text() == "before\n"
    target.close()


def test_no_descriptor_is_left_open(entry, tmp_path):
    """Whatever a batch came to."""
    inner = logging.handlers.RotatingFileHandler(tmp_path / "x.log", maxBytes=100, backupCount=3)
    inner.setFormatter(Picky())
    target = resolve(inner)
    target.deliver([entry("a")])
    gc.collect()  # of earlier tests
    before = len(os.listdir("/dev/fd"))
    for _ in range(5):
        with pytest.raises(TryAgain):
            target.deliver([entry("a"), entry("b" * 200), entry("bad")])
        with pytest.raises(ValueError, match="not this one"):
            target.deliver([entry("bad")])
    assert len(os.listdir("/dev/fd")) <= before
    target.close()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_batch_is_rotated_where_the_handler_itself_would_rotate_it(entry, tmp_path, encoding):
    """Record for record: stdlib's own handler beside ours, the same files with the same content."""
    batch = [entry(f"{n:03} " + "\u00e9" * (n * 7 % 60)) for n in range(120)]
    found = []
    for name in ("theirs", "ours"):
        (tmp_path / name).mkdir()
        handler = logging.handlers.RotatingFileHandler(
            tmp_path / name / "x.log", maxBytes=700, backupCount=200, encoding=encoding
        )
        if name == "ours":
            resolve(handler).deliver(batch)
        else:
            for each in batch:
                handler.emit(each.record)
        handler.close()
        found.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert found[0] == found[1]
    assert len(found[0]) > 10


class SlowFile(logging.FileHandler):
    def emit(self, record):
        time.sleep(0.005)
        super().emit(record)


@pytest.mark.parametrize("longest", [0.1, 1000.0])
def test_a_slow_file_is_marked_before_the_whole_batch_is_written(tmp_path, poll, monkeypatch, longest):
    """Else processes that live shorter than a batch takes would each write it again, for ever. The control does."""
    monkeypatch.setattr(stream, "LONGEST_SECONDS", longest)
    filling = DurableHandler(None, tmp_path / "j.db")
    for number in range(600):
        filling.handle(logging.makeLogRecord({"msg": f"{number}"}))
    filling.close()
    handler = DurableHandler(SlowFile(tmp_path / "x.log"), tmp_path / "j.db")
    assert poll(lambda: handler.stats().delivered, 60)
    first = handler.stats().delivered
    assert (first == 600) is (longest == 1000.0)
    assert handler.drain(60)
    handler.close()
    assert (tmp_path / "x.log").read_text().split() == [str(number) for number in range(600)]
