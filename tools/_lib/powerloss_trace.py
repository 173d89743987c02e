"""From a trace to the files as a power loss would leave them.

Each thread is traced to a file of its own, so that no line is torn; a system call has a start and an end. A sync makes
durable what had *ended* on the same file before the sync *started*, once the sync itself has ended. Everything else
that had started is unsynced: it may be there or not, whole or in part. A name is durable once its folder was synced.
"""

import glob
import random
import re

SECTOR = 512
CALL = re.compile(r"^(\d+\.\d+) (\w+)\((.*)\) += (-?\d+|\?)(?: .*?)?(?: <(\d+\.\d+)>)?$")
FD = re.compile(r"^(?:AT_FDCWD(?:<[^>]*>)?|\d+<([^>]*)>)")
STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')

MODELS = ("keep", "drop", "size-without-data", "torn prefix", "random sectors")


class Op:
    """One change of one file. ``kind``: write, truncate, unlink."""

    __slots__ = ("data", "end", "kind", "offset", "path", "start", "synced_at")

    def __init__(self, path, kind, offset, data, start, end):
        self.path, self.kind, self.offset, self.data, self.start, self.end = path, kind, offset, data, start, end
        self.synced_at = None


class Trace:
    """What a traced program did to the files below ``folder``."""

    def __init__(self, pattern, folder):
        self.ops, self.acks, self.created, self.syncs = [], [], {}, []
        calls = []
        for name in glob.glob(pattern):
            with open(name, errors="replace") as f:
                calls += [match.groups() for match in map(CALL.match, map(str.rstrip, f)) if match]
        for start, name, arguments, result, took in sorted(calls, key=lambda call: float(call[0])):
            if result != "?" and int(result) >= 0:
                began = float(start)
                self._note(name, arguments, int(result), began, began + float(took or 0), folder)
        self._settle(folder)

    def _note(self, name, arguments, result, start, end, folder):
        where = FD.match(arguments)
        path = _text(where.group(1)) if where and where.group(1) else None
        strings = STRING.findall(arguments)
        if name == "write" and arguments.startswith("9<"):
            word, number, level = bytes.fromhex(strings[0].replace("\\x", "")).split()
            assert word == b"ACK"
            self.acks.append((start, int(number), int(level)))
        elif name == "openat" and "O_CREAT" in arguments and strings:
            made = _text(strings[0])
            if made.startswith(folder):
                self.created.setdefault(made, [end, None])
        elif name in ("unlink", "unlinkat") and strings:
            gone = _text(strings[0])
            if gone.startswith(folder):
                self.ops.append(Op(gone, "unlink", 0, b"", start, end))
        elif path is None or not path.startswith(folder):
            return
        elif name in ("pwrite64", "write"):
            data = bytes.fromhex(strings[0].replace("\\x", ""))[:result]
            assert len(data) == result, "strace cut a write short"
            offset = int(arguments.rsplit(",", 1)[1]) if name == "pwrite64" else None
            self.ops.append(Op(path, "write", offset, data, start, end))
        elif name == "ftruncate":
            self.ops.append(Op(path, "truncate", int(arguments.rsplit(",", 1)[1]), b"", start, end))
        elif name in ("fsync", "fdatasync"):
            self.syncs.append((path, start, end))

    def _settle(self, folder):
        for path, start, end in self.syncs:
            for op in self.ops:
                of_folder = op.kind == "unlink" and path.rstrip("/") == folder.rstrip("/")
                if (
                    (of_folder or (op.path == path and op.kind != "unlink"))
                    and op.end <= start
                    and (op.synced_at is None or op.synced_at > end)
                ):
                    op.synced_at = end
            if path.rstrip("/") == folder.rstrip("/"):
                for times in self.created.values():
                    if times[0] <= start and times[1] is None:
                        times[1] = end

    def points(self):
        """Every boundary of a system call that matters."""
        times = {op.start for op in self.ops} | {op.end for op in self.ops}
        return sorted(times | {end for _, _, end in self.syncs} | {at for at, _, _ in self.acks})

    def files_at(self, t, model, rng):
        """{path: bytes} after a power loss at ``t``."""
        files = {}
        unsynced = [op for op in self.ops if op.start <= t and not (op.synced_at is not None and op.synced_at <= t)]
        cut = rng.randrange(len(unsynced) + 1) if model == "torn prefix" else None
        order = {id(op): number for number, op in enumerate(unsynced)}
        for op in self.ops:
            if op.start > t:
                continue
            number = order.get(id(op))
            if op.kind == "unlink":
                # A name that was removed is back if the folder was not synced.
                if number is None or model == "keep" or (model != "drop" and rng.random() < 0.5):
                    files.pop(op.path, None)
                continue
            data = files.setdefault(op.path, bytearray())
            if number is None or model == "keep":
                _apply(data, op, op.data)
            elif model == "size-without-data":
                _apply(data, op, None)
            elif model == "torn prefix":
                if number < cut:
                    _apply(data, op, op.data)
                elif number == cut and op.kind == "write":
                    _apply(data, op, op.data[: rng.randrange(len(op.data) + 1)])
            elif model == "random sectors":
                _sectors(data, op, rng)
        gone = {
            path for path, (_, durable) in self.created.items() if model == "drop" and (durable is None or durable > t)
        }
        return {path: bytes(data) for path, data in files.items() if path not in gone}


def _text(path):
    """A path as strace -xx writes it."""
    return bytes.fromhex(path.replace("\\x", "")).decode() if path.startswith("\\x") else path


def _grow(data, size):
    if len(data) < size:
        data.extend(bytes(size - len(data)))


def _apply(data, op, content):
    if op.kind == "truncate":
        _grow(data, op.offset)
        del data[op.offset :]
        return
    offset = len(data) if op.offset is None else op.offset
    if content is None:  # the size made it, the data did not
        _grow(data, offset + len(op.data))
        return
    _grow(data, offset + len(content))
    data[offset : offset + len(content)] = content


def _sectors(data, op, rng: random.Random):
    if op.kind == "truncate":
        if rng.random() < 0.5:
            _apply(data, op, b"")
        return
    offset = len(data) if op.offset is None else op.offset
    position = 0
    while position < len(op.data):
        size = SECTOR - (offset + position) % SECTOR
        if rng.random() < 0.5:
            piece = op.data[position : position + size]
            _grow(data, offset + position + len(piece))
            data[offset + position : offset + position + len(piece)] = piece
        position += size
