"""The rooms keep to themselves: nobody uses what is private to another one, and SQLite is the journal's."""

import ast
import functools
import textwrap
from collections import defaultdict
from pathlib import Path

import pytest

import lastwords

PACKAGE = Path(lastwords.__file__).parent

# Private names of the standard library, and why there is no other way.
PRIVATE = {
    "_lock": "logging's module lock: a fork takes it first; targets leave logging's list under it",
    "_handlerList": "logging's list of handlers to shut down",
    "_is_owned": "of locks that are not ours; runtime/lock.py has another way where it is missing",
    "_recursion_count": "the same",
}


@functools.cache
def modules(folder=PACKAGE):
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.py"))]
    return [(name, name.split("/")[0], ast.parse((folder / name).read_text())) for name in names]


def defined(tree):
    """The names that a module gives to something."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


# What gives a connection, or asks one.
CONNECTION = {"connection", "side_connection", "reading", "writing", "transaction", "execute", "executemany"}


def know_sqlite(folder):
    """Where sqlite3 is imported, or a connection is asked for or used, outside journal/."""
    for name, room, tree in modules(folder):
        awaited = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Await)}  # Datasette's own
        for node in ast.walk(tree) if room != "journal" else ():
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [getattr(node, "module", None), *(alias.name for alias in node.names)]
                found = any(str(module).split(".")[0] in ("sqlite3", "_sqlite3") for module in names)
            else:
                found = isinstance(node, ast.Call) and getattr(node.func, "attr", "") in CONNECTION
            if found and id(node) not in awaited:
                yield f"{name}:{node.lineno}"


@pytest.mark.slow
def test_sqlite_is_known_in_the_journal_only():
    """A boundary: elsewhere nobody sees a connection, SQL or SQLite's exceptions."""
    assert list(know_sqlite(PACKAGE)) == []


def test_who_knows_sqlite_is_found(tmp_path):
    """The check above can fail."""
    code = """
        import sqlite3
        async def look(store, db):
            with store.reading() as conn:
                conn.execute("SELECT 1")
            await db.execute("SELECT 1")
    """
    for room in ("journal", "cli"):
        (tmp_path / room).mkdir()
        (tmp_path / room / "some.py").write_text(textwrap.dedent(code))
    assert list(know_sqlite(tmp_path)) == [f"cli/some.py:{line}" for line in (2, 4, 5)]


def catch_sqlite(folder):
    """Where a name of journal/ that stands for exceptions of SQLite's is used in another room."""
    said = {
        target.id
        for _, room, tree in modules(folder)
        for node in (tree.body if room == "journal" else ())
        if isinstance(node, ast.Assign) and "sqlite3." in ast.unparse(node.value) and "Error" in ast.unparse(node.value)
        for target in node.targets
    }
    for name, room, tree in modules(folder):
        for node in ast.walk(tree) if room != "journal" else ():
            names = [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else []
            if said & {*names, getattr(node, "attr", None)}:
                yield f"{name}:{node.lineno}"


@pytest.mark.slow
def test_sqlite_exceptions_are_caught_in_the_journal_only():
    """Not under another name either."""
    assert list(catch_sqlite(PACKAGE)) == []


def test_who_catches_sqlite_exceptions_is_found(tmp_path):
    """The check above can fail."""
    for name, code in {
        "journal/explain.py": "TROUBLE = (sqlite3.Error, OSError)\nOTHER = (OSError,)\n",
        "cli/some.py": "from ..journal.explain import OTHER, TROUBLE\nfrom ..journal import explain\nexplain.TROUBLE\n",
    }.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(code)
    assert list(catch_sqlite(tmp_path)) == ["cli/some.py:1", "cli/some.py:3"]


@pytest.mark.slow
def test_nobody_uses_what_is_private_to_another_room():
    """What a room keeps to itself can be changed without looking at the others."""
    of_room = defaultdict(set)
    for _, room, tree in modules():
        of_room[room] |= {name for name in defined(tree) if is_private(name)}
    wrong = []
    for name, room, tree in modules():
        others = set().union(*(names for other, names in of_room.items() if other != room)) - of_room[room]
        theirs = others - set(PRIVATE)
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in theirs:
                wrong.append(f"{name}:{node.lineno} {ast.unparse(node)}")
            elif isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("lastwords")):
                wrong += [f"{name}:{node.lineno} {alias.name}" for alias in node.names if alias.name in others]
    assert wrong == []


@pytest.mark.slow
def test_locks_are_asked_for_their_owner_in_one_place():
    """``RLock._recursion_count`` exists only from 3.11.6 and 3.12.1 on: where it is missing repr() tells."""
    ask = set()
    for name, _, tree in modules():
        for node in ast.walk(tree):
            private = node.attr if isinstance(node, ast.Attribute) else getattr(node, "value", None)
            if private in ("_is_owned", "_recursion_count"):
                ask.add(name)
    assert ask == {"runtime/lock.py"}


@pytest.mark.slow
def test_json_is_made_in_one_place():
    """msgspec's own ``encode`` ends a process that has no memory, and some text is long."""
    makers = {
        name
        for name, _, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("msgspec.json.encode", "msgspec.json.Encoder")
    }
    assert makers == {"runtime/jsonbytes.py"}
