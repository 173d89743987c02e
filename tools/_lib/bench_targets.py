"""What the courier brings into files and into an HTTP receiver: a backlog is drained, and what arrived is counted."""

import gzip
import http.server
import statistics
import threading

from bench_backlog_parts import ask, copy, place, remove, shuffled
from bench_report import Row

KINDS = ("FileHandler", "RotatingFileHandler", "file:", "http://")


class Receiver(http.server.ThreadingHTTPServer):
    """Counts the lines that come, unpacked. It runs in this process, on the same cores as what is measured."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Counts)
        self.lines = 0
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def end(self):
        self.shutdown()
        self.server_close()
        return self.lines


class _Counts(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.server.lines += gzip.decompress(self.rfile.read(int(self.headers["Content-Length"]))).count(b"\n")
        self.send_response(204)
        self.end_headers()

    def log_message(self, *args):
        pass


def targets(bench):
    """The courier into FileHandler, RotatingFileHandler, file: and http://."""
    return target_rows(bench, 5_000 if bench.quick else 50_000)


def target_rows(bench, count):
    template = place(bench, "targets")
    bench.say("targets: filling a journal with %s" % format(count, ","))
    ask(bench, "fill", name="lastwords", path=template, count=count)
    results = {kind: [] for kind in KINDS}
    for _ in bench.each_round(bench.rounds, "targets"):
        for kind in shuffled(bench, KINDS):
            results[kind].append(_round(bench, kind, template, count))
    remove(template)
    return [_row(kind, count, results[kind]) for kind in KINDS]


def _round(bench, kind, template, count):
    path = place(bench, "targets-round")
    copy(template, path)
    receiver = Receiver() if kind == "http://" else None
    try:
        done = ask(bench, "into", kind=kind, path=path, port=receiver.server_port if receiver else 0)
    finally:
        came = receiver.end() if receiver else None
        remove(path)
    return {**done, "lost": count - (done["lines"] if came is None else came)}


def _row(kind, count, results):
    rates = [count / one["seconds"] for one in results]
    rate, lost = statistics.median(rates), sum(abs(one["lost"]) for one in results)
    busy = statistics.median(one["cpu"] / one["seconds"] for one in results)
    value = "%s/s (%.0f %% of that time on a CPU" % (format(round(rate), ","), 100 * busy)
    for part in results[0]["parts"]:
        value += ", %.0f %% %s" % (100 * statistics.median(one["parts"][part] for one in results), part)
    value += ")"
    if lost:
        value += ", %d lost or twice" % lost
    goal, ok = (">= 30,000/s", rate >= 30_000 and not lost) if kind != "http://" else ("reported", None)
    what = "courier into %s, %s entries" % (
        kind + " (JSON lines, gzip)" if kind == "http://" else kind,
        format(count, ","),
    )
    return Row(what, goal, value, ok, {"per_second": rates, "lost": lost, "cpu_share": busy})


MEASURES = {"targets": targets}
