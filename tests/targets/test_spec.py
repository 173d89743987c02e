"""Targets from mappings: dictConfig from a dict and from TOML, stand-alone, built again after a failure."""

import logging
import logging.config
import logging.handlers
import socket
import tomllib

import pytest

from lastwords import DurableHandler
from lastwords.targets import resolve


def config(journal, target, name="durable", **others):
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"brief": {"format": "%(levelname)s:%(message)s:%(request)s"}},
        "filters": {"context": {"()": f"{__name__}.Context"}},
        "handlers": {name: {"class": "lastwords.DurableHandler", "target": target, "journal": str(journal)}, **others},
        "loggers": {"spec": {"handlers": [name], "level": "DEBUG", "propagate": False}},
    }


class Context(logging.Filter):
    def filter(self, record):
        record.request = "req-7"
        return True


@pytest.fixture
def configured():
    def configure(settings):
        logging.config.dictConfig(settings)
        return logging.getLogger("spec")

    yield configure
    for handler in logging.getLogger("spec").handlers:
        handler.close()
    logging.getLogger("spec").handlers.clear()


def test_a_nested_target_uses_the_formatters_and_filters_of_the_configuration(configured, tmp_path):
    """As in any dictConfig."""
    out = tmp_path / "out.log"
    target = {
        "class": "logging.FileHandler",
        "filename": str(out),
        "formatter": "brief",
        "filters": ["context"],
        "level": "INFO",
    }
    log = configured(config(tmp_path / "j.db", target))
    log.debug("no")
    log.info("yes")
    assert log.handlers[0].drain(60)
    assert out.read_text() == "INFO:yes:req-7\n"


def test_toml(configured, tmp_path):
    """The same from a file."""
    text = f"""
    version = 1
    disable_existing_loggers = false
    [formatters.brief]
    format = "%(levelname)s:%(message)s"
    [handlers.durable]
    class = "lastwords.DurableHandler"
    journal = "{tmp_path}/j.db"
    sync_level = "WARNING"
    mode = "640"
    ignore_loggers = ["urllib3"]
    [handlers.durable.target]
    class = "logging.FileHandler"
    filename = "{tmp_path}/out.log"
    formatter = "brief"
    [loggers.spec]
    handlers = ["durable"]
    level = "DEBUG"
    propagate = false
    """
    log = configured(tomllib.loads(text))
    log.info("yes")
    assert log.handlers[0].drain(60)
    assert (tmp_path / "out.log").read_text() == "INFO:yes\n"


def test_a_reference_to_a_handler_that_is_built_already(configured, tmp_path):
    """cfg://handlers.NAME, where NAME sorts before our own."""
    other = {"class": "logging.FileHandler", "filename": str(tmp_path / "out.log")}
    log = configured(config(tmp_path / "j.db", "cfg://handlers.a_file", a_file=other))
    log.info("yes")
    assert log.handlers[0].drain(60)
    assert (tmp_path / "out.log").read_text() == "yes\n"


def test_a_reference_to_a_handler_that_is_not_built_yet_says_what_to_do(configured, tmp_path):
    """gh-92929 gives a bare mapping when the name sorts later."""
    other = {"class": "logging.FileHandler", "filename": str(tmp_path / "out.log")}
    with pytest.raises(ValueError) as caught:
        configured(config(tmp_path / "j.db", "cfg://handlers.z_file", z_file=other))
    assert "nest" in str(caught.value.__cause__)
    assert not (tmp_path / "j.db").exists()


def test_a_bare_name_suggests_the_reference():
    """Users expect MemoryHandler's way."""
    with pytest.raises(ValueError, match="cfg://handlers.mail"):
        resolve("mail")


def test_ext_works_in_and_outside_of_dict_config(configured, tmp_path):
    """An object by its name."""
    log = configured(config(tmp_path / "j.db", f"ext://{__name__}.collect"))
    log.info("yes")
    assert log.handlers[0].drain(60)
    assert resolve(f"ext://{__name__}.collect").label == f"{__name__}:collect"
    assert [entry.message for entry in collected] == ["yes"]


collected = []


def collect(entries):
    collected.extend(entries)


def test_a_mapping_stands_alone(tmp_path):
    """With a formatter of its own; also a factory."""
    mapping = {
        "class": "logging.FileHandler",
        "filename": str(tmp_path / "out.log"),
        "formatter": {"format": "<%(message)s>"},
        "level": "INFO",
    }
    before = repr(mapping)
    handler = DurableHandler(mapping, tmp_path / "j.db")
    assert repr(mapping) == before
    log = logging.Logger("x")
    log.addHandler(handler)
    log.info("yes")
    assert handler.drain(60)
    handler.close()
    assert (tmp_path / "out.log").read_text() == "<yes>\n"
    assert resolve({"()": logging.StreamHandler}).label.startswith("StreamHandler")


@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        ({"klass": "x"}, "class"),
        ({"class": "logging.NoSuchHandler"}, "cannot build"),
        ({"class": "logging.FileHandler"}, "cannot build"),
        ({"class": "logging.FileHandler", "filename": "x", "typo": 1}, "cannot build"),
        ({"()": "builtins.dict"}, "not a logging.Handler"),
    ],
)
def test_a_wrong_mapping_says_what_is_wrong(mapping, words):
    """At construction."""
    with pytest.raises(ValueError, match=words):
        resolve(mapping)


def test_a_server_that_is_down_at_construction_is_tried_again(tmp_path, tcp_sink, poll):
    """SysLogHandler over TCP connects in its constructor; level and filters work before it is built."""
    mapping = {
        "class": "logging.handlers.SysLogHandler",
        "address": ("127.0.0.1", tcp_sink.port),
        "socktype": socket.SOCK_STREAM,
        "level": "WARNING",
    }
    with pytest.raises(ConnectionRefusedError):  # the control
        logging.handlers.SysLogHandler(("127.0.0.1", tcp_sink.port), socktype=socket.SOCK_STREAM)
    handler = DurableHandler(mapping, tmp_path / "j.db", retry_min=0.05, retry_max=0.1)
    log = logging.Logger("x")
    log.addHandler(handler)
    log.info("below")
    log.warning("one")
    assert poll(lambda: handler.stats().retries > 1)
    tcp_sink.start()
    assert handler.drain(60)
    assert poll(lambda: b"one" in tcp_sink.data)
    assert b"below" not in tcp_sink.data
    handler.close()
