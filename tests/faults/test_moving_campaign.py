"""Three processes share a journal, are told at random that it is damaged, and are killed at random: nothing is lost.

What comes twice is what a kill leaves between acceptance and mark, or a move: a batch each. The controls of the single
rules are in ``test_moving.py``.
"""

import collections
import os
import random
import signal
import time

import pytest

pytestmark = pytest.mark.campaign

BATCH = 20

WORKER = """
import logging, os, signal, sys, time
from lastwords import DurableHandler
path, name, acks, received = sys.argv[1:]
def deliver(entries):
    with open(received, "a") as f:
        for e in entries: f.write(f"{e.id} {e.message}\\n")
handler = DurableHandler(deliver, path, sync_interval=0.2, batch_size=20, retry_min=0.05)
log = logging.Logger("x"); log.addHandler(handler)
engine, stop, count, held = handler._engine, [], 0, []
def damage(*_):
    engine.store.damaged = "said by the test"
    engine.keeper.nudge()
signal.signal(signal.SIGUSR1, damage)
signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
out = open(acks, "a")
print("up", flush=True)
while not stop:
    held.append(f"{name}.{count}")
    log.log(40 if count % 3 else 20, "%s", held[-1])
    count += 1
    if engine.committer.buffered == 0:  # acknowledged
        out.write("".join(line + "\\n" for line in held)); out.flush()
        held.clear()
    time.sleep(0.002)
handler.close()
out.write("".join(line + "\\n" for line in held)); out.flush()
"""

LAST = """
import sys
from lastwords import DurableHandler; from lastwords.journal import set_aside
set_aside.LATE_SECONDS = 0.0
def deliver(entries):
    with open(sys.argv[2], "a") as f:
        for e in entries: f.write(f"{e.id} {e.message}\\n")
handler = DurableHandler(deliver, sys.argv[1])
assert handler.drain(60), handler.stats()
handler.close()
assert set_aside.unfinished(sys.argv[1]) == []
"""


@pytest.mark.parametrize("seed", range(3))
def test_damage_and_kills_at_random(children, tmp_path, seed):
    """Every acknowledged record arrives, under one id."""
    rng = random.Random(seed)
    path, started = str(tmp_path / "j.db"), []

    def start(i):
        started.append(i)
        n = len(started)
        worker = children.start(WORKER, path, f"w{n}", tmp_path / f"acks{n}", tmp_path / f"received{n}")
        assert worker.stdout.readline() == b"up\n"
        return worker

    workers = [start(i) for i in range(3)]
    damaged = killed = 0
    end = time.monotonic() + 6
    while time.monotonic() < end or min(damaged, killed) < 3:  # on a busy machine a start takes seconds
        time.sleep(rng.uniform(0.05, 0.4))
        i = rng.randrange(3)
        if rng.random() < 0.6:
            workers[i].send_signal(signal.SIGUSR1)
            damaged += 1
            time.sleep(rng.uniform(0, 0.05))
        if rng.random() < 0.5:
            workers[i].kill()
            workers[i].wait(10)
            killed += 1
            workers[i] = start(i)
    for worker in workers:
        worker.send_signal(signal.SIGTERM)
    for worker in workers:
        _, err = worker.communicate(timeout=120)
        assert worker.returncode == 0, err.decode()
    children.run(LAST, path, tmp_path / "received")
    acknowledged, ids, arrived = set(), collections.defaultdict(set), collections.Counter()
    for name in os.listdir(tmp_path):
        lines = (tmp_path / name).read_text().splitlines() if name.startswith(("acks", "received")) else []
        for line in lines:
            if name.startswith("acks"):
                acknowledged.add(line)
            else:
                id_, message = line.split()
                ids[message].add(id_)
                arrived[message] += 1
    assert len(acknowledged) > 100
    assert acknowledged - set(arrived) == set()
    assert {message for message, names in ids.items() if len(names) > 1} == set()
    assert sum(arrived.values()) - len(arrived) <= BATCH * (killed + damaged)
