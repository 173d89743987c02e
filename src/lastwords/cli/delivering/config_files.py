"""The files that ``--config`` reads, each as the mapping of a dictConfig: TOML, JSON, YAML, and fileConfig's .ini.

An .ini is Python in part: ``args`` and ``kwargs`` are expressions, which ``logging.config.fileConfig`` evaluates in the
namespace of the module ``logging``. They are evaluated here in the same way, but for DurableHandlers only, and the call
that makes their target not before it is wanted: the FileHandler of another section would truncate its file.
"""

from __future__ import annotations

import ast
import configparser
import inspect
import json
import logging.config
import os
import pkgutil
import tomllib
from typing import TYPE_CHECKING, Any

from lastwords.handler import DurableHandler

from .. import output

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import BinaryIO


def read(path: str) -> Mapping[str, Any]:
    """What the file at ``path`` says; its suffix tells the language. Raises Misconfigured."""
    reader = _READERS.get(kind_of(path))
    if reader is None:
        raise output.Misconfigured(f"--config {path}: is none of FILE{', FILE'.join(_READERS)}, and not module:NAME")
    try:
        with open(os.path.expanduser(path), "rb") as file:
            found = reader(file)
    except OSError as error:
        raise output.Misconfigured(f"--config {path}: {error.strerror}") from error
    except (ValueError, RecursionError, configparser.Error) as error:  # the parsers' own errors are ValueErrors
        raise output.Misconfigured(f"--config {path}: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict):
        raise output.Misconfigured(f"--config {path}: is not an object")
    return found


def kind_of(path: str) -> str:
    """The suffix, by which the language is known."""
    return os.path.splitext(path)[1].lower()


def _yaml(file: BinaryIO) -> Any:
    try:
        import yaml  # noqa: PLC0415 - of an extra
    except ImportError as error:
        raise output.Misconfigured(f"--config {file.name}: YAML needs PyYAML: pip install 'lastwords[yaml]'") from error
    try:
        return yaml.safe_load(file)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


# --- fileConfig ------------------------------------------------------------------------------------------------


def _ini(file: BinaryIO) -> dict[str, Any]:
    """As ``logging.config.fileConfig`` reads it. ``%(here)s`` is its folder, as Pyramid and Alembic have it."""
    path = os.path.abspath(file.name)
    defaults = {"here": os.path.dirname(path).replace("%", "%%"), "__file__": path.replace("%", "%%")}
    parser = configparser.ConfigParser(defaults)
    parser.read_string(file.read().decode(), path)
    return {
        "version": 1,
        "formatters": {name: _formatter(parser, f"formatter_{name}") for name in _names(parser, "formatters")},
        "handlers": {name: _handler(parser, f"handler_{name}") for name in _names(parser, "handlers")},
    }


def _names(parser: configparser.ConfigParser, section: str) -> list[str]:
    text = parser.get(section, "keys", fallback="")
    return [name.strip() for name in text.split(",") if name.strip()]


def _formatter(parser: configparser.ConfigParser, section: str) -> dict[str, Any]:
    keys = ("format", "datefmt", "style", "class")
    return {key: parser.get(section, key, raw=True) for key in keys if parser.get(section, key, raw=True, fallback="")}


def _handler(parser: configparser.ConfigParser, section: str) -> dict[str, Any]:
    name = parser.get(section, "class")
    maker = _maker(name)
    if maker is None:
        return {"class": f"logging.{name}" if hasattr(logging, name.partition(".")[0]) else name}
    found = {key: parser.get(section, key) for key in ("level", "formatter") if parser.get(section, key, fallback="")}
    try:
        return found | {"()": maker} | _arguments(parser, section, maker)
    except Exception as error:  # the user's expressions, and what they call
        raise ValueError(f"[{section}]: {type(error).__name__}: {error}") from error


def _maker(name: str) -> Callable[..., Any] | None:
    """What makes a DurableHandler: one of its classes, or a function. None for all others."""
    if hasattr(logging, name.partition(".")[0]):
        return None  # none of logging's own is ours
    try:
        found = pkgutil.resolve_name(name)
    except Exception:  # a handler that cannot be imported here is none of ours; a search for ours says so
        return None
    if isinstance(found, type):
        return found if issubclass(found, DurableHandler) else None
    return found if callable(found) else None


def _arguments(parser: configparser.ConfigParser, section: str, maker: Callable[..., Any]) -> dict[str, Any]:
    args = ast.parse(parser.get(section, "args", fallback="()").strip(), mode="eval").body
    kwargs = ast.parse(parser.get(section, "kwargs", fallback="{}").strip(), mode="eval").body
    if not isinstance(args, ast.Tuple) or not isinstance(kwargs, ast.Dict):
        raise TypeError("args must be a tuple and kwargs a dict, written out")
    signature = inspect.signature(maker)
    if any(each.kind is each.VAR_POSITIONAL for each in signature.parameters.values()):
        signature = inspect.signature(DurableHandler)
    named = {str(_value(key)): value for key, value in zip(kwargs.keys, kwargs.values, strict=True) if key is not None}
    bound: dict[str, Any] = {}
    for name, value in signature.bind_partial(*args.elts, **named).arguments.items():
        bound |= value if isinstance(value, dict) else {name: value}
    return {
        name: {"()": Late(value)} if name == "target" and isinstance(value, ast.Call) else _value(value)
        for name, value in bound.items()
    }


class Late:
    """A call of an .ini that is made when its result is wanted. ``strings``: those in it."""

    def __init__(self, call: ast.Call) -> None:
        self._call = call
        parts = (part.value for part in ast.walk(call) if isinstance(part, ast.Constant))
        self.strings = [value for value in parts if isinstance(value, str)]

    def __call__(self) -> Any:
        """Make it."""
        return _value(self._call)


def _value(expression: ast.expr) -> Any:
    code = compile(ast.Expression(expression), "<args>", "eval")
    return eval(code, dict(vars(logging)))  # noqa: S307 - as fileConfig does; the file is the application's own code


_READERS: dict[str, Callable[[Any], Any]] = {
    ".toml": tomllib.load,
    ".json": json.load,
    ".yaml": _yaml,
    ".yml": _yaml,
    ".ini": _ini,
    ".cfg": _ini,
}
KINDS = frozenset(_READERS)
