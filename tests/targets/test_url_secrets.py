"""A password is in no text that is shown or journaled: label, repr, warnings, errors, tracebacks, dead letters."""

import logging
import os
import pickle
import traceback
import warnings

import pytest

import lastwords
from lastwords import DurableHandler
from lastwords.record import codec
from lastwords.targets import resolve
from lastwords.targets.digest import smtp_digest
from lastwords.targets.streams import jetstream, kafka, redis_streams
from lastwords.targets.urls import files, http, otlp, secret, syslog
from lastwords.targets.urls.secret import Credentials, Secret
from lastwords.targets.urls.secret import shown as shown_target
from targets.leaky import LEAKY, WELL_FORMED
from targets.servers import SECRET, SECRET_IN_URL, Certificates, MailServer, WebServer, free_port

pytest.importorskip("urllib3")

FORMS = [SECRET, SECRET_IN_URL, "dHIwdWI0ZG9y", "hunterhunter"]  # base64 of its beginning


def shown(error):
    """Everything that a log or a dead letter may show of an error, local variables included."""
    found = traceback.TracebackException.from_exception(error, capture_locals=True)
    inside = os.path.dirname(lastwords.__file__)
    ours = "".join(f"{frame.filename}{frame.locals}" for frame in found.stack if frame.filename.startswith(inside))
    return "".join(traceback.format_exception(error)) + repr(error) + str(error) + ours


def assert_secret(text):
    for form in FORMS:
        assert form not in text


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.delenv("LASTWORDS_USERNAME", raising=False)
    monkeypatch.delenv("LASTWORDS_PASSWORD", raising=False)


@pytest.mark.parametrize(
    "url",
    [
        f"smtp://hunterhunter:{SECRET_IN_URL}@h/?to=a@x.test",
        f"smtps://hunterhunter:{SECRET_IN_URL}@h/?to=a@x.test",
        f"https://hunterhunter:{SECRET_IN_URL}@h/in?auth=bearer",
    ],
)
def test_label_repr_and_warnings_show_no_credentials(url, tmp_path):
    """The journal remembers the label, the handler shows its repr."""
    target = resolve(url)
    assert_secret(target.label + repr(target) + "".join(target.warnings))
    handler = DurableHandler(url, tmp_path / "j.db")
    assert_secret(repr(handler))
    handler.close()
    assert_secret((tmp_path / "j.db").read_bytes().decode("latin-1"))


@pytest.mark.parametrize(
    "url",
    [
        "smtp://hunterhunter:hushhush/word@mail.example.com/?to=a@x.test",  # an unencoded / ends the host
        "smtp://hunterhunter:hushhush?word@mail.example.com/?to=a@x.test",
        "smtp://hunterhunter:hushhush#word@mail.example.com/?to=a@x.test",
        "smtp://hunterhunter:12/34hunterhunter@mail.example.com/?to=a@x.test",
        "http://hunterhunter:hushhush",  # no host at all
        "https://hunterhunter:hush hush@h/",
        "https://hunterhunter:hushhush@[::1/",
        "https://hunterhunter:hushhush@h/?timeot=5",
        "https://hunterhunter:hushhush@h/?timeout=x",
        "smtpz://hunterhunter:hushhush@h/",
        "syslog+tcp://hunterhunter:hushhush@h/",
        "smtp://hunterhunter:hushhush@h/?to=a@x.test&credentials=APP",
    ],
)
def test_a_url_that_is_refused_is_not_quoted_with_its_password(url):
    """urllib's own errors quote it: int('hushhush') for a port."""
    with pytest.raises(ValueError) as caught:
        resolve(url)
    text = "".join(traceback.format_exception(caught.value))
    assert "hush" not in text and "hunterhunter" not in text


@pytest.mark.parametrize("text", LEAKY)
def test_whatever_is_mistyped_no_error_shows_the_password(text, tmp_path):
    """In the error's own text and in its causes; where the password is in such a text can only be guessed."""
    for wrong in (text, f"ext://{text}", f"cfg://{text}"):
        with pytest.raises((ValueError, ImportError)) as caught:
            DurableHandler(wrong, tmp_path / "j.db")
        assert "s3cret" not in "".join(traceback.format_exception_only(caught.value))
        assert "s3cret" not in "".join(map(str, (caught.value.__cause__, caught.value.__context__)))
    assert "s3cret" in text and "s3cret" not in shown_target(text)


@pytest.mark.parametrize(("text", "as_shown"), WELL_FORMED)
def test_of_a_well_formed_target_all_but_the_credentials_is_shown(text, as_shown):
    """Negative control: scheme, host, path and knobs are there, so that one sees which target is meant."""
    assert shown_target(text) == as_shown


def test_the_knobs_whose_values_are_shown_are_all_known_ones():
    """A knob that is added is not shown before somebody has thought about it; those that may hold a key never are."""
    known = {
        *smtp_digest.KNOBS,
        *http.KNOBS,
        *files._FORMAT,
        *jetstream.KNOBS,
        *kafka.KNOBS,
        *redis_streams.KNOBS,
        *otlp.KNOBS,
        "mode",
    }.union(*syslog.KNOBS.values())
    assert known - {"auth", "query", "credentials", "resource"} == secret.HARMLESS


