"""A damaged journal: set aside, salvaged with its ids, and said once; never an exception to the application."""

import contextlib
import json
import logging
import random
import sqlite3

import pytest

from faults.damage import filled, overwrite
from lastwords import DurableHandler
from lastwords.errors import JournalDamaged, JournalError
from lastwords.journal import old_file, schema, tidy, wal
from lastwords.journal.line import Line
from lastwords.journal.new_schema import PAGE_SIZE
from lastwords.journal.rows import Burial
from lastwords.upkeep import keeper

COUNT = 3000


def make(path, settled=100):
    filled(path, COUNT, settled)
    with Line.open(path) as journal:
        return {json.loads(row.payload)["message"].split()[0]: row.id for row in journal.read(0, COUNT)}


def contents(path):
    with Line.open(path) as journal:
        return {journal.decode(row).message.split()[0]: row.id for row in journal.read(0, COUNT * 2)}


def open_and_log(path, message="after"):
    handler = DurableHandler(None, path, sync_interval=0.05)
    log = logging.Logger("x")
    log.addHandler(handler)
    log.error(message)
    return handler


@pytest.mark.slow
def test_a_destroyed_first_page_costs_no_record(tmp_path, capfd):
    """SQLite reads nothing, the pages are searched; settled entries do not come back. Said once, and the file is kept."""
    path = tmp_path / "j.db"
    ids = make(path)
    overwrite(path, [0])
    handler = open_and_log(path)
    found = contents(path)
    assert list(found) == [*(f"m{i}" for i in range(100, COUNT)), "after"]
    assert all(ids[name] == id_ for name, id_ in found.items() if name != "after")
    (aside,) = [
        p
        for p in tmp_path.iterdir()
        if ".damaged-" in p.name and p.suffix != ".salvage" and not p.name.endswith(("-wal", "-shm"))
    ]
    assert aside.stat().st_size > 500_000
    assert capfd.readouterr().err.count("was damaged") == 1
    with Line.open(path) as journal:
        assert journal.get_meta("damaged_file") == str(aside)
    handler.close()


@pytest.mark.slow
def test_damaged_pages_cost_their_rows_only_and_the_rest_keeps_its_ids(tmp_path, poll, capfd):
    """Found while it is open: by the courier that reads, or the keeper; settled entries are not delivered again."""
    path = tmp_path / "j.db"
    ids = make(path)
    pages = (tmp_path / "j.db").stat().st_size // PAGE_SIZE
    overwrite(path, random.Random(3).sample(range(60, pages), 5))
    got = []
    handler = DurableHandler(got.extend, path, sync_interval=0.05)
    assert poll(lambda: [p for p in tmp_path.iterdir() if ".damaged-" in p.name], 30)
    assert poll(lambda: handler._engine.store.damaged is None and handler.stats().pending == 0, 30)
    log = logging.Logger("x")
    log.addHandler(handler)
    log.error("after")
    assert handler.drain(60)
    arrived = {entry.message.split()[0]: entry.id for entry in got}
    after = arrived.pop("after")
    assert after
    assert set(arrived) <= set(ids)
    assert len(arrived) > COUNT * 0.9 - 100
    assert all(arrived[name] == ids[name] for name in arrived)
    assert not {f"m{i}" for i in range(100)} & set(arrived)
    with Line.open(path) as journal:
        lost = int(journal.get_meta("unreadable"))
        salvaged = int(journal.get_meta("salvaged"))
    assert len(arrived) + lost == COUNT - 100
    assert 0 < salvaged <= len(arrived)
    assert capfd.readouterr().err.count("was damaged") == 1
    handler.close()


