"""What root does before it becomes the owner of a journal."""

import os
import subprocess
import sys

import pytest

IMPORT_ALL = "from lastwords.journal import ownership; ownership._import_all()"


@pytest.mark.slow
def test_pyinstaller_is_not_imported(tmp_path):
    """Its hook starts programs (ldd, file, another Python), which root has not asked for."""
    (tmp_path / "PyInstaller").mkdir()
    (tmp_path / "PyInstaller" / "__init__.py").write_text("print('PyInstaller is imported')")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL], env=env, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
