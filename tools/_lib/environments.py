"""Virtual environments for the tools, made when they are first needed. Standard library only; runs on old Pythons."""

import hashlib
import os
import re
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
OLDEST = (3, 11)


def version_of(python):
    """(3, 12, 1) of an interpreter, None if it does not run or is no CPython of use here."""
    code = "import sys, sqlite3, venv; print('%d %d %d' % sys.version_info[:3])"
    try:
        done = subprocess.run([python, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode:
        return None
    return tuple(int(part) for part in done.stdout.split())


def candidates():
    """Paths where interpreters may be: this one, pyenv's, uv's, the PATH's."""
    yield sys.executable
    pyenv = os.path.join(os.environ.get("PYENV_ROOT", os.path.expanduser("~/.pyenv")), "versions")
    if os.path.isdir(pyenv):
        for name in sorted(os.listdir(pyenv)):
            yield os.path.join(pyenv, name, "bin", "python")
    if shutil.which("uv"):
        done = subprocess.run(["uv", "python", "list", "--only-installed"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        for line in done.stdout.decode().splitlines():
            if len(line.split()) > 1:
                yield line.split()[1]
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        if os.path.isdir(folder) and "shims" not in folder:
            for name in sorted(os.listdir(folder)):
                if re.fullmatch(r"python3\.\d+", name):
                    yield os.path.join(folder, name)


def supported():
    """{(3, 12): path}: the newest of each supported minor version; this interpreter counts first for its own."""
    found = {}
    for python in candidates():
        version = version_of(python)
        if version is not None and version >= OLDEST:
            known = found.get(version[:2])
            if known is None or version > known[0]:
                found[version[:2]] = (version, python)
    if sys.version_info[:2] in found:
        found[sys.version_info[:2]] = (sys.version_info[:3], sys.executable)
    return {minor: path for minor, (_, path) in sorted(found.items())}


def environment(python, minor):
    """The python of a virtual environment with lastwords and its dev extra; made anew when pyproject.toml changes."""
    folder = os.path.join(ROOT, ".venv-%d.%d" % minor)
    inner = os.path.join(folder, "bin", "python")
    with open(os.path.join(ROOT, "pyproject.toml"), "rb") as f:
        wanted = hashlib.sha256(f.read() + ROOT.encode()).hexdigest()
    stamp = os.path.join(folder, "lastwords-stamp")
    try:
        with open(stamp) as f:
            if f.read() == wanted:
                return inner
    except OSError:
        pass
    print("setting up %s (Python %d.%d) ..." % ((os.path.basename(folder),) + minor), flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([python, "-m", "venv", folder], check=True)
    subprocess.run([inner, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-e", ROOT + "[dev]"], check=True)
    with open(stamp, "w") as f:
        f.write(wanted)
    return inner


def own_environment():
    """The environment for the running Python, or for the newest supported one if this is too old."""
    pythons = supported()
    if not pythons:
        sys.exit("lastwords needs Python %d.%d or newer, and none was found" % OLDEST)
    minor = sys.version_info[:2] if sys.version_info[:2] in pythons else max(pythons)
    return environment(pythons[minor], minor)
