"""Exceptions come back as exceptions: causes, groups, notes and tracebacks, whatever shape the graph has."""

import json
import logging
import re
import sys
import traceback

import pytest

from lastwords.record.codec import decode, encode
from lastwords.record.exceptions import MAX_EXCEPTIONS, MAX_FRAMES
from lastwords.record.frames import MAX_REPEATED

LOGGER = logging.getLogger("app")


class AppError(Exception):
    pass


class Nasty(Exception):
    def __str__(self):
        raise RuntimeError("no")

    __cause__ = property(lambda self: 1 / 0)


def caught(function):
    try:
        function()
    except BaseException:
        return sys.exc_info()
    raise AssertionError


def entry_of(exc_info, **attributes):
    record = LOGGER.makeRecord("app", 40, __file__, 1, "failed", (), exc_info, "run", None, None)
    record.__dict__.update(attributes)
    created, level, payload, _ = encode(record)
    return record, decode(seq=1, id="u-1", created=created, level=level, payload=payload)


def normal(text):
    """A rendering without caret lines, and with file names as they were."""
    lines = [line for line in text.split("\n") if not re.fullmatch(r"[ |]*[\^~]+", line)]
    return re.sub(r'File "<(?:\./)?([^"]*)>"', r'File "\1"', "\n".join(lines))


def bare():
    raise ValueError("bare")


def chained():
    try:
        bare()
    except ValueError as exc:
        raise AppError("outer\nsecond line") from exc


def context_suppressed():
    try:
        bare()
    except ValueError:
        raise AppError("outer") from None


def context():
    try:
        bare()
    except ValueError:
        raise AppError from AppError("not the context")


def noted():
    exc = AppError("x")
    exc.add_note("note one\nline two")
    exc.__notes__.append(5)
    raise exc


def grouped():
    def sub(function):
        return caught(function)[1]

    raise ExceptionGroup("several", [sub(bare), sub(chained), ExceptionGroup("inner", [sub(noted)])])


def base_group():
    raise BaseExceptionGroup("base", [KeyboardInterrupt(), ValueError("v")])


def cycle():
    one, two = AppError("one"), AppError("two")
    one.__context__, two.__context__ = two, one
    one.__cause__ = two
    raise one


def exiting():
    raise SystemExit(3)


def deep():
    deep()


@pytest.mark.parametrize(
    "function",
    [bare, chained, context_suppressed, context, noted, grouped, base_group, cycle, exiting],
    ids=lambda function: function.__name__,
)
def test_exception_renders_as_the_live_one(function):
    """By traceback but for carets and the quoted file name; by Formatter to the letter."""
    live, entry = entry_of(caught(function))
    replayed = entry.record
    kind, exc, tb = replayed.exc_info
    assert type(exc) is kind
    assert exc.__traceback__ is tb
    expected = normal("".join(traceback.format_exception(*live.exc_info)))
    assert normal("".join(traceback.format_exception(*replayed.exc_info))) == expected
    assert logging.Formatter("%(message)s").format(replayed) == logging.Formatter("%(message)s").format(live)


def test_stub_class_is_named_as_the_original_and_is_not_it():
    """A receiver sees the qualified name, and nothing was imported to make it."""
    _, entry = entry_of(caught(chained))
    kind = entry.record.exc_info[0]
    assert (kind.__module__, kind.__qualname__) == (AppError.__module__, "AppError")
    assert kind is not AppError
    assert issubclass(kind, Exception)
    _, exiting_entry = entry_of(caught(exiting))
    assert not issubclass(exiting_entry.record.exc_info[0], Exception)


def test_cycle_is_a_cycle_again():
    """Identity within the graph is kept."""
    one = entry_of(caught(cycle))[1].record.exc_info[1]
    assert one.__cause__.__context__ is one
    assert one.__cause__ is one.__context__


def test_no_exception_at_all():
    """logger.exception outside an except block."""
    live, entry = entry_of((None, None, None))
    assert entry.record.exc_info == (None, None, None)
    assert logging.Formatter().format(entry.record) == logging.Formatter().format(live)


@pytest.mark.parametrize(
    "junk", [True, (1, 2, 3), (ValueError,), "text", [None, None, None], (ValueError, ValueError(), 5)]
)
def test_exc_info_of_the_wrong_type(junk):
    """Nothing is raised, and what is left can be rendered."""
    _, entry = entry_of(junk)
    assert entry.message == "failed"
    logging.Formatter().format(entry.record)


