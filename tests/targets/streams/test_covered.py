"""The state that an engine keeps of an epoch, against a plain set."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from lastwords.targets.streams import covered
from lastwords.targets.streams.covered import Covered

SEQS = st.integers(0, 60)


class Model(RuleBasedStateMachine):
    """Whatever is added in whatever order, written and read again: the same as a set has."""

    def __init__(self):
        super().__init__()
        self.state, self.there = Covered(), set()

    @rule(seqs=st.lists(SEQS, max_size=8))
    def add(self, seqs):
        before, text = self.state, str(self.state)
        self.state = before.with_added(seqs)
        assert str(before) == text  # a commit that fails leaves the old state
        self.there.update(seqs)

    @rule(first=SEQS, count=st.integers(1, 20))
    def add_a_run(self, first, count):
        self.state = self.state.with_added(list(range(first, first + count)))
        self.there.update(range(first, first + count))

    @rule()
    def written_and_read(self):
        self.state = Covered(str(self.state))

    @invariant()
    def same_as_the_set(self):
        assert {seq for seq in range(-2, 90) if seq in self.state} == self.there
        assert self.state.newest == max(self.there, default=-1)


Model.TestCase.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
TestModel = pytest.mark.slow(Model.TestCase)


@pytest.mark.parametrize("text", ["", "0", "7", "104 50-99,101", "5 0-2", "9223372036854775807 1"])
def test_what_is_read_is_written_again(text):
    """The text is the state."""
    assert str(Covered(text)) == text


@pytest.mark.parametrize(
    "text",
    ["x", "-1", "5 ", "5 9", "5 5", "9 3-2", "9 4,2", "9 1-3,3", "9 1,2", "9 1-2,3", "9 1;2", "1" * 30, "9 1\n", "५"],
)
def test_a_state_that_nobody_of_us_wrote_is_refused(text):
    """A hole that is read wrongly would lose records."""
    with pytest.raises(ValueError, match="no state of an epoch"):
        Covered(text)


def test_too_many_holes_forget_that_something_is_there_and_never_that_it_is_missing():
    """The oldest holes are joined: an old entry may arrive twice then, none is lost."""
    there = list(range(0, 2 * covered.MOST_HOLES + 400, 2))
    state = Covered().with_added(there)
    kept = {seq for seq in range(state.newest + 1) if seq in state}
    assert kept < set(there)
    assert kept >= set(there[-covered.MOST_HOLES :])  # of the newer ones all is known
    assert str(state).count(",") == covered.MOST_HOLES - 1


def test_a_text_that_must_be_short_forgets_in_the_same_way():
    """Kafka takes 4 KB of it."""
    there = list(range(10**12, 10**12 + 2_000, 2))
    state = Covered().with_added(there, most_text=4_000)
    assert 3_000 < len(str(state)) <= 4_000
    kept = {seq for seq in range(10**12 - 1, 10**12 + 2_001) if seq in state}
    assert kept < set(there) and there[-1] in kept and there[-2] in kept
    assert len(str(Covered().with_added(there, most_text=1))) > 1  # one hole stays: there is no shorter truth
