"""Property: whatever was logged, a Formatter makes the same of the decoded record as of the live one."""

import datetime as dt
import decimal
import enum
import logging
import traceback
import uuid
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from pathlib import PurePosixPath

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from lastwords.record.codec import decode, encode
from lastwords.record.replayed import render_plainly

FORMATS = [
    logging.Formatter("%(levelname)s %(name)s %(message)s %(exc_text)s"),
    logging.Formatter(
        "%(asctime)s.%(msecs)03d %(pathname)s %(filename)s %(module)s %(lineno)d %(funcName)s %(message)s"
    ),
    logging.Formatter("{asctime} {levelname:>8} {message} {threadName} {process} {relativeCreated:.3f}", style="{"),
    logging.Formatter("$created $processName $thread $levelno $msg $args $stack_info", style="$"),
]
EXTRA_FORMATS = [logging.Formatter("%(x)s"), logging.Formatter("{x}", style="{")]


class Colour(enum.Enum):
    RED = 1


class Number(enum.IntEnum):
    ONE = 1


class Name(enum.StrEnum):
    BOB = "bob"


class Old(str, enum.Enum):
    A = "a"


class Loud(str):
    def __str__(self):
        return self.upper()


Point = namedtuple("Point", "x y")


@dataclass(frozen=True)
class Data:
    a: int


class Opaque:
    def __str__(self):
        return "opaque text"

    def __repr__(self):
        return "<Opaque>"


TEXT = st.text(st.characters(), max_size=20)
HASHABLE = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(2**64, 2**200), st.floats(), TEXT, st.binary(max_size=10),
    st.decimals().filter(lambda number: not number.is_snan()), st.datetimes(timezones=st.sampled_from([None, dt.UTC])), st.dates(), st.timedeltas(), st.uuids(),
    st.complex_numbers(), st.just(Colour.RED), st.just(Number.ONE), st.just(Name.BOB), st.just(Old.A), st.builds(Loud, TEXT), st.builds(Data, st.integers()),
    st.builds(PurePosixPath, st.just("/a/b")),
)  # fmt: skip
VALUES = st.recursive(
    st.one_of(HASHABLE, st.builds(Opaque), st.just(ValueError("v")), st.just(len), st.just(dict)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.tuples(inner, inner), st.builds(Point, inner, inner), st.dictionaries(TEXT, inner, max_size=3),
        st.dictionaries(HASHABLE, inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3).map(OrderedDict),
    ),
    max_leaves=8,
)  # fmt: skip


def through(live):
    before = {key: (id(value), repr(value)) for key, value in live.__dict__.items()}
    created, level, payload, _ = encode(live)
    assert {key: (id(value), repr(value)) for key, value in live.__dict__.items()} == before
    payload.encode()
    return decode(seq=1, id="u-1", created=created, level=level, payload=payload)


def make(msg, args=(), exc_info=None, **extra):
    return logging.getLogger("a.b").makeRecord(
        "a.b", 30, "/srv/x.py", 5, msg, args, exc_info, "f", extra or None, "Stack:\n x"
    )


def assert_same(live, replayed):
    for formatter in FORMATS:
        assert formatter.format(replayed) == formatter.format(live)


@pytest.mark.slow
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(VALUES, max_size=3))
def test_any_arguments_render_alike(values):
    """%s and %r of anything, by the stored text and by formatting anew."""
    live = make(" ".join("%s %r" for _ in values), tuple(value for value in values for _ in "12"))
    entry = through(live)
    text = live.getMessage()
    assert entry.record.getMessage() == text
    again = entry.record.msg % entry.record.args if live.args else text
    if "{" not in text or again == text:  # the order of a set may differ
        assert again == text
    assert_same(live, entry.record)


@pytest.mark.slow
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(VALUES)
def test_any_extra_renders_alike(value):
    """Also values of classes that the delivering process does not have; alone, not within a container."""
    live = make("m", x=value)
    replayed = through(live).record
    nested = type(value) in (list, tuple, dict) or isinstance(value, (Point, OrderedDict))
    if not nested:
        for formatter in EXTRA_FORMATS:
            assert formatter.format(replayed) == formatter.format(live)
    assert_same(live, replayed)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.one_of(VALUES, TEXT), VALUES)
