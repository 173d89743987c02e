"""tools/torture: a small kill -9 campaign loses nothing, and each deliberately wrong variant is caught."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

pytestmark = pytest.mark.campaign

ROOT = pathlib.Path(__file__).parents[2]


def torture(*arguments, timeout=170):
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "torture", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, "LASTWORDS_TOOLS_PYTHON": sys.executable},
        check=False,
    )
    numbers = re.findall(r"^  (\S[^:]*?)  +([\d,]+)$", done.stdout, re.MULTILINE)
    return done.returncode, {name: int(value.replace(",", "")) for name, value in numbers}, done.stdout + done.stderr


def test_writers_consumer_and_flush_killed_at_random_lose_nothing():
    """Two crowds and a daemon, twice; seed 5."""
    code, numbers, said = torture("--rounds", "6", "--seed", "5")
    assert code == 0, said
    assert numbers["lost"] == 0
    assert numbers["kills"] >= 10
    assert numbers["acknowledged"] > 500
    assert "OK: nothing lost." in said


@pytest.mark.parametrize(
    ("name", "caught"),
    [
        ("settle-first", "acknowledged records are neither"),
        ("reuse-seqs", "acknowledged records are neither"),
        # Which of its consequences shows first is up to the moment: a lost WAL, a bus error, a torn file.
        ("keep-connection", ""),
    ],
)
def test_a_wrong_variant_is_caught(name, caught):
    """The negative controls."""
    code, _, said = torture("--rounds", "6", "--seed", "3", "--break", name)
    assert code == 1, said
    assert re.search(f"^CAUGHT: .*{caught}", said, re.MULTILINE), said


def test_a_break_that_does_not_fit_is_no_catch(tmp_path):
    """A break whose method was renamed ends the campaign with 3, not with 1."""
    lib = ROOT / "tools" / "_lib"
    code = f"import sys; sys.path.insert(0, {str(lib)!r}); import torture_breaks as t; t.BREAKS['x'] = lambda: t._replace(t, 'gone', 1); t.apply('x')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 70
    assert "does not fit" in done.stderr
