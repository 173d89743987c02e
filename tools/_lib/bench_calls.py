"""What a logging call costs its caller, and how many calls fit: the measures of the caller's side.

Each contender is a process of its own (bench_contender.py). They take turns, in another order each round, so that a
noisy neighbour or a slow disk meets them all; ratios are of one round, and what is shown is the median of the rounds.
"""

import contextlib
import json
import os
import re
import select
import shutil
import statistics
import subprocess
import sys
import time

from bench_contenders import IN_MEMORY, SLOW
from bench_report import Row, columns
from bench_sink import Sink

CHILD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bench_contender.py")
PATIENCE = 300.0  # seconds for any command
RIVALS = (
    "no-op handler", "FileHandler", "FileHandler, formatted", "FileHandler + fdatasync", "QueueHandler", "python-logstash-async", "persist-queue",
    "litequeue", "loguru, enqueue", "concurrent-log-handler", "thread per record", "bare INSERT",
    "bare INSERT of the record", "INSERT of a ready row", "logging, codec, INSERT", "lastwords",
)  # fmt: skip


class Crashed(Exception):
    """A contender ended or hung, which is no measured value."""


class Missing(Exception):
    """A rival that is not installed."""


# --- children ---------------------------------------------------------------------------------------------------


class Child:
    """One contender; a context manager that ends it by its id."""

    def __init__(self, bench, name, journal="", port=0, prefix=()):
        self.name = name
        folder = os.path.join(bench.folder, "%s-%d" % (re.sub(r"\W+", "-", name), time.monotonic_ns()))
        command = [*prefix, bench.python, CHILD, name, folder, journal, str(port)]
        self._errors = open(folder + ".err", "w+b")
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors)
        self._buffer = b""

    def __enter__(self):
        answer = self._answer()
        if "missing" in answer:
            self.__exit__()
            raise Missing(answer["missing"])
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            self._process.stdin.write(b'{"do": "end"}\n')
            self._process.stdin.close()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def start(self, do, **arguments):
        self._process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
        self._process.stdin.flush()

    def ask(self, do, **arguments):
        self.start(do, **arguments)
        return self._answer()

    def errors(self):
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")

    def _answer(self):
        deadline = time.monotonic() + PATIENCE
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                raise Crashed("%s did not answer within %d s" % (self.name, PATIENCE))
            chunk = os.read(self._process.stdout.fileno(), 1 << 20)
            if not chunk:
                raise Crashed("%s ended:\n%s" % (self.name, self.errors()[-2000:]))
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return json.loads(line)


@contextlib.contextmanager
def children(bench, names):
    """{name: Child} of those that are installed, and the names of those that are not."""
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(Sink()).port
        found, missing = {}, []
        for name in names:
            try:
                found[name] = stack.enter_context(Child(bench, name, port=port))
            except Missing:
                missing.append(name)
        yield found, missing


def turns(bench, names):
    names = list(names)
    bench.rng.shuffle(names)
    return names


def joined(lists):
    return [value for one in lists for value in one]


def at(values, share):
    """A percentile, of sorted or unsorted values."""
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * share))]


# --- one call ---------------------------------------------------------------------------------------------------


