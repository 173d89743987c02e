"""The answer to a mail: waited for as RFC 5321 says, and no mail at each retry if it does not come."""

import logging
import logging.handlers
import socket
import threading
import time

import pytest

from lastwords import DurableHandler, TryAgain
from lastwords.delivery import restraint
from lastwords.delivery.lease import Lease
from lastwords.delivery.loop import Delivery, Outcome
from lastwords.delivery.restraint import Handover
from lastwords.journal.line import Line
from lastwords.runtime.bell import Bell
from lastwords.targets import mail_answer, resolve
from lastwords.targets.contract import CallableTarget
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


def targets(port, timeout=30.0):
    return [
        resolve(f"smtp://127.0.0.1:{port}/?to=a@x.test&timeout={timeout}"),
        resolve(logging.handlers.SMTPHandler(("127.0.0.1", port), "app@x.test", ["a@x.test"], "x", timeout=timeout)),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("which", [0, 1], ids=["digest", "SMTPHandler"])
def test_a_server_that_takes_its_time_after_data_gets_one_mail(dumb, entry, which):
    """It has the mail: to give up is to send it twice. The timeout is for the other steps."""
    server = dumb(1.4)
    targets(server.port, 1.0)[which].deliver([entry()])
    assert len(server.mails) == 1


def journaled(path, *messages):
    handler = DurableHandler(None, path)
    logger = logging.Logger("x")
    logger.addHandler(handler)
    for message in messages:
        logger.error(message)
    handler.close()


def run(path, target, **knobs):
    """As cron's `flush` does it: a process that knows nothing of the last one."""
    with Line.open(path) as journal:
        delivery = Delivery(journal, target, Lease(journal.path), Bell(), **knobs)
        delivery.hurry = True
        return delivery.drain(once=True), delivery


@pytest.mark.parametrize("which", [0, 1], ids=["digest", "SMTPHandler"])
def test_a_mail_that_was_not_answered_is_sent_again_but_seldom(dumb, which, tmp_path, monkeypatch):
    """The same mail: the same entries, the same Message-ID. The pauses grow, from run to run."""
    server = dumb(None)
    now, steady = time.time, restraint.monotonic
    late = 0.0
    monkeypatch.setattr(time, "time", lambda: now() + late)
    monkeypatch.setattr(restraint, "monotonic", lambda: steady() + late)
    journaled(tmp_path / "j.db", "one", "two")
    pauses = []
    for sent in range(1, 5):
        outcome, _ = run(tmp_path / "j.db", targets(server.port)[which])
        assert outcome is Outcome.REMAIN
        assert until(lambda sent=sent: len(server.mails) == sent)
        outcome, delivery = run(tmp_path / "j.db", targets(server.port)[which])  # a minute later, as it were
        assert "left alone" in delivery.last_error and "not answered" in delivery.last_error
        assert len(server.mails) == sent
        pauses.append(round(delivery._asked))
        late += delivery._asked + 1
        journaled(tmp_path / "j.db", "new")
    assert pauses == pytest.approx([5, 60, 600, 1200], abs=2)
    ids = {line for mail in server.mails for line in mail.splitlines() if line.lower().startswith(b"message-id")}
    assert len(ids) == 1
    server.seconds = 0
    outcome, delivery = run(tmp_path / "j.db", targets(server.port)[which], heed_pauses=False)
    assert outcome is Outcome.DONE and delivery.delivered == 6
    assert run(tmp_path / "j.db", targets(server.port)[which])[0] is Outcome.DONE


def test_a_pause_that_a_target_asks_for_holds_where_each_drain_gives_up_at_once(tmp_path, monkeypatch):
    """The resident courier comes back as its own backoff says."""
    calls, steady, late = [], restraint.monotonic, 0.0
    monkeypatch.setattr(restraint, "monotonic", lambda: steady() + late)

    def busy(entries):
        calls.append(len(entries))
        raise TryAgain("busy", after=300)

    journaled(tmp_path / "j.db", "one")
    with Line.open(tmp_path / "j.db") as journal:
        delivery = Delivery(journal, CallableTarget(busy), Lease(journal.path), Bell())
        for _ in range(5):
            assert delivery.drain(once=True) is Outcome.REMAIN
        assert len(calls) == 1
        late = 301.0
        delivery.drain(once=True)
        assert len(calls) == 2


@pytest.mark.parametrize("text", [None, "", "x", "1 2", "a b c", "-1 -1 0"])
def test_nonsense_in_the_journal_is_no_handover(text):
    """A journal is input."""
    assert Handover.parse(text).left() == 0.0
    assert Handover.parse(str(Handover(2, 7, 5.0))) == (2, 7, 5.0)


@pytest.mark.slow
def test_the_wait_for_the_answer_ends(dumb, entry, monkeypatch):
    """After ten minutes, here after some milliseconds."""
    monkeypatch.setattr(mail_answer, "ANSWER_SECONDS", 0.01)
    server = dumb(30)
    with pytest.raises(mail_answer.Unanswered, match="not answered"):
        targets(server.port, 1.0)[0].deliver([entry()])


@pytest.mark.slow
def test_a_server_that_does_not_answer_before_the_mail_is_a_plain_outage(entry):
    """It has nothing yet: try as soon as ever."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for target in targets(silent.getsockname()[1], 0.5):
            with pytest.raises(OSError, match="timed out|unexpectedly"):
                target.deliver([entry()])


def test_the_pause_does_not_grow_beyond_a_day():
    """However often."""
    assert mail_answer.pause_after(5000) == 86400
