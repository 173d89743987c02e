"""What a user may give as a target, and the target that it is: a handler, a callable, a URL, a mapping, a Target.

What each kind needs is imported when one is given, its extra with it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

from .contract import CallableTarget, Target, refuse_suspended

_DOTTED = r"[\w-]+(\.[\w-]+)*"


def resolve(spec: object) -> Target | None:
    """The target for ``spec``: a handler, a callable, a Target, a URL, a mapping, or None.

    Raises TypeError for what can be no target, ValueError for what is one but wrongly written.
    """
    if spec is None:
        return None
    if isinstance(spec, Target):
        refuse_suspended(spec.deliver)
        return spec
    if isinstance(spec, logging.Handler):
        from .handlers.wrap import wrap  # noqa: PLC0415 - see the module

        return wrap(spec)
    if isinstance(spec, type):
        raise TypeError(f"target must be an instance, not the class {spec.__name__}: call it, or use a mapping")
    if isinstance(spec, Mapping):
        from .handlers.from_mapping import resolve_mapping  # noqa: PLC0415

        return resolve_mapping(spec)
    if isinstance(spec, str):
        return _from_text(spec)
    if callable(spec):
        return CallableTarget(spec)
    raise TypeError(
        "target must be a logging.Handler, a callable, a Target, a URL, a mapping with a class, or None, "
        f"not {type(spec).__name__}"
    )


def _from_text(given: str) -> Target | None:
    text = given.strip()
    if text.startswith("ext://"):
        return resolve(_external(text.removeprefix("ext://")))
    if text.startswith("cfg://"):
        raise ValueError(f"target {_shown(text)!r} works inside dictConfig only: nest the handler's mapping instead")
    if "://" in text or text.lower().startswith(("file:", "stdout:", "stderr:")):
        from .urls.from_url import from_url  # noqa: PLC0415

        target: Target = from_url(text)
        return target
    named = re.fullmatch(_DOTTED, text) is not None
    raise ValueError(
        f"target {_shown(text)!r} is not a URL"
        + (f"; for a handler of the same dictConfig write cfg://handlers.{text}, or nest its mapping" if named else "")
    )


def _external(name: str) -> Any:
    import logging.config  # noqa: PLC0415

    if not re.fullmatch(_DOTTED, name):
        raise ValueError(f"target {_shown(f'ext://{name}')!r} is no ext://module.object")
    return logging.config.BaseConfigurator({}).resolve(name)


def _shown(text: str) -> str:
    from .urls.secret import shown  # noqa: PLC0415

    return shown(text)
