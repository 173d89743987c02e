"""Simulated power loss: the promise of the second line, and that the simulation can fail."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent

pytestmark = [pytest.mark.campaign, pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")]


def powerloss(*arguments):
    return subprocess.run(
        [sys.executable, str(ROOT / "tools" / "powerloss"), *arguments],
        capture_output=True,
        text=True,
        timeout=170,
        env={**os.environ, "LASTWORDS_TOOLS_PYTHON": sys.executable},
        check=False,
    )


def test_no_crash_point_breaks_a_promise():
    """Five models, with and without an idle reader; what is recent and below sync_level may be lost, and is."""
    done = powerloss("--points", "40", "--records", "250")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith(("drop", "keep"))]
    assert len(rows) == 4
    assert all(int(row[1]) == 40 for row in rows)
    assert all(int(row[3]) > 0 for row in rows if row[0] == "drop")  # else nothing was ever unsynced
    assert all(int(row[3]) == 0 for row in rows if row[0] == "keep")


@pytest.mark.parametrize("how", ["sync-off", "reuse-ids"])
def test_a_wrong_variant_is_caught(how):
    """Nothing synced; ids that begin again after rows were rolled back."""
    done = powerloss("--points", "40", "--records", "250", "--break", how)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "CAUGHT" in done.stdout
