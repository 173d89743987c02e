"""A receiver that is too slow for a full batch."""

import collections
import socket
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journals import pending
from lastwords import Journal, TryAgain
from lastwords.delivery import loop, verdict
from lastwords.delivery.lease import Lease
from lastwords.delivery.loop import Delivery
from lastwords.delivery.width import NARROWER, Width
from lastwords.journal.line import Line
from lastwords.runtime.bell import Bell
from lastwords.targets.contract import CallableTarget


class Slow:
    """Stores what it gets; needs ``each`` second for an entry, and its client waits for as many as ``most`` take.

    The seconds pass on a clock of their own (:func:`drain`): what this machine does meanwhile is lost in them.
    """

    def __init__(self, most, error=TimeoutError, each=1):
        self.most, self.error, self.each = most, error, each
        self.sizes, self.copies = [], collections.Counter()
        self.seconds = 0

    def __call__(self, entries):
        self.sizes.append(len(entries))
        self.copies.update(entry.id for entry in entries)
        self.seconds += self.each * min(len(entries), self.most)
        if len(entries) > self.most:
            raise self.error


def drain(path, target, **knobs):
    clock = pytest.MonkeyPatch()
    clock.setattr(loop, "monotonic", lambda: time.monotonic() + getattr(target, "seconds", 0))
    with clock.context(), Line.open(path) as journal:
        delivery = Delivery(journal, CallableTarget(target), Lease(journal.path), Bell(), **knobs)
        delivery.hurry = True
        delivery.deadline = time.monotonic() + 1_000_000
        return delivery.drain(once=knobs.get("retry_min") is None)


