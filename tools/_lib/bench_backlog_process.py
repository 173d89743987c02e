"""What lastwords costs its process and its disk: status, memory, idling, bytes written, space given back."""

import os
import statistics

from bench_backlog_parts import answer, ask, place, python_of, remove, seconds_of, short, shuffled, start
from bench_report import Row

MEASURED = os.path.exists("/proc/self/io")  # else not Linux
NO_PROC = "not measured: needs Linux's /proc"

# --- status ---------------------------------------------------------------------------------------------------


def status(bench):
    """`lastwords status` does not read what is pending."""
    return status_rows(bench, 30_000 if bench.quick else 1_000_000, 3 if bench.quick else 15)


def status_rows(bench, count, rounds):
    paths = {"empty": place(bench, "status-empty"), "full": place(bench, "status-full")}
    ask(bench, "fill", name="lastwords", path=paths["empty"], count=0)
    bench.say("status: filling a journal with %s" % format(count, ","))
    ask(bench, "fill", name="lastwords", path=paths["full"], count=count)
    times = {which: [] for which in paths}
    for _ in range(rounds):
        for which in shuffled(bench, paths):
            times[which].append(seconds_of([python_of(bench), "-m", "lastwords", "status", paths[which]]))
    for path in paths.values():
        remove(path)
    empty, full = (1e3 * statistics.median(times[which]) for which in ("empty", "full"))
    value = "%.1f ms (%.0f ms in all)" % (full - empty, full)
    details = {"entries": count, "ms": times}
    return [
        Row(
            "lastwords status, %s pending, beyond start-up" % short(count), "< 50 ms", value, full - empty < 50, details
        )
    ]


# --- memory, idle, bytes, shrinking ---------------------------------------------------------------------------


def memory(bench):
    """What 100,000 records that are journaled and not delivered take of the process's memory."""
    return memory_rows(bench, 50_000 if bench.quick else 200_000)


def memory_rows(bench, count):
    if not MEASURED:
        return [Row("memory per 100,000 buffered records", "< 5 MB", NO_PROC, None, {})]
    bench.say("memory: logging %s records that nobody takes" % format(count, ","))
    both = {
        name: ask(bench, "memory", name=name, path=place(bench, "memory"), count=count)
        for name in ("lastwords", "queue")
    }
    remove(place(bench, "memory"))
    grown = {name: max(one["rss"], one["peak"]) * 1024 / 1e6 * 100_000 / count for name, one in both.items()}
    goal, ratio = "< 5 MB", grown["queue"] / max(grown["lastwords"], 0.01)
    return [
        Row("memory per 100,000 buffered records", goal, "%.2f MB" % grown["lastwords"], grown["lastwords"] < 5, both),
        Row("the same, QueueHandler", "for comparison", "%.0f MB (%.0f x)" % (grown["queue"], ratio), None, both),
    ]


def idle(bench):
    """After a record was delivered and things settled, nothing happens."""
    return idle_rows(bench, 2 if bench.quick else 60, 3)


def idle_rows(bench, seconds, settle):
    what = "idle for %d s: " % seconds
    if not MEASURED:
        return [Row(what + "switches, CPU", "<= 2 for a thread, < 1 ms", NO_PROC, None, {})]
    bench.say(what + "waiting")
    done = ask(bench, "idle", path=place(bench, "idle"), seconds=seconds, settle=settle)
    remove(place(bench, "idle"))
    threads = done["threads"]
    switches = {name: one["switches"] for name, one in threads.items()}
    cpu = sum(one["cpu_ms"] for one in threads.values())
    told = ", ".join("%s %d" % item for item in sorted(switches.items()))
    few = bool(switches) and max(switches.values()) <= 2
    return [
        Row(what + "voluntary switches of a thread", "<= 2", told, few, done),
        Row(what + "CPU of our threads", "< 1 ms", "%.2f ms" % cpu, bool(threads) and cpu < 1, done),
    ]


def bytes_written(bench):
    """Bytes written for a record of about 300 bytes, with delivery and pruning, for three page sizes."""
    return bytes_rows(bench, 1_000, *((1, 2) if bench.quick else (3, 15)))


def bytes_rows(bench, per_second, warm, seconds):
    if not MEASURED:
        return [Row("bytes written for a record", "reported", NO_PROC, None, {})]
    bench.say("bytes written: %s records a second for %d s" % (format(per_second, ","), warm + seconds))
    pages, rows = (1024, 2048, 4096), []
    for page in pages:
        remove(place(bench, "pages-%d" % page))
    children = [
        start(bench, "written", path=place(bench, "pages-%d" % page), page_size=page, per_second=per_second, warm=warm,
               seconds=seconds)
        for page in pages
    ]  # fmt: skip
    for page, child in zip(pages, children, strict=True):  # at once: it is bytes that are counted, not time
        done = answer(child, "written")
        value = "%s B by write(), %s B to the disk" % tuple(
            format(round(done[k]), ",") for k in ("wchar", "write_bytes")
        )
        what = "bytes for a record of %d B, pages of %d KiB" % (done["record_bytes"], done["page_size"] // 1024)
        rows.append(Row(what, "reported", value, None, done))
        remove(place(bench, "pages-%d" % page))
    return rows


def shrinks(bench):
    """After a burst the file is given back."""
    return shrink_rows(bench, 15_000 if bench.quick else 1_000_000, 10 if bench.quick else 120)


def shrink_rows(bench, count, patience, small=10e6):
    path = place(bench, "burst")
    bench.say("a burst of %s records" % format(count, ","))
    ask(bench, "fill", name="lastwords", path=path, count=count)
    done = ask(
        bench, "burst", path=path, count=count, small=small, patience=patience, slack=1.0 if bench.quick else None
    )
    remove(path)
    sizes = [mb for pair in (done["before"], done["after"], done["closed"]) for mb in (pair[0] / 1e6, pair[1] / 1e6)]
    value = "%.1f + %.1f MB; after %.1f s %.1f + %.1f; closed %.1f + %.1f" % (*sizes[:2], done["seconds"], *sizes[2:])
    ok = sum(done["after"]) < small
    return [Row("file + wal after %s delivered" % short(count), "< %.0f MB" % (small / 1e6), value, ok, done)]
