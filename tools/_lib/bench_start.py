"""What a service's first start costs: the import, the handler, and a journal that was not there.

Beyond a bare Python, in processor time, as programs take turns; beside it what of that are modules which lastwords
cannot do without: logging, sqlite3 and msgspec. No site packages are scanned, and what is compiled is there already.
"""

import os
import statistics
import subprocess
import sys
import time

import msgspec

import lastwords
from bench_report import Row

PATHS = [os.path.dirname(os.path.dirname(module.__file__)) for module in (lastwords, msgspec)]
BEGIN = "import os, sys; sys.path += %r; " % PATHS
HANDLER = "import lastwords; lastwords.DurableHandler(lambda entries: None, sys.argv[1]); "
END = "os._exit(0)"  # the end of the process is no part of its start
PROGRAMS = {
    "bare": BEGIN + END,
    "needed": BEGIN + "import logging, sqlite3, msgspec; " + END,
    "import": BEGIN + "from lastwords import DurableHandler; " + END,
    "again": BEGIN + HANDLER + END,
    "first": BEGIN + HANDLER + END,
    "help": BEGIN + "from lastwords.cli.main import main; sys.argv[1:] = ['--help']; main()",
}


def run(bench, program, journal):
    """Seconds of processor time, and of the clock, until the program is ready."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    began = time.perf_counter()
    process = subprocess.Popen([bench.python, "-S", "-c", program, journal], env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError("a program ended with %d" % process.returncode)
    return usage.ru_utime + usage.ru_stime, time.perf_counter() - began


def startup(bench):
    """Import, handler and a new journal, beyond a bare Python; `lastwords --help`."""
    taken = {name: [] for name in PROGRAMS}
    for turn in bench.each_round(3 if bench.quick else max(bench.rounds, 21), "start"):
        names = list(PROGRAMS)
        bench.rng.shuffle(names)
        for name in names:
            journal = os.path.join(bench.folder, "start-%s-%d.db" % (name, 0 if name == "again" else turn))
            if not turn:  # compiles what is not compiled yet, and makes the journal that is opened again
                run(bench, PROGRAMS[name], journal if name == "again" else journal + "-warm")
            taken[name].append(run(bench, PROGRAMS[name], journal))

    def beyond(name, which):
        pairs = zip(taken[name], taken["bare"], strict=True)
        return 1000 * statistics.median(one[which] - bare[which] for one, bare in pairs)

    help_ms = 1000 * statistics.median(clock for _, clock in taken["help"])
    bare, first = 1000 * statistics.median(cpu for cpu, _ in taken["bare"]), beyond("first", 0)
    value = "%.0f ms (bare Python %.0f; %.0f on the clock)" % (first, bare, beyond("first", 1))
    parts = "%.0f ms logging, sqlite3, msgspec; %.0f ms lastwords' modules; %.0f ms the journal" % (
        beyond("needed", 0), beyond("import", 0) - beyond("needed", 0), first - beyond("import", 0),
    )  # fmt: skip
    return [
        Row("first start beyond a bare Python, processor time", "<= 80 ms", value, first <= 80, taken),
        Row("the same, its parts", "reported", parts, None),
        Row("the same, with a journal that is there", "reported", "%.0f ms" % beyond("again", 0), None),
        Row("lastwords --help, on the clock", "< 200 ms", "%.0f ms" % help_ms, help_ms < 200),
    ]


MEASURES = {"startup": startup}


if __name__ == "__main__":
    sys.exit("run tools/bench")
