"""tools/bench shows what it measured, beside its goals, and tells when records are lost; how fast is not asked here."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent
ENV = {**os.environ, "LASTWORDS_TOOLS_PYTHON": sys.executable}
COMMAND = ["tools/bench", "--quick", "--rounds", "1"]


def run(*arguments, timeout=120):
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=timeout, env=ENV, cwd=ROOT, check=False
    )


def test_it_explains_itself():
    """With examples, and before anything is set up."""
    done = run("--help")
    assert done.returncode == 0
    assert "tools/bench --quick" in done.stdout
    assert "--break" not in done.stdout


@pytest.mark.slow
def test_it_names_its_measures():
    done = run("--list")
    names = [line.split()[0] for line in done.stdout.splitlines()]
    assert {"calls", "delivering", "paced", "threads", "synced", "spin", "sustained", "processes"} <= set(names)
    unknown = run("--only", "nonsense")
    assert unknown.returncode != 0
    assert "no measure nonsense" in unknown.stderr


@pytest.mark.campaign
def test_a_table_and_its_numbers(tmp_path):
    """Every contender has a line; what stores says how many records it has."""
    done = run("--only", "calls", "--json", str(tmp_path / "all.json"), "--folder", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "x FileHandler" in done.stdout
    for name in ("no-op handler", "QueueHandler", "persist-queue", "concurrent-log-handler", "lastwords"):
        assert any(line.startswith(name) for line in done.stdout.splitlines()), name
    found = json.loads((tmp_path / "all.json").read_text())
    assert {"python", "sqlite", "cores", "load", "rounds", "seed"} <= set(found)
    assert all(set(row) == {"what", "goal", "value", "ok", "details"} for row in found["rows"])
    details = found["rows"][0]["details"]
    for name in ("FileHandler", "lastwords"):
        count = details[name]["count"]
        assert count["logged"] == count["stored"] == 1_000  # one round, and one that warms up
        assert details[name]["p50_us"] <= details[name]["p99_us"] <= details[name]["p999_us"]
    assert details["FileHandler"]["ratio"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["all.json"]


@pytest.mark.campaign
@pytest.mark.parametrize(("measure", "lost"), [("calls", "10"), ("sustained", "120, 0 of 12,000")])
def test_a_contender_that_loses_is_told(measure, lost):
    """The negative control: every 100th record never gets there."""
    done = run("--only", measure, "--break", "lose")
    assert done.returncode == 1
    (line,) = (line for line in done.stdout.splitlines() if "lost" in line and "MISSED" in line)
    assert lost in line


@pytest.mark.campaign
def test_time_is_shared_out(tmp_path):
    """With fewer rounds than were asked for, but the same table."""
    done = run("--only", "shrinks,delivering", "--rounds", "500", "--seconds", "1", "--folder", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no time for more than" in done.stderr
    assert "one call while the courier delivers" in done.stdout


@pytest.mark.campaign
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_can_be_stopped(tmp_path, number):
    """Its children end, its folder is removed, and what was measured until then is shown."""
    with subprocess.Popen(
        [*COMMAND, "--only", "shrinks,calls", "--folder", str(tmp_path)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENV, cwd=ROOT, start_new_session=True,
    ) as process:  # fmt: skip
        for line in process.stderr:
            if "warming up" in line:
                break
        process.send_signal(number)
        shown, told = process.communicate(timeout=120)
        assert "file + wal after" in shown
        assert "cut short in calls, 1 of 2 measures are done" in told
        assert process.returncode == 128 + number
        assert list(tmp_path.iterdir()) == []
        deadline = time.monotonic() + 60
        while alive(process.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not alive(process.pid)


def alive(group):
    """Whether there is still a process of the group."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
