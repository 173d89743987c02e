"""Every stdlib handler tells the truth: what it silently drops is heard."""

import logging
import logging.handlers
import os
import queue
import socket

import pytest

from lastwords import DurableHandler, Rejected, TryAgain
from lastwords.targets import resolve


def smtp(mailbox, to=("a@x.test", "b@x.test"), cls=logging.handlers.SMTPHandler):
    return cls((mailbox.host, mailbox.port), "app@x.test", list(to), "Trouble", timeout=5)


# --- any handler ------------------------------------------------------------------------------------


class Failing(logging.Handler):
    def emit(self, record):
        try:
            raise ConnectionRefusedError("down")
        except Exception:
            self.handleError(record)


def test_what_a_handler_reports_to_handle_error_is_raised(entry, capsys):
    """The exception itself, so that an outage is told from poison; the control: stdlib only prints it."""
    handler = Failing()
    with pytest.raises(ConnectionRefusedError):
        resolve(handler).deliver([entry()])
    assert "handleError" not in vars(handler)
    assert capsys.readouterr().err == ""
    handler.handle(entry().record)
    assert "ConnectionRefusedError" in capsys.readouterr().err


def test_an_exception_that_escapes_emit_is_raised_and_the_shadow_is_gone(entry):
    """Also when the instance had a handleError of its own."""

    class Raising(logging.Handler):
        def emit(self, record):
            raise KeyError("x")

    handler = Raising()
    own = handler.handleError = lambda record: None
    with pytest.raises(KeyError):
        resolve(handler).deliver([entry()])
    assert handler.handleError is own


def test_a_wrapped_handler_leaves_loggings_shutdown_list(entry):
    """logging.shutdown closes neither it nor the inner handler of a MemoryHandler."""
    inner = logging.StreamHandler()
    outer = logging.handlers.MemoryHandler(10, target=inner)
    resolve(outer)
    listed = [reference() for reference in logging._handlerList]
    assert inner not in listed
    assert outer not in listed


@pytest.mark.parametrize("spec", [logging.StreamHandler, 7, object()])
def test_what_can_be_no_target_is_a_type_error(spec):
    """With what is allowed."""
    with pytest.raises(TypeError, match="target must be"):
        resolve(spec)


def test_a_durable_handler_is_no_target(tmp_path):
    """It would deliver into its own journal."""
    handler = DurableHandler(None, tmp_path / "j.db")
    with pytest.raises(ValueError, match="DurableHandler"):
        resolve(handler)
    handler.close()


# --- SMTP -------------------------------------------------------------------------------------------


def test_a_mail_carries_the_id_of_its_entry(entry, mailbox):
    """Message-ID and X-Lastwords-Id, so that the same mail twice can be recognised."""
    resolve(smtp(mailbox)).deliver([entry("disk full")])
    ((recipients, text),) = mailbox.mails
    assert recipients == ["a@x.test", "b@x.test"]
    assert "Message-ID: <abc-1@x.test>" in text
    assert "X-Lastwords-Id: abc-1" in text
    assert "Subject: Trouble" in text
    assert "disk full" in text


def test_one_recipient_refused_for_now_gets_the_mail_later_and_the_other_only_once(entry, mailbox):
    """stdlib hears nothing of it (the control), and a plain retry would mail the other one again."""
    mailbox.refuse["b@x.test"] = ["450 later", "450 later"]
    handler, first = smtp(mailbox), entry()
    handler.handleError = lambda record: pytest.fail("stdlib heard it")
    handler.emit(first.record)
    assert mailbox.mails.pop()[0] == ["a@x.test"]

    target = resolve(handler)
    with pytest.raises(TryAgain, match="b@x.test"):
        target.deliver([first])
    target.deliver([first])
    assert [recipients for recipients, _ in mailbox.mails] == [["a@x.test"], ["b@x.test"]]


def test_one_recipient_refused_for_good_is_heard_and_named(entry, mailbox):
    """The others have the mail; the entry becomes a dead letter that names who has not."""
    mailbox.refuse["b@x.test"] = ["550 no such user"] * 5
    target = resolve(smtp(mailbox))
    with pytest.raises(Rejected, match="b@x.test .550"):
        target.deliver([entry()])
    assert [recipients for recipients, _ in mailbox.mails] == [["a@x.test"]]


def test_a_server_that_is_down_is_an_oserror(entry, tcp_sink):
    """An outage, not poison."""
    handler = logging.handlers.SMTPHandler(("127.0.0.1", tcp_sink.port), "a@x.test", ["b@x.test"], "s", timeout=2)
    with pytest.raises(ConnectionRefusedError):
        resolve(handler).deliver([entry()])


