"""DurableHandler with a URL: journal, courier and a real receiver, through outages, poison and expired passwords."""

import gzip
import json
import logging

import pytest

from lastwords import DurableHandler
from targets.servers import MailServer, WebServer, until

pytest.importorskip("urllib3")


@pytest.fixture
def make(tmp_path):
    """A logger whose records go to ``url`` through a journal of its own."""
    handlers = []

    def build(url, **knobs):
        handler = DurableHandler(url, tmp_path / "j.db", **({"retry_min": 0.01, "retry_max": 0.05} | knobs))
        handlers.append(handler)
        logger = logging.Logger("shop")
        logger.addHandler(handler)
        return handler, logger

    yield build
    for handler in handlers:
        handler.close()


class Collector(WebServer):
    """Decides by the entries themselves: ``refuse(entry)`` gives a status, or None."""

    def __init__(self, refuse=lambda entry: None):
        super().__init__()
        self.refuse, self.got = refuse, []
        self.script = self  # asked for every answer

    def __bool__(self):
        return True

    def pop(self, _index):
        _path, headers, body = self.requests[-1]
        entries = [json.loads(line) for line in gzip.decompress(body).splitlines()]
        for entry in entries:
            status = self.refuse(entry)
            if status:
                return status, {}, b""
        self.got += [entry["message"] for entry in entries]
        return 200, {}, b""


@pytest.fixture
def collector():
    server = Collector()
    yield server
    server.shutdown()
    server.server_close()


def test_http_one_bad_entry_among_hundreds_is_buried_and_the_others_arrive_in_order(make, collector):
    """The receiver says 400 to any batch with it."""
    collector.refuse = lambda entry: 400 if entry["message"] == "record 123" else None
    handler, logger = make(f"http://localhost:{collector.server_port}/", linger=0.2)
    for number in range(300):
        logger.info("record %d", number)
    assert handler.drain(60)
    stats = handler.stats()
    assert (stats.delivered, stats.dead, stats.pending) == (299, 1, 0)
    assert collector.got == [f"record {number}" for number in range(300) if number != 123]


@pytest.mark.slow
def test_http_while_the_password_is_wrong_nothing_is_buried(make, collector):
    """However long: 401 is about us, not about the entries."""
    collector.refuse = lambda entry: 401
    handler, logger = make(f"http://localhost:{collector.server_port}/", suspect_after=2)
    for number in range(20):
        logger.info("record %d", number)
    until(lambda: len(collector.requests) > 25)
    assert handler.stats().dead == 0 and handler.stats().pending == 20
    assert "HTTP 401" in handler.stats().last_error
    collector.refuse = lambda entry: None
    assert handler.drain(60)
    assert sorted(collector.got) == sorted(f"record {number}" for number in range(20))


def test_http_ids_let_the_receiver_deduplicate(make, collector):
    """The answer is lost after the entries were stored: they come again, with the same ids."""
    lost = [True]

    def refuse(entry):
        if lost:
            lost.clear()
            return 500  # it stored them all the same
        return None

    collector.refuse = refuse
    handler, logger = make(f"http://localhost:{collector.server_port}/")
    logger.info("once")
    assert handler.drain(60)
    first, second = (json.loads(gzip.decompress(body)) for _, _, body in collector.requests)
    assert first["id"] == second["id"]
    keys = [headers["Idempotency-Key"] for _, headers, _ in collector.requests]
    assert keys[0] == keys[1] == first["id"]


def test_a_file_gets_every_record_once_through_a_rotation(make, tmp_path):
    """Journal to file, by URL."""
    path = tmp_path / "app.jsonl"
    handler, logger = make(f"file:{path}?format=json")
    for number in range(200):
        logger.info("record %d", number)
        if number == 100:
            assert handler.drain(60)
            path.rename(tmp_path / "app.jsonl.1")
    assert handler.drain(60)
    lines = (tmp_path / "app.jsonl.1").read_text().splitlines() + path.read_text().splitlines()
    assert [json.loads(line)["message"] for line in lines] == [f"record {number}" for number in range(200)]


@pytest.mark.slow
def test_a_steady_flood_is_one_mail_per_linger_not_one_after_the_other(make):
    """Records keep coming while each mail is sent; a drain that went on until nothing is pending sent a mail for
    every handful of them: 104 mails for 1,000 records."""
    server = MailServer().start()
    handler, logger = make(f"smtp://localhost:{server.port}/?to=a@x.test", linger=0.4, batch_size=1000)
    import time

    began = time.monotonic()
    while time.monotonic() - began < 1.5:
        logger.warning("tick")
        time.sleep(0.005)
    took = time.monotonic() - began
    assert handler.drain(60)
    assert 1 <= len(server.mails) <= 2 + took / 0.4
    server.stop()
