"""CHILD program of the backlog measures: `python bench_backlog_child.py TASK JSON` prints one line of JSON.

Each task is one function below and one process of its own, so that nothing of one contender is left for the next.
The rivals are imported where they are needed.
"""

import collections
import json
import os
import queue
import re
import sqlite3
import sys
import threading
import time

from bench_backlog_rivals import RIVALS, fill, made, number_in, texts

BATCH = 100
PATIENCE = 240.0  # seconds for anything that should end by itself


# --- 1: drain -------------------------------------------------------------------------------------------------


def drain(name, path, count, broken="", port=0):
    """Deliver ``count`` pending entries: the seconds, and how many were lost or came twice."""
    if name == "lastwords":
        return _drain_lastwords(path, count, broken)
    if name == "logstash":
        return _drain_logstash(path, port)
    rival, seen = RIVALS[name](path), []
    began = time.perf_counter()
    for _ in range(count):
        seen.append(rival.take())
    return {"seconds": time.perf_counter() - began, **counted(map(number_in, seen), range(count))}


def counted(seen, wanted):
    """Delivered, lost and twice; by number."""
    seen = collections.Counter(seen)
    return {
        "delivered": sum(seen.values()),
        "lost": sum(1 for number in wanted if number not in seen),
        "twice": sum(times - 1 for times in seen.values()),
    }


def _drain_lastwords(path, count, broken):
    import lastwords

    if broken:  # a negative control, which must be counted
        _break(broken)
    seen = []

    def deliver(entries):
        for entry in entries:
            entry.record  # made when it is asked for
            seen.append(entry.seq)

    _warm(path + "-warm")
    began = time.perf_counter()
    keep = 3600 if broken else 0  # what was pruned cannot be read twice
    handler = lastwords.DurableHandler(deliver, path, batch_size=BATCH, keep_delivered=keep)
    drained = handler.drain(PATIENCE)
    seconds = time.perf_counter() - began
    delivered = handler.stats().delivered
    handler.close()
    return {"seconds": seconds, "drained": drained, "marked": delivered, **counted(seen, range(1, count + 1))}


def _warm(path):
    """What is imported when it is first needed is not what is measured."""
    import lastwords

    handler = lastwords.DurableHandler(lambda entries: [entry.record for entry in entries] and None, path)
    handler.handle(made(1))
    handler.drain(PATIENCE)
    handler.close()


def _break(broken):
    from lastwords.delivery.loop import Delivery
    from lastwords.journal.line import Line

    if broken == "lossy":  # one entry of every batch does not get to the target
        original = Delivery._call
        Delivery._call = lambda self, entries: original(self, entries[:1] + entries[2:])
    elif broken == "twice":  # the end of the first batch is read once more
        original = Line.read
        Line.read = lambda self, after, most, **more: original(self, after - (after == BATCH), most, **more)
    else:
        raise SystemExit("no such break: " + broken)


def _drain_logstash(path, port):
    """As its worker does it at the end of a process: at once, without its pauses. The receiver counts."""
    from logstash_async.transport import TcpTransport
    from logstash_async.worker import LogProcessingWorker

    nothing = dict.fromkeys(("keyfile", "certfile", "ca_certs", "ssl_verify_flags"))
    tls = {"ssl_enable": False, "ssl_verify": False, **nothing}
    transport = TcpTransport("127.0.0.1", port, timeout=5.0, **tls)
    worker = LogProcessingWorker(
        host="127.0.0.1", port=port, transport=transport, database_path=path, cache=None, event_ttl=None, **tls
    )
    worker.shutdown()  # "deliver what is there and end"
    began = time.perf_counter()
    worker.start()
    worker.join()
    return {"seconds": time.perf_counter() - began}


# --- 2: flatness ------------------------------------------------------------------------------------------------


def slice_at(name, path, count):
    """Microseconds for one insert and for one delivery, ``count`` each, while a backlog waits."""
    return _slice_lastwords(path, count) if name == "lastwords" else _slice_rival(name, path, count)


def _slice_rival(name, path, count):
    rival, text = RIVALS[name](path), next(texts(1))
    began = time.perf_counter()
    for _ in range(count):
        rival.put(text)
    inserted = time.perf_counter()
    for _ in range(count):
        rival.take()
    done = time.perf_counter()
    return {"insert_us": 1e6 * (inserted - began) / count, "drain_us": 1e6 * (done - inserted) / count}


