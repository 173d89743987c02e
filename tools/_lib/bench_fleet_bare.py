"""Floors under the courier's rate into JetStream, for bench_fleet: nothing is checked, nothing is marked, nobody waits.

wire   bytes that are ready, on a plain socket: what the servers take on this machine from a client that costs nothing
bare   what cannot be left out: rows by plain sqlite3, parsed, made JSON again with an id, sent as above, deleted
"""

import secrets
import socket
import sqlite3
import urllib.parse

BATCH = 1_000


class Wire:
    """Atomic batches by hand."""

    def __init__(self, url):
        address = urllib.parse.urlsplit(url)
        self.socket = socket.create_connection((address.hostname, address.port), 60)
        self.lines = self.socket.makefile("rb")
        self.subject = "%s.%s" % (address.path.strip("/"), secrets.token_hex(16))
        connect = 'CONNECT {"verbose":false,"headers":true,"no_responders":true}\r\nSUB in.%s 1\r\nPING\r\n'
        self.socket.sendall((connect % self.subject).encode())
        while self.lines.readline() not in (b"PONG\r\n", b""):
            pass

    def framed(self, batch):
        """Its bytes. ``batch``: ids and payloads."""
        name, last, frames = secrets.token_hex(8), len(batch), []
        for place, (id_, payload) in enumerate(batch, 1):
            head = "NATS/1.0\r\nLastwords-Id: %s\r\nNats-Batch-Id: %s\r\nNats-Batch-Sequence: %d\r\n" % (
                id_,
                name,
                place,
            )
            head += "Nats-Batch-Commit: 1\r\n\r\n" if place == last else "\r\n"
            reply = "in.%s" % self.subject if place == last else ""
            first = "HPUB %s %s %d %d\r\n%s" % (self.subject, reply, len(head), len(head) + len(payload), head)
            frames += (first.encode(), payload, b"\r\n")
        return b"".join(frames)

    def committed(self):
        """Wait for the answer to the last message of a batch."""
        while line := self.lines.readline():
            if line.startswith(b"MSG"):
                answer = self.lines.read(int(line.split()[-1]) + 2)
                if b'"error"' in answer:
                    raise SystemExit(answer.decode())
                return
            if line.startswith(b"PING"):
                self.socket.sendall(b"PONG\r\n")
        raise SystemExit("the server closed the connection")


def wire(clock, url, first, records):
    """``first``: a batch before the clock starts."""
    to = Wire(url)
    ready = [to.framed(records[at : at + BATCH]) for at in range(0, len(records), BATCH)]
    to.socket.sendall(to.framed(first))
    to.committed()
    began = clock()
    for each in ready:
        to.socket.sendall(each)
        to.committed()
    return began.read()


def bare(clock, url, first, path):
    """Of the journal at ``path``; the next batch is made while the servers have one."""
    import msgspec

    to, parse, as_json = Wire(url), msgspec.json.decode, msgspec.json.Encoder().encode
    journal, at = sqlite3.connect(path, isolation_level=None), 0
    journal.execute("PRAGMA synchronous=NORMAL")

    def following():
        rows = journal.execute(
            "SELECT seq, created, level, CAST(payload AS BLOB) FROM entries WHERE seq > ? ORDER BY seq LIMIT ?",
            (at, BATCH),
        ).fetchall()
        made = []
        for seq, created, level, payload in rows:
            id_ = "%s-%d" % (to.subject, seq)
            made.append((id_, as_json({"id": id_, "created": created, "levelno": level, **parse(payload)})))
        return (rows[-1][0], to.framed(made)) if rows else (at, b"")

    to.socket.sendall(to.framed(first))
    to.committed()
    began = clock()
    upto, ready = following()
    while ready:
        at = upto
        to.socket.sendall(ready)
        upto, ready = following()
        to.committed()
        journal.execute("DELETE FROM entries WHERE seq <= ?", (at,))
    return began.read()
