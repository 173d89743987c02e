"""Outage or poison: the decision as a table, and against a model target."""

import smtplib
import socket
import ssl

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lastwords import Rejected, TryAgain
from lastwords.delivery import verdict
from lastwords.delivery.lease import Lease
from lastwords.delivery.loop import Delivery, Outcome
from lastwords.delivery.verdict import Fault, Phase, State, after_acceptance, after_failure
from lastwords.journal.line import Line

HEAD, LINE, PROBE, TRIAL = Phase.HEAD, Phase.LINE, Phase.PROBE, Phase.TRIAL


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (ConnectionRefusedError(), Fault.OUTAGE),
        (TimeoutError(), Fault.OUTAGE),
        (socket.gaierror(-2, "x"), Fault.OUTAGE),
        (ssl.SSLError("x"), Fault.OUTAGE),
        (OSError(28, "no space"), Fault.OUTAGE),
        (smtplib.SMTPServerDisconnected("x"), Fault.OUTAGE),
        (smtplib.SMTPConnectError(421, "x"), Fault.OUTAGE),
        (smtplib.SMTPAuthenticationError(535, b"x"), Fault.OUTAGE),
        (smtplib.SMTPDataError(451, b"later"), Fault.OUTAGE),
        (smtplib.SMTPDataError(554, b"refused"), Fault.FAILURE),
        (smtplib.SMTPRecipientsRefused({"a": (550, b"x")}), Fault.FAILURE),
        (smtplib.SMTPRecipientsRefused({"a": (450, b"x")}), Fault.OUTAGE),
        (ValueError("x"), Fault.FAILURE),
        (KeyError("x"), Fault.FAILURE),
        (Rejected("x"), Fault.REFUSED),
        (TryAgain(), Fault.NOT_NOW),
    ],
    ids=lambda value: repr(value),
)
def test_what_an_exception_says(error, fault):
    """Connection errors and timeouts are about the target; other errors may be about the entry."""
    assert verdict.classify(error) is fault


@pytest.mark.parametrize(
    ("status", "fault"), [(400, Fault.FAILURE), (401, Fault.FAILURE), (429, Fault.OUTAGE), (503, Fault.OUTAGE)]
)
def test_the_status_that_an_http_client_raised_for(status, fault):
    """requests' HTTPError is an OSError, as urllib's is: a request that is refused for ever held up the line."""

    class HTTPError(OSError):
        def __init__(self, **attributes):
            vars(self).update(attributes)

    response = type("Response", (), {"status_code": status})()
    assert verdict.classify(HTTPError(response=response)) is fault
    assert verdict.classify(HTTPError(code=status)) is fault
    assert verdict.classify(HTTPError()) is Fault.OUTAGE  # the control


@pytest.mark.parametrize("name", ["ConnectionError", "TimeoutError", "ConnectTimeoutError", "AutoReconnect"])
def test_a_client_that_has_a_connection_error_of_its_own(name):
    """redis-py's TimeoutError has the name only: a redis that was down spoke against the entry."""
    error = type("Special", (type(name, (Exception,), {}),), {})()
    assert verdict.classify(error) is Fault.OUTAGE
    assert verdict.classify(type("DataError", (Exception,), {})()) is Fault.FAILURE  # the control


def test_a_wrapped_connection_error_is_an_outage():
    """Client libraries raise their own exception from the socket's."""
    try:
        try:
            raise ConnectionResetError
        except ConnectionResetError as cause:
            raise RuntimeError("client") from cause
    except RuntimeError as error:
        assert verdict.classify(error) is Fault.OUTAGE
    assert verdict.classify(RuntimeError("client")) is Fault.FAILURE  # the control


@pytest.mark.parametrize(
    ("state", "fault", "offered", "others", "expected", "pause", "bury"),
    [
        # an outage never counts and keeps the line
        (State(LINE), Fault.OUTAGE, 10, True, State(LINE), True, False),
        (State(HEAD, 3), Fault.OUTAGE, 1, True, State(HEAD, 3), True, False),
        (State(HEAD, 3), Fault.NOT_NOW, 1, True, State(HEAD, 3), True, False),
        (State(TRIAL, 8), Fault.OUTAGE, 1, True, State(HEAD, 8), True, False),
        # a failed batch: its head alone, at once
        (State(LINE), Fault.FAILURE, 10, True, State(HEAD, narrow=10), False, False),
        # while halving: narrower, at once
        (State(LINE, narrow=10), Fault.FAILURE, 5, True, State(LINE, narrow=5), False, False),
        # a single entry fails: count and wait
        (State(LINE), Fault.FAILURE, 1, True, State(HEAD, 1), True, False),
        (State(HEAD, 1), Fault.FAILURE, 1, True, State(HEAD, 2), True, False),
        # suspected: probe at once
        (State(HEAD, 7), Fault.FAILURE, 1, True, State(PROBE, 8), False, False),
        # suspected, but alone: it stays
        (State(HEAD, 7), Fault.FAILURE, 1, False, State(HEAD, 8), True, False),
        # the probe fails too: further on next time
        (State(PROBE, 8), Fault.FAILURE, 1, True, State(HEAD, 8, probe=1), True, False),
        # the target is up and the head fails again: bury
        (State(TRIAL, 8), Fault.FAILURE, 1, True, State(HEAD, 7), False, True),
    ],
)
def test_what_follows_a_failure(state, fault, offered, others, expected, pause, bury):
    """The table of verdict.after_failure."""
    following = after_failure(state, fault, offered, 8, others=others)
    assert (following.state, following.pause, following.bury_head) == (expected, pause, bury)


