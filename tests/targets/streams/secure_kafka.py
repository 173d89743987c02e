"""TLS and SASL in front of a Kafka server that has neither: brokers are asked for both in Kafka's own protocol.

Every message has its length in front. A request begins with its kind (int16), the version of that kind (int16) and a
number (int32) that the answer repeats. What is no SASL goes to the server and back; in what it says of its address, its
port is replaced by ours.
"""

import contextlib
import socket
import ssl
import struct
import threading

API_VERSIONS, HANDSHAKE, AUTHENTICATE = 18, 17, 36
SASL_KINDS = ((HANDSHAKE, 0, 1), (AUTHENTICATE, 0, 1))  # kind, lowest and highest version
NO_SUCH_MECHANISM = 33
WRONG, UNSUPPORTED = 58, 35  # SASL_AUTHENTICATION_FAILED, UNSUPPORTED_VERSION


class SecureKafka:
    """``password``: of the user "me", by SASL PLAIN. ``context``: for TLS; None: without."""

    def __init__(self, port, *, password=None, context=None):
        self.behind, self.password, self.context = port, password, context
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=32)
        self.port = self.listener.getsockname()[1]
        self.open = []
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for connection in self.open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return  # stopped
            self.open.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        server = socket.create_connection(("127.0.0.1", self.behind))
        with contextlib.suppress(OSError, ValueError), server, connection:
            client = connection
            if self.context is not None:
                client = self.context.wrap_socket(connection, server_side=True)
            known = self.password is None
            while (request := _frame(client)) is not None:
                kind, version, number = struct.unpack_from(">hhi", request)
                if kind == HANDSHAKE:
                    error = 0 if request.endswith(b"PLAIN") else NO_SUCH_MECHANISM
                    _send(client, struct.pack(">ihih", number, error, 1, 5) + b"PLAIN")
                elif kind == AUTHENTICATE:
                    known = request.endswith(b"\0me\0" + self.password.encode())
                    said = b"" if known else b"wrong for me"
                    answer = struct.pack(">ihh", number, 0 if known else WRONG, len(said)) + said
                    _send(client, answer + struct.pack(">iq", 0, 0)[: 12 if version else 4])
                elif kind == API_VERSIONS and version:
                    _send(client, struct.pack(">ihi", number, UNSUPPORTED, 0))  # it asks again, in version 0
                elif kind == API_VERSIONS:
                    _send(server, request)
                    answer = _frame(server)
                    count = struct.unpack_from(">i", answer, 6)[0] + len(SASL_KINDS)
                    added = b"".join(struct.pack(">hhh", *each) for each in SASL_KINDS)
                    _send(client, answer[:6] + struct.pack(">i", count) + answer[10:] + added)
                elif not known:
                    return
                else:
                    _send(server, request)
                    answer = _frame(server)
                    _send(client, answer.replace(struct.pack(">i", self.behind), struct.pack(">i", self.port)))


def _frame(connection):
    head = _exactly(connection, 4)
    return None if head is None else _exactly(connection, struct.unpack(">i", head)[0])


def _exactly(connection, count):
    data = b""
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            return None
        data += part
    return data


def _send(connection, message):
    connection.sendall(struct.pack(">i", len(message)) + message)


def server_context(certificates):
    """Of a broker called localhost."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificates.authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context
