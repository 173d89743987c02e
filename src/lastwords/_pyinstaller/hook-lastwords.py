"""What PyInstaller cannot see: targets and tools are imported when they are first needed, and some by name.

The command line stays outside: it is not what a service runs, and brings a terminal and a web server along.
"""

import importlib.util
import os

from PyInstaller.utils.hooks import collect_data_files, collect_submodules, copy_metadata


def _runs(name: str) -> bool:
    return not name.startswith(("lastwords._pyinstaller", "lastwords.__main__", "lastwords.cli"))


def _migrations() -> list[tuple[str, str]]:
    """As files: in an editable install the folder is none of the package's."""
    spec = importlib.util.find_spec("lastwords.migrations")
    folder = spec.submodule_search_locations[0] if spec is not None and spec.submodule_search_locations else ""
    return [(os.path.join(folder, name), "lastwords/migrations") for name in ("__init__.py", "migrations.py")]


hiddenimports = [*collect_submodules("lastwords", filter=_runs, on_error="ignore"), "sqlite_utils", "tenacity"]
excludedimports = ["opentelemetry"]  # only beside its own handler, which brings it along
datas = [
    *collect_data_files("lastwords"),
    *_migrations(),
    *copy_metadata("lastwords"),
    *copy_metadata("sqlite_utils"),
]