@pytest.mark.slow
def test_a_batch_without_an_answer_narrows_and_then_widens_again(tmp_path):
    """The receiver gets no entry more than a few times, and full batches when it is quick again."""
    pending(tmp_path / "j.db", 1000)
    slow = Slow(30)
    drain(tmp_path / "j.db", slow, retry_min=0.001, retry_max=0.002, batch_size=100)
    assert sum(slow.copies.values()) >= 1000
    assert max(slow.copies.values()) <= 3
    assert slow.sizes[:2] == [100, 100 // NARROWER]
    pending(tmp_path / "k.db", 2000)
    sizes = []

    def quick(entries):
        sizes.append(len(entries))
        if len(sizes) == 1:
            quick.seconds = 30
            raise TimeoutError

    quick.seconds = 0
    drain(tmp_path / "k.db", quick, retry_min=0.001, retry_max=0.002, batch_size=100)
    assert sizes[0] == 100 > sizes[1]
    assert max(sizes[2:]) == 100


def test_the_next_run_of_cron_knows_the_width(tmp_path):
    """A run that is cut short after one try would offer the same full batch for ever."""
    pending(tmp_path / "j.db", 120)
    slow = Slow(10)
    for _ in range(3):
        drain(tmp_path / "j.db", slow)  # `once`: it ends at the first pause
    assert slow.sizes[:3] == [100, 25, 6]
    assert Journal(tmp_path / "j.db").stats().pending < 120


@pytest.mark.parametrize(
    "error", [ConnectionResetError(), BrokenPipeError(), OSError(90, "Message too long")], ids=repr
)
def test_a_receiver_that_hangs_up_on_a_full_batch_gets_fewer_entries(tmp_path, error):
    """It does so at once, whenever it is given too much: the line would stand still for ever."""
    pending(tmp_path / "j.db", 300)
    slow = Slow(30, error=error, each=0)
    drain(tmp_path / "j.db", slow, retry_min=0.001, retry_max=0.002, batch_size=100)
    assert len(slow.copies) == 300
    assert slow.sizes[:4] == [100, 100, 100, 25]
    with Journal(tmp_path / "j.db") as journal:
        assert journal.stats().pending == 0


def test_a_receiver_that_says_not_now_to_each_full_batch_gets_smaller_ones(tmp_path):
    """It answers at once, so it is there: a quota, or a queue that has no room for so many."""
    pending(tmp_path / "j.db", 300)
    slow = Slow(30, error=TryAgain("429"), each=0)
    drain(tmp_path / "j.db", slow, retry_min=0.001, retry_max=0.002, batch_size=100)
    assert len(slow.copies) == 300
    assert slow.sizes[:4] == [100, 100, 100, 25]
    with Journal(tmp_path / "j.db") as journal:
        assert journal.stats().pending == 0


def test_a_receiver_that_refuses_connections_gets_full_batches_when_it_is_back(tmp_path):
    """The control: it is down, whatever the size."""
    pending(tmp_path / "j.db", 100)
    sizes = []

    def down(entries):
        sizes.append(len(entries))
        if len(sizes) < 10:
            raise ConnectionRefusedError

    drain(tmp_path / "j.db", down, retry_min=0.001, retry_max=0.002, batch_size=100)
    assert sizes == [100] * 10


def test_a_mail_does_not_narrow(tmp_path):
    """It is as large with fewer records, and after an outage there would be many mails instead of one."""
    pending(tmp_path / "j.db", 50)
    slow = Slow(0)
    target = CallableTarget(slow)
    target.narrows = False
    with Line.open(tmp_path / "j.db") as journal:
        delivery = Delivery(journal, target, Lease(journal.path), Bell())
        for _ in range(3):
            delivery.drain(once=True)
    assert slow.sizes == [50, 50, 50]


def from_timeout(error):
    error.__cause__ = TimeoutError()
    return error


@pytest.mark.parametrize(
    ("error", "seconds", "slow"),
    [
        (TimeoutError(), 0.0, True),
        (ConnectionRefusedError(), 0.01, False),
        (ConnectionResetError(), 30.0, True),  # a server that ends a worker which takes too long
        (TryAgain("502"), 30.0, True),
        (TryAgain("429", after=5), 30.0, False),
        (TryAgain("503"), 0.01, False),
        (from_timeout(TryAgain("504")), 0.01, True),
        (ValueError(), 30.0, False),
    ],
    ids=repr,
)
def test_which_failures_narrow(error, seconds, slow):
    """Those that took time; who refuses a connection is down, whatever the size of the batch."""
    assert verdict.too_slow(error, seconds) is slow


def wrapped(error):
    made = OSError("the client's own")
    made.__cause__ = error
    return made


@pytest.mark.parametrize(
    ("error", "too_much"),
    [
        (ConnectionResetError(), True),
        (TryAgain("429"), True),
        (wrapped(ConnectionResetError()), True),
        (ConnectionRefusedError(), False),
        (wrapped(wrapped(ConnectionRefusedError())), False),
        (OSError(113, "No route to host"), False),
        (socket.gaierror(-2, "Name or service not known"), False),
        (ValueError(), False),
    ],
    ids=repr,
)
def test_which_failures_may_mean_too_much(error, too_much):
    """Not those of who cannot be reached."""
    assert verdict.may_be_too_much(error) is too_much


@pytest.mark.slow
@given(st.integers(2, 2000), st.floats(0.0001, 0.05), st.floats(0, 1))
def test_any_receiver_that_manages_one_entry_in_time_gets_all(full, each, fixed):
    """Within a few tries after each silence, and without endless ones."""
    patience = 2.0
    width, left, silences, calls = Width(), 3000, 0, 0
    while left:
        calls += 1
        size = min(left, width.of(full))
        seconds = fixed + each * size
        if seconds > patience:
            width, silences = width.after_silence(size, patience), silences + 1
        else:
            width, left = width.after_acceptance(size, seconds, full), left - size
        assert calls < 6000
    assert silences <= 7


@pytest.mark.parametrize("text", [None, "", "x", "3", "3 x", "-1 -1"])
def test_nonsense_in_the_journal_is_no_limit(text):
    """A journal is input."""
    assert Width.parse(text).most == 0
    assert Width.parse(str(Width(25, 2.0))) == (25, 2.0)
