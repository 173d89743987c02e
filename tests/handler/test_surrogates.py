"""Half of a surrogate pair, of a path or of a foreign reply, in what a journal notes: no text stops the line."""

import logging
import os

from lastwords import DurableHandler, Journal, Rejected

HALF = "\udcff"


def test_what_a_target_says_may_have_half_of_a_surrogate_pair(tmp_path):
    """A failure and a refusal are noted, escaped; the thread that delivers does not die of them."""
    answers = [ValueError(f"first {HALF}"), None, Rejected(f"no {HALF}")]

    def deliver(entries):
        answer = answers.pop(0) if answers else None
        if isinstance(answer, Rejected):
            raise Rejected(answer.reason, entries)
        if answer is not None:
            raise answer

    handler = DurableHandler(deliver, tmp_path / "j.db", retry_min=0.01, retry_max=0.02)
    for text in ("one", "two", "three"):
        handler.handle(logging.makeLogRecord({"msg": text}))
        assert handler.drain(60)
    assert handler.stats().dead == 1 and handler.stats().last_error == r"ValueError: first \udcff"
    handler.close()
    with Journal(tmp_path / "j.db") as journal:
        (letter,) = journal.dead_letters()
    assert letter.error == r"Rejected: no \udcff"


def test_journal_and_target_may_have_any_bytes_in_their_paths(tmp_path, recwarn):
    """A folder whose name is no UTF-8: made, delivered to, and not taken for another destination at the next start."""
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    os.mkdir(folder)
    for _ in range(2):
        handler = DurableHandler(logging.FileHandler(folder + "/out.txt"), folder + "/j.db")
        handler.handle(logging.makeLogRecord({"msg": "m"}))
        assert handler.drain(60)
        handler.close()
    assert not [w.message for w in recwarn.list if w.category is RuntimeWarning]  # others are other tests' garbage
    with open(folder + "/out.txt") as file:
        assert file.read() == "m\nm\n"
