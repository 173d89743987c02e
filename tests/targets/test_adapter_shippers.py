"""Handlers of log shippers, from the real packages: what the receiver answered decides."""

import gzip
import importlib.util
import json
import logging
import logging.handlers
import zlib

import pytest

from lastwords import Rejected, TryAgain
from lastwords.targets import resolve
from targets.servers import Certificates

REASON = "in the dev extra"


def gelf(package, port, **knobs):
    module = pytest.importorskip(package, reason=REASON)
    cls = module.GELFHTTPHandler if package == "graypy" else module.GelfHttpHandler
    return cls(host="127.0.0.1", port=port, **knobs)


def unpacked(body):
    try:
        return json.loads(gzip.decompress(body))
    except gzip.BadGzipFile:
        return json.loads(zlib.decompress(body))


@pytest.mark.parametrize("package", ["graypy", "pygelf"])
def test_gelf_over_http_hears_the_status(package, web, entry):
    """Neither library reads the response: a 503 was an acceptance."""
    target = resolve(gelf(package, web.server_port))
    assert target.warnings == ()
    web.script[:] = [(503, {"Retry-After": "7"}), (400, {}), (403, {}), (202, {})]
    one = entry("nobody takes this")
    with pytest.raises(TryAgain) as failure:
        target.deliver([one])
    assert failure.value.after == 7
    with pytest.raises(Rejected):
        target.deliver([one])
    with pytest.raises(RuntimeError, match="403"):
        target.deliver([one])
    target.deliver([one])
    _, path, headers, body = web.requests[-1]
    assert path == "/gelf"
    assert headers["Idempotency-Key"] == one.id
    assert unpacked(body)["short_message"] == "nobody takes this"


@pytest.mark.parametrize("package", ["graypy", "pygelf"])
def test_a_gelf_handler_that_overrides_emit_is_warned_of(package, web):
    """It is called as it is."""
    plain = gelf(package, web.server_port)
    cls = type("Own", (type(plain),), {"emit": lambda self, record: None})
    plain.__class__ = cls
    assert "overrides emit()" in resolve(plain).warnings[0]


def test_gelf_over_https_keeps_the_handlers_own_tls(tmp_path, entry):
    """pygelf verifies if it is told to."""
    import http.server
    import threading

    pygelf = pytest.importorskip("pygelf", reason=REASON)
    certificates = Certificates(tmp_path)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(503)
            self.end_headers()

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = certificates.server.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        inner = pygelf.GelfHttpsHandler(
            host="localhost", port=server.server_port, validate=True, ca_certs=certificates.cafile
        )
        with pytest.raises(TryAgain, match="503"):
            resolve(inner).deliver([entry()])
    finally:
        server.shutdown()
        server.server_close()


def splunk(port, **knobs):
    splunk_handler = pytest.importorskip("splunk_handler", reason=REASON)
    knobs = {"flush_interval": 0, "retry_count": 0, "timeout": 2, "protocol": "http", "verify": False} | knobs
    return splunk_handler.SplunkHandler(host="127.0.0.1", port=port, token="t", index="i", **knobs)


def test_splunk_without_its_queue_hears_the_status(web, entry, capsys):
    """It prints what went wrong and goes on."""
    target = resolve(splunk(web.server_port))
    assert target.warnings == ()
    web.script[:] = [(403, {}), (400, {}), (200, {})]
    with pytest.raises(Exception, match="403"):
        target.deliver([entry()])
    with pytest.raises(Exception, match="400"):
        target.deliver([entry()])
    target.deliver([entry("taken")])
    assert b"taken" in web.requests[-1][3]
    web.server_close()
    web.shutdown()
    with pytest.raises(OSError, match="refused|reset|aborted|closed|Max retries"):
        target.deliver([entry()])
    target.close()


def test_splunk_with_its_queue_is_warned_of(web):
    """The knob that helps is named."""
    inner = splunk(web.server_port, flush_interval=60)
    assert "flush_interval=0" in resolve(inner).warnings[0]
    inner.timer.cancel()


def logstash(port, transport, **knobs):
    pytest.importorskip("logstash_async", reason=REASON)
    from logstash_async.handler import SynchronousLogstashHandler

    return SynchronousLogstashHandler("127.0.0.1", port, transport=f"logstash_async.transport.{transport}", **knobs)


def test_logstash_over_http_is_believed_and_what_it_skips_is_heard(web, entry):
    """It waits for the answer; an event that is too large it leaves out without a word."""
    target = resolve(logstash(web.server_port, "HttpTransport", max_content_length=4000))
    assert target.warnings == ()
    web.script[:] = [(503, {})]
    with pytest.raises(Exception, match="503"):
        target.deliver([entry()])
    target.deliver([entry("taken")])
    assert b"taken" in web.requests[-1][3]
    with pytest.raises(Rejected, match="max_content_length"):
        target.deliver([entry("x" * 5000)])
    assert len(web.requests) == 2


@pytest.mark.parametrize(("transport", "said"), [("TcpTransport", "TCP"), ("UdpTransport", "UDP")])
def test_logstash_without_an_answer_is_warned_of(transport, said):
    """With the transports that have one."""
    (warning,) = resolve(logstash(9, transport)).warnings
    assert said in warning and "HttpTransport" in warning
    assert "memory" not in warning
    (warning,) = resolve(logstash(9, transport, enable=False)).warnings
    assert "enable=False" in warning


# --- Django ------------------------------------------------------------------------------------------------------


ADMINS = ["a@x.test", "b@x.test"]


