"""``lastwords watch``: in a real terminal of 80x24, and what it computes."""

import os
import shutil
import subprocess
import sys

import pytest

from cli.tools import hung_holder, log_to, run, sql
from lastwords.cli import watch

pytest.importorskip("rich")


def state(**changes):
    fine = {"error": None, "pending": 0, "delivered": 0, "dead": 0, "dropped": 0, "last_error": None}
    return {**fine, "last_error_at": None, "oldest_age_seconds": None, **changes}


def test_rates_are_those_between_two_looks():
    """What was logged, and what left."""
    seen = watch.Seen("/j.db")
    seen.look(state(pending=10), 100.0)
    assert seen.rate_in is None
    seen.look(state(pending=5, delivered=25), 102.0)
    assert (seen.rate_in, seen.rate_out) == (10.0, 12.5)
    seen.look(state(error="gone", problem="gone"), 103.0)
    assert seen.rate_in is None
    seen.look(state(pending=5, delivered=25), 104.0)
    assert seen.rate_in is None, "the look before told nothing"


@pytest.mark.parametrize(
    ("values", "shown"),
    [([], ""), ([0, 0], "··"), ([1], "█"), ([0, 1, 100], "·▂█"), ([100, 50], "█▅"), (list(range(20)), "▇▇███")],
)
def test_the_sparkline_shows_the_last_values(values, shown):
    """The largest is a full bar, none but 0 is empty."""
    assert watch.sparkline(values, 5) == shown


def test_once_is_for_pipes_and_tickets(tmp_path):
    """Every journal, the fullest first, control characters shown and not obeyed."""
    log_to(tmp_path / "few.db", 2)
    log_to(tmp_path / "many.db", 30)
    sql(tmp_path / "many.db", "UPDATE cursor SET last_error = 'no\x1b[31m way', last_error_at = 1700000000")
    (tmp_path / "broken.db").write_text("no journal at all, though it is long enough to be read as something" * 20)
    result = run("watch", "--once", tmp_path / "few.db", tmp_path / "many.db", tmp_path / "broken.db")
    assert result.code == 0 and "\x1b" not in result.out
    lines = result.out.splitlines()
    assert "32 entries pending" in lines[0]
    order = [line.split()[0] for line in lines[2:5]]
    assert order == ["broken.db", "many.db", "few.db"]
    assert "no\\x1b[31m way" in result.out


def test_damage_and_who_is_in_the_way_are_shown(tmp_path):
    """What `status` says of a journal, watch says, too: its numbers alone would look sound."""
    path = log_to(tmp_path / "hung.db", 2)
    lease = hung_holder(path)
    aside = log_to(tmp_path / "damaged.db", 2) + ".damaged-20260101T000000Z"
    os.close(os.open(aside, os.O_CREAT, 0o600))
    result = run("watch", "--once", path, tmp_path / "damaged.db")
    lease.release()
    assert "hung.db: pid" in result.out and "has waited for its target" in result.out
    assert "damaged.db: was damaged: see damaged.db.damaged-20260101T000000Z" in result.out


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("tmux"), reason="needs tmux")
def test_fifty_journals_on_a_small_terminal_and_q_ends_it(tmp_path, poll):
    """24 lines of 80 columns hold it, the rest is counted; the terminal is as it was afterwards."""
    log_to(tmp_path / "j0.db", 5)
    for number in range(1, 50):
        shutil.copy(tmp_path / "j0.db", tmp_path / f"j{number}.db")
    socket = str(tmp_path / "tmux")

    def tmux(*args):
        return subprocess.run(
            ["tmux", "-S", socket, "-f", "/dev/null", *args], capture_output=True, text=True, timeout=30, check=False
        ).stdout

    command = (
        f"{sys.executable} -m lastwords watch --interval 0.2 '{tmp_path}/*.db'; echo ended with $?; stty -a; sleep 60"
    )
    env = {**os.environ, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
    subprocess.run(
        ["tmux", "-S", socket, "-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", command],
        env=env,
        check=True,
    )
    try:
        assert poll(lambda: "q quits" in tmux("capture-pane", "-p"), 30), tmux("capture-pane", "-p")
        lines = tmux("capture-pane", "-p").splitlines()
        assert lines[0].startswith("lastwords  50 journals, 250 entries pending")
        assert "more  q quits" in "".join(lines) and all(len(line) <= 80 for line in lines)
        log_to(tmp_path / "late.db", 1_000)
        assert poll(lambda: "1,000" in tmp_screen(tmux)[2], 30), "a new journal appears, the fullest on top"
        tmux("send-keys", "q")
        assert poll(lambda: "ended with 0" in tmux("capture-pane", "-p"), 30)
        assert poll(lambda: " icanon" in tmux("capture-pane", "-p"), 10), "keys want Return again"
    finally:
        tmux("kill-server")


def tmp_screen(tmux):
    return [*tmux("capture-pane", "-p").splitlines(), "", "", ""]


def test_without_journals_it_is_a_usage_error():
    """As for other verbs."""
    assert run("watch").code == 2