def test_what_follows_an_acceptance():
    """An accepted probe leads to a trial of the head, an accepted head back to the line."""
    assert after_acceptance(State(PROBE, 8, 2), 1).state == State(TRIAL, 8, 2)
    assert after_acceptance(State(TRIAL, 8, 2), 1).state == State(LINE)
    assert after_acceptance(State(HEAD, narrow=10), 1).state == State(LINE, narrow=9)
    assert after_acceptance(State(LINE, narrow=9), 4).state == State(LINE, narrow=5)
    assert after_acceptance(State(LINE, narrow=3), 2).state == State(HEAD)  # it must be this one


# --- against a model target -----------------------------------------------------------------------------


class Restless:
    """A bell that never sleeps, so that backing off takes no time."""

    def __init__(self, most_pauses=400):
        self.pauses = 0
        self.most = most_pauses

    def ring(self):
        pass

    def is_set(self):
        return self.pauses > self.most

    def wait(self, timeout=None):
        self.pauses += 1
        return False


class Crash(KeyboardInterrupt):  # which no target can have raised itself, so that it leaves the delivery
    """The process dies inside the target: what Delivery knew is gone, the journal stays."""


class ModelTarget:
    """Accepts all but the poison; ``script`` overrules single calls: outage, timeout, fail, refuse, crash, and a crash
    between acceptance and mark."""

    record_at_a_time = False
    narrows = True
    label = ""

    def __init__(self, poison=(), script=(), batchwise=True):
        self.poison, self.script = set(poison), list(script)
        self.record_at_a_time = not batchwise
        self.accepted, self.calls, self.refused = [], 0, set()

    def deliver(self, entries):
        self.calls += 1
        action = self.script.pop(0) if self.script else "accept"
        if action == "outage":
            raise ConnectionRefusedError
        if action == "timeout":
            raise TimeoutError
        if action == "fail":
            raise RuntimeError("500")
        if action == "refuse":
            self.refused |= {e.message for e in entries}
            raise Rejected("no", entries=list(entries))
        if action == "crash":
            raise Crash
        if self.poison & {e.message for e in entries}:
            raise ValueError("cannot encode")
        self.accepted += [e.message for e in entries]
        if action == "accept, then crash":
            raise Crash

    def rebuild(self):
        return False


def line_of(tmp_path, count):
    import logging

    from lastwords.journal.store import Store
    from lastwords.record import codec

    store = Store(str(tmp_path / "j.db"))
    with store.lock, store.transaction() as conn:
        for i in range(count):
            row = codec.encode(logging.LogRecord("x", 20, "/x.py", 1, f"m{i}", (), None))
            conn.execute("INSERT INTO entries (created, level, payload, checksum) VALUES (?, ?, ?, ?)", row)
    return Line(store)


def deliver(journal, target, bell=None, **kwargs):
    kwargs = {"batch_size": 100, "suspect_after": 8, "retry_min": 0.001, "retry_max": 0.001, **kwargs}
    delivery = Delivery(journal, target, Lease(journal.path), bell or Restless(), **kwargs)
    delivery.hurry = True
    return delivery, delivery.drain()


def dead(journal):
    import json

    return [json.loads(letter.payload)["message"] for letter in journal.dead_letters()]


actions = st.lists(
    st.sampled_from(["accept", "outage", "timeout", "refuse", "crash", "accept, then crash"]), max_size=60
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    count=st.integers(1, 30),
    poison=st.sets(st.integers(0, 29), max_size=5),
    script=actions,
    batchwise=st.booleans(),
    size=st.sampled_from([1, 3, 10, 100]),
)
def test_only_poison_is_buried_and_nothing_is_lost(tmp_path_factory, count, poison, script, batchwise, size):
    """Outages, refusals and crashes at any point: what is buried is poison or refused, never what was seen accepted."""
    journal = line_of(tmp_path_factory.mktemp("v"), count)
    bad = {f"m{i}" for i in poison}
    target = ModelTarget(bad, script, batchwise)
    crashed = script.count("accept, then crash")
    while True:
        try:
            deliver(journal, target, batch_size=size)
            break
        except Crash:
            continue  # the next process
    buried, stats = dead(journal), journal.stats()
    assert set(buried) <= bad | target.refused
    # Accepted and buried may both be only what was accepted unseen, by a crash before the mark.
    assert crashed or not set(buried) & set(target.accepted)
    assert crashed or len(target.accepted) == len(set(target.accepted))  # nothing arrives twice without a kill
    assert stats.pending == count - len(set(target.accepted) | set(buried))
    assert set(target.accepted) | set(buried) | bad >= {f"m{i}" for i in range(count)}
    journal.close()


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(count=st.integers(1, 20), failures=st.integers(0, 120), batchwise=st.booleans())
def test_an_outage_that_looks_like_failures_buries_nothing_whenever_it_ends(
    tmp_path_factory, count, failures, batchwise
):
    """The target fails every call with an ordinary error, then comes back, at any point of the probing."""
    journal = line_of(tmp_path_factory.mktemp("v"), count)
    target = ModelTarget((), ["fail"] * failures, batchwise)
    _, outcome = deliver(journal, target)
    assert outcome is Outcome.DONE
    assert dead(journal) == []
    assert sorted(target.accepted) == sorted(f"m{i}" for i in range(count))
    journal.close()