KILLED = """
import logging, os, sys
from lastwords import DurableHandler
log = logging.Logger("x"); log.addHandler(DurableHandler(None, sys.argv[1]))
for i in range(100): log.error("wal%d", i)
os._exit(0)
"""


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_flipped_bytes_anywhere_never_raise_into_the_application(tmp_path, children, seed):
    """In the file or the -wal: what was changed is never delivered as if it were true."""
    rng = random.Random(seed)
    path = tmp_path / "j.db"
    ids = make(path)
    children.run(KILLED, path)
    victim = path if seed % 2 else tmp_path / "j.db-wal"
    data = bytearray(victim.read_bytes())
    for _ in range(20):
        data[rng.randrange(100, len(data))] ^= 1 << rng.randrange(8)
    victim.write_bytes(data)
    got = []
    try:
        handler = DurableHandler(got.extend, path, sync_interval=0.05, drain_timeout=2)
    except JournalError as error:
        assert error.hint
        return
    log = logging.Logger("x")
    log.addHandler(handler)
    for i in range(50):
        log.error("after%d", i)
    handler.drain(5)
    handler.close()
    for entry in got:
        name, _, rest = entry.message.partition(" ")
        assert name.startswith(("after", "wal")) or (rest == "x" * 200 and ids.get(name, entry.id) == entry.id)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["whole", "truncated", "missing"])
def test_a_truncated_or_missing_wal_is_no_damage(tmp_path, children, how):
    """What it held is gone, which nobody can know; the rest is there, and no id is used again (another file, epoch)."""
    path = tmp_path / "j.db"
    ids = make(path)
    children.run(KILLED, path)
    wal = tmp_path / "j.db-wal"
    if how == "truncated":
        with wal.open("r+b") as f:
            f.truncate(wal.stat().st_size // 2)
    elif how == "missing":
        wal.unlink()
    found = contents(path)
    assert set(ids) <= set(found) | {f"m{i}" for i in range(100)}
    survived = len([name for name in found if name.startswith("wal")])
    assert {"whole": survived == 100, "truncated": 0 < survived < 100, "missing": survived == 0}[how]
    open_and_log(path).close()
    assert "after" in contents(path)


def test_a_file_that_never_was_a_journal_is_left_alone(tmp_path):
    """A mistyped path must not rename somebody's file."""
    path = tmp_path / "app.conf"
    path.write_text("key = value\n" * 1000)
    with pytest.raises(JournalError, match="damaged"):
        DurableHandler(None, path)
    assert path.read_text() == "key = value\n" * 1000
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
def test_reading_around_the_damage_needs_the_halving(tmp_path, monkeypatch):
    """The control: without it a whole range is lost with one bad page."""
    path = tmp_path / "j.db"
    make(path)
    overwrite(path, [100, 101])
    conn = sqlite3.connect(path)
    file = old_file.OldFile(conn, str(path))
    good = len(file.rows(101, COUNT, strict=True)[0])
    assert good > COUNT - 100 - 60
    monkeypatch.setattr(old_file, "LEAST", old_file.SPAN)
    assert len(file.rows(101, COUNT, strict=True)[0]) < good - 300
    conn.close()


@pytest.mark.slow
def test_a_row_that_reads_as_seq_0_never_moves_the_cursor_back(tmp_path, poll):
    """A sector of zeros raises no error: what can be read is delivered once, and the damage is noticed."""
    path = tmp_path / "j.db"
    ids = make(path, settled=0)
    raw = path.read_bytes()
    page = next(
        at for at in range(60 * PAGE_SIZE, len(raw), PAGE_SIZE) if raw[at] == 13 and b"m1" in raw[at : at + PAGE_SIZE]
    )
    for at in range(page + 512, page + PAGE_SIZE, 512):
        path.write_bytes(raw[:at] + bytes(512) + raw[at + 512 :])
        with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(path)) as conn:
            rows = conn.execute("SELECT seq, CAST(payload AS BLOB) FROM entries ORDER BY seq").fetchall()
            if 0 in [row[0] for row in rows]:
                break
    else:
        raise AssertionError("no sector of that page does it")
    got = []
    handler = DurableHandler(got.extend, path, sync_interval=0.05)
    assert poll(lambda: [p for p in tmp_path.iterdir() if ".damaged-" in p.name], 30)
    assert poll(lambda: handler._engine.store.damaged is None and handler.stats().pending == 0, 30)
    assert handler.drain(60)
    handler.close()
    names = [entry.message.split()[0] for entry in got]
    assert len(names) == len(set(names))
    assert COUNT - 20 < len(names) < COUNT
    assert all(ids[name] == entry.id for name, entry in zip(names, got, strict=True))


