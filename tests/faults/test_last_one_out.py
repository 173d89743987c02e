"""Processes that share a journal and end together, or leave without a word: somebody delivers what they have left."""

import logging
import os
import random
import time

import pytest

from lastwords import DurableHandler, Journal

PROCESSES, RECORDS = 5, 4


def work(folder, name, start):
    log = logging.Logger("job")
    log.addHandler(DurableHandler(f"file:{folder}/out", folder / "j.db"))
    time.sleep(max(0.0, start - time.time()))
    for n in range(RECORDS):
        log.info("%d-%d", name, n)
        time.sleep(random.random() * 0.002)


def ends(folder, name, start):
    """As a script does: by its atexit callbacks, in a fork of a process that has some already."""
    from lastwords.runtime.exit import exit_pass

    random.seed(name)
    try:
        work(folder, name, start)
        exit_pass()
    finally:
        os._exit(0)


@pytest.mark.slow
def test_whatever_ends_together_leaves_nothing_pending(tmp_path):
    """Nobody leaves because of one who leaves, too."""
    for number in range(8):
        folder = tmp_path / str(number)
        folder.mkdir()
        start, pids = time.time() + 0.05, []
        for name in range(PROCESSES):
            pid = os.fork()
            if not pid:
                ends(folder, name, start)
            pids.append(pid)
        for pid in pids:
            os.waitpid(pid, 0)
        stats = Journal(folder / "j.db").stats()
        assert (stats.pending, stats.delivered) == (0, PROCESSES * RECORDS)


@pytest.mark.slow
def test_a_parent_that_never_logs_delivers_what_a_child_left(tmp_path):
    """Job queues fork a child for each job, which leaves by os._exit at once."""
    came = []
    handler = DurableHandler(lambda entries: came.extend(e.message for e in entries), tmp_path / "j.db", linger=0.0)
    pid = os.fork()
    if not pid:
        handler._engine.courier.wake = lambda: None  # gone before its thread could begin
        handler.handle(logging.makeLogRecord({"msg": "from the job", "levelno": logging.ERROR}))
        os._exit(0)
    os.waitpid(pid, 0)
    until = time.monotonic() + 20
    while not came and time.monotonic() < until:
        time.sleep(0.02)
    assert came == ["from the job"]
    handler.close()
