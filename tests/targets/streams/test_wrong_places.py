"""A port where something else listens, or TLS where there is none: one clear line, in time, that shows no credentials."""

import contextlib
import socket
import threading
import time

import pytest

from lastwords.delivery.verdict import Fault, classify
from lastwords.targets import resolve
from targets.servers import SECRET, SECRET_IN_URL, Certificates, WebServer
from targets.streams.engines import entries

PACKAGES = {"nats": "nats", "kafk": "confluent_kafka", "redi": "redis", "otlp": "urllib3"}
QUICK = ["nats", "nats+tls", "redis", "rediss", "otlp+http", "otlp+https"]
SCHEMES = [*QUICK, *(pytest.param(scheme, marks=pytest.mark.slow) for scheme in ("kafka", "kafka+tls"))]
SAYS = {"hangs up": b"", "says something else": b"\x00\xff 220 \x1b[31m mail\r\n\r\n"}


@contextlib.contextmanager
def listening(serve):
    """The port of a listener that does ``serve`` to each connection."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer():
        with contextlib.suppress(OSError):  # the test is over
            while True:
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):  # it was hung up first
                    serve(connection)

    thread = threading.Thread(target=answer)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


@pytest.fixture(params=SAYS)
def stranger(request):
    """The port of a listener that is no engine."""
    with listening(lambda connection: connection.sendall(SAYS[request.param])) as port:
        yield port


def fails(scheme, port, seconds):
    """Deliver and check: an outage in one clear line, in time, without credentials."""
    path = "" if scheme.startswith("otlp") else "/logs"
    target = resolve(f"{scheme}://me:{SECRET_IN_URL}@127.0.0.1:{port}{path}?timeout={seconds}")
    began = time.monotonic()
    with pytest.raises(Exception) as caught:  # noqa: PT011 - what it means is checked below
        target.deliver(entries(1, 2))
    assert time.monotonic() - began < 30
    target.close()
    assert classify(caught.value) is Fault.OUTAGE, repr(caught.value)
    text = str(caught.value)
    assert text.startswith(f"{scheme}://127.0.0.1:{port}") and text.isprintable()
    assert SECRET not in text and SECRET_IN_URL not in text


@pytest.mark.parametrize("scheme", SCHEMES)
def test_something_else_listens_there(stranger, scheme):
    """An outage: perhaps the port is wrong, perhaps the server comes back."""
    pytest.importorskip(PACKAGES[scheme[:4]])
    fails(scheme, stranger, 1 if scheme.startswith("kafka") else 2)  # librdkafka tries again until then


@pytest.fixture
def encrypted(tmp_path):
    """The port of a server that speaks TLS only."""
    certificates = Certificates(tmp_path)
    with listening(lambda connection: certificates.server.wrap_socket(connection, server_side=True).close()) as port:
        yield port


PLAIN = ["nats", "redis", "otlp+http", pytest.param("kafka", marks=pytest.mark.slow)]


@pytest.mark.parametrize("scheme", PLAIN)
def test_a_plain_client_at_a_port_for_tls(encrypted, scheme):
    """An outage, told in time; a client of NATS waits for the server's first line, so that timeout is the answer."""
    pytest.importorskip(PACKAGES[scheme[:4]])
    fails(scheme, encrypted, 0.3 if scheme == "nats" else 1)


def test_otlp_over_tls_at_a_plain_port():
    """The other schemes are tried against their own servers, beside them."""
    pytest.importorskip("urllib3")
    web = WebServer()
    fails("otlp+https", web.server_port, 5)
    assert web.requests == []
    web.shutdown()
    web.server_close()