class Collects(logging.Handler):
    """The first word of each message."""

    def __init__(self):
        super().__init__()
        self.got = []

    def emit(self, record):
        self.got.append(record.getMessage().split()[0])


def overwrite_6000_bytes(path, at):
    with open(path, "r+b") as file:
        file.seek(int(path.stat().st_size * at))
        file.write(random.Random(3).randbytes(6_000))


@pytest.mark.slow
@pytest.mark.parametrize("at", [0.25, 0.4, 0.5, 0.75])
def test_damage_that_only_a_mark_meets_is_salvaged_too(tmp_path, capfd, at):
    """A record at a time: the entry is read, and what is malformed lies where its mark counts."""
    path = tmp_path / "j.db"
    ids = make(path)
    overwrite_6000_bytes(path, at)
    target = Collects()
    handler = DurableHandler(target, path, sync_interval=0.05, retry_min=0.05, retry_max=0.1)
    assert handler.drain(60)
    handler.close()
    assert "cannot be marked" not in capfd.readouterr().err
    assert len(target.got) - len(set(target.got)) <= 1  # what was accepted when the damage was met
    assert len(set(target.got)) > (COUNT - 100) * 0.97
    assert set(target.got) <= set(ids)


@pytest.mark.parametrize("is_seen", [True, False])
def test_damage_that_only_a_mark_meets_stops_the_line_unless_it_is_seen(tmp_path, monkeypatch, poll, is_seen):
    """Seen, it goes to the keeper; the control: taken for trouble that passes, it is tried again and again."""
    handler = DurableHandler(Collects(), tmp_path / "j.db", retry_min=0.05, retry_max=0.1, drain_timeout=0.1)

    def malformed(line, *_):
        raise (JournalDamaged if is_seen else JournalError)(line.path, "database disk image is malformed")

    monkeypatch.setattr(Line, "settle", malformed)
    monkeypatch.setattr(keeper.Keeper, "_tick", lambda self: 0.05)
    log = logging.Logger("x")
    log.addHandler(handler)
    log.error("m")
    engine = handler._engine
    assert poll(lambda: engine.store.damaged or "cannot be marked" in (engine.courier.delivery.last_error or ""))
    assert bool(engine.store.damaged) is is_seen
    engine.store.damaged = None  # it was only said
    handler.close()


@pytest.mark.slow
@pytest.mark.parametrize("number", [101, COUNT])
def test_a_seq_out_of_all_bounds_delays_nothing(tmp_path, number):
    """A damaged row says that it is the ninety billionth: nobody counts up to there, and what is logged next arrives."""
    path = tmp_path / "j.db"
    make(path)
    raw = bytearray(path.read_bytes())
    text = b'"m%d ' % (number - 1)
    page = next(at for at in range(0, len(raw), PAGE_SIZE) if raw[at] == 13 and text in raw[at : at + PAGE_SIZE])
    places = [page + int.from_bytes(raw[at : at + 2], "big") for at in range(page + 8, page + 8 + 2 * raw[page + 4], 2)]
    cell = max(place for place in places if place < raw.index(text, page))  # two bytes of length, then the seq
    raw[cell + 2 : cell + 8] = bytes([0x82, 0xD0, 0x9A, 0xB3, 0xC4, 0x11])
    path.write_bytes(raw)
    got = []
    handler = DurableHandler(got.extend, path, sync_interval=0.05)
    log = logging.Logger("x")
    log.addHandler(handler)
    log.error("after")
    assert handler.drain(60)
    assert handler.stats().pending == 0
    handler.close()
    names = [entry.message.split()[0] for entry in got]
    assert len(set(names)) == len(names) >= COUNT - 100
    assert "after" in names


