"""http(s)://: what is sent, and what each answer means. Real servers on loopback."""

import email.utils
import gzip
import json
import ssl
import time

import pytest

from lastwords import Rejected, TryAgain
from lastwords.delivery.verdict import Fault, classify
from lastwords.targets import resolve
from targets.servers import Certificates, WebServer, free_port

pytest.importorskip("urllib3")


@pytest.fixture
def server():
    web = WebServer()
    yield web
    web.shutdown()
    web.server_close()


def url(server, query="", scheme="http", path="/in"):
    return f"{scheme}://localhost:{server.server_port}{path}" + (f"?{query}" if query else "")


def sent(request):
    path, headers, body = request
    if headers.get("Content-Encoding") == "gzip":
        body = gzip.decompress(body)
    return body.decode()


# --- what is sent ---------------------------------------------------------------------------------------------------


def test_a_batch_is_json_lines_compressed_with_the_ids_in_it(server, entry):
    """The id of each entry, and a key for the whole request."""
    batch = [entry("one"), entry("two", user=7)]
    resolve(url(server)).deliver(batch)
    (request,) = server.requests
    path, headers, _ = request
    assert path == "/in" and headers["Content-Encoding"] == "gzip"
    assert headers["Content-Type"] == "application/x-ndjson" and headers["User-Agent"].startswith("lastwords/")
    lines = [json.loads(line) for line in sent(request).splitlines()]
    assert [line["id"] for line in lines] == ["abc-1", "abc-2"]
    assert [line["message"] for line in lines] == ["one", "two"]
    assert lines[1]["extra"] == {"user": 7}


def test_an_array_uncompressed_for_receivers_that_want_it(server, entry):
    """?format=array&gzip=0, with a query string of the receiver's own."""
    resolve(url(server, "format=array&gzip=0&query=stream%3Dapp%26x%3D1")).deliver([entry("one"), entry("two")])
    ((path, headers, body),) = server.requests
    assert path == "/in?stream=app&x=1"
    assert "Content-Encoding" not in headers and headers["Content-Type"] == "application/json"
    assert [item["message"] for item in json.loads(body)] == ["one", "two"]


def test_the_same_batch_has_the_same_key_in_another_process_and_another_batch_another_key(server, entry):
    """A receiver that knows the key need not store the batch twice."""
    first, second = entry(), entry()
    resolve(url(server)).deliver([first, second])
    resolve(url(server)).deliver([first, second])
    resolve(url(server)).deliver([first])
    keys = [headers["Idempotency-Key"] for _, headers, _ in server.requests]
    assert keys[0] == keys[1] != keys[2] == "abc-1"


def test_the_next_batch_is_made_ready_while_the_receiver_has_one(server, entry, monkeypatch):
    """Each line is made once, the next call's before this one's answer is read, and what was made is what goes."""
    target, made = resolve(url(server, "gzip=0")), []
    line = target._line
    monkeypatch.setattr(target, "_line", lambda one: made.append(one.seq) or line(one))
    monkeypatch.setattr(target, "_taken", lambda chunk, answer: made.append("answer"))
    entries = [entry(seq=seq) for seq in range(1, 6)]
    target.meanwhile = iter([entries[2:4], entries[4:]])
    target.deliver(entries[:2])
    target.deliver(entries[2:])
    assert made == [1, 2, 3, 4, 5, "answer", "answer"]
    target.meanwhile = iter([entries[:2]])
    target.deliver(entries[2:])
    target.deliver(entries[3:])  # not what was expected
    assert made[7:] == [3, 4, 5, 1, 2, "answer", 4, 5, "answer"]
    target.close()
    told = [[json.loads(text)["id"] for text in sent(request).splitlines()] for request in server.requests]
    assert told == [[one.id for one in part] for part in (entries[:2], entries[2:], entries[2:], entries[3:])]


def test_one_connection_serves_many_batches(server, entry):
    """A handshake per batch would be waste."""
    target = resolve(url(server))
    for _ in range(5):
        target.deliver([entry()])
    assert server.connections == 1 and len(server.requests) == 5
    target.close()


def test_a_large_batch_goes_in_several_requests_and_says_how_far_it_came(server, entry):
    """What was accepted is not sent again when a later part fails."""
    batch = [entry("x" * 600) for _ in range(6)]
    target = resolve(url(server, "max_bytes=2000"))
    target.deliver(batch)
    ids = [[json.loads(line)["id"] for line in sent(r).splitlines()] for r in server.requests]
    assert sum(ids, []) == [e.id for e in batch] and len(ids) > 2
    server.script = [(200, {}, b""), (503, {"Retry-After": "7"}, b"")]
    with pytest.raises(TryAgain) as caught:
        target.deliver(batch)
    assert caught.value.accepted == len(ids[0]) and caught.value.after == 7


# --- what the answers mean ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 202, 204, 409])
def test_accepted(server, entry, status):
    """409: the receiver knows the key of this very batch."""
    server.script = [(status, {}, b"")]
    resolve(url(server)).deliver([entry()])


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 507])
def test_not_now(server, entry, status):
    """TryAgain never counts against an entry."""
    server.script = [(status, {}, b"busy")]
    with pytest.raises(TryAgain, match=f"HTTP {status}.*busy") as caught:
        resolve(url(server)).deliver([entry()])
    assert caught.value.after is None and caught.value.accepted == 0


@pytest.mark.parametrize("status", [429, 503, 409])
def test_retry_after_in_seconds_and_as_a_date_is_honoured(server, entry, status):
    """409 with it: the receiver is still busy with the first request."""
    soon = email.utils.formatdate(time.time() + 30, usegmt=True)
    server.script = [(status, {"Retry-After": "12"}, b""), (status, {"Retry-After": soon}, b"")]
    target = resolve(url(server))
    with pytest.raises(TryAgain) as caught:
        target.deliver([entry()])
    assert caught.value.after == 12
    with pytest.raises(TryAgain) as caught:
        target.deliver([entry()])
    assert 20 < caught.value.after <= 31