@pytest.fixture
def django_settings():
    django = pytest.importorskip("django", reason=REASON)
    from django.conf import settings
    from django.test.utils import override_settings

    if not settings.configured:
        settings.configure(SECRET_KEY="x")
        django.setup()
    return override_settings


@pytest.fixture
def django_mail(django_settings, mailbox):
    import django

    admins = ADMINS if django.VERSION >= (6,) else [("A", "a@x.test"), ("B", "b@x.test")]
    with django_settings(
        ADMINS=admins, SERVER_EMAIL="app@x.test", EMAIL_HOST=mailbox.host, EMAIL_PORT=mailbox.port, EMAIL_TIMEOUT=5,
        EMAIL_BACKEND="django.core.mail.backends.smtp.EmailBackend",
    ):  # fmt: skip
        yield django_settings


def admin_handler(**methods):
    from django.utils.log import AdminEmailHandler

    return type("Handler", (AdminEmailHandler,), methods)()


@pytest.mark.slow
def test_djangos_mail_backend_is_not_silent(django_mail, mailbox, entry):
    """Down, refused, accepted."""
    target = resolve(admin_handler())
    assert target.warnings == ()
    with django_mail(EMAIL_PORT=1), pytest.raises(OSError, match="refused"):
        target.deliver([entry()])
    mailbox.data_replies = ["554 no"]
    with pytest.raises(Exception, match="554"):
        target.deliver([entry()])
    target.deliver([entry("it broke")])
    ((recipients, content),) = mailbox.mails
    assert recipients == ["a@x.test", "b@x.test"] and "it broke" in content
    assert not {"connection", "send_mail"} & set(vars(target.handler))


def test_djangos_recipients_are_heard_one_by_one(django_mail, mailbox, entry):
    """The backend drops what sendmail() returns; who has the mail does not get it again."""
    target = resolve(admin_handler())
    mailbox.refuse["b@x.test"] = ["450 later"]
    one = entry()
    with pytest.raises(TryAgain, match="b@x.test"):
        target.deliver([one])
    target.deliver([one])
    assert [recipients for recipients, _ in mailbox.mails] == [["a@x.test"], ["b@x.test"]]
    mailbox.refuse["b@x.test"] = ["550 never"]
    with pytest.raises(Rejected, match="b@x.test"):
        target.deliver([entry()])


def test_a_django_handler_with_a_send_mail_of_its_own_is_not_silent_either(django_mail, mailbox, entry):
    """It is asked for with fail_silently=True."""

    def send_mail(self, subject, message, *args, **kwargs):
        from django.core import mail

        kwargs.pop("html_message", None)
        mail.send_mail(subject, message, "app@x.test", ["c@x.test"], *args, **kwargs)

    target = resolve(admin_handler(send_mail=send_mail))
    with django_mail(EMAIL_PORT=1), pytest.raises(OSError, match="refused"):
        target.deliver([entry()])
    target.deliver([entry()])
    assert [recipients for recipients, _ in mailbox.mails] == [["c@x.test"]]


if importlib.util.find_spec("django") and __import__("django").VERSION >= (6, 1):

    def test_djangos_mailers_are_not_silent(django_settings, mailbox, entry):
        """settings.MAILERS: down, refused, accepted; and a mailer that does not exist is no delivery."""
        from django.utils.log import AdminEmailHandler

        def settings(port):
            options = {"host": mailbox.host, "port": port, "timeout": 30}
            mailer = {"BACKEND": "django.core.mail.backends.smtp.EmailBackend", "OPTIONS": options}
            return django_settings(ADMINS=ADMINS, SERVER_EMAIL="app@x.test", MAILERS={"ops": mailer})

        with settings(1), pytest.raises(OSError, match="refused"):
            resolve(AdminEmailHandler(using="ops")).deliver([entry()])
        with settings(mailbox.port):
            target, one = resolve(AdminEmailHandler(using="ops")), entry()
            mailbox.refuse["b@x.test"] = ["450 later"]
            with pytest.raises(TryAgain, match="b@x.test"):
                target.deliver([one])
            target.deliver([one])
            with pytest.raises(Exception, match="default"):
                resolve(AdminEmailHandler()).deliver([entry()])
        assert [recipients for recipients, _ in mailbox.mails] == [["a@x.test"], ["b@x.test"]]


def test_a_django_backend_that_says_it_sent_nothing_has_failed(django_mail, entry, monkeypatch):
    """Its return value is the number of mails."""
    from django.core.mail.backends import locmem

    monkeypatch.setattr(locmem.EmailBackend, "send_messages", lambda self, messages: 0)
    with django_mail(EMAIL_BACKEND="django.core.mail.backends.locmem.EmailBackend"):
        with pytest.raises(ConnectionError, match="sent no mail"):
            resolve(admin_handler()).deliver([entry()])


def test_a_django_handler_without_admins_is_warned_of(django_mail, entry):
    """It sends no mail, and says nothing."""
    with django_mail(ADMINS=[]):
        target = resolve(admin_handler())
        assert "ADMINS is empty" in target.warnings[0]
        target.deliver([entry()])


def test_a_broker_in_place_of_a_socket_is_not_asked_for_its_state(entry):
    """graypy's handler for RabbitMQ is a SocketHandler without a socket."""
    sent = []

    class Channel:
        sendall = staticmethod(sent.append)
        close = staticmethod(lambda: None)

    class Rabbit(logging.handlers.SocketHandler):
        def makeSocket(self, timeout=1):
            return Channel()

    target = resolve(Rabbit("h", 1))
    target.deliver([entry()])
    target.deliver([entry()])
    assert len(sent) == 2
