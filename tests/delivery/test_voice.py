"""The handler speaks: a target that is down is mentioned, once, and so is that it is back, and what waits at the end."""

import logging

import pytest

from lastwords import DurableHandler, JournalError

PROGRAM = """
import logging, sys, lastwords
if sys.argv[2] == "quiet":
    logging.raiseExceptions = False
def down(entries):
    raise ConnectionRefusedError("mail.example.com:25: nobody listens")
handler = lastwords.DurableHandler(down if sys.argv[2] != "none" else None, sys.argv[1], drain_timeout=0.5)
log = logging.Logger("x"); log.addHandler(handler)
log.info("one"); log.info("two")
"""


def spoken(capfd):
    return [line for line in capfd.readouterr().err.splitlines() if line.startswith("lastwords:")]


def test_an_outage_is_one_line_and_its_end_another(tmp_path, capfd, poll):
    """With what happened, how many wait, and when it is tried again."""
    down, tries = [True], []

    def target(entries):
        tries.append(len(entries))
        if down[0]:
            raise ConnectionRefusedError("nobody listens")

    handler = DurableHandler(target, tmp_path / "j.db", retry_min=0.02, retry_max=0.05)
    log = logging.Logger("x")
    log.addHandler(handler)
    log.info("one")
    assert poll(lambda: len(tries) > 4, 30)
    down[0] = False
    assert handler.drain(60)
    handler.close()
    first, second = spoken(capfd)
    assert "cannot be delivered: ConnectionRefusedError: nobody listens; 1 entry waits, next attempt in 0.0 s" in first
    assert second.endswith("is delivered again")


@pytest.mark.parametrize("error", [JournalError("j.db", "the disk is full"), OSError("gone")])
def test_a_journal_that_cannot_be_counted_keeps_nobody_from_trying_again(tmp_path, capfd, poll, monkeypatch, error):
    """Nor from closing: what cannot be said is left out."""
    tries = []

    def target(entries):
        tries.append(len(entries))
        raise ConnectionRefusedError("nobody listens")

    handler = DurableHandler(target, tmp_path / "j.db", retry_min=0.02, retry_max=0.05, drain_timeout=0.2)

    def stats():
        raise error

    monkeypatch.setattr(handler._engine.courier.voice._journal, "stats", stats)
    log = logging.Logger("x")
    log.addHandler(handler)
    log.info("one")
    assert poll(lambda: len(tries) > 4, 30)
    handler.close()
    (first,) = spoken(capfd)
    assert "nobody listens; next attempt in 0.0 s" in first


def test_a_target_that_works_is_not_mentioned(tmp_path, capfd):
    """Silence is golden."""
    handler = DurableHandler(lambda entries: None, tmp_path / "j.db")
    log = logging.Logger("x")
    log.addHandler(handler)
    log.info("one")
    assert handler.drain(60)
    handler.close()
    assert spoken(capfd) == []


@pytest.mark.slow
def test_the_end_says_what_waits_where_and_what_delivers_it(children, tmp_path):
    """The command can be typed."""
    _, err, _ = children.run(PROGRAM, tmp_path / "j.db", "speaks")
    (left,) = [line for line in err.splitlines() if "for the next run" in line]
    assert f"journal {tmp_path}/j.db: 2 entries wait there" in left
    assert f"lastwords flush {tmp_path}/j.db --to TARGET" in left
    assert left.endswith("last error: ConnectionRefusedError: mail.example.com:25: nobody listens")


@pytest.mark.parametrize("how", ["quiet", "none"])
def test_nothing_is_said_where_nobody_wants_to_hear_or_delivers(children, tmp_path, how):
    """logging.raiseExceptions is false; a handler that only commits."""
    _, err, _ = children.run(PROGRAM, tmp_path / "j.db", how)
    assert err == ""
