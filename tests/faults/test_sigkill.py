"""kill -9 at random moments: every acknowledged record is at the receiver in the end."""

import random
import time

import pytest

SERVICE = """
import logging, os, sys, threading
from lastwords import DurableHandler
received, journal, run = sys.argv[1:4]
def deliver(entries):
    with open(received, "a") as f:
        for e in entries:
            f.write(f"{e.id} {e.message}\\n")
            f.flush()
def work(t):
    for i in range(100000):
        m = f"{run}-{t}-{i}"
        log.log(20 + 20 * (i % 2), m)
        os.write(1, (m + "\\n").encode())  # one write below PIPE_BUF: atomic
log = logging.Logger("s"); log.addHandler(DurableHandler(deliver, journal, batch_size=10))
for t in range(3): threading.Thread(target=work, args=(t,)).start()
"""


@pytest.mark.slow
def test_every_acknowledged_record_arrives_after_kills_at_random_moments(children, tmp_path):
    """Each returned call is acknowledged over a pipe; ten kills later all of them are at the receiver, in order."""
    rng = random.Random(7)
    acknowledged, kills = [], 8
    received, journal = tmp_path / "received", tmp_path / "j.db"
    received.touch()
    for run in range(kills):
        child = children.start(SERVICE, received, journal, run)
        end = time.monotonic() + rng.uniform(0.3, 1.0)
        data = child.stdout.readline()
        # On a busy machine a moment may be too short for a process to have said anything.
        while time.monotonic() < end or (data.count(b"\n") < 70 and time.monotonic() < end + 15):
            data += child.stdout.read1(65536)
        child.kill()
        data += child.stdout.read()
        acknowledged += data.decode().splitlines()
    children.run(
        "import sys; from lastwords import DurableHandler\n"
        "def deliver(entries):\n"
        "    with open(sys.argv[1], 'a') as f:\n"
        "        for e in entries: f.write(f'{e.id} {e.message}\\n')\n"
        "h = DurableHandler(deliver, sys.argv[2], batch_size=1000)\n"
        "assert h.drain(60)\n",
        received,
        journal,
    )
    lines = [line.split(" ", 1) for line in received.read_text().splitlines()]
    first = {}
    for id_, message in lines:
        first.setdefault(message, id_)
        assert first[message] == id_  # twice only with the same id
    assert len(acknowledged) > 500
    assert set(acknowledged) - set(first) == set()
    assert len(lines) - len(first) <= 10 * kills
    for run in range(kills):
        for t in range(3):
            mine = [int(m.rsplit("-", 1)[1]) for m in first if m.startswith(f"{run}-{t}-")]
            assert mine == sorted(mine)


@pytest.mark.slow
def test_killed_between_acceptance_and_mark_delivers_twice_with_one_id(children, tmp_path):
    """The one duplicate that at-least-once allows."""
    code = """
    import logging, os, signal, sys
    from lastwords import DurableHandler
    def deliver(entries):
        with open(sys.argv[1], "a") as f:
            for e in entries: f.write(f"{e.id} {e.message}\\n")
        if sys.argv[3] == "die": os.kill(os.getpid(), signal.SIGKILL)
    h = DurableHandler(deliver, sys.argv[2]); log = logging.Logger("s"); log.addHandler(h)
    if sys.argv[3] == "die": log.error("m")
    h.drain(10)
    """
    children.run(code, tmp_path / "r", tmp_path / "j.db", "die", check=-9)
    children.run(code, tmp_path / "r", tmp_path / "j.db", "live")
    one, two = (tmp_path / "r").read_text().splitlines()
    assert one == two
