"""CHILD program of bench_fleet: `python bench_fleet_child.py TASK JSON` prints one line of JSON."""

import asyncio
import json
import os
import sys
import time
import urllib.parse
import uuid

from bench_backlog_rivals import made

BATCH = 1_000
PATIENCE = 240.0


def entries(count):
    """As the courier hands them over."""
    from lastwords.record import codec

    epoch = uuid.uuid4().hex
    for seq in range(1, count + 1):
        created, level, payload, _ = codec.encode(made(seq))
        yield codec.decode(seq=seq, id="%s-%d" % (epoch, seq), created=created, level=level, payload=payload)


def encoding(count):
    """Entries a second whose JSON is made, without anything else."""
    from lastwords.targets.wording import as_json

    all_ = list(entries(min(count, 20_000)))
    began = time.perf_counter()
    for entry in all_:
        as_json(entry)
    return {"rate": len(all_) / (time.perf_counter() - began)}


def courier(engine, url, path, count):
    """Drain a journal: the seconds, and what part of them went by in the client and in making JSON."""
    import lastwords
    from lastwords.targets import resolve
    from lastwords.targets.streams import stream_target

    target, spent = resolve(url), {"send": 0.0, "json": 0.0}
    send, as_json = target._send, stream_target.as_json

    def timed_send(run):
        began = time.perf_counter()
        send(run)
        spent["send"] += time.perf_counter() - began

    def timed_json(entry):
        began = time.perf_counter()
        text = as_json(entry)
        spent["json"] += time.perf_counter() - began
        return text

    target.deliver(entries(1))  # connected and imported, as a courier is
    target._send, stream_target.as_json = timed_send, timed_json
    began = time.perf_counter()
    handler = lastwords.DurableHandler(target, path)
    drained = handler.drain(PATIENCE)
    seconds = time.perf_counter() - began
    stats = handler.stats()
    if not drained or stats.delivered != count:
        raise SystemExit("%d of %d were delivered: %s" % (stats.delivered, count, stats.last_error))
    handler.close()
    return {"seconds": seconds, "parts": {name: value / seconds for name, value in spent.items()}}


def client(engine, url, path, count):
    """Send and have acknowledged as many payloads with the client's own means."""
    from lastwords.targets.wording import as_json

    made_ = [(entry.id, as_json(entry)) for entry in entries(count + 1)]
    address = urllib.parse.urlsplit(url)
    return {"seconds": {"nats": _nats, "redis": _redis, "kafka": _kafka}[engine](address, made_[:1], made_[1:])}


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
        began = time.perf_counter()
        await all_of(records)
        seconds = time.perf_counter() - began
        await client.close()
        return seconds

    return asyncio.run(loop())


def _redis(address, first, records):
    """A pipeline of XADD for each 1,000."""
    import redis

    client, key = redis.Redis(address.hostname, address.port), address.path.strip("/")

    def all_of(some):
        for at in range(0, len(some), BATCH):
            with client.pipeline(transaction=False) as pipeline:
                for id_, payload in some[at : at + BATCH]:
                    pipeline.xadd(key, {"id": id_, "data": payload})
                pipeline.execute()

    return _timed(all_of, first, records)


def _kafka(address, first, records):
    """An idempotent producer, acks=all, with a report for each record."""
    from confluent_kafka import Producer

    topic = address.path.strip("/")
    settings = {"bootstrap.servers": address.netloc, "enable.idempotence": True, "linger.ms": 1}
    producer, reports = Producer({**settings, "compression.type": "lz4"}), []

    def report(error, _message):
        reports.append(error)

    def all_of(some):
        for at in range(0, len(some), BATCH):
            for id_, payload in some[at : at + BATCH]:
                producer.produce(topic, payload, id_, on_delivery=report, headers={"lastwords-id": id_.encode()})
            producer.flush(60)

    seconds = _timed(all_of, first, records)
    if any(reports) or len(reports) != len(first) + len(records):
        raise SystemExit("not all were accepted")
    return seconds


def _timed(all_of, first, records):
    all_of(first)
    began = time.perf_counter()
    all_of(records)
    return time.perf_counter() - began


TASKS = {task.__name__: task for task in (encoding, courier, client)}

if __name__ == "__main__":
    print(json.dumps(TASKS[sys.argv[1]](**json.loads(sys.argv[2]))), flush=True)
    sys.stdout.flush()
    os._exit(0)
