"""`lastwords replay`: what settles, what delivers copies, what only says what it would do."""

import json
import os
import pty
import select
import time

import pytest

from cli.tools import counts, finish, log_to, run, run_json, snapshot, sql, start

FILTERS = [
    (("--level", "error"), [3, 4, 8, 9]),
    (("--seq", "2-3"), [1, 2]),
    (("--since", "1h"), list(range(10))),
    (("--until", "2999-01-01"), list(range(10))),
    (("--logger", "app"), list(range(10))),
    (("--level", "error", "--limit", "1"), [3]),
]


def test_without_filters_it_settles(journal, sink):
    """A stale journal is delivered in order, and the cursor moves."""
    path = journal()
    result = run("replay", "--to", f"{sink.name}:deliver", path)
    assert result.code == 0
    assert "delivered 10" in result.out
    assert sink.messages() == [f"message {i}" for i in range(10)]
    assert counts(path) == (0, 10, 0)


@pytest.mark.parametrize(("options", "expected"), FILTERS, ids=lambda v: " ".join(v) if isinstance(v, tuple) else "")
def test_with_filters_it_delivers_copies_and_the_cursor_stays(journal, sink, options, expected):
    """Chosen entries arrive with their own ids and stay pending; the journal is not even written to."""
    path = journal()
    ids = [json.loads(line)["id"] for line in run("list", "--json", path).out.splitlines()]
    before = snapshot(os.path.dirname(path))[os.path.basename(path)]
    result = run("replay", "--to", f"{sink.name}:deliver", *options, path)
    assert result.code == 0, result
    assert sink.messages() == [f"message {i}" for i in expected]
    assert [line.split()[0] for line in sink.lines()] == [ids[i] for i in expected]
    assert counts(path) == (10, 0, 0)
    assert snapshot(os.path.dirname(path))[os.path.basename(path)] == before


def test_delivered_entries_can_be_sent_again(journal, sink):
    """--delivered delivers copies of what the journal keeps, with the same ids; dead letters are not among them."""
    path = journal(keep_delivered=3600)
    run("flush", "--to", f"{sink.name}:refuse_5", path)
    first = sink.lines()
    assert len(first) == 9
    assert run("replay", "--to", f"{sink.name}:deliver", "--delivered", path).code == 0
    assert sink.lines() == first + first
    assert counts(path) == (0, 9, 1)


@pytest.mark.parametrize("target", ["deliver", "Handler"])
def test_limit_settles_exactly_that_many(journal, sink, target):
    """--limit alone settles the first N, not a batch more; 75, because entries remain."""
    path = journal()
    assert run("replay", "--to", f"{sink.name}:{target}", "--limit", "3", path).code == 75
    assert len(sink.lines()) == 3
    assert counts(path) == (7, 3, 0)
    assert run("replay", "--to", f"{sink.name}:{target}", "--limit", "100", path).code == 0
    assert counts(path) == (0, 10, 0)


def test_another_destination_than_the_journals_own_wants_yes(journal, sink):
    """What would be settled is said, nothing is done without --yes; copies settle nothing and need no word."""
    path = journal()
    sql(path, "INSERT INTO meta VALUES ('destination', 'the auditors')")
    refused = run("replay", "--to", f"{sink.name}:deliver", path)
    assert refused.code == 2
    assert "settles 10 pending entries" in refused.err and "the auditors" in refused.err and "--yes" in refused.err
    assert counts(path) == (10, 0, 0) and sink.lines() == []
    assert run("replay", "--to", f"{sink.name}:deliver", "--level", "error", path).code == 0
    assert run("replay", "--to", f"{sink.name}:deliver", "--yes", path).code == 0
    assert counts(path) == (0, 10, 0)


def test_a_configuration_notes_its_destination_when_it_delivers_and_not_before(journal, sink, tmp_path):
    """Whoever looks, or is answered with no, has changed nothing; the journal of another handler keeps its own."""
    path, other = journal(), journal("other.db")
    for name in (path, other):
        sql(name, "INSERT OR REPLACE INTO meta VALUES ('destination', 'the auditors')")
    handler = {"class": "lastwords.DurableHandler", "target": f"file:{tmp_path}/out", "journal": str(path)}
    config = tmp_path / "log.json"
    config.write_text(json.dumps({"version": 1, "handlers": {"d": handler}}))
    said = run("replay", "--config", config, other)
    assert said.code == 2 and "--yes" in said.err
    run("replay", "--config", config, "--level", "error", path)
    for name in (path, other):
        assert run_json("status", "--json", name)[1][0]["destination"] == "the auditors"
    assert run("replay", "--config", config, path).code == 0
    assert str(tmp_path) in run_json("status", "--json", path)[1][0]["destination"]


