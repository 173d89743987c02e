"""What the courier brings into JetStream (R3), Redis and Kafka's protocol, beside the client's own loop on the same server.

The loop of a client sends payloads that are made already, and waits for the acknowledgements of all: what nobody can be
faster than with that client. The courier reads the journal, decodes, makes the JSON, sends it with what makes it once,
and marks. Both take turns, in a process each, on the servers that run for the whole measure. Where the client is C
(Kafka) or a pipeline that is filled in one go (Redis), making the JSON alone takes longer than its whole loop.
"""

import os
import statistics

from bench_backlog_parts import ask, place, remove, shuffled
from bench_report import Row

CHILD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bench_fleet_child.py")
ENGINES = {"nats": "JetStream R3", "redis": "Redis", "kafka": "Kafka's protocol"}
WAYS = ("courier", "client")
GOAL, ENCODING = 40_000, 78_000  # entries a second, where making their JSON alone does so many


def fleet(bench):
    """The courier into JetStream R3, Redis and Kafka's protocol, beside their clients' own loops."""
    return fleet_rows(bench, ENGINES, 2_000 if bench.quick else 100_000)


def fleet_rows(bench, engines, count):
    import fleet_engines

    encoding = statistics.median(_ask(bench, "encoding", count=count)["rate"] for _ in range(bench.rounds))
    rows = [Row("making the JSON of an entry, alone", "for comparison", _rate(encoding), None)]
    for name in engines:
        try:
            engine = fleet_engines.ENGINES[name](place(bench, "fleet-" + name), "")
        except SystemExit as missing:
            rows.append(Row("courier into %s" % ENGINES[name], "reported", str(missing), None))
            continue
        try:
            engine.start()
            engine.prepare()
            results, wrong = _taking_turns(bench, name, engine, count)
            rows += _engine_rows(name, results, encoding, count)
            what = "records too many or too few in %s" % ENGINES[name]
            rows.append(Row(what, "0", str(wrong), wrong == 0))
        finally:
            engine.end()
            remove(place(bench, "fleet-" + name))
    return rows


def _taking_turns(bench, name, engine, count):
    results = {way: [] for way in WAYS}
    for _ in bench.each_round(bench.rounds, "fleet, " + ENGINES[name]):
        for way in shuffled(bench, WAYS):
            path = place(bench, "fleet-round")
            if way == "courier":  # a journal of its own each time: what is there already is not sent
                ask(bench, "fill", name="lastwords", path=path, count=count)
            results[way].append(_ask(bench, way, engine=name, url=engine.url, path=path, count=count))
            remove(path)
    sent = sum(map(len, results.values())) * (count + 1)  # one each, before the clock starts
    return results, len(engine.texts()) - sent


def _ask(bench, task, **arguments):
    return ask(bench, task, program=CHILD, **arguments)


def _engine_rows(name, results, encoding, count):
    ours, theirs = ([count / one["seconds"] for one in results[way]] for way in WAYS)
    rate, ratio = statistics.median(ours), statistics.median(o / t for o, t in zip(ours, theirs, strict=True))
    details = {"courier": ours, "client": theirs, "parts": [one["parts"] for one in results["courier"]]}
    what = "courier into %s, %s entries" % (ENGINES[name], format(count, ","))
    goal, met = "reported", None
    if name == "nats":
        wanted = round(GOAL * min(1.0, encoding / ENCODING), -2)
        goal, met = ">= %s/s" % format(round(wanted), ","), rate >= wanted
    parts = {part: statistics.median(one["parts"][part] for one in results["courier"]) for part in ("send", "json")}
    value = "%s (%.0f %% of it in the client, %.0f %% JSON)" % (_rate(rate), 100 * parts["send"], 100 * parts["json"])
    of_client = "%.2f x (%s)" % (ratio, _rate(statistics.median(theirs)))
    return [
        Row(what, goal, value, met, details),
        Row("courier over the client's own loop, %s" % ENGINES[name], ">= 0.5 x", of_client, ratio >= 0.5, details),
    ]


def _rate(value):
    return "%s/s" % format(round(value), ",")


MEASURES = {"fleet": fleet}
