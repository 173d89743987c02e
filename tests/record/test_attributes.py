"""An exception's arguments, attributes and builtin base, and what printers make of them."""

import decimal
import http
import json
import logging
import subprocess
import sys
import traceback
import urllib.error

import pytest

from lastwords.record.codec import DecodeError, decode, encode


class AppError(LookupError):
    def __init__(self, text, **more):
        super().__init__(text)
        self.__dict__.update(more)


class Own(AppError):
    def __str__(self):
        return "its own words"


class Basket:
    def __init__(self):
        self.orders = 3


def raised(function):
    try:
        function()
    except BaseException:
        return sys.exc_info()
    raise AssertionError


def throws(error):
    raise error


def through(exc_info):
    """The payload, and the triple that is rebuilt of it."""
    created, level, payload, _ = encode(logging.makeLogRecord({"msg": "x", "exc_info": exc_info}))
    return payload, decode(1, "u-1", created, level, payload).record.exc_info


WAYS = {
    "file": lambda: open("/nowhere/at/all"),
    "key": lambda: {}[("a", 1)],
    "exit": lambda: sys.exit(3),
    "decode": lambda: b"\xff".decode(),
    "encode": lambda: "\udc80".encode(),
    "syntax": lambda: eval("x x"),
    "indentation": lambda: compile("if 1:\nx", "of_a_config", "exec"),
    "import": lambda: __import__("nowhere_at_all"),
    "attribute": lambda: Basket().ordesr,
    "name": lambda: pritn(3),  # noqa: F821
    "module": lambda: fractions.Fraction(1),  # noqa: F821
    "stop": lambda: next(iter(())),
    "process": lambda: throws(subprocess.CalledProcessError(3, "false")),
    "http": lambda: throws(urllib.error.HTTPError("http://there", 503, "not now", {}, None)),
    "app": lambda: throws(AppError("no", status_code=404, outcome=http.HTTPStatus.NOT_FOUND, retry=True)),
    "own": lambda: throws(Own(decimal.Decimal("1.5"))),
}
READ = (
    "args",
    "errno",
    "strerror",
    "filename",
    "code",
    "status_code",
    "outcome",
    "retry",
    "returncode",
    "start",
)


@pytest.mark.parametrize("name", WAYS)
def test_it_says_and_is_what_it_was(name):
    """By its builtin base, arguments and attributes, and by what ``traceback`` prints: suggestions, lines, carets."""
    live = raised(WAYS[name])
    _, replayed = through(live)
    for builtin in (OSError, LookupError, ValueError, SystemExit, SyntaxError, ImportError, NameError, AttributeError):
        assert isinstance(replayed[1], builtin) is isinstance(live[1], builtin)
    assert [getattr(replayed[1], each, None) for each in READ] == [getattr(live[1], each, None) for each in READ]
    assert traceback.format_exception(*replayed) == traceback.format_exception(*live)


def test_nothing_large_or_foreign_or_hidden_is_kept():
    """A value whose code would have to run, the parameters of a statement, more than a page."""

    class Shown:
        def __repr__(self):
            raise AssertionError

        __str__ = __repr__

    error = AppError(Shown(), params=("s3cret",), _token="s3cret", response=Shown(), body="y" * 10_000, split=1, code=7)
    error.args = ("short", Shown(), "z" * 10_000, *range(100))
    payload, (_, again, _) = through((AppError, error, None))
    assert "s3cret" not in payload
    assert len(payload) < 5_000 + len(str(again))
    assert again.args[0] == "short" and "Shown" in again.args[1] and len(again.args) == 20
    assert again.code == 7 and not hasattr(again, "body") and not hasattr(again, "response")


def test_an_argument_that_is_the_exception_itself():
    """No endless graph."""
    error = AppError("x")
    error.args = (error, [error])
    error.me = error
    _, (_, again, _) = through((AppError, error, None))
    assert "AppError" in again.args[0]


def test_a_frame_leads_to_no_caller():
    """Who walks ``f_back`` finds none of the frames that deliver."""
    tb = through(raised(WAYS["attribute"]))[1][2]
    while tb is not None:
        assert (tb.tb_frame.f_back, tb.tb_frame.f_lineno) == (None, tb.tb_lineno)
        tb = tb.tb_next


@pytest.mark.parametrize(
    "forged",
    [
        {"attrs": {"__class__": 1}},
        {"attrs": {"with_traceback": 1}},
        {"attrs": {"_text": "other"}},
        {"attrs": {f"a{n}": n for n in range(100)}},
        {"attrs": {"v": {"~": "nothing known"}}},
        {"args": list(range(100))},
        {"args": "abc"},
    ],
)
def test_what_no_writer_writes_does_not_decode(forged):
    """A journal is input."""
    payload = json.dumps({"logger": "x", "message": "x", "exc_info": [{"type": "E", "text": "t", **forged}]})
    with pytest.raises(DecodeError):
        decode(1, "u-1", 1.0, 40, payload)


@pytest.mark.parametrize(
    "odd",
    [
        {"base": "SyntaxError", "attrs": {"msg": 5, "text": ["x"], "lineno": "1", "offset": 2}},
        {"base": "SyntaxError", "attrs": {"msg": "m", "text": "", "lineno": 1, "offset": 1, "end_offset": 1 << 40}},
        {"base": "UnicodeDecodeError", "attrs": {"start": 1}},
        {"base": "OSError", "attrs": {"errno": [1], "filename": {}}, "args": [[], 1, 2, 3, 4, 5, 6]},
        {"base": "ImportError", "attrs": {"name": "antigravity", "name_from": "typo", "path": 3}},
        {"base": "AttributeError", "attrs": {"name": "x", "obj": None}},
        {"base": "SystemExit", "kind": "e"},
        {"base": "ExceptionGroup", "args": []},
        {"base": "os.system"},
        {"base": "StopIteration", "attrs": {"value": 1}},
    ],
)
def test_whatever_it_derives_from_it_can_be_rendered(odd):
    """What a forged or a newer journal says of a builtin is believed only where it can do no harm."""
    payload = json.dumps({"logger": "x", "message": "x", "exc_info": [{"type": "E", "text": "t", **odd}]})
    kind, again, _ = decode(1, "u-1", 1.0, 40, payload).record.exc_info
    text = "".join(traceback.format_exception(again))
    assert len(text) < 1000 and "E: " in text and "antigravity" not in sys.modules
    assert [getattr(again, name, None) for name in dir(again)] and kind.__name__ == "E"
