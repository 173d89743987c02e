"""Virtual environments for the tools, made when they are first needed: .venv-3.12.1 in the project's folder.

Keyed by the full version: 3.11.2 and 3.11.7 are different Pythons, and both are somebody's.

Standard library only, and written for old Pythons too: what a too old one must be able to do is say what is missing.
An environment has the package (editable) with its dev extra; it is made anew when pyproject.toml or its Python changed.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
OLDEST = (3, 11)
SETUP_SECONDS = 900
GIVEN = os.environ.get("LASTWORDS_TOOLS_PYTHON")  # an interpreter with lastwords and its dev extra: nothing is set up


class NoPython(Exception):
    """No interpreter will do; the text says what is needed."""


# --- interpreters -----------------------------------------------------------------------------------------


def version_of(python):
    """((3, 12, 1), can it make environments) of a CPython with SQLite, None if it is not one or does not run."""
    code = (
        "import sys, sqlite3, platform; assert platform.python_implementation() == 'CPython'\n"
        "import importlib.util; print('%d %d %d' % sys.version_info[:3], int(bool(importlib.util.find_spec('ensurepip'))))"
    )
    try:
        done = subprocess.run([python, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode:
        return None
    numbers = [int(word) for word in done.stdout.split()]
    return tuple(numbers[:3]), bool(numbers[3])


def candidates():
    """Paths where interpreters may be: this one's, pyenv's, uv's, the PATH's."""
    yield getattr(sys, "_base_executable", None) or sys.executable  # not the environment that this may run in
    pyenv = os.path.join(os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv"), "versions")
    if os.path.isdir(pyenv):
        for name in sorted(os.listdir(pyenv)):
            if re.match(r"3\.\d\d", name):
                yield os.path.join(pyenv, name, "bin", "python")
    if shutil.which("uv"):
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            done = subprocess.run(
                ["uv", "python", "list", "--only-installed"],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=30,
            )
            for line in done.stdout.decode().splitlines():
                if len(line.split()) > 1:
                    yield line.split()[1]
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        if os.path.isdir(folder) and "shims" not in folder:
            for name in sorted(os.listdir(folder)):
                if re.match(r"python3(\.\d\d)?$", name):
                    yield os.path.join(folder, name)


def supported(*, tell=False):
    """{(3, 12, 1): path}: every supported version that is found. ``tell``: name on stderr what had to be left out."""
    found, seen, too_bare = {}, set(), []
    for python in candidates():
        real = os.path.realpath(python)
        if real in seen:
            continue
        seen.add(real)
        known = version_of(python)
        if known is None or known[0] < OLDEST:
            continue
        version, complete = known
        if complete:
            found.setdefault(version, python)
        else:
            too_bare.append(python)
    if not found:
        raise NoPython(_what_is_needed(too_bare))
    for python in too_bare if tell else ():
        print("left out: %s has no ensurepip (Debian: python3-venv)" % python, file=sys.stderr)
    return dict(sorted(found.items()))


def text_of(version):
    """(3, 12, 1) as "3.12.1"."""
    return ".".join(str(number) for number in version)


def _what_is_needed(too_bare):
    needed = "lastwords needs CPython %d.%d or newer" % OLDEST
    if too_bare:
        return "%s with ensurepip, and %s lacks it: apt-get install python3-venv" % (needed, too_bare[0])
    return "%s; this is %d.%d, and no other was found (pyenv, uv, PATH)" % (needed, *sys.version_info[:2])


def choose(wanted=None):
    """(version, path): the newest that begins like ``wanted`` ("3.12", "3.11.2"), the running one before all others.

    Without ``wanted`` the running Python, else the newest of its minor version, else the newest. Raises NoPython.
    """
    pythons, running = supported(), tuple(sys.version_info[:3])
    if wanted is not None:
        numbers = tuple(int(number) for number in re.findall(r"\d+", wanted))
        fitting = [version for version in pythons if version[: len(numbers)] == numbers]
        if not fitting:
            raise NoPython("no Python %s was found; there are: %s" % (wanted, ", ".join(map(text_of, pythons))))
    else:
        fitting = [version for version in pythons if version[:2] == running[:2]] or list(pythons)
    version = running if running in fitting else max(fitting)
    return version, pythons[version]


# --- environments -------------------------------------------------------------------------------------------


def environment(python, version, packages=()):
    """The interpreter of the environment for ``python``, which is made if need be; one of its own for ``packages``."""
    folder = os.path.join(ROOT, ".venv-%s%s" % ("bench-" if packages else "", text_of(version)))
    inner = os.path.join(folder, "bin", "python")
    stamp = os.path.join(folder, "lastwords-stamp")
    with open(os.path.join(ROOT, "pyproject.toml"), "rb") as f:
        wanted = hashlib.sha256(
            f.read() + ("\n%s %s" % (ROOT, os.path.realpath(python))).encode() + repr(packages).encode()
        ).hexdigest()
    with _one_at_a_time(version):
        try:
            with open(stamp) as f:
                if f.read() == wanted and os.path.exists(inner):
                    _compile(inner)
                    return inner
        except OSError:
            pass
        print("setting up %s ..." % os.path.basename(folder), flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        _run([python, "-m", "venv", folder])
        _run([inner, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-e", ROOT + "[dev]", *packages])
        with open(stamp, "w") as f:
            f.write(wanted)
        _compile(inner)
    return inner


def _compile(inner):
    """pip compiles no editable project, and the tests' thousands of child programs write nothing: each would do it."""
    _run([inner, "-m", "compileall", "-q", os.path.join(ROOT, "src"), os.path.join(ROOT, "migrations")])


@contextlib.contextmanager
def _one_at_a_time(version):
    """Two tools that start at once must not both make the environment."""
    cache = os.path.join(ROOT, ".cache")
    os.makedirs(cache, exist_ok=True)
    with open(os.path.join(cache, "venv-%s.lock" % text_of(version)), "w") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield


def _run(command):
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=SETUP_SECONDS)
    except subprocess.TimeoutExpired:
        raise NoPython("setting up took more than %d s: %s" % (SETUP_SECONDS, " ".join(command))) from None
    if done.returncode:
        raise NoPython("%s failed:\n%s" % (" ".join(command), done.stdout.decode(errors="replace")[-3000:]))


def own_environment(wanted=None, packages=()):
    """The interpreter of the environment that a tool runs its work in; ends with a plain message if there is none.

    In $LASTWORDS_TOOLS_PYTHON an interpreter that has lastwords and its dev extra may be named instead: then that one.
    """
    try:
        return GIVEN if GIVEN and wanted is None else environment(*reversed(choose(wanted)), packages)
    except NoPython as error:
        sys.exit("tools/%s: %s" % (os.path.basename(sys.argv[0]), error))


def enter(wanted=None, packages=()):
    """Go on in that environment (exec), unless this is it already."""
    if os.environ.pop("LASTWORDS_TOOLS_ENTERED", None):
        return
    inner = own_environment(wanted, packages)
    if os.path.realpath(os.path.dirname(os.path.dirname(inner))) != os.path.realpath(sys.prefix):
        sys.stdout.flush()
        os.environ["LASTWORDS_TOOLS_ENTERED"] = "1"
        os.execv(inner, [inner, os.path.abspath(sys.argv[0]), *sys.argv[1:]])
