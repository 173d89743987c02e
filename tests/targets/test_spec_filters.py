"""Filters of a mapping that stands alone."""

import logging
import socket

import pytest

from lastwords import DurableHandler
from lastwords.targets import resolve


class Only(logging.Filter):
    pass


DOWN = {"class": "logging.handlers.SysLogHandler", "socktype": socket.SOCK_STREAM}


def taken(journal, mapping, *names):
    """How many records of the loggers ``names`` get into the journal."""
    handler = DurableHandler(mapping, journal, drain_timeout=0)
    for name in names:
        logger = logging.Logger(name)
        logger.addHandler(handler)
        logger.error("from %s", name)
    stats = handler.stats()
    handler.close()
    return stats.pending + stats.delivered


@pytest.mark.parametrize(
    "given",
    [{"name": "app"}, {"()": f"{__name__}.Only", "name": "app"}, Only("app"), lambda record: record.name == "app"],
    ids=["mapping", "factory", "filter", "function"],
)
@pytest.mark.parametrize("down", [False, True], ids=["built", "down"])
def test_a_filter_works_also_before_the_handler_can_be_built(tmp_path, tcp_sink, given, down):
    """Without it (the control) both records are taken."""
    out = {"class": "logging.FileHandler", "filename": str(tmp_path / "out.log")}
    mapping = DOWN | {"address": ("127.0.0.1", tcp_sink.port)} if down else out
    assert taken(tmp_path / "j1.db", mapping | {"filters": [given]}, "app", "other") == 1
    assert taken(tmp_path / "j2.db", mapping, "app", "other") == 2


@pytest.mark.parametrize("down", [False, True], ids=["built", "down"])
def test_a_filter_by_name_is_refused_at_construction_not_by_the_first_record(tcp_sink, down, tmp_path):
    """Alone, there is nobody who knows the name; also when the server is down."""
    out = {"class": "logging.FileHandler", "filename": str(tmp_path / "out.log")}
    mapping = DOWN | {"address": ("127.0.0.1", tcp_sink.port)} if down else out
    with pytest.raises(ValueError, match="filters must be"):
        resolve(mapping | {"filters": ["context"]})