def test_without_the_second_try_an_outage_buries_a_good_entry():
    """The negative control: burying right after an accepted probe, without the trial, loses a good entry."""

    def no_trial(state, accepted):
        if state.phase is PROBE:
            return verdict.Next(State(HEAD, attempts=7), bury_head=True)
        return after_acceptance(state, accepted)

    buried = []
    for failures in range(30):
        state, down = State(LINE), failures
        for _ in range(80):
            ok = down <= 0
            down -= 1
            if ok:
                following = no_trial(state, 1)
            else:
                following = after_failure(state, Fault.FAILURE, 1, 8, others=True)
            if following.bury_head:
                buried.append(failures)
            state = following.state
            if ok:
                break
    assert buried  # the model target was only down


@pytest.mark.parametrize("run", [1, 2, 3, 5])
@pytest.mark.parametrize("batchwise", [True, False])
def test_a_run_of_poison_lets_the_line_move_within_the_stated_attempts(tmp_path, run, batchwise):
    """README: suspect_after + 3 calls for one poison entry, at most 3 + log2(run) more for each adjacent one."""
    journal = line_of(tmp_path, 40)
    bad = {f"m{i}" for i in range(5, 5 + run)}
    target = ModelTarget(bad, batchwise=batchwise)
    deliver(journal, target, suspect_after=8)
    assert set(dead(journal)) == bad
    assert len(target.accepted) == 40 - run
    failing = 8 + 3 + (run - 1) * (3 + 2) + 2 * run.bit_length()
    good = 40 if not batchwise else 12
    assert target.calls <= failing + good + 2 * run


@pytest.mark.slow
def test_every_entry_beyond_the_head_is_probed_in_the_end(tmp_path):
    """A good entry between poison ones, where no power of two leads: 0, 1, 2 and 4 are poison, 3 is not."""
    journal = line_of(tmp_path, 5)
    target = ModelTarget({"m0", "m1", "m2", "m4"}, batchwise=False)
    deliver(journal, target)
    assert target.accepted == ["m3"]
    assert dead(journal) == ["m0"]  # what is left has nothing to be compared with
    offsets, state = set(), State(PROBE, 8)
    for _ in range(300):
        offset = min(verdict.probe_offset(state), 20)
        offsets.add(offset)
        state = State(PROBE, 8, verdict._next_probe(state.probe, newest=offset == 20))
    assert offsets == set(range(1, 21))


@pytest.mark.slow
def test_a_lone_failing_entry_stays_pending(tmp_path):
    """With nothing to compare it with, nobody can tell poison from outage."""
    journal = line_of(tmp_path, 1)
    _, outcome = deliver(journal, ModelTarget({"m0"}))
    assert outcome is Outcome.REMAIN
    assert dead(journal) == []
    assert journal.stats().pending == 1


def test_one_bad_entry_in_a_thousand_costs_few_calls(tmp_path):
    """A batch of 1,000 with one bad entry costs at most 2 log2(1,000) extra calls until it is alone."""
    journal = line_of(tmp_path, 1000)

    class Naming(ModelTarget):
        def deliver(self, entries):
            self.calls += 1
            if "m617" in {e.message for e in entries}:
                raise Rejected("bad one")
            self.accepted += [e.message for e in entries]

    target = Naming()
    deliver(journal, target, batch_size=1000)
    assert dead(journal) == ["m617"]
    assert len(target.accepted) == 999
    assert target.calls - 1 <= 20

    (tmp_path / "b").mkdir()
    journal = line_of(tmp_path / "b", 1000)
    target = ModelTarget({"m617"})
    deliver(journal, target, batch_size=1000, suspect_after=1)
    assert dead(journal) == ["m617"]
    assert target.calls - 1 <= 20 + 3


def test_runs_from_cron_add_up(tmp_path):
    """A flush every minute, with time for one attempt each, finds two adjacent poison entries too."""
    journal = line_of(tmp_path, 10)
    target = ModelTarget({"m0", "m1"})
    for runs in range(1, 60):
        delivery = Delivery(
            journal, target, Lease(journal.path), Restless(), batch_size=100, suspect_after=8, retry_min=1, retry_max=60
        )
        if delivery.drain(once=True) is Outcome.DONE:
            break
    assert set(dead(journal)) == {"m0", "m1"}
    assert len(target.accepted) == 8
    assert runs <= 8 + 2 + 2 + 3
