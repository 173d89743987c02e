"""SMTPHandler's recipients, as smtplib reads them."""

import logging.handlers

import pytest

from lastwords import Rejected
from lastwords.targets import resolve


def handler(mailbox, to):
    return logging.handlers.SMTPHandler((mailbox.host, mailbox.port), "app@x.test", to, "Trouble", timeout=30)


@pytest.mark.parametrize(
    "to",
    [
        "a@x.test, b@x.test",
        ["a@x.test,b@x.test"],
        ["Ops <a@x.test>", "b@x.test"],
        ["a@x.test", "b@x.test", "a@x.test"],
    ],
)
def test_every_address_gets_the_mail_however_it_is_written(entry, mailbox, to):
    """As through stdlib alone (the control); once each, and a refusal among them is heard."""
    plain = handler(mailbox, to)
    plain.emit(entry().record)
    assert set(mailbox.mails.pop()[0]) == {"a@x.test", "b@x.test"}

    target = resolve(plain)
    target.deliver([entry()])
    assert mailbox.mails.pop()[0] == ["a@x.test", "b@x.test"]
    mailbox.refuse["b@x.test"] = ["550 no such user"]
    with pytest.raises(Rejected, match="b@x.test .550"):
        target.deliver([entry()])


def test_a_subclass_with_a_handle_of_its_own_is_used_as_it_is(entry, mailbox):
    """What it does in handle() must not be skipped; driven by us (the control), it would be."""
    done = []

    class Own(logging.handlers.SMTPHandler):
        def handle(self, record):
            done.append(record.getMessage())
            return super().handle(record)

    target = resolve(Own((mailbox.host, mailbox.port), "app@x.test", ["a@x.test"], "Trouble", timeout=30))
    assert not target.drives
    assert resolve(handler(mailbox, ["a@x.test"])).drives
    target.deliver([entry("one")])
    assert done == ["one"]
    assert len(mailbox.mails) == 1
