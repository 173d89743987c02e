"""The programs of tools/torture: the receiver, the writers, the consumer. Run inside a tools environment.

The module is also what `lastwords flush --config torture_parts:CONFIG` imports. Whoever imports it with LASTWORDS_TORTURE
set in the environment gets the deliberately wrong variant that is named there (see ``torture_breaks``).
"""

import json
import logging
import os
import random
import selectors
import signal
import socket
import sys
import threading
import time

SETTINGS = json.loads(os.environ.get("LASTWORDS_TORTURE", "{}"))
LIFE_SECONDS = 60  # whatever happens to tools/torture, its children end


# --- the receiver -----------------------------------------------------------------------------------------------


class Receiver:
    """Takes batches on a loopback socket and writes down what it accepted before it says so.

    It is the witness and is never killed. At random it refuses a batch, takes a part of it, is down for a while, or
    takes it and lets the sender die before it can mark anything.
    """

    def __init__(self, path, seed):
        self.log = open(path, "a")
        self.random = random.Random(seed)
        self.unreliable = True
        self.down_until = 0.0
        self.selector = selectors.DefaultSelector()
        self.pending = {}
        self.server = socket.create_server(("127.0.0.1", 0))

    def run(self):
        self.selector.register(self.server, selectors.EVENT_READ)
        self.selector.register(sys.stdin, selectors.EVENT_READ)
        print(self.server.getsockname()[1], flush=True)
        while True:
            for key, _ in self.selector.select():
                if key.fileobj is sys.stdin:
                    if sys.stdin.readline() != "reliable\n":
                        return  # tools/torture has ended
                    self.unreliable = False
                elif key.fileobj is self.server:
                    sock, _ = self.server.accept()
                    self.pending[sock] = b""
                    self.selector.register(sock, selectors.EVENT_READ)
                else:
                    self.read(key.fileobj)

    def read(self, sock):
        try:
            data = sock.recv(1 << 20)
            self.pending[sock] += data
            if self.pending[sock].endswith(b"\n"):
                line, self.pending[sock] = self.pending[sock], b""
                answer = self.answer(json.loads(line))
                if answer:
                    sock.sendall(answer + b"\n")
                    return
            elif data:
                return
        except OSError:
            pass  # it was killed
        self.selector.unregister(sock)
        del self.pending[sock]
        sock.close()

    def answer(self, batch):
        """How many of the batch were accepted, "die", or None to hang up."""
        count = len(batch["entries"])
        batch["offered"] = count
        now, chance = time.monotonic(), self.random.random()
        if self.unreliable:
            if now < self.down_until or chance < 0.1:
                count = -1
            elif chance < 0.105:
                self.down_until = now + self.random.uniform(0.05, 0.4)
                count = -1
            elif chance < 0.15:
                count = self.random.randint(0, count)
        batch["entries"] = batch["entries"][: max(0, count)]
        batch["dies"] = self.unreliable and count > 0 and chance > 0.995 and not batch["who"].startswith("cron")
        self.log.write(json.dumps(batch) + "\n")
        self.log.flush()
        if count < 0:
            return None
        return b"die" if batch["dies"] else b"%d" % count


# --- the target ---------------------------------------------------------------------------------------------------


class Sender:
    """deliver(entries): one request and one answer per batch."""

    def __init__(self):
        self.sock, self.pid, self.batches = None, 0, 0

    def __call__(self, entries):
        from lastwords import TryAgain

        accepted = self.ask([[e.id, e.message] for e in entries])
        if accepted < len(entries):
            raise TryAgain("full", accepted=accepted, after=0.01)

    def ask(self, entries):
        if self.pid != os.getpid():  # a forked child does not share its parent's connection
            self.pid, self.sock, self.batches = os.getpid(), None, 0
        self.batches += 1
        request = {"who": name(), "batch": self.batches, "entries": entries}
        try:
            if self.sock is None:
                self.sock = socket.create_connection(("127.0.0.1", SETTINGS["port"]), timeout=10)
            self.sock.sendall(json.dumps(request).encode() + b"\n")
            answer = self.sock.recv(64)
            if not answer:
                raise ConnectionResetError("the receiver hung up")
        except OSError:
            self.sock = None
            raise
        if answer == b"die\n":
            os.kill(os.getpid(), signal.SIGKILL)
        return int(answer)