@pytest.mark.parametrize("asked", ["newest_seq", "has_pending_up_to"])
def test_damage_that_drain_meets_is_no_exception_of_the_application(tmp_path, monkeypatch, poll, asked):
    """It asks the journal itself, in the caller: what it cannot read, the keeper repairs, and it goes on waiting."""
    handler = DurableHandler(lambda entries: None, tmp_path / "j.db", sync_interval=0.05)
    log = logging.Logger("x")
    log.addHandler(handler)
    log.info("m")
    real, met = getattr(Line, asked), []

    def malformed(self, *args):
        if not met and self is handler._engine.journal:
            met.append(1)
            raise JournalDamaged(self.path, "database disk image is malformed")
        return real(self, *args)

    monkeypatch.setattr(Line, asked, malformed)
    assert handler.drain(60)
    assert met
    assert poll(lambda: list(tmp_path.glob("j.db.damaged-*")), 30)
    handler.close()


@pytest.mark.slow
def test_a_damaged_schema_is_damage(tmp_path):
    """A column whose name has another letter: the constructor salvages, as it does if a page is destroyed."""
    path = tmp_path / "j.db"
    ids = make(path, settled=0)
    path.write_bytes(
        path.read_bytes().replace(
            b"TABLE meta (key TEXT PRIMARY KEY, value ", b"TABLE meta (key TEXT PRIMARY KEY, valve "
        )
    )
    got = []
    handler = DurableHandler(got.extend, path)
    assert handler.drain(60)
    handler.close()
    assert {entry.message.split()[0] for entry in got} == set(ids)


# --- what was deleted -----------------------------------------------------------------------------------------------


@pytest.fixture(params=["ours", "control"])
def leaves_traces(request, monkeypatch):
    """SQLite as many build it leaves what is deleted in its pages; the control: so does the journal."""
    connect = sqlite3.connect

    def connect_to_other_build(*args, **kwargs):
        conn = connect(*args, **kwargs)
        conn.execute("PRAGMA secure_delete=OFF")
        return conn

    monkeypatch.setattr(sqlite3, "connect", connect_to_other_build)
    if request.param == "control":
        prepare = schema.prepare

        def careless(conn, *args):
            prepare(conn, *args)
            conn.execute("PRAGMA secure_delete=OFF")

        monkeypatch.setattr(schema, "prepare", careless)
    return request.param == "control"


def prune(line):
    while tidy.prune_slice(line.store, 0):
        pass
    wal.checkpoint(line.store, shrink=True)


def root_page(path, table):
    with contextlib.closing(sqlite3.connect(path)) as conn:
        return conn.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()[0] - 1


def test_what_was_delivered_and_pruned_is_in_no_page_that_a_salvage_searches(tmp_path, leaves_traces):
    """The page of the cursor is destroyed, so that nothing says what was settled."""
    path = tmp_path / "j.db"
    filled(path, 1000, 900)
    with Line.open(path) as line:
        prune(line)
    overwrite(path, [root_page(path, "cursor")])
    open_and_log(path).close()
    found = set(contents(path)) - {"after"}
    pending = {f"m{number}" for number in range(900, 1000)}
    assert found > pending if leaves_traces else found == pending


def test_a_dead_letter_that_was_dropped_for_good_does_not_come_back(tmp_path, leaves_traces):
    """The first page is destroyed, without which SQLite reads nothing, and all pages are searched."""
    path = tmp_path / "j.db"
    filled(path, 300, 0)
    with Line.open(path) as line:
        buried = [Burial(seq, "refused", None, 1, None) for seq in range(1, 201)]
        line.mark(line.cursor(), upto=200, delivered=0, buried=buried)
        assert line.drop_dead() == 200
        prune(line)
    overwrite(path, [0])
    open_and_log(path).close()
    with Line.open(path) as line:
        assert bool(line.dead_letters()) is leaves_traces
        assert line.stats().pending == 101
