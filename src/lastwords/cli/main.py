"""The command ``lastwords``: finds the verb, runs it, and turns whatever happened into one line and an exit code.

Rules
-----
* Verbs are imported when they are used, and import what is heavy when they run: ``--help`` answers at once.
* Every verb ends through ``output.leave(code)``. What it raises becomes one line on stderr, never a traceback:
  JournalError and Misconfigured carry their exit code, KeyboardInterrupt is 130, a reader that went away (``| head``)
  ends it silently with 141, as it is for other tools. An output that cannot be written is 74; a stdout that is closed
  counts as no output, not as an error.
* ``passive()`` holds for the whole run: modules that are imported for ``--to`` and ``--config`` may build
  DurableHandlers, and none of them may start a courier thread that competes with our delivery, or deliver when this
  process ends.
"""

from __future__ import annotations

import difflib
import errno
import importlib
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from lastwords import __version__
from lastwords.errors import JournalError
from lastwords.runtime import identity
from lastwords.runtime.guard import passive

from . import output

if TYPE_CHECKING:
    from lastwords.engine import Engine

VERBS = ("status", "list", "flush", "replay", "dead", "prune", "doctor", "courier", "watch", "web", "setup", "guide")


class Verbs(click.Group):
    """The group of verbs. ``main`` never lets a traceback of ours out; see the module."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"{__package__}.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if (
            args and args[0] not in VERBS and not args[0].startswith("-")
        ):  # click knows only commands that it has loaded
            near = difflib.get_close_matches(args[0], VERBS, 2)
            hint = f"; did you mean {' or '.join(near)}?" if near else f": the verbs are {', '.join(VERBS)}"
            ctx.fail(f"no such verb {args[0]!r}{hint}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # here, because click's main would end with 1
            output.silence()
            ctx.exit(128 + 13)

    def main(self, *args: Any, standalone_mode: bool = True, **kwargs: Any) -> Any:
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):  # an entry may hold what this terminal's encoding does not
                stream.reconfigure(errors="backslashreplace")
        before = _engines()
        try:
            with passive(), identity.strict():
                code = super().main(*args, standalone_mode=False, **kwargs)  # type: ignore[call-overload]
            if sys.stdout is not None:  # `>&-`
                sys.stdout.flush()
        except Exception as error:
            code = _code_of(error)
            if code is None:
                raise
        finally:
            for engine in _engines() - before:
                engine.abandon()
        if standalone_mode:
            sys.exit(code or 0)
        return code or 0


def _engines() -> set[Engine]:
    """The DurableHandlers' engines of this process; imports nothing for it."""
    module = sys.modules.get("lastwords.engine")
    return set() if module is None else module.open_engines()


def _code_of(error: Exception) -> int | None:
    """Say what happened in one line; the exit code, or None if it is a defect of ours."""
    if isinstance(error, JournalError):
        output.complain(error)
        return error.exit_code
    if isinstance(error, click.exceptions.Abort):
        return 130  # Ctrl-C, or end of file at a question
    if isinstance(error, click.ClickException):
        error.message = output.plain(error.message, keep="\n\t")  # type: ignore[misc]  # may quote a journal
        try:
            error.show()
        except OSError:  # click's own words, and a stderr that nobody can write to
            output.silence("stderr")
        return error.exit_code
    if isinstance(error, OSError) and error.errno == errno.EPIPE:
        output.silence()
        return 128 + 13
    if isinstance(error, OSError) and error.errno in output.UNWRITABLE and error.filename is None:  # click's --help
        output.silence()
        return _code_of(output.unwritable("stdout", error))
    return None


@click.group(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=output.verbatim(
        """Exit codes:

  0   done, or another live process delivers
  75  entries remain, or the disk is full
  65  this run buried an entry or met damage
  66  no such journal (a pattern that matches nothing is 0)
  74  what was to be printed cannot be written
  77  no permission
  78  bad configuration
  2   wrong usage

Of several journals, the first of 78, 77, 66, 65, 75 that applies."""
    ),
)
@click.version_option(__version__, prog_name="lastwords")
def cli() -> None:
    """Look after lastwords journals: what is in them, what is stuck, and getting it delivered.

    A journal is the SQLite file that a lastwords.DurableHandler writes log records to before it delivers them. These
    commands work beside a running service, and after it is gone.
    """


def _fill_standard_descriptors() -> None:
    """Where 0, 1 or 2 is closed, the next file would be opened as that: a lock, into which somebody then prints.

    ``sys.stdout`` stays None, so that ``--to stdout:`` does not take entries for written.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)


def main() -> None:
    """The console script."""
    _fill_standard_descriptors()
    try:
        cli.main(prog_name="lastwords")
    except SystemExit as ending:
        if output.threads_left_behind():
            # A target hangs. Its daemon thread may hold locks that the interpreter's end would wait for.
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError, AttributeError):
                    stream.flush()
            os._exit(ending.code if isinstance(ending.code, int) else 1)
        raise
