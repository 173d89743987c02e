"""A record that was journaled is, attribute by attribute, the record that was logged."""

import asyncio
import copy
import datetime as dt
import decimal
import json
import logging
import logging.handlers
import pickle
import queue
import sqlite3
import sys
import threading
import uuid

import pytest

from lastwords.record.codec import Entry, checksum, decode, encode

LOGGER = logging.getLogger("app.module")


def make(msg="hello", args=(), *, level=20, extra=None, exc_info=None, stack=None, name="app.module", func="run"):
    return LOGGER.makeRecord(name, level, "/srv/app/main.py", 12, msg, args, exc_info, func, extra, stack)


def entry_of(record):
    created, level, payload, check = encode(record)
    assert check == checksum(created, level, payload) == checksum(created, level, payload.encode())
    json.loads(payload)
    return decode(seq=1, id="u-1", created=created, level=level, payload=payload)


def test_plain_record_has_exactly_the_live_dict():
    """Without exc_info every attribute is equal, and no private one was added."""
    live = make("hello %s", ("bob",), extra={"user": "bob", "n": 5, "nested": {"a": [1, 2.5, None, True]}})
    replayed = entry_of(live).record
    assert replayed.__dict__ == live.__dict__
    assert list(replayed.__dict__) == list(live.__dict__)
    assert isinstance(replayed, logging.LogRecord)


@pytest.mark.parametrize(
    ("msg", "args"),
    [
        ("no args", ()),
        ("%s and %d", ("a", 7)),
        ("%(a)s", ({"a": 1},)),
        ("%(a)s", ({"a": (1, b"x", {2: 3})},)),
        ("%s", ({},)),
        ("%(~)s", ({"~": 1},)),
        ("%(~)s", ({"~": "tuple", "v": []},)),
        ("%(a)s", ({"a": 1, 2: 3},)),
        ("%s %s", ((1, 2), {1, 2})),
        ("%s", (None,)),
        ("percent % without args", ()),
        ("%.3f %5d|%-5s|%r", (1.5, 3, "x", "y")),
        ("%s", (dt.datetime(2026, 1, 2, 3, 4, 5, 6, dt.UTC),)),
        ("%s %s", (decimal.Decimal("1.50"), uuid.UUID(int=7))),
        ("", ()),
    ],
)
def test_message_template_and_arguments_survive(msg, args):
    """Template, arguments and text are equal, and formatting anew gives the same text."""
    live = make(msg, args)
    replayed = entry_of(live).record
    assert (replayed.msg, replayed.args) == (live.msg, live.args)
    assert type(replayed.args) is type(live.args)
    assert replayed.getMessage() == live.getMessage()
    if live.args:
        assert replayed.msg % replayed.args == live.getMessage()


@pytest.mark.parametrize(
    "value",
    [
        1.0, -0.0, 1e300, float("inf"), float("-inf"), 2**63 - 1, -(2**63), 2**64, -(10**40), 16**3000, True, None,
        (), (1, (2, ())), [], {}, {"a": {}}, {1: 2}, {"~": 1}, {"~": "tuple", "v": []}, {(1, 2): [3]}, {None: 1}, b"", b"\xff\0",
        bytearray(b"x"), set(), {1, "a"}, frozenset({1.5}), 1 + 2j, complex("nan+infj").imag, decimal.Decimal("-0.00"),
        decimal.Decimal("Infinity"), dt.date(1, 1, 1), dt.time(1, 2, 3), dt.timedelta(-1, 2, 3),
        dt.datetime(2026, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=-3, minutes=-30))), uuid.UUID(int=2**128 - 1),
        "", "\0", "\ud800", "a\\\udcff", "\ud83d\ude00", "\N{GRINNING FACE}", "\u2028", '"\\', {"\ud800": "\udfff"},
    ],
)  # fmt: skip
def test_value_comes_back_as_itself(value):
    """A value of a known type keeps its type and its value, as an argument and as an extra."""
    live = make("%s", (value, 1), extra={"x": value})
    entry = entry_of(live)
    for back in (entry.extra["x"], entry.record.x, entry.record.args[0]):
        assert back == value
        assert type(back) is type(value)
        assert repr(back) == repr(value)


def test_nan_stays_nan():
    """msgspec alone would make it null."""
    entry = entry_of(make(extra={"x": float("nan"), "y": [float("nan")]}))
    assert entry.extra["x"] != entry.extra["x"]
    assert entry.extra["y"][0] != entry.extra["y"][0]


def test_extra_that_looks_like_a_tag():
    """An extra called "~" is data like any other."""
    entry = entry_of(make(extra={"~": "tuple", "v": [1]}))
    assert dict(entry.extra) == {"~": "tuple", "v": [1]}


def test_extra_is_read_only():
    """A target cannot change what the next target sees."""
    entry = entry_of(make(extra={"a": 1}))
    with pytest.raises(TypeError):
        entry.extra["a"] = 2


@pytest.mark.parametrize("level", [0, 10, 20, 25, 30, 40, 50, -5, 10**9])
def test_level_names(level):
    """Standard names and unnamed levels are derived; a custom name is kept even if nobody knows it any more."""
    live = make(level=level)
    assert entry_of(live).record.levelname == live.levelname
    live.levelname = "NOTICE"
    assert entry_of(live).record.levelname == "NOTICE"


