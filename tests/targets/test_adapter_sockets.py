"""One connection serves many records; a dead peer is noticed without waiting, over TLS too; ids travel along."""

import logging
import logging.handlers
import pickle
import socket
import ssl
import struct
import threading

import pytest

from lastwords.targets import resolve
from lastwords.targets.handlers.socket import peer_is_gone


def test_looking_at_a_socket_with_a_timeout_does_not_wait_and_does_not_call_it_gone(tcp_sink):
    """The control: with MSG_DONTWAIT Python waits for the timeout and raises, which looks like a dead peer."""
    tcp_sink.start()
    with socket.create_connection(("127.0.0.1", tcp_sink.port), timeout=0.2) as sock:
        with pytest.raises(TimeoutError):
            sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        assert not peer_is_gone(sock)
        assert sock.gettimeout() == 0.2


def test_what_the_peer_said_is_not_taken_from_the_socket():
    """A handler of one's own may want to read its answers."""
    ours, peer = socket.socketpair()
    peer.sendall(b"ack")
    assert not peer_is_gone(ours)
    assert ours.recv(10) == b"ack"
    peer.close()
    assert peer_is_gone(ours)
    ours.close()


@pytest.mark.parametrize(
    "make",
    [
        lambda port: logging.handlers.SocketHandler("127.0.0.1", port),
        lambda port: logging.handlers.SysLogHandler(("127.0.0.1", port), socktype=socket.SOCK_STREAM),
    ],
    ids=["SocketHandler", "SysLogHandler"],
)
def test_many_records_go_over_one_connection(entry, tcp_sink, poll, make):
    """Each look before a record finds the peer alive."""
    tcp_sink.start()
    target = resolve(make(tcp_sink.port))
    for i in range(5):
        target.deliver([entry(f"record {i}")])
    assert poll(lambda: b"record 4" in tcp_sink.data)
    assert len(tcp_sink.connections) == 1
    target.close()


@pytest.fixture
def tls_sink():
    """A TLS server: (port, context for clients, what it read, its connections)."""
    trustme = pytest.importorskip("trustme", reason="in the dev extra")
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    listener = socket.create_server(("127.0.0.1", 0))
    read, connections = [], []

    def serve():
        while True:
            try:
                connection = server.wrap_socket(listener.accept()[0], server_side=True)
            except OSError:
                return
            connections.append(connection)
            threading.Thread(target=keep, args=(connection,), daemon=True).start()

    def keep(connection):
        while True:
            try:
                chunk = connection.recv(65536)
            except OSError:
                return
            if not chunk:
                return
            read.append(chunk)

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()[1], client, read, connections
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    for connection in connections:
        connection.close()


def test_a_subclass_with_tls_works_and_its_dead_peer_is_noticed(entry, tls_sink, poll):
    """TLS sockets refuse MSG_PEEK (the control)."""
    port, context, read, connections = tls_sink

    class TLS(logging.handlers.SocketHandler):
        def makeSocket(self, timeout=1):
            return context.wrap_socket(super().makeSocket(timeout), server_hostname="localhost")

    target = resolve(TLS("127.0.0.1", port))
    for i in range(3):
        target.deliver([entry(f"record {i}")])
    assert poll(lambda: b"record 2" in b"".join(read))
    assert len(connections) == 1
    with pytest.raises(ValueError, match="flags"):
        target.handler.sock.recv(1, socket.MSG_PEEK)
    connections[0].shutdown(socket.SHUT_RDWR)
    assert poll(lambda: peer_is_gone(target.handler.sock))
    target.deliver([entry("again")])
    assert poll(lambda: b"again" in b"".join(read))
    assert len(connections) == 2
    target.close()


def test_a_socket_handlers_receiver_gets_the_id_and_nothing_else_of_ours(entry, tcp_sink, poll):
    """As the attribute lastwords_id of the record; stdlib's own pickle (the control) has none."""
    tcp_sink.start()
    handler = logging.handlers.SocketHandler("127.0.0.1", tcp_sink.port)
    one = entry("hello")
    assert b"lastwords" not in handler.makePickle(one.record)
    target = resolve(handler)
    target.deliver([one])
    assert poll(lambda: b"hello" in tcp_sink.data)
    (size,) = struct.unpack(">L", tcp_sink.data[:4])
    attributes = pickle.loads(tcp_sink.data[4 : 4 + size])
    assert attributes["lastwords_id"] == one.id
    assert not hasattr(one.record, "lastwords_id")
    plain = vars(logging.makeLogRecord({}))
    assert set(attributes) - set(plain) == {"lastwords_id"}
    target.close()