def slices(bench, found, task, n, **arguments):
    """{name: [the times of one slice, per round]}; one more, before, only warms up."""
    times = {name: [] for name in found}

    def one(name):
        return found[name].ask(task, n=max(100, n // 10) if name in SLOW else n, **arguments)["ns"]

    bench.say(task + ": warming up")
    for name in turns(bench, found):
        one(name)
    for _ in bench.each_round(bench.rounds, task):
        for name in turns(bench, found):
            times[name].append(one(name))
    return times


def ratios(times, name, share, base="FileHandler"):
    """The median over the rounds of what ``name`` took, relative to ``base`` in the same round."""
    pairs = zip(times[name], times[base], strict=True)
    return statistics.median(at(ours, share) / at(theirs, share) for ours, theirs in pairs)


def one_call(bench):
    """A call, nothing delivering, and all rivals."""
    names = [name if name != "lastwords" or not bench.broken else "lastwords, losing" for name in RIVALS]
    with children(bench, names) as (found, missing):
        times = slices(bench, found, "calls", 500 if bench.quick else 10_000)
        counts = {name: child.ask("count") for name, child in found.items() if name not in IN_MEMORY}
    ours = names[-1]
    lines, details = [], {}
    for name in sorted(found, key=lambda name: at(joined(times[name]), 0.5)):
        every = joined(times[name])
        p50, p99, p999 = (at(every, share) / 1000 for share in (0.5, 0.99, 0.999))
        count = counts.get(name, {})
        ratio = ratios(times, name, 0.5)
        lines.append((name, "%.1f" % p50, "%.1f" % p99, "%.0f" % p999, "%.2f" % ratio, *kept(name, count)))
        details[name] = {"p50_us": p50, "p99_us": p99, "p999_us": p999, "ratio": ratio, "count": count}
        details[name]["percentiles_us"] = [round(at(every, i / 1000) / 1000, 2) for i in (*range(0, 1000, 5), 999)]
    lines += [(name, "not installed", *[""] * 6) for name in missing]
    head = ("one call, nothing delivering", "p50 us", "p99 us", "p99.9 us", "x FileHandler", "logged", "stored", "lost")
    print(columns(lines, head) + "\n")
    ratio = ratios(times, ours, 0.5, "FileHandler, formatted")
    plain = ratios(times, ours, 0.5)
    beside = ratios(times, ours, 0.5, "bare INSERT of the record")
    count = counts[ours]
    return [
        Row("one call, committed", "<= 1.65 x FileHandler, formatted", "%.2f x" % ratio, ratio <= 1.65, details),
        Row("the same, beside a FileHandler without a format", "reported", "%.2f x" % plain, None),
        Row("the same, beside a bare INSERT of that record", "reported", "%.2f x" % beside, None),
        parts(times, ours),
        beyond_least(times, ours),
        Row("records lost of %s" % format(count["logged"], ","), "0", str(count["lost"]), count["lost"] == 0),
    ]


def parts(times, ours):
    """The row of the whole call beside logging to a no-op handler plus an INSERT of a ready row."""
    whole, *some = (
        [at(one, 0.5) / 1000 for one in times[name]] for name in (ours, "no-op handler", "INSERT of a ready row")
    )
    ratio = statistics.median(all_ / sum(each) for all_, *each in zip(whole, *some, strict=True))
    logging_us, insert_us, whole_us = (statistics.median(one) for one in (*some, whole))
    value = "%.2f x (logging %.1f + INSERT %.1f us; the whole %.1f)" % (ratio, logging_us, insert_us, whole_us)
    details = {"logging_us": logging_us, "insert_us": insert_us, "whole_us": whole_us, "ratio": ratio}
    return Row("one call, beside the sum of its parts", "<= 1.18 x", value, ratio <= 1.18, details)


def beyond_least(times, ours):
    """The row of what a call costs beyond the least code that does the same: what is ours to win."""
    least = "logging, codec, INSERT"
    whole, bare = ([at(one, 0.5) / 1000 for one in times[name]] for name in (ours, least))
    file = ratios(times, least, 0.5, "FileHandler, formatted")
    gap = statistics.median(one - other for one, other in zip(whole, bare, strict=True))
    value = "%.2f x (%.1f us beyond it; it is %.2f x FileHandler, formatted)" % (
        ratios(times, ours, 0.5, least),
        gap,
        file,
    )
    return Row("one call, beside logging + codec + INSERT under a read lock", "reported", value, None, {"gap_us": gap})


def kept(name, count):
    """The cells for logged, stored and lost."""
    if name in IN_MEMORY:
        return "", "in memory", ""
    if count["stored"] is None:
        return "%d" % count["logged"], "", ""
    return tuple("%d" % count[key] for key in ("logged", "stored", "lost"))


def delivering(bench):
    """A call beside a courier at full speed."""
    with children(bench, ("FileHandler", "lastwords, delivering")) as (found, _):
        times = slices(bench, found, "calls", 1_500 if bench.quick else 10_000)
        count = found["lastwords, delivering"].ask("count")
    ratio = ratios(times, "lastwords, delivering", 0.5)
    every = joined(times["lastwords, delivering"])
    value = "%.2f x (p50 %.0f us, p99 %.0f us)" % (ratio, at(every, 0.5) / 1000, at(every, 0.99) / 1000)
    return [Row("one call while the courier delivers", "<= 3 x FileHandler", value, ratio <= 3), faults(count)]


def faults(count):
    """A row that must be 0, 0."""
    value = "%d, %d of %s" % (count["lost"], count["twice"], format(count["logged"], ","))
    return Row("lost, twice", "0, 0", value, not count["lost"] + count["twice"])


def paced(bench):
    """The tail at 1,000 calls a second."""
    with children(bench, ("FileHandler", "lastwords, delivering")) as (found, _):
        times = slices(bench, found, "paced", 800 if bench.quick else 5_000, per_second=1_000)
        count = found["lastwords, delivering"].ask("count")
    ours, file = (joined(times[name]) for name in ("lastwords, delivering", "FileHandler"))
    ratio = at(ours, 0.999) / at(file, 0.999)
    value = "%.1f x (%.0f us to %.0f us; worst %.1f ms to %.1f ms)" % (
        ratio, at(ours, 0.999) / 1000, at(file, 0.999) / 1000, max(ours) / 1e6, max(file) / 1e6,
    )  # fmt: skip
    details = {"p999_by_round": {name: [at(one, 0.999) / 1000 for one in times[name]] for name in times}}
    return [
        Row("p99.9 at 1,000 calls/s, delivering", "<= 3 x FileHandler's", value, ratio <= 3, details),
        faults(count),
    ]


# --- throughput -------------------------------------------------------------------------------------------------


def rates(bench, found, task, key, **arguments):
    """{name: [value per round]}"""
    values = {name: [] for name in found}
    for _ in bench.each_round(bench.rounds, task):
        for name in turns(bench, found):
            own = {k: v // 8 if k == "n" and name in SLOW else v for k, v in arguments.items()}
            values[name].append(found[name].ask(task, **own)[key])
    return values


def relation(values, name, base):
    return statistics.median(ours / theirs for ours, theirs in zip(values[name], values[base], strict=True))


def threads_synced(bench):
    """16 threads, every record on the medium."""
    ours, base = "lastwords, every record synced", "FileHandler + fdatasync"
    with children(bench, (ours, base)) as (found, _):
        values = rates(bench, found, "threads", "per_second", threads=16, n=1_600 if bench.quick else 8_000)
    ratio = relation(values, ours, base)
    value = "%.1f x (%.0f/s to %.0f/s)" % (ratio, *(statistics.median(values[name]) for name in (ours, base)))
    return [
        Row("16 threads, every record synced", ">= 4 x FileHandler + fdatasync", value, ratio >= 4, values),
        syncs_per_record(bench, 1_600 if bench.quick else 3_200),
    ]


def syncs_per_record(bench, records):
    what, goal = "fdatasync per record, 16 threads", "<= 0.15"
    if not shutil.which("strace"):
        return Row(what, goal, "not measured: no strace", None)
    trace = os.path.join(bench.folder, "strace")
    prefix = ("strace", "-f", "-c", "-o", trace, "-e", "trace=fdatasync,fsync")
    with Child(bench, "lastwords, every record synced", prefix=prefix) as child:
        child.ask("threads", threads=16, n=records)
    with open(trace) as f:
        words = [line.split() for line in f]
    each = sum(int(w[3]) for w in words if w and w[-1] in {"fdatasync", "fsync"}) / records
    return Row(what, goal, "%.2f" % each, each <= 0.15)


def one_thread_synced(bench):
    """Against a raw loop of synced INSERTs."""
    ours, base = "lastwords, every record synced", "bare INSERT, synced"
    with children(bench, (ours, base)) as (found, _):
        values = {name: [] for name in found}
        for _ in bench.each_round(bench.rounds * 2, "synced"):
            for name in turns(bench, found):
                values[name].append(found[name].ask("for_seconds", seconds=0.2 if bench.quick else 1.0)["calls"])
    ratio = relation(values, ours, base)
    return [
        Row("1 thread, every record synced", ">= 0.85 x raw synced INSERTs", "%.2f x" % ratio, ratio >= 0.85, values)
    ]


def spinning(bench):
    """A thread that computes beside the caller: what every released GIL costs."""
    names = ("FileHandler", "QueueHandler", "bare INSERT", "lastwords")
    seconds = 0.25 if bench.quick else 2.0
    done = {name: [] for name in (*names, "brief")}
    with children(bench, names) as (found, _):
        for _ in bench.each_round(bench.rounds if bench.quick else max(bench.rounds, 10), "spin"):
            for name in turns(bench, done):
                own = {"switch": 0.0005} if name == "brief" else {}
                done[name].append(found["lastwords" if name == "brief" else name].ask("spin", seconds=seconds, **own))
    means = {name: [one["mean_us"] for one in done[name]] for name in done}
    shares = {name: [one["slow_share"] for one in done[name]] for name in done}
    ratio = relation(means, "lastwords", "bare INSERT")
    shown = ", ".join("%s %.2f" % (name, statistics.median(means[name]) / 1000) for name in names)
    slow = ", ".join(
        "%s %.2f %% (%.2f to %.2f)" % (name, *(100 * f(shares[name]) for f in (statistics.median, min, max)))
        for name in ("FileHandler", "bare INSERT", "lastwords")
    )
    brief = (statistics.median(means["brief"]) / 1000, 100 * statistics.median(shares["brief"]))
    return [
        Row("a thread computes beside it, mean call", "<= 1 x a bare INSERT", "%.2f x" % ratio, ratio <= 1, means),
        Row("the same in ms", "reported", shown, None),
        Row("the same, calls over 2 ms", "reported", slow, None, shares),
        Row("lastwords with sys.setswitchinterval(0.0005)", "reported", "%.2f ms, %.2f %% over 2 ms" % brief, None),
    ]


def sustained(bench):
    """One producer and one courier, to the last delivery."""
    ours = "lastwords, losing" if bench.broken else "lastwords, delivering"
    n = 12_000 if bench.quick else 150_000
    results = {"FileHandler": [], ours: []}
    for _ in bench.each_round(min(bench.rounds, 3), "sustained"):
        for name in turns(bench, results):
            with children(bench, (name,)) as (found, _):
                results[name].append(found[name].ask("sustained", n=n))
    pairs = zip(results[ours], results["FileHandler"], strict=True)
    ratio = statistics.median(file["seconds"] / one["seconds"] for one, file in pairs)
    rate = statistics.median(n / one["seconds"] for one in results[ours])
    keys = ("logged", "stored", "delivered", "lost", "twice")
    totals = {name: {key: sum(one[key] or 0 for one in results[name]) for key in keys} for name in results}
    lines = [(name, *("%d" % total[key] for key in keys)) for name, total in totals.items()]
    print(columns(lines, ("sustained", *keys)) + "\n")
    value = "%.2f x (%s/s)" % (ratio, format(round(rate), ","))
    return [
        Row("sustained, logged and delivered", ">= 0.3 x FileHandler", value, ratio >= 0.3, totals),
        faults(totals[ours]),
    ]


def processes(bench):
    """Four processes on one journal: is any of them starved?"""
    rows = []
    for name, goals in (("lastwords, every record synced", True), ("lastwords", False)):
        shares, worst = [], []
        for turn in bench.each_round(min(bench.rounds, 3), "4 processes, " + name):
            journal = os.path.join(bench.folder, "shared-%s-%d.db" % (goals, turn))
            with contextlib.ExitStack() as stack:
                four = [stack.enter_context(Child(bench, name, journal=journal)) for _ in range(4)]
                for child in four:
                    child.start("for_seconds", seconds=0.5 if bench.quick else 5.0)
                done = [child._answer() for child in four]
            shares.append(min(d["calls"] for d in done) / max(d["calls"] for d in done))
            worst.append(max(d["worst_ms"] for d in done))
        share, late = statistics.median(shares), statistics.median(worst)
        what = "4 processes, %s" % ("synced" if goals else "not synced")
        fair, prompt = (">= 0.5", "< 50 ms") if goals else ("reported", "reported")
        rows.append(Row(what + ": slowest to fastest", fair, "%.2f" % share, share >= 0.5 if goals else None))
        rows.append(Row(what + ": worst call", prompt, "%.0f ms" % late, late < 50 if goals else None))
    return rows


MEASURES = {
    "calls": one_call,
    "delivering": delivering,
    "paced": paced,
    "threads": threads_synced,
    "synced": one_thread_synced,
    "spin": spinning,
    "sustained": sustained,
    "processes": processes,
}


if __name__ == "__main__":
    sys.exit("run tools/bench")
