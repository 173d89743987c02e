"""`lastwords prune`: deletes what was delivered, and nothing else."""

import os
import sqlite3
import time
from contextlib import closing

import pytest

from cli.tools import counts, log_to, run, run_json, sql


def kept(path):
    return [line.split()[0] for line in run("list", "--delivered", path).out.splitlines()]


def test_delivered_entries_go_pending_ones_stay(journal, sink):
    """The service keeps them for a day; --keep 0 does not; what is pending is not touched."""
    path = journal(count=500, keep_delivered=86400)
    run("flush", "--to", f"{sink.name}:deliver", path)
    log_to(path, 3)
    assert len(kept(path)) == 500
    assert run("prune", path).code == 0
    assert len(kept(path)) == 500, "as the service would"
    code, (done,) = run_json("prune", "--keep", "0", "--json", path)
    assert (code, done["pruned"]) == (0, 500)
    assert kept(path) == []
    assert counts(path) == (3, 500, 0)


def test_only_what_is_old_enough_goes(journal, sink):
    """--keep 1h deletes what was logged before that."""
    path = journal(count=10, keep_delivered=10**7, at=time.time() - 3605)
    run("flush", "--to", f"{sink.name}:deliver", path)
    assert len(kept(path)) == 10
    run("prune", "--keep", "1h", path)
    assert kept(path) == [str(i) for i in range(7, 11)] or kept(path) == [str(i) for i in range(6, 11)]


def test_dead_letters_stay_unless_their_age_is_named(journal, sink):
    """--dead SPAN deletes those that were buried longer ago."""
    path = journal()
    run("flush", "--to", f"{sink.name}:refuse_5", path)
    run("prune", "--keep", "0", path)
    run("prune", "--yes", "--dead", "1h", path)
    assert counts(path)[2] == 1
    sql(path, f"UPDATE dead_letters SET buried_at = {time.time() - 7200}")
    assert "1 dead letter" in run("prune", "--yes", "--dead", "1h", path).out
    assert counts(path)[2] == 0


def test_deleting_dead_letters_asks(journal, sink):
    """prune --dead without a terminal and without --yes is wrong usage, and nothing is done."""
    path = journal()
    run("flush", "--to", f"{sink.name}:refuse_5", path)
    result = run("prune", "--dead", "0", path)
    assert result.code == 2 and "--yes" in result.err and path in result.err
    assert counts(path)[2] == 1
    assert run("prune", "--dead", "0", "--yes", path).code == 0
    assert counts(path)[2] == 0


@pytest.mark.slow
def test_the_file_shrinks(journal, sink):
    """Space goes back to the file system."""
    path = journal(count=20_000, keep_delivered=86400)
    run("flush", "--to", f"{sink.name}:deliver", path)
    before = os.path.getsize(path)
    code, (done,) = run_json("prune", "--keep", "0", "--json", path)
    assert code == 0
    assert before > 2**22
    assert os.path.getsize(path) < before / 20
    assert done["bytes"] < done["bytes_before"]


@pytest.mark.slow
def test_beside_a_service_that_logs(tmp_path, children, sink):
    """Pruning again and again beside a running service loses nothing of it."""
    path = tmp_path / "live.db"
    service = children.start(
        """
        import logging, sys, time
        from lastwords import DurableHandler
        log = logging.getLogger("app"); log.setLevel(1)
        h = DurableHandler(lambda entries: None, sys.argv[1], keep_delivered=3600)
        log.addHandler(h)
        print("up", flush=True)
        for i in range(3000): log.info("m%d", i); time.sleep(0.0005)
        print(h.drain(60), flush=True)
        """,
        path,
    )
    service.stdout.readline()
    while service.poll() is None:
        assert run("prune", "--keep", "0", path).code == 0
    out, err = service.communicate()
    assert (out, err) == (b"True\n", b"")
    assert counts(path) == (0, 3000, 0)


def test_a_reader_in_the_way_is_named_as_the_reason_why_no_space_came_back(journal, sink):
    """The -wal cannot be emptied while a program reads in it; lsof names that program."""
    path = journal(count=200)
    with closing(sqlite3.connect(path)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM cursor").fetchall()
        run("flush", "--to", f"{sink.name}:deliver", path)
        said = run("prune", "--keep", "0", path)
        assert said.code == 0 and f"lsof {path}-wal" in said.out
    assert "lsof" not in run("prune", path).out
