"""Values that fight back: the logging call returns, and the record says what happened."""

import io
import logging
import sys
import threading

import pytest

from lastwords.record.codec import decode, encode


def make(msg="m", args=(), **extra):
    return logging.getLogger("a").makeRecord("a", 20, "/x.py", 1, msg, args, None, "f", extra or None, None)


def through(live):
    before = dict(live.__dict__)
    created, level, payload, _ = encode(live)
    assert live.__dict__.keys() == before.keys()
    assert all(live.__dict__[key] is before[key] for key in before)
    return decode(seq=1, id="u-1", created=created, level=level, payload=payload)


class OddBase(BaseException):
    pass


def raising(exc):
    class Raises:
        def __str__(self):
            raise exc

        __repr__ = __str__

        def __format__(self, spec):
            raise exc

        def __int__(self):
            raise exc

        __float__ = __index__ = __int__

    return Raises()


class Endless:
    def __str__(self):
        return str(self)

    def __repr__(self):
        return repr(self)


class NoText:
    def __str__(self):
        return 5  # noqa: PLE0307 - the fault

    __repr__ = __str__


class SubText:
    def __str__(self):
        return type("S", (str,), {"__len__": lambda self: 1 / 0, "encode": None})("sub")

    __repr__ = __str__


class Liar:
    __class__ = property(lambda self: str)

    def __getattribute__(self, name):
        if name.startswith("__"):
            return object.__getattribute__(self, name)
        raise ZeroDivisionError(name)

    def __repr__(self):
        return "liar"


class Array:
    """What numpy does: no truth value, comparison gives an array, any attribute exists."""

    def __bool__(self):
        raise ValueError("ambiguous")

    def __eq__(self, other):
        return self

    __hash__ = None

    def __len__(self):
        raise TypeError

    def __getattr__(self, name):
        return self

    def __call__(self, *args):
        return self

    def __repr__(self):
        return "array([1])"


def weird():
    class Meta(type):
        __name__ = property(lambda cls: 1 / 0)
        __module__ = property(lambda cls: 1 / 0)

        def __getattribute__(cls, name):
            raise OddBase(name)

    class Weird(metaclass=Meta):
        def __repr__(self):
            return "weird"

    return Weird()


class LyingDict(dict):
    def items(self):
        raise OddBase

    keys = values = __iter__ = __getitem__ = items  # not __len__: LogRecord itself asks that


class LyingInt(int):
    def __int__(self):
        raise OddBase

    __eq__ = __lt__ = __index__ = __bool__ = __hash__ = __int__


class LyingList(list):
    def __iter__(self):
        raise OddBase

    __len__ = __getitem__ = __iter__


ODD = [
    raising(ValueError("v")), raising(OddBase()), raising(GeneratorExit()), raising(RecursionError()), raising(MemoryError()),
    raising(OSError(5, "x")), Endless(), NoText(), SubText(), Liar(), Array(), weird(), LyingDict(a=1),
    LyingInt(5), LyingList([1]), object(), type, sys, threading.Lock(), io.StringIO(), (n for n in [1]), lambda: 1, Ellipsis, memoryview(b"x"),
    range(10**30),
]  # fmt: skip


@pytest.mark.parametrize("value", ODD, ids=range(len(ODD)))
@pytest.mark.parametrize(
    "wrap",
    [lambda v: v, lambda v: [v], lambda v: {"k": v}, lambda v: (v, {1: v})],
    ids=["bare", "list", "dict", "tuple"],
)
def test_odd_value_anywhere(value, wrap):
    """As template, argument, mapping argument and extra."""
    wrapped = wrap(value)
    for live in (
        make(wrapped),
        make("%s", (wrapped, 1)),
        make("%s", (wrapped,)),
        make("%r %d", (1, wrapped)),
        make(x=wrapped),
    ):
        entry = through(live)
        repr(dict(entry.extra))
        logging.Formatter("%(message)s %(args)s").format(entry.record)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_interrupts_pass(stop):
    """They are meant for the program, not for the record; in any position."""
    for live in (make(x=raising(stop())), make("%s", (raising(stop()),)), make(raising(stop()))):
        with pytest.raises(stop):
            encode(live)


