"""An id names the epoch that its seq is in, wherever a read begins and however many epochs it crosses."""

import contextlib
import logging
import math

import pytest

from lastwords.journal.line import Line
from lastwords.journal.rows import entry_id, epoch_of
from lastwords.journal.store import Store
from lastwords.record.codec import encode

EPOCHS = [(3, "b"), (5, "c"), (6, "d")]


@pytest.mark.parametrize(
    ("seq", "epoch"), [(1, (3, "b", 5)), (3, (3, "b", 5)), (4, (3, "b", 5)), (5, (5, "c", 6)), (6, (6, "d", math.inf))]
)
def test_the_epoch_of_a_seq(seq, epoch):
    """What is before the first one, which a prune of epochs may leave, is the first one's."""
    assert epoch_of(EPOCHS, seq) == epoch


@pytest.mark.parametrize("after", range(8))
def test_a_read_across_epochs_names_each_entry_after_its_own(tmp_path, after):
    """Also the first ones, from which the read knows an epoch, and one that was requeued."""
    with contextlib.closing(Line(Store(str(tmp_path / "j.db")))) as line:
        row = encode(logging.LogRecord("x", 20, "/x.py", 1, "m", (), None, "f"))
        with line.store.lock, line.store.transaction() as conn:
            conn.execute("DELETE FROM epochs")
            conn.executemany("INSERT INTO epochs VALUES (?, ?, 'boot', 1, 1, 0.0)", EPOCHS)
            for i in range(1, 9):
                conn.execute(
                    "INSERT INTO entries (created, level, payload, checksum, id) VALUES (?, ?, ?, ?, ?)",
                    (*row, "own" if i == 4 else None),
                )
        read = {entry.seq: entry.id for entry in line.read(after, 100)}
    assert read == {seq: entry_id(EPOCHS, seq, "own" if seq == 4 else None) for seq in range(after + 1, 9)}
    assert [read[seq] for seq in range(max(after + 1, 3), 9)] == ["b-3", "own", "c-5", "d-6", "d-7", "d-8"][
        max(0, after - 2) :
    ]
