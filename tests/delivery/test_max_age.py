"""max_age by clocks that step, and what was requeued by hand."""

import logging
import time

import pytest

from lastwords import DurableHandler
from lastwords.delivery.lease import Lease
from lastwords.delivery.loop import Delivery
from lastwords.delivery.max_age import Clock
from lastwords.journal.line import Line
from lastwords.runtime.bell import Bell
from lastwords.targets.contract import CallableTarget


@pytest.fixture
def journal(tmp_path):
    handler = DurableHandler(None, tmp_path / "j.db")
    logger = logging.Logger("x")
    logger.addHandler(handler)
    logger.error("waits")
    handler.close()
    with Line.open(tmp_path / "j.db") as journal:
        yield journal


def down(_entries):
    raise ConnectionRefusedError


def delivery(journal, target=down, max_age=3600.0):
    return Delivery(journal, CallableTarget(target), Lease(journal.path), Bell(), max_age=max_age)


@pytest.fixture
def clock(monkeypatch):
    """Sets the wall clock by so many seconds, now and again."""
    real = time.time

    def step(seconds):
        monkeypatch.setattr(time, "time", lambda: real() + seconds)

    return step


@pytest.mark.parametrize("seconds", [86400, -86400, 56 * 365 * 86400])
def test_a_clock_that_steps_buries_nothing(journal, clock, seconds):
    """While the process runs, target down: the entries age anew from the step on."""
    running = delivery(journal)
    running.drain(once=True)
    clock(seconds)
    running.drain(once=True)
    assert journal.stats().dead == 0
    clock(seconds + 3700)  # a second one
    running.drain(once=True)
    assert journal.stats().dead == 0


def test_a_clock_that_steps_between_two_runs_buries_nothing(journal, clock):
    """Cron's next run compares with what the last one noted."""
    delivery(journal).drain(once=True)
    clock(86400)
    delivery(journal).drain(once=True)
    got = []
    delivery(journal, got.extend).drain(once=True)
    assert [entry.message for entry in got] == ["waits"]


def test_an_entry_that_waited_longer_is_buried_still(journal, monkeypatch):
    """The control: both clocks went on."""
    delivery(journal).drain(once=True)
    steady, wall = time.clock_gettime, time.time
    monkeypatch.setattr(time, "clock_gettime", lambda which: steady(which) + 3700)
    monkeypatch.setattr(time, "time", lambda: wall() + 3700)
    running = delivery(journal)
    running.drain(once=True)
    assert journal.stats().dead == 1
    assert journal.retry_dead() == 1
    running.drain(once=True)  # requeued a moment ago: somebody wants it
    assert journal.stats().dead == 0
    monkeypatch.setattr(time, "clock_gettime", lambda which: steady(which) + 7500)
    monkeypatch.setattr(time, "time", lambda: wall() + 7500)
    running.drain(once=True)
    assert journal.stats().dead == 1  # it does not wait for ever, either


def test_a_record_that_was_logged_by_a_wrong_clock_is_as_young_as_it_is(journal, clock):
    """The clock was wrong for that one call, and nobody looked meanwhile; up or down, it is not buried."""
    running = delivery(journal, max_age=60.0)
    running.look_on()
    clock(-86400 * 365)
    handler = DurableHandler(None, journal.path)
    logger = logging.Logger("x")
    logger.addHandler(handler)
    logger.error("long ago")
    handler.close()
    clock(0)
    running.drain(once=True)
    assert journal.stats().dead == 0
    got = []
    running.target = CallableTarget(got.extend)
    running.drain(once=True)
    assert [entry.message for entry in got] == ["waits", "long ago"]


def test_a_handler_looks_on_from_its_beginning(tmp_path, clock):
    """So what is logged first counts as well."""
    got = []
    clock(0)
    handler = DurableHandler(got.extend, tmp_path / "k.db", max_age=60)
    logger = logging.Logger("x")
    logger.addHandler(handler)
    clock(-86400 * 365)
    logger.error("long ago")
    clock(0)
    assert handler.drain(60)
    assert handler.stats().dead == 0 and len(got) == 1
    handler.close()


def test_samples_do_not_pile_up(journal, monkeypatch):
    """However long a process looks on; what is older than ``max_age`` by them is buried."""
    running = delivery(journal, max_age=10.0)
    steady, wall, late = time.clock_gettime, time.time, 0.0
    monkeypatch.setattr(time, "clock_gettime", lambda which: steady(which) + late)
    monkeypatch.setattr(time, "time", lambda: wall() + late)
    running.look_on()
    for _ in range(100):
        late += 5.0
        running.look_on()
    assert len(running._ages._samples) <= 20
    handler = DurableHandler(None, journal.path)
    logger = logging.Logger("x")
    logger.addHandler(handler)
    logger.error("new")
    handler.close()
    late += 4.0
    running.drain(once=True)
    assert journal.stats().dead == 1  # the old one, not the new one
    late += 60.0
    running.drain(once=True)
    assert journal.stats().dead == 2


@pytest.mark.parametrize(
    ("before", "now", "stepped"),
    [
        (Clock("a", 10, 1000), Clock("a", 20, 1010), False),
        (Clock("a", 10, 1000), Clock("a", 20, 1500), True),
        (Clock("a", 10, 1000), Clock("a", 20, 900), True),
        (Clock("a", 0, 0), Clock("a", 1e6, 1e6 + 500), False),  # slewed for ten days
        (Clock("a", 10, 1000), Clock("b", 5, 90000), False),  # off for a day, as far as we know
        (Clock("a", 10, 1000), Clock("b", 5, 500), True),  # no battery
    ],
)
def test_what_is_a_step(before, now, stepped):
    """The wall clock against one that nobody sets."""
    assert now.stepped(before) is stepped


@pytest.mark.parametrize("text", [None, "", "x", "boot 1", "boot x 1"])
def test_nonsense_in_the_journal_is_no_clock(journal, text):
    """A journal is input."""
    assert Clock.parse(text) is None
    if text is not None:
        journal.set_meta("aging_from", text)
    assert delivery(journal, list.clear, max_age=0.0).drain(once=True) is not None