def test_a_no_on_the_terminal_settles_nothing(journal, sink, monkeypatch):
    """The question says whose entries they are; whoever says no has changed nothing."""
    path = journal()
    sql(path, "INSERT INTO meta VALUES ('destination', 'the auditors')")
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda self: True)
    result = run("replay", "--to", f"{sink.name}:deliver", path, input="n\n")
    assert result.code == 130 and "nothing was done" in result.err, result
    assert counts(path) == (10, 0, 0)


def test_grep_delivers_copies_of_what_says_it(journal, sink):
    """--grep is a filter as --level is."""
    path = journal()
    assert run("replay", "--to", f"{sink.name}:deliver", "--grep", "MESSAGE 7", path).code == 0
    assert sink.messages() == ["message 7"] and counts(path) == (10, 0, 0)


def test_stdout_settles_nothing_unless_told_to(journal):
    """--to stdout: shows; --settle moves the cursor."""
    path = journal()
    shown = run("replay", "--to", "stdout:", path)
    assert shown.code == 0, shown
    assert all(f"message {i}" in shown.out for i in range(10))
    assert "delivered copies of 10" in shown.err
    assert counts(path) == (10, 0, 0)
    settled = run("replay", "--to", "stdout:", "--settle", path)
    assert settled.code == 0
    assert "message 9" in settled.out
    assert counts(path) == (0, 10, 0)


@pytest.mark.slow
def test_a_reader_of_stdout_that_goes_away_is_silence(journal):
    """`replay --to stdout: | head` ends without a word, and settles nothing."""
    path = journal(count=5000)
    process = start("replay", "--to", "stdout:", path)
    assert process.stdout.readline()
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(20) == 141
    assert err == ""
    assert counts(path)[0] == 5000


def test_a_file_is_a_target(journal, tmp_path):
    """--to file:PATH appends the entries, and settles them."""
    path = journal()
    assert run("replay", "--to", f"file:{tmp_path}/out.log", path).code == 0
    assert [f"message {i}" in line for i, line in enumerate((tmp_path / "out.log").read_text().splitlines())] == [
        True
    ] * 10
    assert counts(path) == (0, 10, 0)


def test_a_dry_run_delivers_nothing_and_changes_nothing(journal, sink):
    """--dry-run says how many, of which levels, from when to when; as JSON too."""
    path = journal()
    folder = os.path.dirname(path)
    before = snapshot(folder)
    result = run("replay", "--dry-run", "--to", f"{sink.name}:deliver", path)
    assert result.code == 0
    assert "would deliver and settle 10 entries" in result.out
    assert "2 ERROR" in result.out
    copies = run("replay", "--dry-run", "--level", "error", "--to", f"{sink.name}:deliver", path)
    assert "would deliver copies of 4 entries" in copies.out
    code, (tally,) = run_json("replay", "--dry-run", "--json", "--limit", "3", "--to", f"{sink.name}:deliver", path)
    assert (code, tally["entries"], tally["first_seq"], tally["last_seq"]) == (0, 3, 1, 3)
    assert tally["levels"][0] == {"level": 10, "levelname": "DEBUG", "entries": 1}
    after = {name: value for name, value in snapshot(folder).items() if name != "__pycache__"}
    assert after == {name: value for name, value in before.items() if name != "__pycache__"}
    assert sink.lines() == []


def test_without_a_target_it_points_at_list(journal):
    """A person who wants to see a journal is told of `list`."""
    result = run("replay", journal())
    assert result.code == 2
    assert "lastwords list" in result.err


def test_settle_and_filters_exclude_each_other(journal, sink):
    """The cursor cannot pass entries by: --settle with a filter is wrong usage."""
    assert run("replay", "--to", "stdout:", "--settle", "--level", "error", journal()).code == 2