def test_a_subclass_that_overrides_emit_is_used_as_it_is_and_warns(entry, mailbox):
    """One with only getSubject overridden is driven like its parent."""

    class Subject(logging.handlers.SMTPHandler):
        def getSubject(self, record):
            return f"{record.levelname}\r\nBcc: evil@x.test"

    class Own(logging.handlers.SMTPHandler):
        def emit(self, record):
            super().emit(record)

    target = resolve(smtp(mailbox, cls=Subject))
    assert target.warnings == ()
    target.deliver([entry()])
    assert "Subject: ERROR Bcc: evil@x.test" in mailbox.mails[0][1]
    target = resolve(smtp(mailbox, cls=Own))
    assert "cannot be noticed" in target.warnings[0]
    target.deliver([entry()])
    assert len(mailbox.mails) == 2


# --- HTTP -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_http_status_decides(entry, web, method):
    """stdlib ignores it (the control); 5xx and 429 mean later, 422 never."""
    handler = logging.handlers.HTTPHandler(web.address, "/log", method=method)
    target = resolve(handler)
    web.script += [
        (200, {}),
        (503, {"Retry-After": "7"}),
        (429, {}),
        (422, {}),
        (404, {}),
        (302, {"Location": "/x"}),
        (500, {}),
    ]
    target.deliver([entry()])
    assert web.requests[0][2]["Idempotency-Key"] == "abc-1"
    with pytest.raises(TryAgain) as caught:
        target.deliver([entry()])
    assert caught.value.after == 7
    with pytest.raises(TryAgain):
        target.deliver([entry()])
    with pytest.raises(Rejected, match="422"):
        target.deliver([entry()])
    with pytest.raises(RuntimeError, match="404"):  # a wrong address says nothing against the entry
        target.deliver([entry()])
    with pytest.raises(RuntimeError, match="302"):
        target.deliver([entry()])
    handler.handleError = lambda record: pytest.fail("stdlib heard the 500")
    handler.emit(entry().record)
    assert "getConnection" not in vars(handler)


def test_retry_after_may_be_a_date():
    """RFC 9110."""
    import email.utils
    import time

    from lastwords.targets.handlers.http import retry_after

    assert 5 < retry_after(email.utils.formatdate(time.time() + 30, usegmt=True)) < 31
    assert retry_after("12") == 12
    assert retry_after("soon") is None
    assert retry_after(None) is None


# --- files ------------------------------------------------------------------------------------------


def test_a_file_is_synced_before_its_entries_are_accepted(entry, tmp_path, monkeypatch):
    """fdatasync after each record, and the folder once."""
    synced = []
    monkeypatch.setattr("lastwords.journal.files.sync_descriptor", lambda fd: synced.append("file"))
    monkeypatch.setattr("lastwords.journal.files.sync_folder", lambda path: synced.append("folder"))
    target = resolve(logging.FileHandler(tmp_path / "x.log", delay=True))
    target.deliver([entry()])
    target.deliver([entry()])
    assert synced == ["file", "folder", "file"]


def test_a_closed_file_handler_with_mode_w_is_heard(entry, tmp_path):
    """stdlib swallows the record (the control)."""
    handler = logging.FileHandler(tmp_path / "x.log", mode="w")
    handler.close()
    handler.handleError = lambda record: pytest.fail("stdlib heard it")
    handler.emit(entry().record)
    with pytest.raises(ValueError, match="closed"):
        resolve(handler).deliver([entry()])


def test_a_closed_stream_is_heard(entry, tmp_path):
    """As is a pipe without a reader."""
    stream = (tmp_path / "x").open("w")
    target = resolve(logging.StreamHandler(stream))
    stream.close()
    with pytest.raises(ValueError, match="closed"):
        target.deliver([entry()])
    read, write = os.pipe()
    target = resolve(logging.StreamHandler(os.fdopen(write, "w")))
    os.close(read)
    with pytest.raises(BrokenPipeError):
        target.deliver([entry()])


@pytest.mark.parametrize(
    "make",
    [
        lambda path: logging.handlers.RotatingFileHandler(path, maxBytes=60, backupCount=50),
        lambda path: logging.handlers.TimedRotatingFileHandler(path, when="S", backupCount=50),
        logging.handlers.WatchedFileHandler,
    ],
)
def test_rotating_and_watching_handlers_lose_nothing(tmp_path, make):
    """Behind a DurableHandler, over several rotations."""
    (tmp_path / "logs").mkdir()
    handler = DurableHandler(make(tmp_path / "logs" / "x.log"), tmp_path / "j.db")
    logger = logging.Logger("x")
    logger.addHandler(handler)
    for i in range(30):
        logger.error("message %02d", i)
        if i == 15 and (tmp_path / "logs" / "x.log").exists():
            handler.drain(10)
            (tmp_path / "logs" / "x.log").rename(tmp_path / "logs" / "moved")  # as logrotate does
            if not isinstance(handler._front, logging.handlers.WatchedFileHandler):
                (tmp_path / "logs" / "moved").rename(tmp_path / "logs" / "x.log")
    assert handler.drain(60)
    handler.close()
    text = "".join(path.read_text() for path in (tmp_path / "logs").iterdir())
    assert sorted(text.split("\n")[:-1]) == [f"message {i:02d}" for i in range(30)]


