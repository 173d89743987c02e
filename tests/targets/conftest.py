"""Real servers on loopback."""

import http.server
import logging
import socket
import threading

import pytest
from aiosmtpd.controller import Controller

from conftest import free_port
from lastwords.record import codec


class Mailbox:
    """What an SMTP server received; ``refuse`` maps recipients to lists of replies, used up one by one."""

    def __init__(self):
        self.mails = []
        self.refuse = {}
        self.data_replies = []

    async def handle_RCPT(self, server, session, envelope, address, options):
        replies = self.refuse.get(address)
        if replies:
            return replies.pop(0)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        if self.data_replies:
            return self.data_replies.pop(0)
        self.mails.append((list(envelope.rcpt_tos), envelope.content.decode()))
        return "250 OK"


@pytest.fixture
def mailbox():
    box = Mailbox()
    controller = Controller(box, hostname="127.0.0.1", port=free_port(), server_hostname="localhost")  # else: DNS
    controller.start()
    box.host, box.port = "127.0.0.1", controller.port
    yield box
    controller.stop()


@pytest.fixture
def web():
    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self):
            length = int(self.headers.get("Content-Length") or 0)
            server.requests.append((self.command, self.path, dict(self.headers), self.rfile.read(length)))
            status, headers = server.script.pop(0) if server.script else (200, {})
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST = answer

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.requests, server.script = [], []
    server.address = f"127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


class TCPSink:
    """A TCP server that keeps what it reads; it can be stopped and started again on the same port."""

    def __init__(self):
        self.port = free_port()
        self.data = b""
        self.listener = None

    def start(self):
        self.listener = socket.create_server(("127.0.0.1", self.port))
        self.connections = []
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()

    def _accept(self, listener):
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self.connections.append(connection)
            threading.Thread(target=self._read, args=(connection,), daemon=True).start()

    def _read(self, connection):
        while True:
            try:
                chunk = connection.recv(65536)
            except OSError:
                return
            if not chunk:
                return
            self.data += chunk

    def stop(self):
        if self.listener is not None:
            self.listener.shutdown(socket.SHUT_RDWR)
            self.listener.close()
            for connection in self.connections:
                connection.shutdown(socket.SHUT_RDWR)
                connection.close()
            self.listener = None


@pytest.fixture
def tcp_sink():
    sink = TCPSink()
    yield sink
    sink.stop()


@pytest.fixture
def entry():
    """Makes an entry as the courier would hand it over."""
    count = [0]

    def make(message="hello", level=logging.ERROR, **extra):
        count[0] += 1
        live = logging.LogRecord("app.db", level, "/srv/app.py", 7, message, (), None, "work")
        live.__dict__.update(extra)
        created, number, payload, _ = codec.encode(live)
        return codec.decode(seq=count[0], id=f"abc-{count[0]}", created=created, level=number, payload=payload)

    return make