def test_the_json_summary_is_complete(journal, sink):
    """--json: one object per journal, with what was done and the exit code."""
    path = journal()
    code, (job,) = run_json("replay", "--json", "--to", f"{sink.name}:refuse_5", path)
    assert code == 65
    assert (job["delivered"], job["buried"], job["remaining"], job["outcome"]) == (9, 1, 0, "done")
    assert job["exit_code"] == 65
    assert job["copies"] is False


# --- copies that meet trouble -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_copies_wait_for_a_target_that_is_down_and_then_give_up(journal, sink):
    """--timeout ends copies too: 75, and nothing is marked."""
    path = journal()
    began = time.monotonic()
    result = run("replay", "--to", f"{sink.name}:down", "--level", "info", "--timeout", "1.5", path)
    assert result.code == 75
    assert "nobody there" in result.out
    assert time.monotonic() - began < 20
    assert counts(path) == (10, 0, 0)


def test_a_refused_copy_is_counted_and_passed_by(journal, sink):
    """A refusal of a copy buries nothing: it is counted, the others are delivered, the code is 65."""
    path = journal()
    code, (job,) = run_json("replay", "--json", "--to", f"{sink.name}:refuse_5", "--level", "debug", path)
    assert (code, job["delivered"], job["refused"]) == (65, 9, 1)
    assert counts(path) == (10, 0, 0)


@pytest.mark.slow
def test_a_copy_that_keeps_failing_is_found_in_its_batch(journal, sink, module):
    """One entry of a batch fails for a reason of its own: the nine others arrive."""
    name = module(
        f"""
        from {sink.name} import deliver as good
        def deliver(entries):
            if any(e.seq == 7 for e in entries):
                raise KeyError("user")
            good(entries)
        """
    )
    path = journal()
    code, (job,) = run_json("replay", "--json", "--to", f"{name}:deliver", "--level", "debug", path)
    assert (code, job["delivered"], job["refused"]) == (65, 9, 1)
    assert sorted(sink.messages()) == sorted(f"message {i}" for i in range(10) if i != 6)


@pytest.mark.slow
def test_a_target_that_takes_a_part_gets_the_rest_once(journal, sink, module):
    """TryAgain(accepted=n): the n are not sent again."""
    name = module(
        f"""
        from lastwords import TryAgain
        from {sink.name} import deliver as good
        def deliver(entries):
            good(entries[:4])
            if len(entries) > 4:
                raise TryAgain("later", after=0.01, accepted=4)
        """
    )
    path = journal()
    assert run("replay", "--to", f"{name}:deliver", "--seq", "1-", path).code == 0
    assert sink.messages() == [f"message {i}" for i in range(10)]


def test_damaged_rows_are_no_copies(journal, sink):
    """A damaged row is counted, not delivered: 65."""
    path = journal()
    sql(path, "UPDATE entries SET payload = replace(payload, 'message 2', 'massage 2') WHERE seq = 3")
    assert run("replay", "--to", f"{sink.name}:deliver", "--seq", "1-5", path).code == 65
    assert sink.messages() == ["message 0", "message 1", "message 3", "message 4"]


# --- for people ----------------------------------------------------------------------------------------------------


def on_a_terminal(*args):
    """Run with stderr on a terminal; (exit code, what the terminal showed)."""
    ours, theirs = pty.openpty()
    process = start(*args, stderr=theirs)
    os.close(theirs)
    shown = b""
    while True:
        ready, _, _ = select.select([ours], [], [], 20)
        try:
            piece = os.read(ours, 4096) if ready else b""
        except OSError:  # the other side is closed
            piece = b""
        if not piece:
            break
        shown += piece
    os.close(ours)
    return finish(process).code, shown.decode()


@pytest.mark.slow
def test_a_terminal_gets_a_progress_bar_and_a_pipe_does_not(journal, sink):
    """The bar is on stderr, and only if that is a terminal."""
    code, shown = on_a_terminal("replay", "--to", f"{sink.name}:slow", journal(count=20))
    assert code == 0
    assert "Delivering" in shown
    assert "20/20" in shown
    assert "Delivering" not in run("replay", "--to", f"{sink.name}:deliver", log_to(os.path.abspath("p.db"))).err