def test_dev_null_cannot_be_synced_and_that_is_fine(entry):
    """Pipes and devices are no files on a disk."""
    resolve(logging.FileHandler("/dev/null")).deliver([entry()])


# --- sockets ----------------------------------------------------------------------------------------


def test_a_socket_handler_that_is_not_connected_is_heard(entry, tcp_sink, poll):
    """stdlib drops the record silently (the control); after the server is back it connects again at once."""
    handler = logging.handlers.SocketHandler("127.0.0.1", tcp_sink.port)
    handler.handleError = lambda record: pytest.fail("stdlib heard it")
    handler.emit(entry().record)
    target = resolve(handler)
    assert "cannot acknowledge" in target.warnings[0]
    with pytest.raises(ConnectionError):
        target.deliver([entry()])
    tcp_sink.start()
    target.deliver([entry("one")])
    assert poll(lambda: b"one" in tcp_sink.data)
    tcp_sink.stop()
    with pytest.raises(ConnectionError):  # the peer is gone: noticed before the record is sent
        target.deliver([entry("two")])
    tcp_sink.start()
    target.deliver([entry("three")])
    assert poll(lambda: b"three" in tcp_sink.data)
    target.close()


def test_syslog_over_tcp_connects_again(entry, tcp_sink, poll):
    """stdlib's never does, gh-95891."""
    tcp_sink.start()
    handler = logging.handlers.SysLogHandler(("127.0.0.1", tcp_sink.port), socktype=socket.SOCK_STREAM)
    target = resolve(handler)
    target.deliver([entry("one")])
    assert poll(lambda: b"one" in tcp_sink.data)
    tcp_sink.stop()
    with pytest.raises(OSError):
        target.deliver([entry("two")])
    tcp_sink.start()
    target.deliver([entry("three")])
    assert poll(lambda: b"three" in tcp_sink.data)
    target.close()


def test_syslog_over_a_unix_socket_is_revived(entry, tmp_path):
    """The daemon restarts, its socket is a new one."""
    path = str(tmp_path / "log")

    def daemon():
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        sock.bind(path)
        sock.settimeout(5)
        return sock

    first = daemon()
    target = resolve(logging.handlers.SysLogHandler(path))
    assert target.warnings == ()
    target.deliver([entry("one")])
    assert b"one" in first.recv(1000)
    first.close()
    os.unlink(path)
    with pytest.raises(OSError):
        target.deliver([entry("two")])
    second = daemon()
    target.deliver([entry("two")])
    assert b"two" in second.recv(1000)
    second.close()


@pytest.mark.parametrize(
    "handler",
    [logging.handlers.DatagramHandler("127.0.0.1", 9), logging.handlers.SysLogHandler(("127.0.0.1", 9))],
    ids=lambda handler: type(handler).__name__,
)
def test_udp_warns(handler):
    """Nothing can be known."""
    assert any("UDP cannot acknowledge" in warning for warning in resolve(handler).warnings)
    handler.close()


def test_queue_handlers_warn_and_a_full_queue_is_heard(entry):
    """What is in a queue dies with the process."""
    handler = logging.handlers.QueueHandler(queue.Queue(1))
    target = resolve(handler)
    assert "cannot acknowledge" in target.warnings[0]
    target.deliver([entry()])
    with pytest.raises(queue.Full):
        target.deliver([entry()])


def test_a_construction_warning_reaches_the_user(tmp_path):
    """Named with the journal."""
    with pytest.warns(RuntimeWarning, match="cannot acknowledge"):
        DurableHandler(logging.handlers.QueueHandler(queue.Queue()), tmp_path / "j.db").close()


# --- memory, null, NT -------------------------------------------------------------------------------


def test_a_memory_handlers_inner_failure_is_a_failure(entry, web):
    """stdlib empties its buffer all the same (the control)."""
    inner = logging.handlers.HTTPHandler(web.address, "/log", method="POST")
    outer = logging.handlers.MemoryHandler(1, target=inner)
    web.script += [(500, {})]
    outer.handle(entry().record)
    assert outer.buffer == []

    target = resolve(outer)
    web.script += [(500, {})]
    with pytest.raises(TryAgain):
        target.deliver([entry()])
    target.deliver([entry()])
    assert len(web.requests) == 3


def test_a_memory_handler_without_a_target_is_refused():
    """Nothing would ever be delivered."""
    with pytest.raises(ValueError, match="no target"):
        resolve(logging.handlers.MemoryHandler(10))


def test_a_null_handler_accepts(entry):
    """It is what was asked for."""
    resolve(logging.NullHandler()).deliver([entry()])


def test_an_nt_event_log_handler_is_refused():
    """POSIX only."""
    handler = logging.handlers.NTEventLogHandler.__new__(logging.handlers.NTEventLogHandler)
    with pytest.raises(ValueError, match="POSIX"):
        resolve(handler)
