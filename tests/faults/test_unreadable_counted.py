"""How many records of a damaged journal could not be read is said exactly: whichever pages are damaged."""

import random
import re
import sqlite3

import pytest

from faults.damage import filled, overwrite
from lastwords import DurableHandler
from lastwords.journal import continuity
from lastwords.journal.line import Line
from lastwords.journal.new_schema import PAGE_SIZE

COUNT, SETTLED = 2_000, 100
INNER, LEAF = 5, 13  # kinds of pages, https://sqlite.org/fileformat2.html#b_tree_pages


def make(path):
    filled(path, COUNT, SETTLED)


def right_edge(path):
    """The pages from the root of the entries to the last leaf."""
    conn = sqlite3.connect(path)
    (page,) = conn.execute("SELECT rootpage FROM sqlite_master WHERE name = 'entries'").fetchone()
    conn.close()
    raw, found = path.read_bytes(), []
    while True:
        found.append(page)
        at = (page - 1) * PAGE_SIZE
        if raw[at] == LEAF:
            return found
        assert raw[at] == INNER
        page = int.from_bytes(raw[at + 8 : at + 12], "big")


def leaves(path, but):
    raw = path.read_bytes()
    edge = set(but)
    return [n for n in range(60, len(raw) // PAGE_SIZE) if raw[(n - 1) * PAGE_SIZE] == LEAF and n not in edge]


def destroy(path, pages):
    overwrite(path, [page - 1 for page in pages])  # SQLite counts them from 1


def salvage(path, poll):
    """What arrived of it, and what ``meta`` says: salvaged, unreadable."""
    got = []
    handler = DurableHandler(got.extend, path, sync_interval=0.05)
    assert poll(lambda: list(path.parent.glob("*.damaged-*")))
    assert handler.drain(60)
    with Line.open(path) as journal:
        said = [int(journal.get_meta(key)) for key in ("salvaged", "unreadable")]
    handler.close()
    return {entry.id for entry in got}, *said


EDGES = {
    "the root": lambda edge, others: edge[:1],
    "an inner page at the end": lambda edge, others: edge[-2:-1],
    "the last leaf": lambda edge, others: edge[-1:],
    "the last leaf and what leads to it": lambda edge, others: edge[-2:],
    "an inner page and leaves": lambda edge, others: [*edge[-2:-1], *others],
    "the root and leaves": lambda edge, others: [*edge[:1], *others],
    "the whole edge and leaves": lambda edge, others: [*edge, *others],
}


@pytest.mark.slow
@pytest.mark.parametrize("pages", EDGES.values(), ids=EDGES)
def test_what_could_not_be_read_is_counted_whatever_is_damaged(tmp_path, poll, capfd, pages):
    """SQLite finds no end, or a wrong one; the pages give some of it; how far it was is noted elsewhere."""
    path = tmp_path / "j.db"
    make(path)
    edge = right_edge(path)
    assert len(edge) >= 2
    destroy(path, pages(edge, random.Random(7).sample(leaves(path, edge), 4)))
    arrived, salvaged, unreadable = salvage(path, poll)
    assert len(arrived) + unreadable == COUNT - SETTLED
    assert salvaged <= len(arrived)
    err = capfd.readouterr().err
    assert re.findall(r"([\d,]+) could not be read", err) == [f"{unreadable:,}"], err


@pytest.mark.slow
def test_without_the_note_nobody_knows_of_the_end(tmp_path, poll, monkeypatch):
    """The control of the test above."""
    path = tmp_path / "j.db"
    make(path)
    destroy(path, right_edge(path)[-1:])
    monkeypatch.setattr(continuity, "read", lambda fd: None)
    arrived, _, unreadable = salvage(path, poll)
    assert len(arrived) < COUNT - SETTLED
    assert unreadable == 0


@pytest.mark.slow
def test_the_note_of_another_journal_counts_nothing(tmp_path, poll):
    """A journal copied over this one, and damaged: the note beside it was about the one before."""
    path, other = tmp_path / "j.db", tmp_path / "other.db"
    make(path)
    make(other)
    with open(other, "rb") as source, open(path, "r+b") as file:
        file.truncate(file.write(source.read()))
    destroy(path, right_edge(path)[-1:])
    arrived, _, unreadable = salvage(path, poll)
    assert len(arrived) < COUNT - SETTLED
    assert unreadable == 0


@pytest.mark.slow
@pytest.mark.parametrize("gone", [["cursor"], ["cursor", "entries"]])
def test_a_cursor_that_is_gone_is_no_reason_to_look_for_what_was_pruned(tmp_path, poll, gone):
    """Neither counted as unreadable, nor out of all bounds: what is there is pending, from the first on."""
    path, first = tmp_path / "j.db", 5_000_000
    make(path)
    conn = sqlite3.connect(path)
    conn.execute("UPDATE entries SET seq = -seq")  # by way of these: each seq is there once only
    conn.execute("UPDATE entries SET seq = ? - seq", (first,))
    conn.execute("UPDATE cursor SET settled = settled + ?, consumed = consumed + ?", (first, first))
    roots = dict(conn.execute("SELECT name, rootpage FROM sqlite_master WHERE name IN ('cursor', 'entries')"))
    conn.commit()
    noted = continuity._newest(conn)._replace(is_exact=False)
    conn.close()
    continuity.note_at_rest(str(path), noted)
    assert len(roots) == 2
    destroy(path, [roots[name] for name in gone])
    arrived, _, unreadable = salvage(path, poll)
    assert len(arrived) == COUNT
    assert unreadable == 0
