"""The backlog measures of tools/bench measure something, and count what is lost or comes twice."""

import importlib
import pathlib
import random
import sys
import types

import pytest

LIB = pathlib.Path(__file__).parent.parent.parent / "tools" / "_lib"

linux = pytest.mark.skipif(not pathlib.Path("/proc/self/io").exists(), reason="needs Linux's /proc")


@pytest.fixture
def measures(monkeypatch):
    """The module; its neighbours are found in its folder."""
    monkeypatch.syspath_prepend(str(LIB))
    return importlib.import_module("bench_backlog")


@pytest.fixture
def bench(tmp_path):
    return types.SimpleNamespace(
        quick=True,
        rounds=2,
        rng=random.Random(7),
        folder=str(tmp_path),
        python=sys.executable,
        say=lambda text: None,
        each_round=lambda count, what: range(count),
    )


def check(rows):
    for row in rows:
        assert row.what
        assert row.goal
        assert any(letter.isdigit() for letter in row.value), row
    return rows


@pytest.mark.campaign
def test_a_drain_is_counted(measures, bench):
    rate, faults = check(measures.drain_rows(bench, {"lastwords": 250}))
    assert rate.details["delivered"] == 500
    assert min(rate.details["per_second"]["lastwords"]) > 1
    assert faults.ok is True
    assert list(pathlib.Path(bench.folder).glob("drain-lastwords*")) == []


@pytest.mark.campaign
@pytest.mark.parametrize(("broken", "lost", "twice"), [("lossy", 6, 0), ("twice", 0, 2)])
def test_a_broken_drain_is_counted(measures, bench, broken, lost, twice):
    """The negative controls: one entry of each batch skipped, one entry read twice; in two rounds."""
    _, faults = measures.drain_rows(bench, {"lastwords": 250}, broken)
    assert (faults.details["lost"], faults.details["twice"]) == (lost, twice)
    assert faults.ok is False


@pytest.mark.campaign
def test_what_arrives_in_files_and_over_http_is_counted(measures, bench):
    bench.rounds = 1
    rows = check(importlib.import_module("bench_targets").target_rows(bench, 300))
    assert [row.details["lost"] for row in rows] == [0, 0, 0, 0]
    assert list(pathlib.Path(bench.folder).glob("*-log*")) == []


@pytest.mark.slow
def test_a_child_that_crashes_is_no_value(measures, bench):
    with pytest.raises(measures.ChildFailed, match="no such break"):
        measures.drain_rows(bench, {"lastwords": 5}, "nonsense")


@pytest.mark.campaign
def test_rivals_are_drained_whole(measures, bench):
    """Theirs is counted as well: a rate of a rival that lost half would say nothing."""
    for module in ("persistqueue", "litequeue", "logstash_async"):
        pytest.importorskip(module)
    rows = check(measures.drain_rows(bench, {"lastwords": 100, "logstash": 100, "litequeue": 50, "persist_queue": 50}))
    assert [row.details["lost"] + row.details["twice"] for row in rows[1:]] == [0, 0, 0, 0]


@pytest.mark.campaign
def test_flatness_has_a_curve(measures, bench):
    rows = check(measures.flat_rows(bench, [100, 1_000], [], 2, 300, 10))
    assert [len(rows[0].details[key]) for key in ("sizes", "insert_us", "drain_us")] == [2, 2, 2]
    assert all(0.1 < micros < 1_000_000 for key in ("insert_us", "drain_us") for micros in rows[0].details[key])


@pytest.mark.campaign
def test_status_and_shrinking(measures, bench):
    (status,) = check(measures.process.status_rows(bench, 1_000, 3))
    assert len(status.details["ms"]["full"]) == 3
    (shrunk,) = check(measures.process.shrink_rows(bench, 1_000, 5))
    assert shrunk.details["delivered"] == 1_000
    assert shrunk.details["before"][0] > 100_000
    assert shrunk.ok is True


@pytest.mark.campaign
def test_shrinking_that_does_not_happen_is_missed(measures, bench):
    (row,) = measures.process.shrink_rows(bench, 1_000, 0.1, small=1_000)
    assert row.ok is False


@pytest.mark.campaign
@linux
def test_idle_and_bytes(measures, bench):
    switches, cpu = check(measures.process.idle_rows(bench, 1, 2.5))
    assert set(switches.details["threads"]) == {"lastwords-courier", "lastwords-keeper"}
    assert cpu.details["process_ms"] > 0
    rows = check(measures.process.bytes_rows(bench, 500, 0.2, 0.5))
    assert [row.details["page_size"] for row in rows] == [1024, 2048, 4096]
    assert all(row.details["wchar"] > row.details["record_bytes"] for row in rows)


@pytest.mark.campaign
@linux
def test_memory(measures, bench):
    ours, queue = check(measures.process.memory_rows(bench, 5_000))
    assert ours.details["lastwords"]["journaled"] == 7_000
    assert queue.details["queue"]["rss"] > 1_000
