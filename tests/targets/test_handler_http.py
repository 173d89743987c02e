"""HTTPHandler's subclasses, and how long Retry-After may make us wait."""

import email.utils
import logging.handlers
import time
import urllib.request

import pytest

from lastwords import TryAgain
from lastwords.targets import resolve
from lastwords.targets.handlers.http import LONGEST_SECONDS, retry_after


class OwnClient(logging.handlers.HTTPHandler):
    def emit(self, record):
        with urllib.request.urlopen(f"http://{self.host}{self.url}"):
            pass


class Decorated(logging.handlers.HTTPHandler):
    def emit(self, record):
        super().emit(record)


def test_a_subclass_with_a_client_of_its_own_is_believed_and_sends_once(entry, web):
    """Its answer does not come our way, and a warning says so; stdlib's own emit (the control) needs none."""
    target = resolve(OwnClient(web.address, "/log"))
    assert "overrides emit()" in target.warnings[0]
    target.deliver([entry()])
    assert len(web.requests) == 1
    web.script += [(500, {})]
    with pytest.raises(urllib.request.HTTPError):  # it does not catch it
        target.deliver([entry()])
    assert resolve(logging.handlers.HTTPHandler(web.address, "/log")).warnings == ()


def test_a_subclass_that_adds_to_emit_is_still_judged_by_the_status(entry, web):
    """The connection is made through getConnection()."""
    web.script += [(503, {})]
    with pytest.raises(TryAgain):
        resolve(Decorated(web.address, "/log")).deliver([entry()])


@pytest.mark.parametrize(
    "value",
    [
        "\u00b2",
        "\u0663",
        "-1",
        "1.5",
        "Mon, 01 Jan 0001 00:00:00 +2359",
        "Fri, 31 Dec 9999 23:59:59 -2359",
        "Mon, 32 Foo",
    ],
)
def test_a_retry_after_that_makes_no_sense_never_raises(value):
    """str.isdigit() is true of a superscript two, of which there is no number (the control)."""
    assert "\u00b2".isdigit()
    assert (retry_after(value) or 0.0) >= 0.0


def test_a_retry_after_of_years_is_a_day(entry, web):
    """Or nobody would notice that a line stands still; shorter ones (the control) are honoured as they are."""
    far = email.utils.formatdate(time.time() + 10 * 365 * 86400, usegmt=True)
    assert retry_after(far) == retry_after("9" * 5000) == LONGEST_SECONDS
    assert retry_after("86399") == 86399
