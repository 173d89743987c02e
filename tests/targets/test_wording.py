"""An entry as JSON: the quick way for usual records says what the thorough one does."""

import json
import logging
import math
import random
import sys
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lastwords.record import codec
from lastwords.targets.wording import _any_json, as_json, utc


class Name(str):
    __slots__ = ()


def raised():
    try:
        raise ValueError("no")
    except ValueError:
        return sys.exc_info()


RECORDS = {
    "usual": {},
    "arguments": {"msg": "%s of %d", "args": ("a", 2)},
    "not ASCII": {"msg": "caf\u00e9 \U0001f600", "pathname": "/srv/\u00fc.py"},
    "half a surrogate pair": {"msg": "a\ud800b", "pathname": "/srv/\udcff.py", "name": "n\udcff", "funcName": "\ud800"},
    "extra": {"user": "x\udcff", "n": 1, "deep": {"a": [1, None, 2.5]}},
    "deeper extra": {"deep": {"a": [{"b": [[1]]}]}, "largest": 2**63 - 1},
    "extra of large numbers": {"n": 2**63, "deep": [{"m": -(2**64)}]},
    "extra like a tag": {"deep": [{"~": "set", "items": [1]}], "~": 1},
    "nested arguments": {"msg": "%s", "args": ([1, {"~": 2}],)},
    "empty": {"msg": "", "name": "", "pathname": "", "funcName": "", "processName": "", "threadName": ""},
    "empty template": {"msg": "", "args": ({"a": 1},)},
    "None": {"funcName": None, "process": None, "thread": None, "threadName": None, "processName": None},
    "large numbers": {"thread": 2**63, "lineno": -(2**63), "process": 2**64},
    "largest numbers": {"thread": 2**63 - 1, "lineno": -(2**63)},
    "subclass": {"name": Name("n"), "funcName": Name("f"), "levelname": Name("L")},
    "bool": {"lineno": True, "process": False},
    "level": {"levelname": "", "levelno": 17},
    "task": {"taskName": "Task-1"},
    "odd task": {"taskName": 7},
    "exception": {"exc_info": raised()},
    "text of one": {"exc_text": "Traceback"},
    "stack": {"stack_info": "Stack (most recent call last)"},
    "mapping": {"msg": {"event": "e", "user": 1}},
    "no text": {"msg": 12, "args": ()},
}


@pytest.mark.parametrize("changes", RECORDS.values(), ids=RECORDS)
def test_a_usual_record_and_an_odd_one_are_said_in_the_same_words(changes):
    """Byte for byte, whichever way a record takes: what is repeated by another version is the same."""
    record = logging.LogRecord("shop", logging.INFO, "/srv/shop.py", 7, "hello", (), None, "buy")
    record.__dict__.update(changes)
    created, level, payload, _ = codec.encode(record)
    entry = codec.decode(seq=1, id="e-1", created=created, level=level, payload=payload)
    assert as_json(entry) == _any_json(entry)
    assert json.loads(as_json(entry))["id"] == "e-1"


texts = st.text(max_size=8) | st.sampled_from(["", "~", "\u007f", "\ud800", "\u2028"])
numbers = st.integers(-(2**65), 2**65) | st.floats() | st.booleans() | st.none()
simple = st.text("ab\u00e9", max_size=4) | st.integers(-9, 9) | st.none()
values = (
    simple
    | simple
    | st.recursive(
        texts | numbers, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner), max_leaves=6
    )
)


@pytest.mark.slow
@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    st.fixed_dictionaries(
        {"msg": texts | texts | values, "created": st.floats(0, 2e10) | st.sampled_from([0.0, 1.5e9, 1e12])},
        optional={
            "args": st.tuples(values) | st.just(()),
            "extra": values,
            "note": values,
            "levelno": st.integers(-5, 60),
            **dict.fromkeys(("lineno", "process", "thread"), st.integers(0, 9) | st.none() | numbers),
            **dict.fromkeys(
                ("name", "pathname", "funcName", "processName", "threadName", "taskName"), texts | st.none()
            ),
        },
    )
)
def test_any_record_is_said_in_the_same_words_either_way(changes):
    """Whatever it is made of; and what was read the quick way is what the thorough one reads."""
    record = logging.LogRecord("shop", logging.INFO, "/srv/shop.py", 7, "hello", (), None, "buy")
    record.__dict__.update(changes)
    created, level, payload, _ = codec.encode(record)
    entry = codec.decode(seq=1, id="e-1", created=created, level=level, payload=payload)
    quick, thorough = entry._payload, codec._unusual(payload.encode())
    assert [repr(getattr(quick, name)) for name in quick.__struct_fields__] == [
        repr(getattr(thorough, name)) for name in quick.__struct_fields__
    ]
    assert as_json(entry) == _any_json(entry)


@pytest.mark.parametrize("key", ["~", "\\u007e"])
@pytest.mark.parametrize("shape", ['{"%s": "?"}', '{"a": {"%s": "?"}}', '{"a": [{"b": [{"%s": "?"}]}]}'])
def test_a_tag_is_found_wherever_it_is(shape, key):
    """A row that no writer wrote does not decode the quick way either."""
    extra = shape % key
    with pytest.raises(codec.DecodeError, match="unknown tag"):
        codec.decode(1, "e-1", 0.0, 20, '{"logger":"a","message":"b","extra":%s}' % extra)


def test_an_attribute_that_a_filter_made_odd_or_removed():
    """A record is rebuilt once, and what a target's filter did to it counts."""
    for change in ({"lineno": "7"}, {"thread": 1.5}, {"pathname": b"/srv"}):
        record = logging.LogRecord("shop", logging.INFO, "/srv/shop.py", 7, "hello", (), None, "buy")
        created, level, payload, _ = codec.encode(record)
        entry = codec.decode(seq=1, id="e-1", created=created, level=level, payload=payload)
        entry.record.__dict__.update(change)
        assert as_json(entry) == _any_json(entry)


def test_a_time_is_said_as_datetime_rounds_and_says_it():
    """Also next to a whole second, before 1970 and beyond the calendar: what is repeated has the same bytes."""
    whole = 1_795_891_356.0
    near = [whole + part for part in (0.0, 2e-7, 4.9e-7, 5e-7, 0.9999994, 0.9999996, 0.9999999, 1.5e-6, 2.5e-6)]
    some = random.Random(7)
    for created in [*near, 0.0, 0.25, -0.25, -1.5e9, 253_402_300_799.5, *(some.uniform(0, 4e9) for _ in range(300))]:
        assert utc(created) == datetime.fromtimestamp(created, UTC).isoformat(timespec="microseconds")[:-6] + "Z"
    assert [utc(created) for created in (1e20, math.inf)] == ["100000000000000000000.000000", "inf"]
