"""CHILD program of the call measures: `python bench_contender.py NAME FOLDER JOURNAL PORT` is one contender.

It obeys commands, one line of JSON each on stdin, with one line of JSON on stdout, and does nothing in between, so that
the contenders can take turns. The ones that a command needs to have threads get them here.
"""

import collections
import importlib
import json
import os
import sys
import threading
import time

from bench_contenders import CONTENDERS


class Runner:
    def __init__(self, contender):
        self.contender = contender
        self.logged = 0

    def calls(self, n):
        """``n`` calls, one after the other; the time of each, in ns."""
        log, clock, first = self.contender.log, time.perf_counter_ns, self.logged
        times = [0] * n
        for i in range(n):
            began = clock()
            log(first + i)
            times[i] = clock() - began
        self.logged += n
        return {"ns": times}

    def paced(self, n, per_second):
        """The same at an even pace."""
        log, clock, first = self.contender.log, time.perf_counter_ns, self.logged
        times = [0] * n
        begin = time.perf_counter()
        for i in range(n):
            pause = begin + i / per_second - time.perf_counter()
            if pause > 0:
                time.sleep(pause)
            began = clock()
            log(first + i)
            times[i] = clock() - began
        self.logged += n
        return {"ns": times}

    def threads(self, threads, n):
        """``n`` calls by so many threads together; records per second."""
        each = n // threads
        go = threading.Event()

        def work(first):
            go.wait()
            for i in range(first, first + each):
                self.contender.log(i)

        started = [threading.Thread(target=work, args=(self.logged + t * each,)) for t in range(threads)]
        for thread in started:
            thread.start()
        began = time.perf_counter()
        go.set()
        for thread in started:
            thread.join()
        self.logged += each * threads
        return {"per_second": each * threads / (time.perf_counter() - began)}

    def for_seconds(self, seconds):
        """As many calls as fit; how many, the worst, and how many took over 2 ms."""
        log, clock = self.contender.log, time.perf_counter
        worst, slow, count, end = 0.0, 0, 0, clock() + seconds
        now = clock()
        while now < end:
            log(self.logged + count)
            before, now = now, clock()
            worst = max(worst, now - before)
            slow += now - before > 0.002
            count += 1
        self.logged += count
        return {"calls": count, "worst_ms": worst * 1000, "slow": slow}

    def spin(self, seconds, switch=0.005):
        """Beside a thread that only computes; the mean time of a call, in us, and the share of those over 2 ms."""
        stop = threading.Event()

        def compute():
            x = 0
            while not stop.is_set():
                for _ in range(1000):
                    x += 1

        before = sys.getswitchinterval()
        sys.setswitchinterval(switch)
        thread = threading.Thread(target=compute)
        thread.start()
        try:
            done = self.for_seconds(seconds)
        finally:
            stop.set()
            thread.join()
            sys.setswitchinterval(before)
        calls = max(1, done["calls"])
        return {"mean_us": seconds / calls * 1e6, "slow_share": done["slow"] / calls}

    def sustained(self, n):
        """``n`` calls as fast as they go, until the last one is where it is to go; and what was lost or came twice."""
        log, first = self.contender.log, self.logged
        began = time.perf_counter()
        for i in range(first, first + n):
            log(i)
        self.contender.settle()
        seconds = time.perf_counter() - began
        self.logged += n
        return {"seconds": seconds, **self.count()}

    def count(self):
        """What was logged so far, is stored, was delivered, is lost, came twice."""
        self.contender.settle()
        found = {"logged": self.logged, "stored": self.contender.stored(), "delivered": None, "lost": 0, "twice": 0}
        if self.contender.delivered is not None:
            pairs = [pair for batch in self.contender.delivered for pair in batch]
            seen = collections.Counter(number for _, number in pairs)
            found["delivered"] = len(pairs)
            found["lost"] = sum(1 for i in range(self.logged) if not seen[i])
            found["twice"] = sum(times - 1 for times in seen.values()) + len(pairs) - len({seq for seq, _ in pairs})
        elif found["stored"] is not None:
            found["lost"] = self.logged - found["stored"]
        return found


def main():
    name, folder, journal, port = sys.argv[1:]
    os.makedirs(folder, exist_ok=True)
    try:
        contender = CONTENDERS[name](folder, journal, int(port or 0))
    except ImportError as error:
        print(json.dumps({"missing": error.name}), flush=True)
        return
    runner = Runner(contender)
    importlib.import_module("gc").collect()
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        task = command.pop("do")
        if task == "end":
            break
        print(json.dumps(getattr(runner, task)(**command)), flush=True)
    contender.end()
    os._exit(0)  # a rival's own end may take its time


if __name__ == "__main__":
    main()