deliver = Sender()
_forked = ""


def name():
    """Who this process is; pids may come again within a campaign."""
    return SETTINGS["name"] + _forked


def knobs():
    return {"batch_size": SETTINGS["batch"], "retry_min": 0.01, "retry_max": 0.05, "drain_timeout": 1.0}


def handler(target=deliver):
    from lastwords import DurableHandler

    return DurableHandler(target, SETTINGS["journal"], **knobs())


if SETTINGS:  # for `lastwords flush --config torture_parts:CONFIG`
    CONFIG = {
        "version": 1,
        "handlers": {
            "torture": {
                "class": "lastwords.DurableHandler",
                "journal": SETTINGS.get("journal"),
                "target": "ext://torture_parts.deliver",
                **knobs(),
            }
        },
    }


# --- writers and consumer --------------------------------------------------------------------------------------------


def say(line):
    """One write below PIPE_BUF: atomic, also between processes."""
    try:
        os.write(1, line.encode() + b"\n")
    except OSError:
        os._exit(0)  # nobody listens any more


def write(durable, log, thread, pauses=(0, 0, 0.001, 0.003)):
    """Log; acknowledge each call that returned while no record was only in memory."""
    from lastwords import JournalError

    rng = random.Random(f"{SETTINGS['seed']} {name()} {thread}")
    until = time.monotonic() + LIFE_SECONDS
    i = 0
    while time.monotonic() < until:
        size = rng.choice((10, 100, 100, 300, 2000))
        key = f"{name()}/{thread}/{i}"
        log.log(rng.choice((10, 20, 20, 30, 40)), "%s %s", key, "x" * size)
        try:
            if durable.stats().buffered == 0:
                say(f"ack {key}")
        except JournalError:
            pass  # not to be read just now: not acknowledged
        i += 1
        time.sleep(rng.choice(pauses))
    os._exit(0)


def writer(threads, forks):
    """``threads`` threads log. ``forks``: after some milliseconds a child is forked, which logs as well."""
    durable = handler()
    log = logging.Logger("torture")
    log.addHandler(durable)
    for thread in range(threads):
        threading.Thread(target=write, args=(durable, log, thread)).start()
    if forks:
        time.sleep(random.Random(name()).uniform(0, 0.3))
        if os.fork() == 0:
            be_forked()
            write(durable, log, 0)


def daemon(delivers):
    """A daemon: the parent opens the journal, logs, forks and is gone. Without a courier cron's flush delivers."""
    durable = handler(deliver if delivers else None)
    log = logging.Logger("torture")
    log.addHandler(durable)
    log.error("%s %s", f"{name()}/main/0", "x" * 10)
    say(f"ack {name()}/main/0")
    if os.fork():
        os._exit(0)
    be_forked()
    for thread in (0, 1):
        threading.Thread(target=write, args=(durable, log, thread, (0.001, 0.003))).start()


def be_forked():
    global _forked
    _forked = "+child"
    say(f"pid {os.getpid()}")


def consumer():
    """Delivers what others log, until it is killed or tools/torture ends."""
    durable = handler()
    durable.flush()
    sys.stdin.read()
    os._exit(0)


if SETTINGS.get("break"):
    import torture_breaks

    torture_breaks.apply(SETTINGS["break"])  # ends the process if it does not fit this version

if __name__ == "__main__":
    kind, arguments = sys.argv[1], json.loads(sys.argv[2])
    if kind == "receiver":
        Receiver(**arguments).run()
    else:
        sys.modules["torture_parts"] = sys.modules["__main__"]
        {"writer": writer, "daemon": daemon, "consumer": consumer}[kind](**arguments)