@pytest.mark.parametrize("status", [400, 413, 418, 422, 451])
def test_a_refused_entry_is_rejected_with_what_the_receiver_said(server, entry, status):
    """Unnamed: of several, the courier finds the culprit by halving."""
    server.script = [(status, {}, b'{"error": "no field x"}\nmore')] * 2
    with pytest.raises(Rejected, match=f"HTTP {status}.*no field x") as caught:
        resolve(url(server)).deliver([entry()])
    assert caught.value.entries is None
    if status != 413:
        with pytest.raises(Rejected) as caught:
            resolve(url(server)).deliver([entry(), entry()])
        assert caught.value.entries is None


@pytest.mark.parametrize("status", [401, 403, 404, 405, 407, 410, 415])
def test_an_expired_password_or_a_wrong_address_buries_nothing(server, entry, status):
    """It is about the request: every entry would be refused alike, and all of them would be buried."""
    server.script = [(status, {}, b"")]
    with pytest.raises(RuntimeError, match=f"HTTP {status}") as caught:
        resolve(url(server)).deliver([entry()])
    assert classify(caught.value) is Fault.FAILURE


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(server, entry, status):
    """Records and passwords go where the user said."""
    elsewhere = WebServer()
    server.script = [(status, {"Location": f"http://localhost:{elsewhere.server_port}/"}, b"")]
    with pytest.raises(RuntimeError, match="not followed"):
        resolve(url(server)).deliver([entry()])
    assert elsewhere.requests == []
    elsewhere.shutdown()
    elsewhere.server_close()


def test_too_large_is_halved_and_remembered(server, entry):
    """The next batches are small enough at once."""
    batch = [entry("x" * 100) for _ in range(8)]
    server.script = [(413, {}, b"")]
    target = resolve(url(server))
    target.deliver(batch)
    assert [len(sent(r).splitlines()) for r in server.requests][0] == 8
    assert sum(len(sent(r).splitlines()) for r in server.requests[1:]) == 8
    before = len(server.requests)
    target.deliver(batch)
    assert all(len(sent(r).splitlines()) < 8 for r in server.requests[before:])


# --- no answer ---------------------------------------------------------------------------------------------------


def test_nobody_listens(entry):
    """An outage, in one line."""
    port = free_port()
    with pytest.raises(ConnectionError, match=f"http://localhost:{port}/.*refused") as caught:
        resolve(f"http://localhost:{port}/").deliver([entry()])
    assert classify(caught.value) is Fault.OUTAGE and "\n" not in str(caught.value)


def test_hanging_up_in_the_middle_is_an_outage(server, entry):
    """The batch may have been taken: it is sent again with the same key."""
    server.script = [(0, {}, b"")]
    target = resolve(url(server))
    first = entry()
    with pytest.raises(ConnectionError):
        target.deliver([first])
    target.deliver([first])
    assert len({headers["Idempotency-Key"] for _, headers, _ in server.requests}) == 1


def test_a_receiver_that_never_answers_is_left_after_the_timeout(entry):
    """?timeout= in seconds."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        with pytest.raises(ConnectionError, match=r"[Tt]imed? ?out"):
            resolve(f"http://127.0.0.1:{silent.getsockname()[1]}/?timeout=0.3").deliver([entry()])
    assert time.monotonic() - started < 10


# --- TLS ---------------------------------------------------------------------------------------------------------


def test_tls_is_verified_unless_the_certificate_is_trusted(tmp_path, entry):
    """A certificate that nobody signed is refused before a byte of log is sent; cafile= trusts it."""
    certificates = Certificates(tmp_path)
    web = WebServer(certificates.server)
    with pytest.raises(ConnectionError, match="(?i)certificate") as caught:
        resolve(url(web, scheme="https")).deliver([entry()])
    assert classify(caught.value) is Fault.OUTAGE and web.requests == []
    resolve(url(web, f"cafile={certificates.cafile}", scheme="https")).deliver([entry()])
    assert len(web.requests) == 1
    web.shutdown()
    web.server_close()


def test_tls_for_another_host_is_refused(tmp_path, entry):
    """A good certificate, but not this host's."""
    certificates = Certificates(tmp_path)
    web = WebServer(certificates.for_another_host())
    with pytest.raises(ConnectionError, match="(?i)hostname mismatch|doesn't match|not valid for"):
        resolve(url(web, f"cafile={certificates.cafile}", scheme="https")).deliver([entry()])
    assert web.requests == []
    web.shutdown()
    web.server_close()
    assert ssl.CERT_REQUIRED  # the control above would pass with CERT_NONE


def test_the_proxy_of_the_environment_is_used_but_never_for_this_computer(monkeypatch, entry, server):
    """As curl does it, with its password kept out of every text."""
    monkeypatch.setenv("http_proxy", f"http://me:hushhush@localhost:{server.server_port}")
    resolve("http://logs.invalid/in").deliver([entry()])
    ((path, headers, _),) = server.requests
    assert path == "http://logs.invalid/in"
    assert headers["proxy-authorization"].startswith("Basic ")
    monkeypatch.setenv("http_proxy", f"http://me:hushhush@localhost:{free_port()}")
    with pytest.raises(ConnectionError) as caught:
        resolve("http://logs.invalid/in").deliver([entry()])
    assert "hushhush" not in str(caught.value)
    resolve(url(server)).deliver([entry()])
    assert len(server.requests) == 2
