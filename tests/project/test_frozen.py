"""A frozen service: PyInstaller finds the hooks of the package, in an editable install, too."""

import subprocess
import sys

import pytest

SERVICE = """
import json, logging, sys
from lastwords import DurableHandler

folder, found = sys.argv[1], {}
for name, target in {
    "handler": logging.FileHandler(f"{folder}/handler.log"),
    "mapping": {"class": "logging.FileHandler", "filename": f"{folder}/mapping.log"},
    "file": f"file:{folder}/file.log",
    "http": "http://127.0.0.1:9/",
    "kafka": "kafka://127.0.0.1:9/app",
    "nats": "nats://127.0.0.1:9/app",
    "redis": "redis://127.0.0.1:9/0/app",
    "smtp": "smtp://127.0.0.1:9/?to=ops@example.com",
}.items():
    handler = DurableHandler(target, f"{folder}/{name}.db", drain_timeout=0.1)
    logger = logging.Logger("app")
    logger.addHandler(handler)
    logger.error("from the bundle")
    if "127" not in str(target):
        handler.drain(20)
    found[name] = handler.stats().pending
    handler.close()
print(json.dumps(found))
logging.getLogger().addHandler(DurableHandler(logging.FileHandler(f"{folder}/end.log"), f"{folder}/end.db"))
logging.error("last words")
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_program_in_one_file_delivers_and_builds_every_target(tmp_path):
    """With its defaults: migrations, targets that are imported late, the clients of streams; and no more than these."""
    pytest.importorskip("PyInstaller", reason="pyinstaller; python_version < '3.12'")
    (tmp_path / "service.py").write_text(SERVICE)
    build = [sys.executable, "-m", "PyInstaller", "--noconfirm", "--log-level", "ERROR", "--onefile", "service.py"]
    built = subprocess.run(build, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    modules = (tmp_path / "build/service/xref-service.html").read_text()
    assert 'name="lastwords.targets.streams.kafka"' in modules
    for stranger in ("opentelemetry", "django", "pytest", "lastwords.cli"):
        assert f'name="{stranger}"' not in modules

    service = [str(tmp_path / "dist/service"), str(tmp_path)]
    ran = subprocess.run(service, capture_output=True, text=True, timeout=120, check=False)
    assert ran.stdout == (
        '{"handler": 0, "mapping": 0, "file": 0, "http": 1, "kafka": 1, "nats": 1, "redis": 1, "smtp": 1}\n'
    ), ran.stderr
    for name in ("handler", "mapping", "file"):
        assert "from the bundle" in (tmp_path / f"{name}.log").read_text()
    assert (tmp_path / "end.log").read_text() == "last words\n"
