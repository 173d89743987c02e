"""Pages and rows out of the files themselves: only what was committed, and unharmed, counts."""

import contextlib
import logging
import sqlite3

import pytest

from lastwords.journal import pages, raw_rows, wal
from lastwords.journal.first_look import APPLICATION_ID
from lastwords.journal.store import Store
from lastwords.record import codec

FRAME = 24 + pages.PAGE_SIZE


def commit(store, first, last, text=""):
    rows = [
        codec.encode(logging.LogRecord("x", 20, "/x.py", 1, f"m{i} {text}", (), None, "f")) for i in range(first, last)
    ]
    with store.lock, store.transaction() as conn:
        conn.executemany("INSERT INTO entries (created, level, payload, checksum) VALUES (?, ?, ?, ?)", rows)


def all_pages(path):
    found = pages.Pages(path)
    for _ in found.read_wal():
        pass
    read = [found.read(number) for number in found.numbers()]
    found.close()
    return read


def raw(path, query):
    found = raw_rows.RawRows(path)
    while found.find(10.0):
        pass
    found.close()
    rows = found.conn.execute(query).fetchall()
    found.conn.close()
    return rows


@pytest.fixture
def path(tmp_path):
    """Of a journal with some rows in the main file, and more in the -wal, which nobody checkpoints."""
    path = str(tmp_path / "j.db")
    store = Store(path)
    commit(store, 0, 50)
    assert wal.checkpoint(store, shrink=True)
    commit(store, 50, 100, "x" * 5_000)
    for suffix in ("", "-wal"):
        (tmp_path / ("copy" + suffix)).write_bytes((tmp_path / ("j.db" + suffix)).read_bytes())
    store.close()
    return str(tmp_path / "copy")


def test_the_pages_are_those_that_sqlite_sees(tmp_path, path):
    """The whole file after its own checkpoint is the reference."""
    found = all_pages(path)
    sqlite3.connect(path).execute("PRAGMA wal_checkpoint(TRUNCATE)")
    whole = (tmp_path / "copy").read_bytes()
    assert b"".join(found) == whole


def test_the_rows_are_those_that_sqlite_reads(path):
    """Also where the payload needs overflow pages."""
    found = raw(path, "SELECT seq, created, level, CAST(payload AS TEXT), checksum FROM entries")
    conn = sqlite3.connect(path)
    assert found == conn.execute("SELECT seq, created, level, payload, checksum FROM entries").fetchall()
    assert raw(path, "SELECT * FROM epochs") == conn.execute("SELECT first_seq, uuid FROM epochs").fetchall()
    conn.close()


class Anything:
    """Equals everything."""

    def __init__(self, *_):
        pass

    def __eq__(self, _):
        return True

    __hash__ = None


@pytest.mark.parametrize("verified", [True, False])
def test_a_torn_frame_does_not_count(tmp_path, path, monkeypatch, verified):
    """Its page is that of before. Control: without the checksum it is what the torn one says."""
    if not verified:
        monkeypatch.setattr(pages, "checksum", Anything)
    whole = all_pages(path)
    file = tmp_path / "copy-wal"
    data = bytearray(file.read_bytes())
    last = max(at for at in range(32, len(data), FRAME) if data[at : at + 4] == (1).to_bytes(4, "big"))
    data[last + 24 + 2_000] ^= 1
    file.write_bytes(data)
    flipped = bytearray(whole[0])
    flipped[2_000] ^= 1
    assert (all_pages(path)[0] == flipped) is not verified


def test_what_was_not_committed_does_not_count(tmp_path, path):
    """The last transaction was under way when its process was killed."""
    before = all_pages(path)
    file = tmp_path / "copy-wal"
    data = file.read_bytes()
    order = "<" if data[3] == 0x82 else ">"
    page = b"y" * pages.PAGE_SIZE
    header = (1).to_bytes(4, "big") + bytes(4)  # no size: not the last one of it
    seed = data[-FRAME:][16:24]
    file.write_bytes(data + header + data[16:24] + pages.checksum(header + page, seed, order) + page)
    assert all_pages(path) == before


FAR = 400_000_000


def with_a_frame_for(tmp_path, number):
    """A committed frame for page ``number``, as SQLite writes it when a damaged page tells it so."""
    file = tmp_path / "copy-wal"
    data = file.read_bytes()
    order = "<" if data[3] == 0x82 else ">"
    page = b"\x0d" + bytes(pages.PAGE_SIZE - 1)
    header = number.to_bytes(4, "big") * 2
    seed = data[-FRAME:][16:24]
    file.write_bytes(data + header + data[16:24] + pages.checksum(header + page, seed, order) + page)


