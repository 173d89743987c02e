"""tools/compare measures what it says: `lastwords guide comparison` rests on it."""

import importlib.machinery
import importlib.util
import pathlib
import re

import pytest

import lastwords

TOOL = pathlib.Path(__file__).parents[2] / "tools" / "compare"


@pytest.fixture
def compare(monkeypatch):
    loader = importlib.machinery.SourceFileLoader("compare", str(TOOL))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("compare", loader))
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    loader.exec_module(module)
    monkeypatch.setattr(module, "RECORDS", 10)
    monkeypatch.setattr(module, "PATIENCE", 60)
    return module


@pytest.mark.slow
def test_it_tells_who_keeps_records_from_who_does_not(compare, monkeypatch):
    """Killed while the receiver is down: lastwords has all, a MemoryHandler none."""
    monkeypatch.setattr(compare, "STAYS", 30)  # on a busy machine; it ends when all have arrived
    assert compare.arrived("lastwords", up=False, end="kill") == 10
    monkeypatch.setattr(compare, "STAYS", 0)
    assert compare.arrived("MemoryHandler", up=False, end="kill") == 0


def test_the_page_has_every_contender(compare):
    """And their names, as the tool prints them."""
    page = (pathlib.Path(lastwords.__file__).parent / "guide" / "comparison.md").read_text()
    rows = [row for row in page.splitlines() if re.match(r"\| \S", row)]
    assert len(rows) == 1 + len(compare.CONTENDERS)
    assert all(any(name in row for row in rows) for name in compare.CONTENDERS)