def test_any_message_object_renders_alike(msg, arg):
    """A template of any type; arguments that do not fit it are shown beside it and never raise."""
    live = make(msg, (arg,))
    try:
        text = live.getMessage()
    except Exception:
        replayed = through(live).record
        assert "<lastwords: formatting raised" in replayed.getMessage()
        return
    assert through(live).record.getMessage() == text


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(
        TEXT.filter(lambda key: "%" not in key and ")" not in key and "(" not in key), VALUES, min_size=1, max_size=3
    )
)
def test_mapping_arguments_render_alike(mapping):
    """The single dict as arguments."""
    key = next(iter(mapping))
    live = make(f"%({key})s", (mapping,))
    entry = through(live)
    assert entry.record.getMessage() == live.getMessage()


NUMBER_FORMATS = st.sampled_from(["%d", "%i", "%x", "%o", "%5.2f", "%e", "%g", "%s", "%r", "%a", "%c", "%-5s|", "%05d"])


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(NUMBER_FORMATS, st.one_of(HASHABLE, st.builds(Opaque), st.fractions()))
def test_number_formats_of_stand_ins(template, value):
    """%d, %x and %f of a stand-in give what they gave for the real thing."""
    live = make(template, (value,))
    try:
        text = live.getMessage()
    except Exception:
        assume(False)
    record = through(live).record
    assert record.getMessage() == text
    assert record.msg % record.args == text


class Node:
    pass


@st.composite
def exception_graphs(draw):
    kinds = [ValueError, KeyError, type("Löcal", (Exception,), {}), KeyboardInterrupt, OSError]
    made = []
    for _ in range(draw(st.integers(1, 5))):
        if made and draw(st.booleans()):
            members = draw(st.lists(st.sampled_from(made), min_size=1, max_size=3, unique_by=id))
            exc = BaseExceptionGroup(draw(TEXT), members)
        else:
            exc = draw(st.sampled_from(kinds))(draw(TEXT))
        try:
            raise exc
        except BaseException as again:
            made.append(again)
        for note in draw(st.lists(TEXT, max_size=2)):
            exc.add_note(note)
    for exc in made:
        for name in ("__cause__", "__context__"):
            setattr(exc, name, draw(st.sampled_from([None, *made])))
        exc.__suppress_context__ = draw(st.booleans())
    return made[-1]


@pytest.mark.slow
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(exception_graphs())
def test_any_exception_graph_renders_alike(exc):
    """Formatter to the letter; the rebuilt graph has the same shape."""
    live = make("failed", (), (type(exc), exc, exc.__traceback__))
    entry = through(live)
    logging.Formatter().format(live)  # caches exc_text; a target whose formatter is plain gets the same
    render_plainly(entry.record, None)
    assert_same(live, entry.record)
    seen = set()
    pairs = [(exc, entry.record.exc_info[1])]
    while pairs:
        one, two = pairs.pop()
        if (id(one), id(two)) in seen:
            continue
        seen.add((id(one), id(two)))
        if one is None:
            assert two is None
            continue
        assert str(two) == str(one).encode("utf-8", "backslashreplace").decode()
        assert type(two).__qualname__ == type(one).__qualname__
        assert one.__suppress_context__ == two.__suppress_context__
        assert len(getattr(one, "__notes__", ())) == len(getattr(two, "__notes__", ()))
        pairs += [(one.__cause__, two.__cause__), (one.__context__, two.__context__)]
        if isinstance(one, BaseExceptionGroup):
            pairs += zip(one.exceptions, two.exceptions, strict=True)
    assert len({one for one, _ in seen}) == len(seen)
    traceback.format_exception(*entry.record.exc_info)


def test_control_plain_msgspec_changes_values():
    """What the fast path guards against: these pass through msgspec without an error, and come back as others."""
    import msgspec

    for value in (
        float("nan"),
        (1,),
        b"x",
        decimal.Decimal(1),
        uuid.UUID(int=1),
        {1: 2},
        Number.ONE,
        Data(1),
        dt.date(1, 1, 1),
    ):
        back = msgspec.json.decode(msgspec.json.encode(value))
        assert type(back) is not type(value) or back != value
        assert repr(through(make("m", x=value)).extra["x"]) == repr(value) or isinstance(value, (Number, Data))
