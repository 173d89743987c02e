"""A target that takes a part of each batch is up: the rest follows at once."""

import logging
import time

import pytest

from lastwords import DurableHandler, TryAgain


def drained(tmp_path, deliver, count=12, seconds=30):
    handler = DurableHandler(None, tmp_path / "j.db")
    logger = logging.Logger("app")
    logger.addHandler(handler)
    for number in range(count):
        logger.error("%d", number)
    handler.close()
    handler = DurableHandler(deliver, tmp_path / "j.db", drain_timeout=0.1)
    began = time.monotonic()
    try:
        return handler.drain(seconds), time.monotonic() - began
    finally:
        handler.close()


def test_the_rest_of_a_batch_follows_without_a_pause(tmp_path):
    """A digest splits a flood into mails by TryAgain(accepted=n); the pause grew as if each were a failure."""
    got = []

    def two(entries):
        got.extend(entry.message for entry in entries[:2])
        if len(entries) > 2:
            raise TryAgain("the rest follows", accepted=2)

    done, took = drained(tmp_path, two)
    assert done
    assert took < 20  # six calls; with pauses 1 + 2 + 4 + 8 + 16 s
    assert got == [str(number) for number in range(12)]


@pytest.mark.slow
def test_a_target_that_takes_no_more_is_left_alone_for_a_while(tmp_path):
    """The control: it accepted two, then nothing; it is not called in a tight loop."""
    calls = []

    def full(entries):
        calls.append(len(entries))
        raise TryAgain("full", accepted=2 if len(calls) == 1 else 0)

    done, _ = drained(tmp_path, full, seconds=2)
    assert not done
    assert 2 <= len(calls) <= 5
