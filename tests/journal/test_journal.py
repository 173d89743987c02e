"""``lastwords.Journal``: what README names, and nothing else."""

import logging

from lastwords import DurableHandler, Journal


def test_its_public_surface_is_what_the_manual_names():
    """Marks and the line of entries are for the courier."""
    names = {name for name in dir(Journal) if not name.startswith("_")}
    assert names == {"close", "dead_letters", "drop_dead", "entries", "retry_dead", "stats"}


def test_a_journal_is_looked_at_beside_the_program_that_logs_into_it(tmp_path):
    """Entries, numbers, dead letters: retried and dropped."""
    from lastwords import Rejected

    got = []

    def target(entries):
        if any(entry.message.startswith("bad") for entry in entries):
            raise Rejected("no", entries=[entry for entry in entries if entry.message.startswith("bad")])
        got.extend(entry.message for entry in entries)

    handler = DurableHandler(target, tmp_path / "j.db", keep_delivered=60.0)
    log = logging.Logger("x")
    log.addHandler(handler)
    for word in ("good", "bad one", "bad two"):
        log.error(word)
    assert handler.drain(60)
    with Journal(str(tmp_path / "j.db")) as journal:
        assert journal.path == str(tmp_path / "j.db")
        assert [e.message for e in journal.entries()] == []
        assert [e.message for e in journal.entries(pending=False, settled=True, limit=1)] == ["good"]
        first, second = journal.dead_letters()
        assert journal.drop_dead([first.id]) == 1
        handler.setLevel(logging.CRITICAL)
        handler.close()
        assert journal.retry_dead() == 1
        assert [e.id for e in journal.entries()] == [second.id]
        assert journal.stats().pending == 1