def test_an_smtp_server_that_quotes_the_password_in_its_refusal(tmp_path, entry):
    """It says "535 no: PASSWORD is wrong"; the control is what smtplib alone says."""
    certificates = Certificates(tmp_path)
    server = MailServer(starttls=certificates.server, login=True).start()
    wrong = "hunterhunter2"
    try:
        import smtplib

        with smtplib.SMTP("127.0.0.1", server.port) as plain, pytest.raises(smtplib.SMTPException) as control:
            plain.login("me", wrong)
        assert wrong in str(control.value)
        target = resolve(f"smtp://me:{wrong}@localhost:{server.port}/?to=a@x.test&cafile={certificates.cafile}")
        with pytest.raises(ConnectionError, match="login refused: 535 no: ") as caught:
            target.deliver([entry()])
    finally:
        server.stop()
    assert server.logins[-1] == ("me", wrong)
    assert_secret(shown(caught.value))


def test_an_http_server_that_quotes_the_headers_in_its_answer(entry):
    """Debug pages do that."""
    server = WebServer()
    server.script = [(401, {}, b"no: hunterhunter:hunterhunter " + b"aHVudGVyaHVudGVyOmh1bnRlcmh1bnRlcg==")]
    target = resolve(f"http://hunterhunter:hunterhunter@localhost:{server.server_port}/")
    with pytest.raises(RuntimeError, match="HTTP 401") as caught:
        target.deliver([entry()])
    assert server.requests[0][1]["Authorization"] == "Basic aHVudGVyaHVudGVyOmh1bnRlcmh1bnRlcg=="
    text = shown(caught.value)
    assert "hunterhunter" not in text and "aHVudGVy" not in text
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    "url", ["smtp://me:{}@localhost:{}/?to=a@x.test", "https://me:{}@localhost:{}/in?query=k%3D{}"]
)
def test_a_connection_that_fails_shows_no_credentials(url, entry):
    """Nor the receiver's query string, where keys travel too."""
    target = resolve(url.format(SECRET_IN_URL, free_port(), SECRET_IN_URL))
    with pytest.raises(ConnectionError) as caught:
        target.deliver([entry()])
    assert_secret(shown(caught.value))


def test_a_tls_failure_shows_no_credentials(tmp_path, entry):
    """ssl's errors are long."""
    web = WebServer(Certificates(tmp_path).server)
    target = resolve(f"https://me:{SECRET_IN_URL}@localhost:{web.server_port}/")
    with pytest.raises(ConnectionError) as caught:
        target.deliver([entry()])
    assert_secret(shown(caught.value))
    web.shutdown()
    web.server_close()


# --- where credentials come from ---------------------------------------------------------------------------------


@pytest.fixture
def web():
    server = WebServer()
    yield server
    server.shutdown()
    server.server_close()


def authorization(web, query="", userinfo=""):
    target = resolve(f"http://{userinfo}localhost:{web.server_port}/{query}")

    created, level, payload, _ = codec.encode(logging.LogRecord("a", 40, "p", 1, "m", (), None))
    target.deliver([codec.decode(seq=1, id="a-1", created=created, level=level, payload=payload)])
    return {k: v for k, v in web.requests[-1][1].items() if k in ("Authorization", "X-Api-Key")}


def test_the_environment_gives_what_the_url_does_not(web, monkeypatch):
    """So that the URL can be in a file that everybody reads."""
    monkeypatch.setenv("LASTWORDS_USERNAME", "u")
    monkeypatch.setenv("LASTWORDS_PASSWORD", "p")
    monkeypatch.setenv("APP_PASSWORD", "key")
    basic = {"Authorization": "Basic dTpw"}
    assert authorization(web) == basic
    assert authorization(web, userinfo="u@") == basic
    assert authorization(web, userinfo="u:p@") == basic
    assert authorization(web, "?credentials=none") == {}
    assert authorization(web, "?credentials=APP&auth=bearer") == {"Authorization": "Bearer key"}
    assert authorization(web, "?credentials=APP&auth=header:X-Api-Key") == {"X-Api-Key": "key"}


def test_a_user_without_a_password_and_a_missing_variable_are_named(monkeypatch):
    """At construction, not when the first record waits."""
    with pytest.raises(ValueError, match="LASTWORDS_PASSWORD is not set"):
        resolve("https://user@h/")
    with pytest.raises(ValueError, match="APP_PASSWORD is not set"):
        resolve("https://h/?credentials=APP")
    with pytest.raises(ValueError, match="credentials must be the NAME"):
        resolve("https://h/?credentials=APP-1")
    monkeypatch.setenv("LASTWORDS_PASSWORD", "p\r\nX-Evil: 1")
    with pytest.raises(ValueError, match="control characters"):
        resolve("https://h/")


def test_the_environment_is_not_sent_in_the_clear_unless_told_to(monkeypatch):
    """A variable that was set for one destination must not go to another one for everybody to read."""
    monkeypatch.setenv("LASTWORDS_USERNAME", "u")
    monkeypatch.setenv("LASTWORDS_PASSWORD", "p")
    quiet = resolve("http://logs.example.com/")
    assert quiet._credentials is None and "not sent without TLS" in quiet.warnings[0]
    told = resolve("http://logs.example.com/?credentials=LASTWORDS")
    assert told._credentials is not None and "for everybody to read" in told.warnings[0]
    assert resolve("https://logs.example.com/").warnings == ()


def test_a_secret_is_shown_by_nothing():
    """Neither repr, str, format nor pickle."""
    secret = Secret("hunterhunter")
    assert "hunter" not in f"{secret}{secret!r}{vars(Secret)}"
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    assert "hunter" not in repr(Credentials("hunter", "hunterhunter", "the URL"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Credentials("u", "hunterhunter", "x").scrub("a hunterhunter b") == "a *** b"
