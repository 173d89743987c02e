"""What the backlog measures share: child processes, places, turns."""

import json
import os
import shutil
import subprocess
import sys
import time

CHILD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bench_backlog_child.py")
SECONDS = 600  # for any child
NAMES = {
    "lastwords": "lastwords",
    "persist_queue": "persist-queue",
    "litequeue": "litequeue",
    "logstash": "python-logstash-async",
}


class ChildFailed(Exception):
    """A measure crashed, which is no measured value."""


def python_of(bench):
    return bench.python or sys.executable


def ask(bench, task, **arguments):
    """One task in a process of its own; its answer."""
    return answer(start(bench, task, **arguments), task)


def start(bench, task, program=CHILD, **arguments):
    command = [python_of(bench), program, task, json.dumps(arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=bench.folder)


def answer(child, task):
    try:
        out, err = child.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()
        raise ChildFailed("%s took more than %d s" % (task, SECONDS)) from None
    except BaseException:  # cut short
        child.kill()
        child.communicate()
        raise
    if child.returncode or not out.strip():
        raise ChildFailed("%s: exit code %s\n%s" % (task, child.returncode, err.decode(errors="replace")[-2000:]))
    return json.loads(out.splitlines()[-1])


def seconds_of(command):
    """How long a program runs. It must succeed."""
    # Installed code has its bytecode: who asked not to have any written here does not want all compiled each time.
    env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    began = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=SECONDS, env=env)
    if done.returncode:
        raise ChildFailed("%s: %s" % (" ".join(command), done.stderr.decode(errors="replace")[-2000:]))
    return time.perf_counter() - began


def place(bench, name):
    return os.path.join(bench.folder, name)


def remove(path):
    shutil.rmtree(path, ignore_errors=True)
    for suffix in ("", "-wal", "-shm", ".lock", ".commit"):
        if os.path.isfile(path + suffix):
            os.remove(path + suffix)


def copy(source, target):
    """The fresh copy that a round begins with."""
    remove(target)
    (shutil.copytree if os.path.isdir(source) else shutil.copyfile)(source, target)


def shuffled(bench, items):
    items = list(items)
    bench.rng.shuffle(items)
    return items


def short(number):
    """1 k, 1 M."""
    for unit, word in ((1_000_000, "M"), (1_000, "k")):
        if number >= unit:
            return "%g %s" % (number / unit, word)
    return str(number)
