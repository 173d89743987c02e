"""CHILD program of bench_fleet: `python bench_fleet_child.py TASK JSON` prints one line of JSON."""

import asyncio
import itertools
import json
import os
import sys
import time
import urllib.parse
import uuid
from datetime import UTC, datetime

import bench_fleet_bare
from bench_backlog_rivals import made

BATCH = 1_000
PATIENCE = 240.0


def rows(count):
    """As the journal has them, with the ids that it gives."""
    from lastwords.record import codec

    epoch = uuid.uuid4().hex
    return [("%s-%d" % (epoch, seq), seq, codec.encode(made(seq))) for seq in range(1, count + 1)]


def entries(some):
    """As the courier hands them over, one by one."""
    from lastwords.record import codec

    for id_, seq, (created, level, payload, _) in some:
        yield codec.decode(seq=seq, id=id_, created=created, level=level, payload=payload)


def payloads(some):
    """Id and JSON of each, made when it is wanted."""
    from lastwords.targets.wording import as_json

    for entry in entries(some):
        yield entry.id, as_json(entry)


class Clock:
    """The seconds that went by, and those of the processor, in all threads of this process."""

    def __init__(self):
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def read(self):
        return {"seconds": time.perf_counter() - self.wall, "cpu": time.process_time() - self.cpu}


def encoding(engine, url, path, count):
    """JSON of entries that are there, by way of a LogRecord and a datetime, as whoever wraps a handler makes it: our own
    quicker ways are to move nothing but our own rate."""
    import msgspec

    def utc(created):
        return datetime.fromtimestamp(created, UTC).isoformat(timespec="microseconds")[:-6] + "Z"

    all_, encode = list(entries(rows(count))), msgspec.json.Encoder().encode
    clock = Clock()
    for entry in all_:
        record = entry.record
        encode(
            {
                "id": entry.id,
                "time": utc(record.created),
                "created": record.created,
                "level": record.levelname,
                "levelno": record.levelno,
                "logger": record.name,
                "message": record.getMessage(),
                "template": record.msg if record.args else None,
                "exception": record.exc_text,
                "file": record.pathname,
                "line": record.lineno,
                "function": record.funcName,
                "process": record.process,
                "process_name": record.processName,
                "thread": record.thread,
                "thread_name": record.threadName,
            }
        )
    return clock.read()


def courier(engine, url, path, count):
    """Drain a journal: the seconds, and what part of them went by in the client and in making JSON."""
    import lastwords
    from lastwords.targets import resolve
    from lastwords.targets.streams import stream_target

    target, spent = resolve(url), {"send": 0.0, "json": 0.0}
    send, as_json, meantime = target._send, stream_target.as_json, target._meantime

    def timed_send(run):
        began = time.perf_counter()
        send(run)
        spent["send"] += time.perf_counter() - began

    def timed_meantime():  # the next batch, made ready inside of send
        steps, done = meantime(), False
        while not done:
            began = time.perf_counter()
            done = next(steps, steps) is steps
            spent["send"] -= time.perf_counter() - began
            if not done:
                yield

    def timed_json(entry):
        began = time.perf_counter()
        text = as_json(entry)
        spent["json"] += time.perf_counter() - began
        return text

    target.deliver(list(entries(rows(1))))  # connected and imported, as a courier is
    target._send, stream_target.as_json, target._meantime = timed_send, timed_json, timed_meantime
    clock = Clock()
    handler = lastwords.DurableHandler(target, path)
    drained = handler.drain(PATIENCE)
    found = clock.read()
    stats = handler.stats()
    if not drained or stats.delivered != count:
        raise SystemExit("%d of %d were delivered: %s" % (stats.delivered, count, stats.last_error))
    handler.close()
    return {**found, "parts": {name: value / found["seconds"] for name, value in spent.items()}}


def ready(engine, url, path, count):
    """The client's own means, given payloads: send all and have them acknowledged."""
    first, records = list(payloads(rows(1))), list(payloads(rows(count)))
    return CLIENTS[engine](urllib.parse.urlsplit(url), first, records)


def made_of_rows(engine, url, path, count):
    """The same, making each payload of its row as it goes."""
    return CLIENTS[engine](urllib.parse.urlsplit(url), list(payloads(rows(1))), payloads(rows(count)))


def wire(engine, url, path, count):
    """The servers alone: bytes that are ready, on a plain socket."""
    return bench_fleet_bare.wire(Clock, url, list(payloads(rows(1))), list(payloads(rows(count))))


def bare(engine, url, path, count):
    """What cannot be left out, and nothing else."""
    return bench_fleet_bare.bare(Clock, url, list(payloads(rows(1))), path)


def _nats(address, first, records):
    """publish_async, which is made for this; at most 1,000 without an answer."""
    import nats

    name = address.path.strip("/")

    async def loop():
        client = await nats.connect("nats://%s" % address.netloc)
        stream = client.jetstream(publish_async_max_pending=BATCH, timeout=60)
        subject = "%s.bench" % name

        async def all_of(some):
            for id_, payload in some:
                await stream.publish_async(subject, payload, headers={"Lastwords-Id": id_}, wait_stall=60)
            await stream.publish_async_completed()

        await all_of(first)
        clock = Clock()
        await all_of(records)
        found = clock.read()
        await client.close()
        return found

    return asyncio.run(loop())


def _redis(address, first, records):
    """A pipeline of XADD for each 1,000."""
    import redis

    client, key = redis.Redis(address.hostname, address.port), address.path.strip("/")

    def all_of(some):
        for batch in _batches(some):
            with client.pipeline(transaction=False) as pipeline:
                for id_, payload in batch:
                    pipeline.xadd(key, {"id": id_, "data": payload})
                pipeline.execute()

    return _timed(all_of, first, records)


def _kafka(address, first, records):
    """An idempotent producer, acks=all, with a report for each record."""
    from confluent_kafka import Producer

    topic = address.path.strip("/")
    settings = {"bootstrap.servers": address.netloc, "enable.idempotence": True, "linger.ms": 1}
    producer, wrong = Producer({**settings, "compression.type": "lz4"}), []
    waiting = 0

    def report(error, _message):
        nonlocal waiting
        waiting -= 1
        if error is not None:
            wrong.append(error)

    def all_of(some):
        nonlocal waiting
        for batch in _batches(some):
            for id_, payload in batch:
                waiting += 1
                producer.produce(topic, payload, id_, on_delivery=report, headers={"lastwords-id": id_.encode()})
            producer.flush(60)

    found = _timed(all_of, first, records)
    if wrong or waiting:
        raise SystemExit("not all were accepted")
    return found


def _batches(some):
    some = iter(some)
    while batch := list(itertools.islice(some, BATCH)):
        yield batch


def _timed(all_of, first, records):
    all_of(first)
    clock = Clock()
    all_of(records)
    return clock.read()


CLIENTS = {"nats": _nats, "redis": _redis, "kafka": _kafka}
TASKS = {"encoding": encoding, "courier": courier, "ready": ready, "made": made_of_rows, "wire": wire, "bare": bare}

if __name__ == "__main__":
    print(json.dumps(TASKS[sys.argv[1]](**json.loads(sys.argv[2]))), flush=True)
    sys.stdout.flush()
    os._exit(0)
