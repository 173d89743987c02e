"""Who has the mail of an entry is remembered over retries, probes and rebuilds."""

import logging
import logging.handlers
import smtplib

import pytest

from lastwords import DurableHandler, Rejected, TryAgain
from lastwords.targets import resolve

A, B = "a@x.test", "b@x.test"


def smtp(mailbox):
    return logging.handlers.SMTPHandler((mailbox.host, mailbox.port), "app@x.test", [A, B], "Trouble")


def recipients(mailbox):
    return [who for who, _ in mailbox.mails]


def test_one_that_is_refused_again_alone_is_heard_and_named(entry, mailbox):
    """smtplib then raises, because all recipients of that mail are refused: it must not look like a failing server."""
    mailbox.refuse[B] = ["450 later", "450 later", "550 gone"]
    target, one = resolve(smtp(mailbox)), entry()
    for _ in range(2):
        with pytest.raises(TryAgain, match="b@x.test .450"):
            target.deliver([one])
    with pytest.raises(Rejected, match="b@x.test .550 gone.; accepted by a@x.test"):
        target.deliver([one])
    assert recipients(mailbox) == [[A]]


def test_another_entry_in_between_makes_nobody_get_a_mail_twice(entry, mailbox):
    """The courier probes other entries while the head fails."""
    mailbox.refuse[B] = ["450 later"]
    target, head = resolve(smtp(mailbox)), entry("head")
    with pytest.raises(TryAgain):
        target.deliver([head])
    target.deliver([entry("probe")])
    target.deliver([head])
    assert recipients(mailbox) == [[A], [A, B], [B]]


def test_when_all_refuse_for_good_it_is_a_failure_and_the_next_try_is_for_all(entry, mailbox):
    """Nobody has it: not yet a dead letter, so that a server with a wrong configuration buries nothing."""
    mailbox.refuse = {A: ["550 no", "450 later", "550 no"], B: ["550 no", "550 no", "550 no"]}
    target, one = resolve(smtp(mailbox)), entry()
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        target.deliver([one])
    with pytest.raises(TryAgain):  # one of two says "later"
        target.deliver([one])
    with pytest.raises(smtplib.SMTPRecipientsRefused):  # and then "never"
        target.deliver([one])
    mailbox.refuse.clear()
    target.deliver([one])
    assert recipients(mailbox) == [[A, B]]


def test_what_is_remembered_is_bounded(entry, mailbox, monkeypatch):
    """And nothing is, of what was accepted by all."""
    monkeypatch.setattr("lastwords.targets.handlers.recipients.MOST_REMEMBERED", 3)
    target = resolve(smtp(mailbox))
    target.deliver([entry()])
    assert len(target._answers.progress) == 0
    mailbox.refuse[B] = ["450 later"] * 6
    for _ in range(6):
        with pytest.raises(TryAgain):
            target.deliver([entry()])
    assert len(target._answers.progress) == 3


def test_a_handler_from_a_mapping_remembers_too(mailbox, tmp_path):
    """The whole way: the courier asks to build it anew after each failure, which would forget who has it."""
    mailbox.refuse[B] = ["450 later", "450 later"]
    spec = {
        "class": "logging.handlers.SMTPHandler",
        "mailhost": (mailbox.host, mailbox.port),
        "fromaddr": "app@x.test",
        "toaddrs": [A, B],
        "subject": "Trouble",
    }
    handler = DurableHandler(spec, tmp_path / "j.db", retry_min=0.02, retry_max=0.05)
    logger = logging.Logger("app")
    logger.addHandler(handler)
    logger.error("boo")
    assert handler.drain(15)
    handler.close()
    assert recipients(mailbox) == [[A], [B]]


def test_a_lone_surrogate_does_not_keep_a_mail_back(entry, mailbox):
    """It is escaped; smtplib alone raises (the control)."""
    handler = smtp(mailbox)
    lost = []
    handler.handleError = lost.append
    handler.emit(entry("odd \ud800").record)
    assert len(lost) == 1
    resolve(handler).deliver([entry("odd \ud800")])
    assert "odd \\ud800" in mailbox.mails[0][1]
