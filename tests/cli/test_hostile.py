"""Every verb on journals with flipped bits, torn ends, random pages and forged columns: one line, never a traceback."""

import os
import random
import shutil
import sqlite3

import pytest

from cli.tools import log_to, run, sql

VERBS = (
    ("status",),
    ("status", "--check"),
    ("status", "--format", "prometheus"),
    ("list", "--json"),
    ("list", "--delivered", "--traceback"),
    ("dead", "list", "--traceback"),
    ("doctor",),
    ("replay", "--dry-run", "--to", "SINK:deliver"),
    ("replay", "--level", "info", "--to", "SINK:deliver"),
    ("dead", "retry", "--all"),
    ("flush", "--timeout", "3", "--to", "SINK:refuse_5"),
    ("prune", "--keep", "0", "--dead", "0", "--yes"),
    ("replay", "--timeout", "3", "--to", "SINK:deliver"),
)
COLUMNS = {
    "entries": "created level payload checksum id",
    "cursor": "settled fence consumed delivered dead dropped retries attempts probe failed_at last_error last_error_at",
    "dead_letters": "seq created level payload checksum error traceback attempts first_failed_at buried_at id",
    "meta": "value",
    "epochs": "uuid boot device first_seq begun_at",
}
VALUES = ("'x'", "X'FF00'", "CAST(X'FF' AS TEXT)", "-1", "9223372036854775807", "9e999", "''", "'\x1b[31m'")


def spoil(path, kind, rnd):
    """Change the file (``wal``: its -wal) at random."""
    if kind == "columns":
        table = rnd.choice(sorted(COLUMNS))
        column = rnd.choice(COLUMNS[table].split())
        try:
            sql(path, f"UPDATE {table} SET {column} = {rnd.choice(VALUES)}")
        except sqlite3.Error:
            return  # a constraint refused it
        return
    victim = path + "-wal" if kind == "wal" else path
    with open(victim, "rb") as file:
        content = bytearray(file.read())
    if kind == "bit" or kind == "wal":
        content[rnd.randrange(len(content))] ^= 1 << rnd.randrange(8)
    elif kind == "bytes":
        for _ in range(100):
            content[rnd.randrange(len(content))] = rnd.randrange(256)
    elif kind == "torn":
        del content[rnd.randrange(len(content)) :]
    elif kind == "page":
        at = rnd.randrange(len(content) // 4096) * 4096
        content[at : at + 4096] = rnd.randbytes(4096)
    with open(victim, "wb") as file:
        file.write(content)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["columns", "bit", "bytes", "torn", "page", "wal"])
def test_no_verb_ever_shows_a_traceback(kind, tmp_path, sink):
    """Whatever a journal holds, a verb ends with a known code and at most a line about it, and runs nothing of it."""
    rnd = random.Random(f"lastwords {kind}")
    base = log_to(tmp_path / "base.db", 60)
    run("replay", "--limit", "8", "--to", f"{sink.name}:refuse_5", base)
    held = sqlite3.connect(base, isolation_level=None)  # so that there is a -wal to copy
    held.execute("PRAGMA wal_autocheckpoint=0")
    held.execute(
        "INSERT INTO entries (created, level, payload, checksum) SELECT created, level, payload, checksum FROM entries"
    )
    codes = set()
    for number in range(12):
        path = str(tmp_path / f"{number}.db")
        for suffix in ("", "-wal"):
            shutil.copy(base + suffix, path + suffix)
        spoil(path, kind, rnd)
        for verb in VERBS:
            result = run(*(word.replace("SINK", sink.name) for word in verb), path)  # raises what a verb lets out
            assert "\x1b" not in result.out + result.err
            assert result.code in {0, 1, 2, 3, 65, 75}, (number, verb, result)
            codes.add(result.code)
        for name in os.listdir(tmp_path):
            if name.startswith(f"{number}.db"):
                os.unlink(tmp_path / name)
    held.close()
    assert 0 in codes or kind in {"torn", "bytes"}, "nothing was left to work with"
    if kind in {"bytes", "page", "torn", "columns"}:
        assert 65 in codes, "negative control: nothing of it was noticed"
