"""`lastwords dead list|retry|drop`: what was buried, why, and what becomes of it."""

import json

import pytest

from cli.tools import counts, run, run_json, snapshot, sql


@pytest.fixture
def buried(journal, sink):
    """A journal with one dead letter, seq 5."""
    path = journal()
    assert run("flush", "--to", f"{sink.name}:refuse_5", path).code == 65
    return path


def test_list_says_what_it_was_and_why(buried):
    """The entry, the error, the attempts, when; the traceback when asked for."""
    out = run("dead", "list", buried).out
    assert "message 4" in out
    assert "Rejected: 550 no such user" in out
    assert "after 1 attempt\n" in out
    assert "Traceback" not in out
    assert "Traceback (most recent call last)" in run("dead", "list", "--traceback", buried).out


def test_json_keeps_the_entry_its_id_and_the_history(buried):
    """Entry, id, error, traceback text, attempts, first and last time."""
    code, (letter,) = run_json("dead", "list", "--json", buried)
    assert code == 0
    assert (letter["seq"], letter["message"], letter["attempts"]) == (5, "message 4", 1)
    assert letter["id"].endswith("-5")
    assert letter["error"] == "Rejected: 550 no such user"
    assert "Rejected" in letter["traceback"]
    assert letter["first_failed"] <= letter["buried"]


def test_retry_makes_it_pending_again_with_its_id(buried, sink):
    """Requeued at the end of the line; the next flush delivers it under the id it always had."""
    _, (letter,) = run_json("dead", "list", "--json", buried)
    assert run("dead", "retry", buried, 5).out == "requeued 1\n"
    assert counts(buried) == (1, 9, 0)
    assert run("flush", "--to", f"{sink.name}:deliver", buried).code == 0
    assert sink.lines()[-1] == f"{letter['id']} message 4"


@pytest.mark.parametrize("by", ["seq", "id"])
def test_letters_are_named_by_seq_or_id(buried, by):
    """Both are in the list."""
    _, (letter,) = run_json("dead", "list", "--json", buried)
    assert run_json("dead", "drop", "--yes", "--json", buried, letter[by]) == (0, {"deleted": 1})
    assert counts(buried) == (0, 9, 0)


def test_a_letter_that_is_not_there_is_66_and_nothing_is_done(buried):
    """Of several names one is wrong: none is touched."""
    result = run("dead", "drop", buried, 5, 6)
    assert result.code == 66
    assert "6" in result.err
    assert counts(buried) == (0, 9, 1)


def test_all_or_names_but_not_nothing(buried):
    """Neither names nor --all, or both: wrong usage."""
    assert run("dead", "retry", buried).code == 2
    assert run("dead", "drop", "--all", buried, 5).code == 2
    assert run("dead", "retry", "--all", buried).code == 0
    assert counts(buried) == (1, 9, 0)


def test_grep_finds_text_in_messages_and_reasons(buried):
    """--grep TEXT: what the entry says, its traceback, and why it was buried."""
    for text, count in (("MESSAGE 4", 1), ("no such user", 1), ("nothing of the kind", 0)):
        assert len(run_json("dead", "list", "--json", "--grep", text, buried)[1]) == count


def test_dropping_one_asks_too(buried):
    """Without a terminal --yes is wanted, and what would be deleted is said."""
    result = run("dead", "drop", buried, 5)
    assert result.code == 2 and "1 dead letter" in result.err and "--yes" in result.err
    assert counts(buried)[2] == 1


def test_dropping_all_asks_and_without_a_terminal_wants_yes(buried, monkeypatch):
    """Deleting for good is not done by accident."""
    assert run("dead", "drop", "--all", buried).code == 2
    assert counts(buried)[2] == 1
    assert run("dead", "drop", "--all", "--yes", buried).code == 0
    assert counts(buried)[2] == 0


def test_with_nothing_to_do_the_journal_is_not_written_to(journal, tmp_path):
    """`dead retry --all` of a journal without dead letters changes nothing."""
    path = journal()
    before = snapshot(tmp_path)
    assert run("dead", "retry", "--all", path).out == "requeued 0\n"
    assert snapshot(tmp_path) == before


def test_a_damaged_letter_is_listed_and_can_be_dropped(buried):
    """A dead letter that does not decode is shown as such, and does not stand in the way."""
    sql(buried, "UPDATE dead_letters SET payload = CAST(X'7BFF' AS TEXT), attempts = 'x', buried_at = 'y'")
    assert "cannot be shown" in run("dead", "list", buried).out
    (letter,) = json.loads(run("dead", "list", "--json", buried).out)
    assert "cannot be shown" in letter["message"]
    assert letter["levelname"] == "CRITICAL" and letter["level"] == 50 and letter["time"].endswith("+00:00")
    assert run("dead", "drop", "--yes", buried, 5).code == 0
