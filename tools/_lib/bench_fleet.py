"""What the courier brings into JetStream (R3), Redis and Kafka's protocol, beside the client's own loop on the same server.

A measure for each engine, so that one that is cut short costs the others nothing. In each of them take turns, in a
process each, on servers that run for the whole measure:

courier     reads the journal, decodes, makes the JSON, sends it with what makes it once, and marks; the next batch is made
            ready while the server has the one before, which is not counted as time in the client
ready       the client's own loop, which waits for all acknowledgements, with payloads that are made already: what nobody
            can be faster than with that client. Where it is C (Kafka) or filled in one go (Redis), making the JSON alone
            takes longer than the whole loop
made        the same loop, with payloads made of the same rows as it goes: the work that has to be done by anybody
encoding    making the JSON, and nothing else, by way of a LogRecord: the measure of the machine that the goal has
wire, bare  of JetStream: what its three servers take on the same cores from a client that costs nothing, and from one that
            does nothing that can be left out (see bench_fleet_bare): floors, which say how near the goal anybody can come

Other load on the machine moves the rates; the processor's seconds for a record move less, so these are given, too.
"""

import os
import statistics
import time

from bench_backlog_parts import ask, place, remove, shuffled
from bench_report import Row

CHILD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bench_fleet_child.py")
WORDS = {"nats": "JetStream R3", "redis": "Redis", "kafka": "Kafka's protocol"}
WAYS = ("courier", "ready", "made", "encoding")
FLOORS = {"nats": ("wire", "bare")}
BESIDE = (  # what, and the goal
    ("ready", "the client's loop, payloads ready", 0.5),
    ("made", "the client's loop, payloads made of rows", 0.5),
    ("wire", "the servers alone, bytes ready", None),
    ("bare", "the bare parts, unchecked", None),
)
GOAL, ENCODING = 40_000, 78_000  # entries a second into JetStream, where making their JSON alone does so many
COUNT, ROUNDS, SECONDS = 20_000, 5, 60  # of an engine


def jetstream(bench):
    """The courier into JetStream R3, beside its client's own loop and beside JSON alone."""
    return _measure(bench, "nats")


def redis(bench):
    """The courier into Redis, beside its client's own loop and beside JSON alone."""
    return _measure(bench, "redis")


def kafka(bench):
    """The courier into Kafka's protocol, beside its client's own loop and beside JSON alone."""
    return _measure(bench, "kafka")


def _measure(bench, name):
    import fleet_engines

    count, folder = 2_000 if bench.quick else COUNT, place(bench, "fleet-" + name)
    try:
        engine = fleet_engines.ENGINES[name](folder, "")
    except SystemExit as missing:
        return [Row("courier into %s" % WORDS[name], "reported", str(missing), None)]
    try:
        engine.start()
        engine.prepare()
        results = _taking_turns(bench, name, engine, count)
        sent = sum(len(found) for way, found in results.items() if way != "encoding")
        sent *= count + 1  # one before the clock starts
        bench.say("fleet, %s: counting what is there" % WORDS[name])
        wrong = engine.count() - sent
    finally:
        engine.end()
        remove(folder)
    what = "records too many or too few in %s" % WORDS[name]
    return [*_rows(name, results, count), Row(what, "0", str(wrong), wrong == 0)]


def _taking_turns(bench, name, engine, count):
    ways, began = WAYS + FLOORS.get(name, ()), time.monotonic()
    results = {way: [] for way in ways}
    for turn in bench.each_round(min(bench.rounds, ROUNDS), "fleet, " + WORDS[name]):
        if turn and time.monotonic() - began > SECONDS * turn / (turn + 1):  # another one would not fit
            bench.say("%d rounds must do" % turn)
            break
        for way in shuffled(bench, ways):
            path = place(bench, "fleet-round")
            if way in ("courier", "bare"):  # a journal of its own each time: what is there already is not sent
                ask(bench, "fill", name="lastwords", path=path, count=count)
            found = ask(bench, way, program=CHILD, engine=name, url=engine.url, path=path, count=count)
            results[way].append(found)
            remove(path)
    return results


def _rows(name, results, count):
    words = WORDS[name]
    rates = {way: [count / one["seconds"] for one in found] for way, found in results.items()}
    costs = {way: [one["cpu"] / count for one in found] for way, found in results.items()}
    parts = {part: statistics.median(one["parts"][part] for one in results["courier"]) for part in ("send", "json")}
    encoding = statistics.median(rates["encoding"])
    goal, met = "reported", None
    if name == "nats":  # on a slower or busier machine as much less as JSON alone
        wanted = round(GOAL * min(1.0, encoding / ENCODING), -2)
        goal, met = ">= %s/s" % format(round(wanted), ","), statistics.median(rates["courier"]) >= wanted
    value = "%s, %s (%.0f %% of the time in the client, %.0f %% JSON)"
    value %= (_rate(rates["courier"]), _cost(costs["courier"]), 100 * parts["send"], 100 * parts["json"])
    what = "courier into %s, %s entries" % (words, format(count, ","))
    rows = [Row(what, goal, value, met, {"rates": rates, "cpu": costs, "parts": parts})]
    for way, which, least in BESIDE:
        if way in rates:
            speed = _ratio(rates["courier"], rates[way])
            value = "%.2f x of %s; processor %.2f x of %s"
            value %= (speed, _rate(rates[way]), _ratio(costs["courier"], costs[way]), _cost(costs[way]))
            goal, met = (">= %g x" % least, speed >= least) if least else ("reported", None)
            rows.append(Row("courier over %s, %s" % (which, words), goal, value, met))
    share, wanted = _ratio(costs["encoding"], costs["courier"]), GOAL / ENCODING
    value = "%.2f x of %s, %s" % (share, _rate(rates["encoding"]), _cost(costs["encoding"]))
    goal, met = (">= %.2f x" % wanted, share >= wanted) if name == "nats" else ("reported", None)
    return [*rows, Row("entries per second of processor, courier over JSON alone, %s" % words, goal, value, met)]


def _ratio(ours, theirs):
    return statistics.median(o / t for o, t in zip(ours, theirs, strict=True))


def _rate(values):
    return "%s/s" % format(round(statistics.median(values)), ",")


def _cost(values):
    return "%.1f us" % (1e6 * statistics.median(values))


MEASURES = {"jetstream": jetstream, "redis": redis, "kafka": kafka}
GROUPS = {"fleet": tuple(MEASURES)}  # a name for several