def test_text_cached_by_another_formatter_is_kept():
    """exc_text is what the first Formatter made of it, in the live process too."""
    _, entry = entry_of(caught(bare), exc_text="ONE LINE")
    assert entry.record.exc_text == "ONE LINE"


def test_exc_text_without_exc_info():
    """A record that went through QueueHandler.prepare."""
    _, entry = entry_of(None, exc_text="ONE LINE")
    assert (entry.record.exc_info, entry.record.exc_text) == (None, "ONE LINE")


def test_exception_whose_str_raises():
    """traceback's own words for it, and the lying property over __cause__ is not asked."""

    def nasty():
        raise Nasty

    _, entry = entry_of(caught(nasty))
    assert str(entry.record.exc_info[1]) == "<exception str() failed>"
    assert entry.record.exc_info[1].__cause__ is None


def test_a_recursion_reads_as_it_did_live():
    """A thousand frames at one place are one frame, a thousand times."""
    record, entry = entry_of(caught(deep))
    live, replayed = (traceback.format_exception(each) for each in (record.exc_info[1], entry.record.exc_info[1]))
    assert replayed == live and "more times]" in "".join(live)


def ping(count):
    pong(count - 1)


def pong(count):
    if not count:
        raise ValueError("deep enough")
    ping(count)


def test_a_recursion_over_many_places_keeps_head_and_tail():
    """Hundreds of frames become 2 * MAX_FRAMES and a marker."""
    _, entry = entry_of(caught(lambda: ping(300)))
    summary = traceback.extract_tb(entry.record.exc_info[2])
    assert len(summary) == 2 * MAX_FRAMES + 1
    assert "frames left out" in summary[MAX_FRAMES].name


def test_a_forged_number_of_frames_is_bounded():
    """What nobody's recursion limit allows costs no memory."""
    frames = [["f.py", 1, "f", "", "", 0, -1, -1, 0, 2_000_000_000]] * 100
    payload = json.dumps({"logger": "x", "message": "x", "exc_info": [{"type": "E", "text": "t", "frames": frames}]})
    record = decode(seq=1, id="u-1", created=1.0, level=40, payload=payload).record
    assert len(list(traceback.walk_tb(record.exc_info[2]))) == 100 + MAX_REPEATED


def test_endless_chain_is_bounded():
    """A chain of 1,000 contexts keeps its first MAX_EXCEPTIONS."""
    exc = root = AppError("0")
    for number in range(1, 1000):
        exc.__context__ = exc = AppError(str(number))
    _, entry = entry_of((AppError, root, None))
    count, exc = 0, entry.record.exc_info[1]
    while exc is not None:
        count, exc = count + 1, exc.__context__
    assert count == MAX_EXCEPTIONS


def test_group_of_more_than_the_limit():
    """The members that are kept are kept; a nested group that lost all of them is an exception."""
    members = [AppError(str(n)) for n in range(MAX_EXCEPTIONS - 2)] + [
        ExceptionGroup("cut", [ValueError("lost"), ValueError("lost")])
    ]
    _, entry = entry_of((ExceptionGroup, ExceptionGroup("many", members), None))
    assert len(entry.record.exc_info[1].exceptions) == MAX_EXCEPTIONS - 1
    traceback.format_exception(entry.record.exc_info[1])


def test_frames_say_file_line_and_function():
    """What sentry and structlog read from the frames themselves."""
    live, entry = entry_of(caught(chained))
    replayed, was = (
        [(frame.f_code.co_name, frame.f_code.co_firstlineno, line) for frame, line in traceback.walk_tb(tb)]
        for tb in (entry.record.exc_info[2], live.exc_info[2])
    )
    assert replayed == was
    frame = entry.record.exc_info[2].tb_frame
    assert frame.f_code.co_filename == __file__
    assert frame.f_lineno == entry.record.exc_info[2].tb_lineno


def test_encode_leaves_the_exception_alone():
    """Neither exc_text nor a traceback nor notes are set on what the application still holds."""
    info = caught(chained)
    before = (info[1].__traceback__, info[1].__cause__, info[1].__context__, dict(info[1].__dict__))
    live, _ = entry_of(info)
    assert live.exc_text is None
    assert (info[1].__traceback__, info[1].__cause__, info[1].__context__, dict(info[1].__dict__)) == before
