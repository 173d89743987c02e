"""`lastwords dead list|retry|drop|bury`: what was buried, why, and what becomes of it."""

import json
import logging
import os
import threading

import pytest

from cli.tools import counts, hung_holder, run, run_json, snapshot, sql
from lastwords import DurableHandler


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


# --- bury ---------------------------------------------------------------------------------------------------


def test_what_blocks_the_line_is_buried_by_hand(journal, sink):
    """Shown first; it is a dead letter with its attempts and the last error, the rest is delivered, and it can be requeued."""
    path = journal(count=3)
    run("flush", "--timeout", "0.2", "--to", f"{sink.name}:down", path)
    result = run("dead", "bury", "--yes", path, 1)
    assert result.code == 0 and "message 0" in result.out and "nobody there" in result.out and "buried 1" in result.out
    _, (letter,) = run_json("dead", "list", "--json", path)
    assert letter["seq"] == 1 and letter["error"].startswith("by hand; last error: ConnectionRefusedError")
    assert run("flush", "--to", f"{sink.name}:deliver", path).code == 0
    assert sink.messages() == ["message 1", "message 2"]
    assert counts(path) == (0, 2, 1)
    assert run("dead", "retry", "--all", path).code == 0
    assert counts(path) == (1, 2, 0)


def test_burying_asks_and_without_a_terminal_wants_yes(journal):
    """What would be buried is said, and nothing is done."""
    path = journal()
    result = run("dead", "bury", path)
    assert result.code == 2 and "message 0" in result.out and "--yes" in result.err
    assert counts(path) == (10, 0, 0)


@pytest.mark.parametrize("entry", ["2", "77", "nonsense"])
def test_only_the_first_that_waits_can_be_buried(journal, entry):
    """Another one is not passed by."""
    path = journal()
    assert run("dead", "bury", "--yes", path, entry).code == 66
    assert counts(path) == (10, 0, 0)


def test_what_was_delivered_while_somebody_thought_is_not_buried(journal, monkeypatch, sink):
    """Between the question and the answer the line went on: nobody's entry is buried in its place."""
    path = journal(count=2)

    def meanwhile(*_, **__):
        assert run("flush", "--to", f"{sink.name}:deliver", path).code == 0

    monkeypatch.setattr("lastwords.cli.output.agreed", meanwhile)
    result = run("dead", "bury", path)
    assert result.code == 66 and "not the first any more" in result.err
    assert counts(path) == (0, 2, 0)


def test_nothing_to_bury(journal, sink):
    """Nothing is pending: said, and no fault."""
    path = journal(count=1)
    run("flush", "--to", f"{sink.name}:deliver", path)
    assert "nothing is pending" in run("dead", "bury", "--yes", path).out
    assert run_json("dead", "bury", "--yes", "--json", path) == (0, {"buried": None})


def test_a_damaged_head_can_be_buried(journal):
    """One that does not decode is shown as such."""
    path = journal(count=2)
    sql(path, "UPDATE entries SET payload = CAST(X'7BFF' AS TEXT) WHERE seq = 1")
    assert "cannot be shown" in run("dead", "bury", "--yes", path).out
    assert counts(path) == (1, 0, 1)


def test_burying_beside_a_service_that_waits_for_its_next_attempt(tmp_path):
    """Its lease is taken over, its marks are fenced, and it goes on behind what was buried, by itself."""
    accepted, tried = [], threading.Event()

    def deliver(entries):
        if entries[0].message == "poison":
            tried.set()
            raise ConnectionError("nothing gets past this")
        accepted.extend(entry.message for entry in entries)

    path = tmp_path / "live.db"
    handler = DurableHandler(deliver, path, batch_size=1, retry_min=0.5, retry_max=0.5)
    for text in ("poison", "one", "two"):
        handler.handle(logging.makeLogRecord({"msg": text, "levelno": 40}))
    assert tried.wait(30)
    assert run("dead", "bury", "--yes", path, 1).code == 0
    assert handler.drain(60)
    handler.close()
    assert accepted == ["one", "two"]
    assert counts(path) == (0, 2, 1)


def test_what_is_in_a_target_just_now_is_not_buried_by_others(journal):
    """It may have been accepted: 75, with who has it, unless --takeover says otherwise."""
    path = journal()
    lease = hung_holder(path)
    result = run("dead", "bury", "--yes", path)
    assert result.code == 75 and str(os.getpid()) in result.err and "--takeover" in result.err
    assert counts(path) == (10, 0, 0)
    assert run("dead", "bury", "--yes", "--takeover", path).code == 0
    assert not lease.held
    lease.release()
    assert counts(path) == (9, 0, 1)
