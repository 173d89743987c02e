"""What users of other handlers for such engines report, and what happens here. The other reports are beside their scheme."""

import logging

import pytest

from lastwords import DurableHandler, Journal
from lastwords.targets import resolve
from targets.servers import WebServer
from targets.streams.engines import EPOCH, entries

RECONFIGURE = """
import logging, logging.config, sys, threading, time
url, journal = sys.argv[1:]
config = {"version": 1, "root": {"level": "DEBUG", "handlers": ["h"]}, "handlers": {"h": {
    "class": "lastwords.DurableHandler", "target": url, "journal": journal, "drain_timeout": 0.2}}}
logging.config.dictConfig(config)
ended = threading.Event()
def log():
    while not ended.is_set():
        logging.getLogger("app").info("x")
threads = [threading.Thread(target=log) for _ in range(2)]
for thread in threads:
    thread.start()
for _ in range(4):
    time.sleep(0.05)
    logging.config.dictConfig(config)
ended.set()
for thread in threads:
    thread.join()
print("done")
"""


@pytest.fixture
def web():
    pytest.importorskip("urllib3")
    server = WebServer()
    yield server
    server.shutdown()
    server.server_close()


def place(request, engine, web, name):
    """The URL of a stream of that name."""
    if engine == "otlp":
        return f"otlp+http://localhost:{web.server_port}"
    if engine == "kafka":
        pytest.importorskip("confluent_kafka")
    server = request.getfixturevalue(engine)
    if engine == "kafka":
        server.make(name)
    return server.url(name, "create=R1" if engine == "nats" else "")


ENGINES = pytest.mark.parametrize("engine", ["nats", "redis", "kafka", "otlp"])


@pytest.mark.slow
@ENGINES
def test_a_reconfiguration_during_delivery_is_no_deadlock(request, children, web, tmp_path, engine):
    """dictConfig holds logging's lock while the client logs (opentelemetry-python 3193, kafka-python 1931)."""
    url = place(request, engine, web, "reconfigured")
    out, err, _ = children.run(RECONFIGURE, url, tmp_path / "j.db", timeout=40)
    assert out == "done\n" and "Traceback" not in err


@ENGINES
def test_what_the_client_logs_is_not_delivered(request, web, tmp_path, engine):
    """No endless loop through the client's own log (opentelemetry-python 4688)."""
    handler = DurableHandler(place(request, engine, web, "loop"), tmp_path / "j.db")
    root, level = logging.getLogger(), logging.getLogger().level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        logging.getLogger("app").info("one")
        assert handler.drain(60)
        logging.getLogger("app").info("two")
        assert handler.drain(60)
        assert handler.stats().delivered == 2
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        handler.close()


LAST = """
import logging, sys
from lastwords import DurableHandler
logging.getLogger().addHandler(DurableHandler(*sys.argv[1:], drain_timeout=30))
for number in range(300):
    logging.warning("%d", number)
"""


@pytest.mark.slow
@ENGINES
def test_the_last_records_of_a_program_are_not_lost(request, children, web, tmp_path, engine):
    """It ends right after it logged, and an ending interpreter starts no threads (confluent-kafka-python 104)."""
    _, err, _ = children.run(LAST, place(request, engine, web, "last"), tmp_path / "j.db")
    assert err == ""
    with Journal(tmp_path / "j.db") as journal:
        stats = journal.stats()
    assert (stats.delivered, stats.pending, stats.dead) == (300, 0, 0), stats.last_error


FORKED = """
import logging, os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and newer warn of forks in threaded processes
from lastwords import DurableHandler
handler = DurableHandler(*sys.argv[1:], drain_timeout=30)
log = logging.getLogger()
log.addHandler(handler)
log.warning("before")
print(handler.drain(30), flush=True)
child = os.fork()
log.warning("after")
print(handler.drain(30), flush=True)
if child:
    print(os.waitpid(child, 0)[1], handler.stats().delivered)
"""


@pytest.mark.slow
@ENGINES
def test_parent_and_child_deliver_after_a_fork_with_an_open_client(request, children, web, tmp_path, engine):
    """Neither is dead or hangs for the other's connection and threads (confluent-kafka-python 172, kafka-python 1732)."""
    out, err, _ = children.run(FORKED, place(request, engine, web, "forked"), tmp_path / "j.db", timeout=60)
    assert out == "True\nTrue\nTrue\n0 3\n", err
    assert "Traceback" not in err  # a busy machine may have said that an answer was late


@pytest.mark.slow
def test_a_client_whose_queue_is_full_is_waited_for(kafka, monkeypatch):
    """BufferError is no reason to lose anything (confluent-kafka-python 16, 781)."""
    kafka.make("full")
    target = resolve(kafka.url("full"))
    settings = target._settings
    monkeypatch.setattr(target, "_settings", lambda: settings() | {"queue.buffering.max.messages": 7})
    target.deliver(entries(*range(1, 101)))
    target.close()
    assert [id for _, id, _ in kafka.read("full")] == [f"{EPOCH}-{number}" for number in range(1, 101)]