def _slice_lastwords(path, count):
    import lastwords

    handler = lastwords.DurableHandler(None, path)
    for number in range(100):  # the first ones start threads
        handler.handle(made(number))
    records = [made(number) for number in range(count)]
    began = time.perf_counter()
    for record in records:
        handler.handle(record)
    insert_us = 1e6 * (time.perf_counter() - began) / count
    handler.close()

    times, done = [], threading.Event()

    def deliver(entries):
        times.append(time.perf_counter())
        if len(times) > count // BATCH:
            done.set()
            raise lastwords.TryAgain(after=3600)
        for entry in entries:
            entry.record

    lastwords.DurableHandler(deliver, path, batch_size=BATCH)
    if not done.wait(PATIENCE):
        raise SystemExit("nothing was delivered")
    return {"insert_us": insert_us, "drain_us": 1e6 * (times[-1] - times[0]) / (len(times) - 1) / BATCH}


# --- 4: memory ------------------------------------------------------------------------------------------------------


def memory(name, path, count):
    """Growth of this process, KiB, while ``count`` records are logged that nobody takes."""
    import logging.handlers

    if name == "lastwords":
        import lastwords

        handler = lastwords.DurableHandler(None, path)
    else:
        handler = logging.handlers.QueueHandler(queue.Queue())
    for number in range(2_000):
        handler.handle(made(number))
    before, peak_before = resident("VmRSS"), resident("VmHWM")
    for number in range(count):
        handler.handle(made(number))
    grown = {"rss": resident("VmRSS") - before, "peak": resident("VmHWM") - peak_before}
    if name == "lastwords":
        grown["journaled"] = handler.stats().pending
    return grown


def resident(field):
    with open("/proc/self/status") as f:
        return int(re.search(r"%s:\s+(\d+)" % field, f.read()).group(1))


# --- 6: idle ----------------------------------------------------------------------------------------------------------


def idle(path, seconds, settle):
    """Per thread, what it did in ``seconds`` after a record was delivered and all has settled."""
    import lastwords

    handler = lastwords.DurableHandler(lambda entries: None, path)
    handler.handle(made(1))
    drained = handler.drain(10)
    time.sleep(settle)
    threads = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
    before = [_activity(thread) for thread in threads]
    began = time.process_time_ns()
    time.sleep(seconds)
    whole = time.process_time_ns() - began  # with this thread's sleep
    after = [_activity(thread) for thread in threads]
    return {
        "drained": drained,
        "process_ms": whole / 1e6,
        "threads": {
            thread.name: {"switches": a[0] - b[0], "cpu_ms": (a[1] - b[1]) / 1e6}
            for thread, a, b in zip(threads, after, before, strict=True)
        },
    }


def _activity(thread):
    with open("/proc/self/task/%d/status" % thread.native_id) as f:
        switches = int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", f.read(), re.MULTILINE).group(1))
    return switches, time.clock_gettime_ns(time.pthread_getcpuclockid(thread.ident))


# --- 7: bytes written -----------------------------------------------------------------------------------------------


def written(path, page_size, per_second, warm, seconds):
    """Bytes that this process wrote for one record, while records come steadily and are delivered and pruned."""
    import lastwords
    from lastwords.journal.first_look import APPLICATION_ID
    from lastwords.record import codec

    with sqlite3.connect(path) as conn:  # an empty file that is a journal: the package makes the schema in it
        conn.executescript("PRAGMA page_size=%d; PRAGMA auto_vacuum=INCREMENTAL;" % page_size)
        conn.execute("PRAGMA application_id=%d" % APPLICATION_ID)
    conn.close()
    handler = lastwords.DurableHandler(lambda entries: None, path, batch_size=BATCH)
    began, logged, start = time.monotonic(), 0, None
    while (now := time.monotonic() - began) < warm + seconds:
        if start is None and now >= warm:
            start = (_io(), logged)
        while logged < now * per_second:
            handler.handle(made(logged))
            logged += 1
        time.sleep(0.002)
    end, (io, before) = _io(), start
    with sqlite3.connect(path) as conn:
        size = conn.execute("PRAGMA page_size").fetchone()[0]
    conn.close()
    handler.close()
    return {
        "page_size": size,
        "records": logged - before,
        "record_bytes": len(codec.encode(made(1))[2]),
        **{field: (end[field] - io[field]) / (logged - before) for field in ("wchar", "write_bytes", "syscw")},
    }


