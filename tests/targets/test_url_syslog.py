"""syslog+tcp:// and syslog+tls://: RFC 5424 messages, octet counting, what is noticed and what is not."""

import logging
import re
import socket
import sys
import threading
import time

import pytest

from lastwords.delivery.verdict import Fault, classify
from lastwords.targets import resolve
from lastwords.targets.urls.syslog import severity
from targets.servers import Certificates, SyslogSink, free_port, until

MESSAGE = re.compile(
    r"<(?P<pri>\d{1,3})>1 (?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z) (?P<host>[\x21-\x7e]{1,255}) "
    r"(?P<app>[\x21-\x7e]{1,48}) (?P<procid>[\x21-\x7e]{1,128}) (?P<msgid>[\x21-\x7e]{1,32}) "
    r'(?P<data>(?:\[[^ =\]"]{1,32}(?: [^ =\]"]{1,32}="(?:[^"\\\]]|\\["\\\]])*")*\])+)(?: (?P<text>.*))?',
    re.DOTALL,
)


def parse(frame):
    found = MESSAGE.fullmatch(frame.decode("utf-8"))
    assert found, frame
    return found


def parameters(data):
    found = re.findall(r'([^ =\]"\[]+)="((?:[^"\\\]]|\\.)*)"', data)
    return {name: re.sub(r"\\(.)", r"\1", value) for name, value in found}


@pytest.fixture
def sink():
    sink = SyslogSink().start()
    yield sink
    sink.stop()


def target_for(sink, query="", scheme="syslog+tcp"):
    return resolve(f"{scheme}://localhost:{sink.port}/" + (f"?{query}" if query else ""))


def test_a_message_is_what_rfc_5424_says(sink, entry):
    """Every part of the header, id, logger and extras in the structured data, the text as it is."""
    live = entry('pool "main" [eu] exhausted\\', logging.CRITICAL, user='a"b]c\\d', **{"odd key=": "müller"})
    target_for(sink, "app=billing&facility=local3&hostname=web1").deliver([live])
    (frame,) = until(sink.frames)
    found = parse(frame)
    assert int(found["pri"]) == 19 * 8 + 2
    assert found["host"] == "web1" and found["app"] == "billing" and found["msgid"] == "app.db"
    assert found["procid"] == str(live.record.process)
    said = parameters(found["data"])
    assert said["id"] == "abc-1" and said["logger"] == "app.db" and said["level"] == "CRITICAL"
    assert said["user"] == 'a"b]c\\d' and said["odd_key_"] == "müller"
    assert r"a\"b\]c\\d" in found["data"]
    assert found["text"] == 'pool "main" [eu] exhausted\\'
    assert not found["text"].startswith("\ufeff")


def test_several_lines_travel_in_one_counted_frame(sink, entry):
    """Octets are counted, not characters, and a line end does not end the message."""
    target_for(sink).deliver([entry("für\nimmer"), entry("next")])
    first, second = until(lambda: sink.frames()[1:] and sink.frames())
    assert parse(first)["text"] == "für\nimmer" and parse(second)["text"] == "next"


def test_a_traceback_follows_its_message(sink, entry):
    """It is what the reader looks for."""
    try:
        raise ValueError("no tax rate")
    except ValueError:
        live = logging.LogRecord("app", 40, "/p", 1, "failed", (), sys.exc_info())
    from lastwords.record import codec

    created, level, payload, _ = codec.encode(live)
    target_for(sink).deliver([codec.decode(seq=1, id="x-1", created=created, level=level, payload=payload)])
    text = parse(until(sink.frames)[0])["text"]
    assert text.startswith("failed\nTraceback (most recent") and text.endswith("ValueError: no tax rate")


def test_what_rfc_5424_does_not_allow_in_a_header_is_replaced(sink, entry):
    """A logger with spaces would move every part that follows."""
    live = entry("x", name="my löger name " + "x" * 40)
    target_for(sink, "app=my%20app&hostname=w%20b").deliver([live])
    found = parse(until(sink.frames)[0])
    assert found["app"] == "my_app" and found["host"] == "w_b" and found["msgid"] == ("my_l_ger_name_" + "x" * 18)
    assert parameters(found["data"])["logger"].startswith("my löger name")


def test_control_characters_are_written_out(sink, entry):
    """They drive terminals and forge lines in the receiver's files."""
    target_for(sink).deliver([entry("a\x1b[31mb\x00c\u202ed", x="\x07")])
    found = parse(until(sink.frames)[0])
    assert found["text"] == r"a\x1b[31mb\x00c\u202ed" and parameters(found["data"])["x"] == r"\x07"


def test_a_long_message_is_cut_where_receivers_cut_and_says_so(sink, entry):
    """In whole characters, with everything before the text intact."""
    target_for(sink, "max_bytes=1000").deliver([entry("ü" * 3000, big="y" * 5000), entry("next")])
    first, second = until(lambda: sink.frames()[1:] and sink.frames())
    assert len(first) <= 1000 and parse(first)["text"].endswith("bytes cut]")
    assert parse(second)["text"] == "next"
    assert "cut]" in parameters(parse(first)["data"])["big"].replace("\\", "")


