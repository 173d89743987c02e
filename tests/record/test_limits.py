"""A record of any size becomes a payload of bounded size, and says what was cut."""

import logging
import sys
import tracemalloc

import pytest

from lastwords.record.codec import decode, encode
from lastwords.record.payload import MAX_PAYLOAD


def make(msg="m", args=(), exc_info=None, **extra):
    return logging.getLogger("a").makeRecord("a", 20, "/x.py", 1, msg, args, exc_info, "f", extra or None, None)


def through(live):
    created, level, payload, _ = encode(live)
    assert len(payload.encode()) <= MAX_PAYLOAD
    return decode(seq=1, id="u-1", created=created, level=level, payload=payload)


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["x", "\0", '"', "é", "\N{GRINNING FACE}", "\udc80", "\n"])
def test_huge_message_is_cut_visibly(unit):
    """Whatever its characters take in JSON; the marker counts what is missing."""
    text = unit * 20_000_000
    message = through(make(text)).message
    assert message.endswith(" characters cut>")
    kept = message[: message.rindex("... <lastwords: ")]
    cut = int(message.rsplit(" ", 3)[1])
    assert len(kept) + cut == len(text) * (6 if unit == "\udc80" else 1)
    assert len(kept) > 500_000


def test_message_below_the_limit_is_whole():
    """8 MiB pass unchanged."""
    text = "x" * (8 << 20)
    assert through(make(text)).message == text


@pytest.mark.slow
def test_huge_extras_and_arguments():
    """Each is cut on its own, and the message comes first."""
    big = "y" * 30_000_000
    entry = through(make("short", a=big, b=big, c=[big] * 10, d=b"z" * 30_000_000, e=1 << 30_000_000))
    assert entry.message == "short"
    assert "characters cut" in entry.extra["a"]
    through(make("%s", (big,)))
    through(make("%s", (bytearray(20_000_000), 1)))


@pytest.mark.slow
def test_many_small_values():
    """A list of a million, a dict of a million, a million extras."""
    entry = through(make(x=list(range(1_000_000))))
    assert "items left out" in repr(entry.extra["x"][-1])
    assert "left out" in str(through(make(x=dict.fromkeys(range(1_000_000)))).extra["x"]["..."])
    assert "left out" in str(through(make(x={str(n): n for n in range(100_000)})).extra["x"]["..."])
    assert len(through(make(**{f"k{n}": n for n in range(100_000)})).extra) == 100_000
    assert "left out" in str(through(make(**{f"k{n}": (n,) for n in range(100_000)})).extra["..."])
    through(make("%s" * 50_000, tuple(range(50_000))))
    through(make(x=set(range(100_000))))


def test_list_of_moderate_size_is_whole():
    """Two thousand numbers are no reason to cut."""
    numbers = list(range(2000))
    assert through(make(x=numbers)).extra["x"] == numbers


@pytest.mark.slow
def test_huge_exception_text():
    """Text, notes and group messages share the budget."""
    exc = ValueError("e" * 30_000_000)
    exc.add_note("n" * 30_000_000)
    try:
        raise exc
    except ValueError:
        info = sys.exc_info()
    entry = through(make("m", (), info))
    assert "characters cut" in str(entry.record.exc_info[1])


@pytest.mark.slow
def test_memory_is_linear():
    """A message of 32 MB costs a few times its size, not more."""
    text = "x" * 32_000_000
    live = make(text)
    tracemalloc.start()
    try:
        encode(live)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6 * len(text)


@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_AS to count")
def test_where_there_is_no_memory_the_process_lives(children):
    """msgspec's own encode() ends it (SIGSEGV), as its buffer is not there: ours raises MemoryError."""
    out, _, _ = children.run(
        """
        import resource
        from lastwords.record.payload import Payload
        from lastwords.runtime.jsonbytes import to_json
        payload = Payload("app", "x" * 2000)
        to_json(payload)
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 3 * 2**20, resource.getrlimit(resource.RLIMIT_AS)[1]))
        hog, failed, size = [], 0, 2**16
        while size >= 16:
            try:
                while True:
                    hog.append(bytearray(size))
            except MemoryError:
                size //= 2
        for _ in range(200):
            try:
                hog.append(to_json(payload))
            except MemoryError:
                failed += 1
        hog.clear()
        print(failed)
        """
    )
    assert 0 <= int(out) <= 200


def test_what_stands_for_a_record_that_cannot_be_encoded_suits_every_formatter(monkeypatch):
    """It has the numbers that a formatter asks for: else it held up the line, until it was buried."""

    def fails(*_):
        raise MemoryError

    monkeypatch.setattr("lastwords.record.any_record.to_json", fails)
    monkeypatch.setattr("lastwords.record.codec.to_json", fails)
    made = through(make()).record
    style = "%(asctime)s %(levelname)s %(name)s %(lineno)d %(process)d %(thread)d %(msecs)03d %(relativeCreated)d"
    assert "INFO lastwords 0 0 0 000 0 <lastwords: " in logging.Formatter(style + " %(message)s").format(made)
