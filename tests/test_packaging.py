"""What is installed is what was meant."""

import importlib.metadata
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent


def test_the_core_has_four_dependencies():
    """sqlite-utils, tenacity, msgspec, click; nothing else."""
    required = importlib.metadata.requires("lastwords")
    core = {line.split(">")[0].split("<")[0].strip() for line in required if "extra ==" not in line}
    assert core == {"sqlite-utils", "tenacity", "msgspec", "click"}


def test_typed_and_migrations_are_shipped():
    """py.typed for mypy, the schema for everybody."""
    import lastwords.migrations.migrations as migrations

    import lastwords

    assert (pathlib.Path(lastwords.__file__).parent / "py.typed").exists()
    assert len(migrations.migration._migrations) == 1


def test_importing_is_cheap():
    """A handler starts without sqlite-utils, tenacity, click, smtplib, http or ssl."""
    code = "import lastwords, sys; print([m for m in sys.argv[1:] if m in sys.modules])"
    modules = ["sqlite_utils", "tenacity", "click", "smtplib", "http.client", "ssl", "email", "httpx"]
    done = subprocess.run([sys.executable, "-c", code, *modules], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_windows_is_refused_in_one_line():
    """With the reason."""
    code = "import sys; sys.platform = 'win32'; import lastwords"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("ImportError: lastwords needs a POSIX system")


def test_modules_import_downwards_only():
    """The order of the design: no cycle can grow."""
    import ast

    order = [
        "errors", "interrupt", "bell", "worker", "process", "_tagged", "_untagged", "_traceback", "_payload", "_replayed", "_describe",
        "record", "rows", "retrying", "place", "codes", "commitlock", "look", "snapshot", "aside", "store", "transfer", "salvage", "rescue", "memory", "ticket", "commit", "mover", "journal", "wal", "upkeep", "lease", "verdict", "targets", "delivery",
        "courier", "engine", "knobs", "handler",
    ]  # fmt: skip
    import lastwords

    source = pathlib.Path(lastwords.__file__).parent
    for path in source.glob("*.py"):
        if path.stem.startswith("__"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level == 1:
                names = [node.module.split(".")[0]] if node.module else [alias.name for alias in node.names]
                for name in names:
                    if path.stem == "_describe" or name.startswith("_") or path.stem.startswith("_"):
                        continue
                    under_typing = path.stem == "errors"  # Entry, for annotations only
                    assert under_typing or order.index(name) < order.index(path.stem), (path.stem, name)


@pytest.mark.repository
def test_the_top_level_is_tidy():
    """Nothing else than the design names."""
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()
    top = {name.split("/")[0] for name in listed}
    allowed = {"pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "src", "tests", "migrations", "tools"}
    assert {name for name in top if not name.startswith(".")} <= allowed


@pytest.mark.repository
def test_files_stay_small():
    """Under about 400 lines."""
    for folder in ("src", "tools", "migrations"):
        for path in (ROOT / folder).rglob("*.py"):
            assert len(path.read_text().splitlines()) <= 450, path
