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
                "drain_timeout": 60,
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
    assert time.monotonic() - began < 30
    log.error("two")
    assert log.handlers[0].drain(60)
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


INI = """
[loggers]
keys=root,filed
[handlers]
keys=handler,url,mapping
[formatters]
keys=own
[logger_root]
handlers=
[logger_filed]
qualname=filed
propagate=0
handlers=handler,url,mapping
[handler_handler]
class=lastwords.DurableHandler
args=(FileHandler('%(here)s/handler.log'), '%(here)s/handler.db')
formatter=own
[handler_url]
class=lastwords.DurableHandler
args=('file:%(here)s/url.log', '%(here)s/url.db')
[handler_mapping]
class=lastwords.DurableHandler
args=({'class': 'logging.FileHandler', 'filename': '%(here)s/mapping.log'}, '%(here)s/mapping.db')
kwargs={'level': 'INFO', 'drain_timeout': 2}
formatter=own
[formatter_own]
format=OWN %(message)s
"""


def test_file_config_takes_every_kind_of_target_and_may_be_called_again(tmp_path):
    """As alembic does, in the middle of a program."""
    (tmp_path / "log.ini").write_text(INI)
    log = logging.getLogger("filed")
    try:
        for text in ("one", "two"):
            logging.config.fileConfig(tmp_path / "log.ini", {"here": str(tmp_path)}, disable_existing_loggers=False)
            log.warning(text)
            assert all(handler.drain(20) for handler in log.handlers)
    finally:
        for handler in log.handlers:
            handler.close()
        log.handlers.clear()
    assert (tmp_path / "handler.log").read_text() == (tmp_path / "mapping.log").read_text() == "OWN one\nOWN two\n"
    assert [line.split()[-1] for line in (tmp_path / "url.log").read_text().splitlines()] == ["one", "two"]