def _io():
    with open("/proc/self/io") as f:
        return {key.strip(): int(value) for key, value in (line.split(":") for line in f)}


# --- 8: after a burst -------------------------------------------------------------------------------------------------


def burst(path, count, small, patience, slack=None):
    """Deliver ``count`` entries, then wait until the files are smaller than ``small`` bytes; sizes on the way."""
    import lastwords
    from lastwords.upkeep import keeper

    keeper.SLACK_SECONDS = slack or keeper.SLACK_SECONDS  # a quick run does not wait for a minute
    taken, peak = [0], {"wal": 0}

    def deliver(entries):
        taken[0] += len(entries)
        peak["wal"] = max(peak["wal"], sizes(path)[1])

    before = sizes(path)
    handler = lastwords.DurableHandler(deliver, path, batch_size=BATCH)
    drained = handler.drain(PATIENCE)
    ended = time.monotonic()
    while sum(sizes(path)) >= small and time.monotonic() - ended < patience:
        time.sleep(0.05)
    shrunk = time.monotonic() - ended
    after = sizes(path)
    handler.close()
    return {
        "drained": drained,
        "delivered": taken[0],
        "before": before,
        "after": after,
        "closed": sizes(path),
        "peak_wal": peak["wal"],
        "seconds": shrunk,
    }


def sizes(path):
    """Bytes of the file and of its ``-wal``."""
    return [os.path.getsize(name) if os.path.exists(name) else 0 for name in (path, path + "-wal")]


def into(kind, path, port):
    """Drain into a target of that kind: the seconds, of them on a CPU, and the lines that are in the files."""
    import glob

    _warm(path + "-warm")
    parts = http_parts() if kind == "http://" else {}
    cpu, began = time.process_time(), time.perf_counter()
    handler = lastwords_for(kind, path, port)
    drained = handler.drain(PATIENCE)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    parts = {name: value / seconds for name, value in parts.items()}
    handler.close()
    lines = 0
    for name in glob.glob(glob.escape(path) + "-log*"):
        with open(name, "rb") as file:
            lines += file.read().count(b"\n")
        os.remove(name)
    return {"seconds": seconds, "cpu": cpu, "drained": drained, "lines": lines, "parts": parts}


def http_parts():
    """Where the time of http:// goes: seconds by name, which grow while it delivers."""
    import types

    from lastwords.targets.urls import http

    spent = dict.fromkeys(("JSON", "gzip", "request and answer"), 0.0)

    def timed(name, function, within=""):
        def call(*arguments, **more):
            before, began = spent.get(within, 0.0), time.perf_counter()
            try:
                return function(*arguments, **more)
            finally:
                spent[name] += time.perf_counter() - began - (spent.get(within, 0.0) - before)

        return call

    http.as_json = timed("JSON", http.as_json)
    http.gzip = types.SimpleNamespace(compress=timed("gzip", http.gzip.compress))
    http.HTTP._request = timed("request and answer", http.HTTP._request, within="gzip")
    return spent


def lastwords_for(kind, path, port):
    """A handler for the journal at ``path`` that delivers at once."""
    import logging.handlers

    import lastwords

    log = path + "-log"
    targets = {
        "FileHandler": lambda: logging.FileHandler(log),
        "RotatingFileHandler": lambda: logging.handlers.RotatingFileHandler(log, maxBytes=10**6, backupCount=200),
        "file:": lambda: "file:" + log,
        "http://": lambda: "http://127.0.0.1:%d/" % port,
    }
    target = targets[kind]()
    if isinstance(target, logging.Handler):
        target.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    return lastwords.DurableHandler(target, path)


TASKS = {task.__name__: task for task in (into, fill, drain, slice_at, memory, idle, written, burst)}

if __name__ == "__main__":
    print(json.dumps(TASKS[sys.argv[1]](**json.loads(sys.argv[2]))), flush=True)
    sys.stdout.flush()
    os._exit(0)  # at once: what an end of the process does is measured elsewhere
