"""The answer to a mail: waited for as RFC 5321 says, and no mail at each retry if it does not come."""

import logging.handlers
import socket
import threading
import time

import pytest

from lastwords import TryAgain
from lastwords.targets import patience, resolve
from targets.servers import until


class Dumb:
    """An SMTP server that takes mails and answers after ``seconds``; None: it closes the connection instead."""

    def __init__(self, seconds):
        self.seconds, self.mails = seconds, []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(sock,), daemon=True).start()

    def _talk(self, sock):
        with sock, sock.makefile("rwb") as file:

            def say(text):
                file.write(text + b"\r\n")
                file.flush()

            say(b"220 here")
            while line := file.readline():
                if line.upper().startswith(b"DATA"):
                    say(b"354 go on")
                    mail = b"".join(iter(file.readline, b".\r\n"))
                    self.mails.append(mail)
                    if self.seconds is None:
                        return
                    time.sleep(self.seconds)
                say(b"250 fine")

    def close(self):
        self.listener.close()


@pytest.fixture
def dumb():
    made = []

    def make(seconds):
        made.append(Dumb(seconds))
        return made[-1]

    yield make
    for server in made:
        server.close()


def targets(port):
    return [
        resolve(f"smtp://127.0.0.1:{port}/?to=a@x.test&timeout=0.5"),
        resolve(logging.handlers.SMTPHandler(("127.0.0.1", port), "app@x.test", ["a@x.test"], "x", timeout=0.5)),
    ]


@pytest.mark.parametrize("which", [0, 1], ids=["digest", "SMTPHandler"])
def test_a_server_that_takes_its_time_after_data_gets_one_mail(dumb, entry, which):
    """It has the mail: to give up is to send it twice. The timeout is for the other steps."""
    server = dumb(0.9)
    targets(server.port)[which].deliver([entry()])
    assert len(server.mails) == 1


@pytest.mark.parametrize("which", [0, 1], ids=["digest", "SMTPHandler"])
def test_a_mail_that_was_not_answered_is_sent_again_but_seldom(dumb, entry, which, monkeypatch):
    """The same mail: the same entries, the same Message-ID. The pauses grow."""
    server = dumb(None)
    target = targets(server.port)[which]
    batch = [entry("one"), entry("two")] if which == 0 else [entry("one")]
    pauses = []
    for more in range(4):
        with pytest.raises(TryAgain, match="perhaps it arrived") as failure:
            target.deliver([*batch, *(entry("new") for _ in range(more if which == 0 else 0))])
        pauses.append(failure.value.after)
    assert pauses == [5, 60, 600, 1200]
    assert until(lambda: len(server.mails) == 4)
    ids = {line for mail in server.mails for line in mail.splitlines() if line.lower().startswith(b"message-id")}
    assert len(ids) == 1
    server.seconds = 0
    target.deliver(batch)


def test_the_wait_for_the_answer_ends(dumb, entry, monkeypatch):
    """After ten minutes, here after some milliseconds."""
    monkeypatch.setattr(patience, "ANSWER_SECONDS", 0.01)
    server = dumb(30)
    with pytest.raises(TryAgain, match="not answered"):
        targets(server.port)[0].deliver([entry()])


def test_a_server_that_does_not_answer_before_the_mail_is_a_plain_outage(entry):
    """It has nothing yet: try as soon as ever."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for target in targets(silent.getsockname()[1]):
            with pytest.raises(OSError, match="timed out|unexpectedly"):
                target.deliver([entry()])


def test_the_pause_does_not_grow_beyond_a_day():
    """However often."""
    assert patience.later(patience.Unanswered("x"), 5000).after == 86400