def test_str_that_raises_leaves_a_marker():
    """The record says which class raised what."""
    entry = through(make("value: %s", (raising(ValueError("v")),), x=raising(KeyError("k"))))
    assert "raised ValueError" in entry.message
    assert entry.message.startswith("value: %s")
    assert "raised KeyError" in entry.extra["x"]
    assert "Raises" in entry.extra["x"]


@pytest.mark.parametrize(
    ("msg", "args"),
    [
        ("%d", ("x",)),
        ("%s %s", (1,)),
        ("%s", (1, 2)),
        ("%(a)s", (1,)),
        ("%(a)s", ({"b": 1},)),
        ("%", (1,)),
        ("%d", (10**5000, 1)),
    ],
)
def test_arguments_that_do_not_fit(msg, args):
    """Template, arguments and the reason; logging itself would print to stderr and lose the record."""
    live = make(msg, args)
    with pytest.raises((TypeError, ValueError, KeyError)):
        live.getMessage()
    entry = through(live)
    assert entry.message.startswith(msg + " ")
    assert "<lastwords: formatting raised " in entry.message
    assert entry.record.getMessage() == entry.message
    assert entry.record.msg == msg


def test_value_that_changes_its_container_while_it_is_shown():
    """Containers are copied before their values are asked."""
    box = {"a": 1}
    items = [1]

    class Mutator:
        def __repr__(self):
            if len(items) < 10:
                box[len(box)] = self
                items.append(self)
            return "mutator"

    box["m"] = Mutator()
    items.append(Mutator())
    through(make(x=box, y=items))
    through(make("%s %s", (box, items)))


def test_value_that_changes_the_record():
    """An extra's __str__ that adds attributes to the record it is on."""

    class Mutator:
        def __str__(self):
            live.__dict__[f"new{len(live.__dict__)}"] = 1
            return "mutator"

    live = make(x=Mutator(), y=Mutator())
    created, level, payload, _ = encode(live)
    assert decode(seq=1, id="i", created=created, level=level, payload=payload).extra["x"] == "mutator"


def test_cycles_and_sharing():
    """A list in itself is cut by depth, ten-fold sharing over many levels by number, both visibly."""
    loop = [1]
    loop.append(loop)
    ring = {"a": None}
    ring["a"] = ring
    wide = [0]
    for _ in range(25):
        wide = [wide] * 10
    entry = through(make(x=loop, y=ring))
    assert "nested too deeply" in repr(entry.extra["x"])
    assert "nested too deeply" in repr(entry.extra["y"])
    assert "left out" in repr(through(make(x=wide)).extra["x"])


def test_deep_nesting():
    """Deeper than the interpreter's own recursion limit."""
    deep = []
    for _ in range(100_000):
        deep = [deep]
    entry = through(make(x=deep))
    assert "nested too deeply" in repr(entry.extra["x"])
    through(make("%s", (deep, 1)))
    while deep:
        deep = deep[0]


@pytest.mark.slow
def test_near_the_recursion_limit():
    """A record logged with almost no stack left is not lost, and nothing is raised but at the call itself."""
    live = make("m", x=object())
    results = []

    def down(n):
        try:
            down(n + 1)
        except RecursionError:
            try:
                results.append(encode(live))
            except RecursionError:  # no room to call encode itself
                results.append(None)

    down(0)
    results.clear()
    for room in range(1, 60):

        def go(depth, room=room):
            if depth:
                return go(depth - 1)
            return encode(live)

        limit = sys.getrecursionlimit()
        try:
            used = len(__import__("inspect").stack(0))
            results.append(go(limit - used - room - 1))
        except RecursionError:
            assert not results, "once there is room to call encode, it returns"
    assert results
    for created, level, payload, _ in results:
        decode(seq=1, id="i", created=created, level=level, payload=payload)


@pytest.mark.slow
def test_attributes_with_odd_values():
    """Each standard attribute in turn holds each odd value."""
    for name in make().__dict__:
        for value in ODD:
            live = make()
            live.__dict__[name] = value
            repr(through(live).record.__dict__)


def test_keys_of_the_record_dict_that_are_no_names():
    """record.__dict__ may hold any key."""
    live = make()
    live.__dict__[5] = "five"
    live.__dict__["\ud800"] = "s"
    extra = through(live).extra
    assert extra[5] == "five"
    assert extra["\ud800"] == "s"
