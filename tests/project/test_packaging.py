"""What is installed is what was meant."""

import ast
import importlib.metadata
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent


def test_the_core_has_four_dependencies():
    """sqlite-utils, tenacity, msgspec, click; nothing else."""
    required = importlib.metadata.requires("lastwords")
    core = {line.split(">")[0].split("<")[0].strip() for line in required if "extra ==" not in line}
    assert core == {"sqlite-utils", "tenacity", "msgspec", "click"}


def test_typed_and_migrations_are_shipped():
    """py.typed for mypy, the schema for everybody."""
    import lastwords.migrations.migrations as migrations

    import lastwords
    from lastwords.journal import schema

    assert (pathlib.Path(lastwords.__file__).parent / "py.typed").exists()
    assert len(migrations.migration._migrations) == schema.FORMAT


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


FLOORS = """
_pyinstaller _version errors knobs
runtime.jsonbytes runtime.visible runtime.identity runtime.clock
runtime.signals runtime.native runtime.members runtime.lock runtime.descriptor runtime.guard runtime.stderr runtime.exit runtime.fork runtime.bell runtime.thread runtime.retrying
record.foreign record.write_values record.read_values record.frames record.attributes record.exceptions record.payload record.replayed record.any_record record.codec
journal.places journal.ownership journal.files journal.sqlite_codes journal.explain journal.commit_lock journal.wal_check journal.new_schema journal.pages journal.meta journal.first_look journal.schema journal.sqlite_files journal.unseen_fork journal.snapshot journal.rows journal.epochs journal.raw_rows
journal.renewed_file journal.continuity journal.set_aside journal.void journal.raced journal.order journal.turns journal.store journal.alone journal.old_file journal.transfer journal.salvage journal.inserts journal.aging journal.letters journal.line journal.journal journal.wal journal.tidy journal.examination journal.readonly
append
targets
upkeep.damaged_file upkeep.removed_file upkeep.recovery upkeep.chores upkeep.keeper
delivery.voice delivery.lease delivery.verdict delivery.width delivery.restraint delivery.reasons delivery.drops delivery.max_age delivery.marks delivery.supply delivery.loop
delivery.courier opening
engine handler cli __main__
""".split()  # from the ground up; a room stands for all its modules, unless they are named


@pytest.mark.slow
def test_modules_import_downwards_only():
    """The floors of the house, also inside a room: no cycle can grow."""
    source = pathlib.Path(lastwords_folder())
    wrong = [(name, target) for name, target in imports(source) if floor(target) >= floor(name)]
    assert wrong == []


def test_an_import_upwards_is_found(tmp_path):
    """The check above can fail."""
    (tmp_path / "record").mkdir()
    (tmp_path / "record" / "codec.py").write_text("from ..handler import DurableHandler\n")
    assert [(n, t) for n, t in imports(tmp_path) if floor(t) >= floor(n)] == [("record.codec", "handler")]


def lastwords_folder():
    import lastwords

    return pathlib.Path(lastwords.__file__).parent


def floor(module):
    """Its place in FLOORS, by its own name or that of the room around it."""
    while module not in FLOORS:
        module, dot, _ = module.rpartition(".")
        assert dot, f"no floor is named for {module}"
    return FLOORS.index(module)


def imports(source):
    """(module, module it imports) for all of the package, those for annotations only left out; not within one floor."""
    for path in sorted(source.rglob("*.py")):
        module = ".".join(path.relative_to(source).with_suffix("").parts).removesuffix(".__init__")
        if module == "__init__":
            continue
        package = module.split(".") if path.stem == "__init__" else module.split(".")[:-1]
        for target in _targets(ast.parse(path.read_text()), package, source):
            if target and floor_name(target) != floor_name(module):
                yield module, target


def floor_name(module):
    return FLOORS[floor(module)]


def _targets(tree, package, source):
    for node in _running(tree):
        if not isinstance(node, ast.ImportFrom):
            continue
        if node.level:
            base = package[: len(package) - node.level + 1]
        elif node.module and node.module.split(".")[0] == "lastwords":
            base = []
        else:
            continue
        module = (node.module or "").split(".") if node.level else node.module.split(".")[1:]
        base = [*base, *(part for part in module if part)]
        if base[:1] == ["migrations"]:
            continue
        for alias in node.names:
            whole = [*base, alias.name]
            is_module = source.joinpath(*whole).with_suffix(".py").exists() or source.joinpath(*whole).is_dir()
            yield ".".join(whole if is_module else base)


def _running(tree):
    """The nodes of a module without ``if TYPE_CHECKING:``, whose imports never run."""
    stack = [tree]
    while stack:
        node = stack.pop()
        yield node
        if isinstance(node, ast.If) and getattr(node.test, "id", "") in {"TYPE_CHECKING", "_TYPE_CHECKING"}:
            stack.extend(node.orelse)
        else:
            stack.extend(ast.iter_child_nodes(node))


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
            assert len(path.read_text().splitlines()) <= 400, path