def test_a_page_number_out_of_all_bounds_costs_no_time(tmp_path, path):
    """Every page that is there is read, and that one, too. Control: the number itself counts in what is looked for."""
    rows = raw(path, "SELECT count(*) FROM entries")
    with_a_frame_for(tmp_path, FAR)
    assert raw(path, "SELECT count(*) FROM entries") == rows
    found = pages.Pages(path)
    for _ in found.read_wal():
        pass
    numbers = list(found.numbers())
    assert numbers[-1] == FAR and len(numbers) <= found.count < 1_000
    found.close()


def test_the_holes_of_the_main_file_are_passed_over(tmp_path, path):
    """A checkpoint of such a frame makes a file of a terabyte with a few pages in it."""
    rows = raw(path, "SELECT count(*) FROM entries")
    with open(path, "r+b") as file:
        file.truncate(FAR * pages.PAGE_SIZE)
    assert raw(path, "SELECT count(*) FROM entries") == rows


@pytest.mark.parametrize("size", [2048, 4096])
@pytest.mark.parametrize("length", [0, 1_500, 9_000])
def test_the_size_of_a_page_is_found_without_a_header(tmp_path, size, length):
    """In the main file by what its pages begin with, in the -wal by what follows what: older journals have larger ones."""
    path, copy = tmp_path / "j.db", tmp_path / "copy"
    with contextlib.closing(sqlite3.connect(path)) as conn:  # an empty file that is a journal: it keeps its size
        conn.executescript(f"PRAGMA page_size={size}; PRAGMA auto_vacuum=INCREMENTAL")
        conn.execute(f"PRAGMA application_id={APPLICATION_ID}")
    store = Store(str(path))
    commit(store, 0, 60, "x" * length)
    assert wal.checkpoint(store, shrink=True)
    copy.write_bytes(bytes(512) + path.read_bytes()[512:])
    assert pages.Pages(str(copy)).size == size
    commit(store, 60, 120, "x" * length)
    wal_of_copy = tmp_path / "copy-wal"
    wal_of_copy.write_bytes(bytes(32) + (tmp_path / "j.db-wal").read_bytes()[32:])
    assert pages.Pages(str(copy)).size == size
    copy.unlink()
    assert pages.Pages(str(copy)).size == size
    assert pages.has_frames(str(copy))
    store.close()


def test_a_checkpoint_cut_short_is_mended_by_what_sqlite_takes_of_the_wal(tmp_path):
    """Torn pages of the schema in the main file are in the -wal; a frame of it that is torn hides those behind it."""
    path, copy = tmp_path / "j.db", tmp_path / "copy"
    store = Store(str(path))
    for i in range(20):
        commit(store, i, i + 1, "x" * 1_500)  # a page of its own for each
    main, frames = bytearray(path.read_bytes()), bytearray((tmp_path / "j.db-wal").read_bytes())
    store.close()
    numbers = [int.from_bytes(frames[at : at + 4], "big") for at in range(32, len(frames), FRAME)]
    views = len(main) // pages.PAGE_SIZE  # its last page is of the schema
    assert numbers.count(views) == 1, "made after the switch to WAL, and never again"
    main[-pages.PAGE_SIZE :] = b"\xff" * pages.PAGE_SIZE
    new = [at for at, number in enumerate(numbers) if number > views and numbers.count(number) == 1]
    torn = new[len(new) // 2]
    assert 1 in numbers[torn + 3 :], "a size that the file never reaches without it"
    frames[32 + torn * FRAME + 1_000] ^= 1
    copy.write_bytes(main)
    (tmp_path / "copy-wal").write_bytes(frames)
    store = Store(str(copy))
    with store.lock, store.reading() as conn:
        assert conn.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert 0 < conn.execute("SELECT count(*) FROM entries").fetchone()[0] < 20
    store.close()


def test_a_new_journal_has_small_pages(tmp_path):
    """Before anything is in it; afterwards SQLite takes no other size."""
    store = Store(str(tmp_path / "j.db"))
    with store.lock, store.reading() as conn:
        assert conn.execute("PRAGMA page_size").fetchone() == (pages.PAGE_SIZE,)
        assert conn.execute("PRAGMA auto_vacuum").fetchone() == (2,)
    store.close()


def test_overflow_pages_in_a_circle_end(tmp_path, path):
    """A payload's length and its pages are a damaged page's word: each page counts once."""
    found = pages.Pages(path)
    for _ in found.read_wal():
        pass
    circle = (2).to_bytes(4, "big") + b"x" * (pages.PAGE_SIZE - 4)
    found.read = {2: circle}.get
    found.count = FAR
    start = bytes(pages.PAGE_SIZE - 4) + (2).to_bytes(4, "big")
    with pytest.raises(ValueError, match="^$"):
        raw_rows._payload(found, start, 0, FAR * 2_000)
    found.close()
