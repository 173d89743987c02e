"""In an editable install the migrations are in a folder of their own, which PyInstaller does not know: this does."""

import importlib.util
import os
from typing import Any


def pre_find_module_path(api: Any) -> None:
    """Look where Python would look."""
    spec = importlib.util.find_spec("lastwords.migrations")
    if spec is not None and spec.submodule_search_locations:
        api.search_dirs = [os.path.dirname(each) for each in spec.submodule_search_locations]
