"""What a backlog costs: draining it, growing it, looking at it, holding it, getting rid of it; and doing nothing.

Each measure takes a Bench and returns Rows. The work is done by bench_backlog_child.py, one process for each piece;
contenders take turns in a random order, and what counts is the median over the rounds.
"""

import socket
import statistics
import threading
import time

from bench_report import Row

__all__ = ["MEASURES", "ChildFailed", "drain", "flat", "process"]

import bench_backlog_process as process
from bench_backlog_parts import NAMES, ChildFailed, ask, copy, place, remove, short, shuffled

# --- drain ------------------------------------------------------------------------------------------------


class Receiver:
    """Takes lines on a TCP port of this machine, as fast as they come."""

    def __init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self._listener.getsockname()[1]
        self.data = bytearray()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                while chunk := connection.recv(2**18):
                    self.data += chunk

    def end(self):
        """The numbers of the lines that came."""
        time.sleep(0.05)  # the last connection's
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._listener.close()
        return [int(line[1 : line.index(b" ")]) for line in bytes(self.data).splitlines()]


def drain(bench):
    """Drain of 100,000 entries to a callable that does nothing, in batches of 100."""
    counts = {"lastwords": 100_000, "logstash": 10_000, "litequeue": 10_000, "persist_queue": 5_000}
    if bench.quick:
        counts = {"lastwords": 20_000, "logstash": 1_000, "litequeue": 1_000, "persist_queue": 300}
    return drain_rows(bench, counts)


def drain_rows(bench, counts, broken=""):
    templates = {name: place(bench, "drain-" + name) for name in counts}
    for name, count in counts.items():
        bench.say("drain: filling %s with %s" % (NAMES[name], format(count, ",")))
        ask(bench, "fill", name=name, path=templates[name], count=count)
    results = {name: [] for name in counts}
    for _ in bench.each_round(bench.rounds, "drain"):
        for name in shuffled(bench, counts):
            results[name].append(_drained(bench, name, templates[name], counts[name], broken))
    for path in templates.values():
        remove(path)
    return _drain_report(counts, results)


def _drained(bench, name, template, count, broken):
    path = place(bench, "drain-round")
    copy(template, path)
    try:
        if name != "logstash":
            return ask(bench, "drain", name=name, path=path, count=count, broken=broken)
        receiver = Receiver()
        try:
            done = ask(bench, "drain", name=name, path=path, count=count, port=receiver.port)
        finally:
            numbers = receiver.end()
        lost = count - len(set(numbers))
        return {**done, "delivered": len(numbers), "lost": lost, "twice": len(numbers) - len(set(numbers))}
    finally:
        remove(path)


def _drain_report(counts, results):
    rates = {name: [one["delivered"] / one["seconds"] for one in results[name]] for name in counts}
    middle = {name: statistics.median(rates[name]) for name in counts}
    totals = {key: sum(one[key] for one in results["lastwords"]) for key in ("delivered", "lost", "twice")}
    details = {"counts": counts, "per_second": rates, **totals}
    what = "drain of %s entries" % format(counts["lastwords"], ",")
    rate = middle["lastwords"]
    rows = [
        Row(what, ">= 100,000/s", "%s/s" % format(round(rate), ","), rate >= 100_000, details),
        Row(
            what + ": lost, twice", "0, 0", "%(lost)d, %(twice)d" % totals, not totals["lost"] + totals["twice"], totals
        ),
    ]
    for name, factor in (("persist_queue", 60), ("logstash", 5), ("litequeue", 5)):
        if name in counts:
            ratio = statistics.median(o / r for o, r in zip(rates["lastwords"], rates[name], strict=True))
            value = "%.1f x (%s/s)" % (ratio, format(round(middle[name]), ","))
            faults = {key: sum(one[key] for one in results[name]) for key in ("lost", "twice")}
            rows.append(Row("drain over %s" % NAMES[name], ">= %d x" % factor, value, ratio >= factor, faults))
    return rows


# --- flatness ------------------------------------------------------------------------------------------------


def flat(bench):
    """Insert and drain cost the same behind 1 k and behind 1 M pending entries."""
    if bench.quick:
        return flat_rows(bench, [1_000, 30_000], [300, 1_000], min(bench.rounds, 3), 2_000, 100)
    return flat_rows(
        bench, [1_000, 10_000, 100_000, 1_000_000], [1_000, 10_000, 100_000], max(bench.rounds, 5), 2_000, 200
    )


def flat_rows(bench, sizes, rival_sizes, rounds, count, rival_count):
    places = {("lastwords", size): place(bench, "flat-lastwords-%d" % size) for size in sizes}
    places |= {
        (name, size): place(bench, "flat-%s-%d" % (name, size))
        for name in ("persist_queue", "litequeue")
        for size in rival_sizes
    }
    for (name, size), path in places.items():
        bench.say("backlog of %s in %s" % (format(size, ","), NAMES[name]))
        ask(bench, "fill", name=name, path=path, count=size)
    results = {key: [] for key in places}
    for _ in bench.each_round(rounds, "flatness"):
        for key in shuffled(bench, places):  # a slice adds as many as it takes: the backlog stays
            slice_ = count if key[0] == "lastwords" else rival_count
            results[key].append(ask(bench, "slice_at", name=key[0], path=places[key], count=slice_))
    for path in places.values():
        remove(path)
    ours = _curve(results, "lastwords", sizes)
    details = {**ours, "rivals": {NAMES[n]: _curve(results, n, rival_sizes) for n in ("persist_queue", "litequeue")}}
    return [_flat_row(way, sizes, ours[way + "_us"], details) for way in ("insert", "drain")] + [
        _rival_row(name, curve) for name, curve in details["rivals"].items() if rival_sizes
    ]


def _curve(results, name, sizes):
    return {
        "sizes": sizes,
        **{
            way: [round(statistics.median(one[way] for one in results[name, size]), 2) for size in sizes]
            for way in ("insert_us", "drain_us")
        },
    }


def _flat_row(way, sizes, micros, details):
    ratio = max(micros) / min(micros)
    value = "%.2f x (%s us)" % (ratio, ", ".join("%.1f" % one for one in micros))
    what = "%s per record, %s to %s pending" % (way, short(sizes[0]), short(sizes[-1]))
    return Row(what, "<= 1.3 x", value, ratio <= 1.3, details)


def _rival_row(name, curve):
    ratios = [max(curve[way]) / min(curve[way]) for way in ("insert_us", "drain_us")]
    what = "%s, %s to %s pending" % (name, short(curve["sizes"][0]), short(curve["sizes"][-1]))
    value = "insert %.2f x, drain %.2f x (%s us)" % (*ratios, ", ".join("%.0f" % one for one in curve["drain_us"]))
    return Row(what, "for comparison", value, None, curve)


MEASURES = {
    "drain": drain,
    "flat": flat,
    "status": process.status,
    "memory": process.memory,
    "idle": process.idle,
    "bytes": process.bytes_written,
    "shrinks": process.shrinks,
}