def test_attributes_of_thread_process_and_task():
    """Names that are not the defaults, and None where logging was told not to collect."""
    out = []

    async def task():
        out.append(make())

    thread = threading.Thread(target=lambda: asyncio.run(task()), name="worker-7")
    thread.start()
    thread.join()
    live = out[0]
    live.processName = "Gunicorn"
    replayed = entry_of(live).record
    assert replayed.__dict__ == live.__dict__
    assert replayed.threadName == "worker-7"
    if sys.version_info >= (3, 12):
        assert replayed.taskName.startswith("Task-")
    for name in ("thread", "threadName", "process", "processName", "funcName"):
        setattr(live, name, None)
    assert entry_of(live).record.__dict__ == live.__dict__


def test_stack_info():
    """The text of the stack is kept."""
    live = make(stack="Stack (most recent call last):\n  File ...")
    assert entry_of(live).record.stack_info == live.stack_info


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("name", "l\udcffgger"), ("name", 5), ("pathname", "/srv/caf\udce9.py"), ("pathname", None), ("lineno", 2**70), ("lineno", "x"),
        ("lineno", None), ("filename", "other.py"), ("module", "other"), ("module", None), ("msecs", float("nan")), ("msecs", 5),
        ("relativeCreated", float("inf")), ("levelname", b"x"), ("funcName", ("a",)), ("process", 1.5), ("threadName", ""),
        ("levelno", 2**80), ("created", 5), ("created", 2**70), ("exc_text", "cached"), ("exc_text", "\udc80"), ("stack_info", ["x"]),
        ("args", None), ("args", {}), ("args", []), ("msg", None), ("msg", 5), ("msg", ("a", 1)),
    ],
)  # fmt: skip
def test_attribute_of_an_unusual_type(name, value):
    """Whatever a filter made of an attribute is what the target sees."""
    live = make(extra={"a": 1})
    setattr(live, name, value)
    replayed = entry_of(live).record
    assert repr(replayed.__dict__[name]) == repr(value)


def test_missing_attributes_do_not_lose_the_record():
    """A record someone deleted attributes from is journaled all the same."""
    live = make("text")
    for name in ("pathname", "lineno", "thread", "msecs", "exc_text"):
        del live.__dict__[name]
    entry = entry_of(live)
    assert entry.message == "text"
    assert entry.record.pathname is None


def test_scratch_of_other_formatters_is_not_an_extra():
    """message and asctime, which a console handler's Formatter left on the record, are not journaled as extras."""
    live = make("x", extra={"a": 1})
    logging.Formatter("%(asctime)s %(message)s").format(live)
    assert dict(entry_of(live).extra) == {"a": 1}


def test_entry_attributes_and_identity():
    """An entry says what it is without its record, hashes by id, and its repr shows no payload."""
    entry = entry_of(make("secret token", level=30))
    assert (entry.seq, entry.id, entry.level, entry.logger, entry.message) == (
        1,
        "u-1",
        30,
        "app.module",
        "secret token",
    )
    assert dict(entry.extra) == {}
    assert "secret" not in repr(entry)
    assert entry.record is entry.record
    other = Entry(2, "u-1", 0.0, 0, entry._payload)
    assert hash(other) == hash(entry)
    assert other == entry
    assert entry != "u-1"


def test_lone_surrogates_do_not_break_sqlite_readers():
    """The view's json_extract must give text that sqlite3 can decode; the exact text is still there."""
    live = make("caf\udce9 %s", ("\ud800",), name="l\udc80")
    created, level, payload, _ = encode(live)
    with sqlite3.connect(":memory:") as db:
        row = db.execute(
            "select json_extract(?, '$.message'), json_extract(?, '$.logger')", (payload, payload)
        ).fetchone()
        with pytest.raises(sqlite3.OperationalError):  # the control: what ensure_ascii would have stored
            db.execute("select json_extract(?, '$.message')", (json.dumps({"message": "\ud800"}),)).fetchone()
    db.close()
    assert row == ("caf\\udce9 \\ud800", "l\\udc80")
    record = decode(seq=1, id="x", created=created, level=level, payload=payload).record
    assert record.getMessage() == "caf\udce9 \ud800"
    assert record.name == "l\udc80"


def test_small_records_stay_small():
    """What follows from something else is not stored."""
    payload = json.loads(encode(make("hello"))[2])
    assert not payload.keys() & {"msg", "args", "extra", "odd", "levelname", "filename", "module", "exc_info"}
    assert payload["logger"] == "app.module"
    assert payload["message"] == "hello"


def test_record_factory_with_its_own_get_message():
    """A brace-style record class keeps the text it made."""

    class Brace(logging.LogRecord):
        def getMessage(self):
            return str(self.msg).format(*self.args)

    live = Brace("a", 20, "/x.py", 1, "{} and {}", (1, 2), None)
    record = entry_of(live).record
    assert record.getMessage() == "1 and 2"
    assert (record.msg, record.args) == ("{} and {}", (1, 2))


def test_whoever_rewrites_the_replayed_record_is_heard():
    """QueueHandler.prepare and filters set msg and args; getMessage follows."""
    record = entry_of(make("hello %s", ("bob",))).record
    handler = logging.handlers.QueueHandler(queue.SimpleQueue())
    prepared = handler.prepare(record)
    prepared.msg = "changed"
    assert prepared.getMessage() == "changed"
    assert pickle.loads(pickle.dumps(copy.copy(record))).getMessage() == "hello bob"
    pickle.loads(logging.handlers.SocketHandler("localhost", 1).makePickle(record)[4:])


def test_checksum_notices_a_flip_in_any_column():
    """Also in the fraction of created, which a sum seeded with int(created) would miss."""
    base = checksum(1.25, 20, "{}")
    assert len({base, checksum(1.5, 20, "{}"), checksum(1.25, 21, "{}"), checksum(1.25, 20, "{ }")}) == 4
