"""Real servers on loopback for the URL targets: SMTP with TLS and passwords, HTTPS, syslog over TCP and TLS."""

import asyncio
import contextlib
import http.server
import socket
import ssl
import threading
import time

import trustme
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

from conftest import free_port

SECRET = "tr0ub4dor+3/x?"
SECRET_IN_URL = "tr0ub4dor%2B3%2Fx%3F"


def until(condition, seconds=60.0):
    """Poll until ``condition()`` is true; its value."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError("it did not happen in time")


class Certificates:
    """A certificate authority of our own, and a server's context with a certificate for localhost."""

    def __init__(self, folder):
        authority = trustme.CA()
        self.cafile = str(folder / "ca.pem")
        authority.cert_pem.write_to_path(self.cafile)
        self.server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("localhost", "127.0.0.1").configure_cert(self.server)
        self.authority = authority

    def for_another_host(self):
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.authority.issue_cert("elsewhere.example").configure_cert(context)
        return context


class MailServer:
    """An SMTP server that can be stopped and started on its port.

    ``mails``: (recipients, EmailMessage bytes). ``replies``: recipient to a list of replies to RCPT, used up.
    ``data_replies``: the same for DATA. ``logins``: what clients tried.
    """

    def __init__(self, *, starttls=None, implicit=None, login=False):
        self.port = free_port()
        self.mails, self.replies, self.data_replies, self.logins = [], {}, [], []
        self.encrypted = []
        self._starttls, self._implicit, self._login = starttls, implicit, login
        self._server = None

    # aiosmtpd's hooks
    async def handle_RCPT(self, server, session, envelope, address, options):
        replies = self.replies.get(address)
        if replies:
            return replies.pop(0)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        if self.data_replies:
            return self.data_replies.pop(0)
        self.encrypted.append(server.transport.get_extra_info("ssl_object") is not None)
        self.mails.append((list(envelope.rcpt_tos), envelope.content))
        return "250 OK"

    def _authenticate(self, server, session, envelope, mechanism, data):
        assert isinstance(data, LoginPassword)
        self.logins.append((data.login.decode(), data.password.decode()))
        if data.password.decode() == SECRET:
            return AuthResult(success=True)
        return AuthResult(success=False, handled=False, message=f"535 no: {data.password.decode()} is wrong")

    def start(self):
        options = {"hostname": "localhost", "timeout": 30}
        if self._starttls:
            options |= {"tls_context": self._starttls}
        if self._login:
            options |= {"authenticator": self._authenticate, "auth_require_tls": False, "auth_required": True}
        # Not aiosmtpd's Controller: the probe that it starts with knows nothing of our certificates.
        self._loop = loop = asyncio.new_event_loop()
        server = loop.run_until_complete(
            loop.create_server(
                lambda: SMTP(self, loop=loop, **options), "127.0.0.1", self.port, ssl=self._implicit, reuse_address=True
            )
        )
        self._server = server
        threading.Thread(target=loop.run_forever, daemon=True).start()
        return self

    def stop(self):
        if self._server is None:
            return
        loop, server, self._server = self._loop, self._server, None

        def end():
            server.close()
            for task in asyncio.all_tasks(loop):
                task.cancel()
            loop.call_later(0.05, loop.stop)

        loop.call_soon_threadsafe(end)
        until(lambda: not loop.is_running())
        loop.close()


class WebServer(http.server.ThreadingHTTPServer):
    """``requests``: (path, headers, body). ``script``: (status, headers, body) to answer with, used up; then 200."""

    def __init__(self, context=None):
        super().__init__(("127.0.0.1", 0), _Answers)
        self.requests, self.script, self.connections = [], [], 0
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_side=True)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def process_request(self, request, client_address):
        self.connections += 1
        super().process_request(request, client_address)

    def handle_error(self, request, client_address):
        pass  # clients that break the handshake or the connection are what the tests are about


class _Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((self.path, dict(self.headers), body))
        status, headers, text = self.server.script.pop(0) if self.server.script else (200, {}, b"{}")
        if status == 0:  # hang up
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args):
        pass


class SyslogSink:
    """Reads octet-counted frames; raises in ``frames`` what does not parse. Can be stopped and started on its port."""

    def __init__(self, context=None):
        self.port = free_port()
        self.context = context
        self.data = b""
        self.connections = []
        self.accepted = 0
        self._listener = None

    def start(self):
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()
        return self

    def _accept(self, listener):
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._read, args=(connection,), daemon=True).start()

    def _read(self, connection):
        try:
            if self.context is not None:
                connection = self.context.wrap_socket(connection, server_side=True)
            self.accepted += 1
            self.connections.append(connection)
            while chunk := connection.recv(65536):
                self.data += chunk
        except OSError:
            pass  # a broken connection is what some tests are about; what was read counts

    def stop(self):
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self.connections.clear()

    def frames(self):
        frames, rest = [], self.data
        while rest:
            length, space, rest = rest.partition(b" ")
            if not space or len(rest) < int(length):
                break  # the rest is on its way
            frames.append(rest[: int(length)])
            rest = rest[int(length) :]
        return frames
