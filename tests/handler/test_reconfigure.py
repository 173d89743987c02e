"""dictConfig a second time does not wait for locks that it holds itself."""

import copy
import logging
import logging.config
import time

import pytest

from lastwords import DurableHandler, Target


@pytest.fixture
def configure(tmp_path):
    settings = {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {
            "durable": {
                "class": "lastwords.DurableHandler",
                "target": {"class": "logging.FileHandler", "filename": str(tmp_path / "out.log")},
                "journal": str(tmp_path / "j.db"),
                "drain_timeout": 5,
            }
        },
        "loggers": {"again": {"handlers": ["durable"], "level": "DEBUG", "propagate": False}},
    }

    def configure():
        logging.config.dictConfig(copy.deepcopy(settings))
        return logging.getLogger("again")

    yield configure
    for handler in logging.getLogger("again").handlers:
        handler.close()
    logging.getLogger("again").handlers.clear()


def test_a_second_dict_config_does_not_wait_for_the_target_to_close(configure, tmp_path, poll):
    """dictConfig holds logging's lock around close(), and the target's own close() wants it: it took drain_timeout."""
    log = configure()
    log.error("one")
    first = log.handlers[0]
    began = time.monotonic()
    log = configure()
    assert time.monotonic() - began < 2.5
    log.error("two")
    assert log.handlers[0].drain(10)
    assert (tmp_path / "out.log").read_text() == "one\ntwo\n"
    assert poll(lambda: first._engine.courier.thread is None)  # its target is closed a moment later
    assert first._front.stream is None


def test_without_loggings_lock_close_waits_until_the_target_is_closed(tmp_path):
    """The control: nothing is left to a thread that may not live."""

    class Slow(Target):
        closed = False

        def deliver(self, entries):
            pass

        def close(self):
            time.sleep(0.3)
            self.closed = True

    slow = Slow()
    handler = DurableHandler(slow, tmp_path / "j.db")
    log = logging.Logger("x")
    log.addHandler(handler)
    log.error("one")
    handler.close()
    assert slow.closed
