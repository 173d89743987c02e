"""For PyInstaller, which finds this through the entry point ``pyinstaller40`` and runs the hooks beside it.

Nothing else may use it. A frozen program imports what it is given, so what this package imports late has to be named.
The hooks in ``pre_find_module_path`` say where an editable install has it.
"""

from __future__ import annotations

import os


def get_hook_dirs() -> list[str]:
    """Where the hook is."""
    return [os.path.dirname(os.path.abspath(__file__))]
