"""Programs whose sockets are gevent's: what is delivered on our own threads, and that the program ends."""

import pytest

GREEN = """
from gevent import monkey; monkey.patch_all()
import logging, sys, gevent
from lastwords import DurableHandler
handler = DurableHandler(sys.argv[1], sys.argv[2], drain_timeout=20)
log = logging.getLogger("app")
log.addHandler(handler)
def work(name):
    for number in range(20):
        log.warning("%s %d", name, number)
        gevent.sleep(0)
gevent.joinall([gevent.spawn(work, name) for name in "abc"])
print(handler.drain(30), handler.stats().delivered)
log.warning("the last one")
"""


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["nats", "redis", "kafka"])
def test_a_program_with_gevent_delivers_and_ends(request, children, tmp_path, engine):
    """Whatever the client does with patched sockets and threads; nothing of it is waited for at the end."""
    pytest.importorskip("gevent")
    server = request.getfixturevalue(engine)
    if engine == "kafka":
        server.make("green")
    url = server.url("green", "create=R1" if engine == "nats" else "")
    out, err, _ = children.run(GREEN, url, tmp_path / "j.db", timeout=60)
    assert (out, err) == ("True 60\n", "")