@pytest.mark.parametrize(
    ("level", "number"), [(60, 2), (50, 2), (45, 3), (40, 3), (30, 4), (25, 5), (20, 6), (15, 7), (10, 7), (0, 7)]
)
def test_levels_map_to_severities(level, number):
    """What lies between INFO and WARNING is syslog's notice."""
    assert severity(level) == number


def test_the_formatter_of_the_handler_decides_the_text(sink, entry):
    """setFormatter on the proxy goes to the target."""
    target = target_for(sink)
    target.set_formatter(logging.Formatter("%(levelname)s/%(message)s"))
    target.deliver([entry("x")])
    assert parse(until(sink.frames)[0])["text"] == "ERROR/x"


def test_it_says_at_construction_that_it_cannot_acknowledge(sink):
    """TCP or TLS: the protocol has no answer."""
    for scheme in ("syslog+tcp", "syslog+tls"):
        (warning,) = target_for(sink, scheme=scheme).warnings
        assert "no acknowledgement" in warning


# --- connections -------------------------------------------------------------------------------------------------


def test_one_connection_is_kept(sink, entry):
    """A handshake per batch would be waste."""
    target = target_for(sink)
    for _ in range(3):
        target.deliver([entry()])
    until(lambda: len(sink.frames()) == 3)
    assert sink.accepted == 1
    target.close()


def test_a_receiver_that_was_restarted_gets_the_next_entries(sink, entry):
    """Without a look at the socket, the first send after it ended would vanish (the control)."""
    target = target_for(sink)
    target.deliver([entry("one")])
    until(sink.frames)
    with socket.create_connection(("localhost", sink.port)) as control:
        until(lambda: sink.accepted == 2)
        sink.stop()
        control.sendall(b"2 ab")  # accepted by our own kernel, lost
    with pytest.raises(ConnectionError) as caught:
        target.deliver([entry("two")])
    assert classify(caught.value) is Fault.OUTAGE
    sink.data = b""
    sink.start()
    target.deliver([entry("two")])
    assert [parse(f)["text"] for f in until(sink.frames)] == ["two"]


def test_nobody_listens(entry):
    """An outage that says where."""
    port = free_port()
    with pytest.raises(ConnectionError, match=f"syslog\\+tcp://localhost:{port}: .*refused"):
        resolve(f"syslog+tcp://localhost:{port}").deliver([entry()])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="SIOCOUTQ is Linux's")
def test_a_receiver_that_stopped_reading_is_noticed(entry):
    """Our own kernel takes some megabytes; "sent" is not "taken"."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        target = resolve(f"syslog+tcp://127.0.0.1:{listener.getsockname()[1]}/?timeout=0.5&max_bytes=1000000")
        started = time.monotonic()
        with pytest.raises(ConnectionError, match="did not take the data"):
            target.deliver([entry("x" * 200_000)])
        assert time.monotonic() - started < 10
        target.close()


# --- TLS ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def certificates(tmp_path):
    return Certificates(tmp_path)


def test_tls_is_verified_and_reconnects(certificates, entry):
    """No record goes to a receiver that cannot show who it is."""
    sink = SyslogSink(certificates.server).start()
    try:
        with pytest.raises(ConnectionError, match="(?i)certificate"):
            target_for(sink, scheme="syslog+tls").deliver([entry()])
        target = target_for(sink, f"cafile={certificates.cafile}", scheme="syslog+tls")
        target.deliver([entry("one")])
        target.deliver([entry("two")])
        until(lambda: len(sink.frames()) == 2)
        assert sink.accepted == 1  # session tickets that wait to be read are no end of the connection
        sink.stop()
        with pytest.raises(ConnectionError):
            target.deliver([entry("three")])
        sink.start()
        target.deliver([entry("three")])
        assert [parse(f)["text"] for f in until(lambda: sink.frames()[2:] and sink.frames())] == ["one", "two", "three"]
    finally:
        sink.stop()


def test_tls_with_another_hosts_certificate_is_refused(certificates, entry):
    """Signed by the right authority, for the wrong host."""
    sink = SyslogSink(certificates.for_another_host()).start()
    try:
        with pytest.raises(ConnectionError, match="(?i)hostname|not valid for"):
            target_for(sink, f"cafile={certificates.cafile}", scheme="syslog+tls").deliver([entry()])
        assert sink.frames() == []
    finally:
        sink.stop()


def test_a_forked_child_does_not_write_into_the_parents_connection(certificates, entry):
    """Two processes in one TLS session: the receiver would see broken records and hang up."""
    before = threading.active_count()
    import os

    sink = SyslogSink(certificates.server).start()
    try:
        target = target_for(sink, f"cafile={certificates.cafile}", scheme="syslog+tls")
        target.deliver([entry("parent")])
        child = os.fork()
        if child == 0:
            try:
                target.deliver([entry("child")])
                os._exit(0)
            finally:
                os._exit(2)
        assert os.waitpid(child, 0)[1] == 0
        target.deliver([entry("parent again")])
        texts = [parse(f)["text"] for f in until(lambda: sink.frames()[2:] and sink.frames())]
        assert sorted(texts) == ["child", "parent", "parent again"] and sink.accepted == 2
    finally:
        sink.stop()
        assert threading.active_count() < before + 50  # other tests' have not all ended
