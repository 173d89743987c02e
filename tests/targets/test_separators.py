"""No content of a record stops a line: every separator of lines, in every part of a record, for every target."""

import logging

import pytest

from lastwords.record.codec import decode, encode
from lastwords.targets.digest.smtp_digest import SMTPDigest
from lastwords.targets.urls.syslog import element
from lastwords.targets.wording import one_line

SEPARATORS = [line[-1] for line in "".join(map(chr, range(0x110000))).splitlines(keepends=True)[:-1]]
ODD = [*SEPARATORS, "\r\n", "\x00", "\ud800", "\ufffe", "\u202e", "\U000e0041"]


def entry(message="m", *, logger="app", level="ERROR", id="u-1", extra=None):  # noqa: A002
    record = logging.LogRecord(logger, 40, "app.py", 1, message, (), None)
    record.levelname = level
    record.__dict__.update(extra or {})
    created, number, payload, _ = encode(record)
    return decode(seq=1, id=id, created=created, level=number, payload=payload)


@pytest.mark.parametrize("odd", ODD, ids=ascii)
def test_a_digest_can_be_made_of_any_record(odd):
    """The headers take no separator that the email package knows, wherever it comes from: ids of forged journals, too."""
    digest = SMTPDigest("localhost", "a@example.com", "b@example.com")
    for text in (odd, f"a{odd}b", f"{odd}a", f"a{odd}"):
        for part in ("message", "logger", "level", "id"):
            mail, taken = digest._compose([entry(**{part: text})])
            head = mail.as_bytes().partition(b"\r\n\r\n")[0]
            assert taken == 1
            assert {line.partition(b":")[0] for line in head.split(b"\r\n") if line[:1] not in b" \t"} <= {
                b"From", b"To", b"Subject", b"Date", b"Message-ID", b"X-Lastwords-Ids", b"X-Mailer", b"Auto-Submitted",
                b"X-Auto-Response-Suppress", b"MIME-Version", b"Content-Type",
            }  # fmt: skip
        digest._compose([entry(extra={f"k{odd}": text})])


def test_an_id_with_more_digits_than_python_converts_is_no_stop():
    """Python refuses to make an int of 5,000 digits."""
    digest = SMTPDigest("localhost", "a@example.com", "b@example.com")
    mail, _ = digest._compose([entry(id="u-" + "9" * 5000), entry(id="u-" + "9" * 5001)])
    assert len(mail["X-Lastwords-Ids"]) < 1000


@pytest.mark.parametrize("odd", SEPARATORS, ids=ascii)
def test_one_line_is_one_line(odd):
    """Whatever separates lines."""
    assert one_line(f"a{odd}b") == "a"
    assert len(one_line(f"{odd}x{odd}").splitlines()) == 1


@pytest.mark.parametrize("odd", ODD, ids=ascii)
def test_syslog_elements_name_no_line_end(odd):
    """Names of extras are names; the frame counts octets, so a line end in a value separates nothing."""
    said = element("x@1", {f"k{odd}": f"v{odd}"}, 1000)
    assert said.split("=")[0].isprintable()
