"""``lastwords setup``: prints what an operator would otherwise write by hand, and installs nothing.

Rules
-----
* What is printed works as it stands: absolute paths, the user, quoting for whoever reads it (systemd's ``%``, cron's).
* A configuration may name modules and relative paths, and ``--to`` a module: then it starts where ``setup`` was called.
  If that is plainly not the service's folder, as a relative journal is not there, nothing is printed.
* No credential is ever printed into a unit or a crontab, which others can read: a URL that has one is refused.
"""

# ruff: noqa: PLC0415 - what is heavy is imported when a verb runs: --help must not pay for it
from __future__ import annotations

import os
import shlex
import shutil
import sys
from typing import TYPE_CHECKING

import click

from . import options, output, setup_texts

if TYPE_CHECKING:
    from collections.abc import Callable

EXAMPLES = """
lastwords setup systemd --config /etc/app/logging.toml
lastwords setup systemd --courier --to https://logs.my.org/in /var/lib/apps
lastwords setup cron --config /etc/app/logging.toml
lastwords setup prometheus > /etc/prometheus/rules/lastwords.yml
lastwords setup prometheus --dashboard > lastwords-dashboard.json
lastwords setup logrotate /var/log/app.log
lastwords setup completion bash >> ~/.bashrc
lastwords setup man | man -l -
"""


def _examples(word: str) -> str:
    """Those of one of its verbs."""
    return output.examples("\n".join(line for line in EXAMPLES.splitlines() if f" setup {word} " in line))


@click.group(epilog=output.examples(EXAMPLES))
def command() -> None:
    """Print units, cron lines, alert rules, shell completion, a man page. Prints only: nothing is installed."""


def _program() -> list[str]:
    """How to call us with an absolute path."""
    for found in (sys.argv[0], shutil.which("lastwords")):
        if found and os.path.basename(found) == "lastwords" and os.path.isfile(found):
            return [os.path.abspath(found)]
    import zipfile

    if zipfile.is_zipfile(sys.argv[0]):  # shiv, pex: out of their own archive only
        return [sys.executable, os.path.abspath(sys.argv[0])]
    return [sys.executable, "-m", "lastwords"]


def _user() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # a container's user without a name
        return str(os.geteuid())


def _delivery(to: str | None, config: str | None, journals: tuple[str, ...]) -> list[str]:
    """The arguments that say from where and to where; absolute, and without a secret. Raises click.UsageError."""
    if (to is None) == (config is None):
        raise click.UsageError("say where to deliver: either --to or --config", click.get_current_context())
    if to is not None:
        from lastwords.targets.urls import secret

        if secret.shown(to) != to:
            raise click.UsageError(
                "--to holds a credential, and what is printed here is read by others: leave it out, and set"
                " LASTWORDS_USERNAME and LASTWORDS_PASSWORD in an EnvironmentFile= of mode 0600",
                click.get_current_context(),
            )
        if not journals:
            raise click.UsageError("name at least one JOURNAL", click.get_current_context())
    if config is not None and (os.sep in config or os.path.isfile(config)):
        config = os.path.abspath(os.path.expanduser(config))
    if config is not None and not journals:
        _refuse_relative(config)
    places = [os.path.abspath(os.path.expanduser(name)) for name in journals]
    return [*(("--to", to) if to is not None else ("--config", str(config))), *places]


def _refuse_relative(config: str) -> None:
    """The lines start in this folder: `flush` would refuse a relative journal that is not in it, each minute."""
    from .delivering.config import Configuration

    try:
        wrong = Configuration(config).relative
    except (output.Misconfigured, OSError) as error:  # it may be for another machine, or be written later
        output.complain(f"cannot be looked at from here, so its journals were not checked: {error}")
        return
    for name, text in wrong.items():
        raise output.Misconfigured(
            f"--config {config}: handler {name!r}: {text}; what is printed starts where `lastwords setup` is called, so"
            " call it there, once the service has made its journal, or make the path absolute"
        )


def _place(to: str | None, config: str | None) -> tuple[str | None, dict[str, str]]:
    """The folder in which it must be started, None for any, and the variables that it needs there."""
    from lastwords.targets.urls.from_url import is_url

    folder = None if config is None and is_url(to or "") else os.getcwd()
    django = os.environ.get("DJANGO_SETTINGS_MODULE")
    return folder, {"DJANGO_SETTINGS_MODULE": django} if folder is not None and django else {}


def _options(function: Callable[..., None]) -> Callable[..., None]:
    user = click.option("--user", metavar="NAME", help="Who it runs as: the user of the service. Default: you.")
    journals = click.argument("journals", nargs=-1, metavar="[JOURNAL]...")
    return options.named(options.to, options.config, user, journals)(function)


@command.command(epilog=_examples("systemd"), short_help="Print systemd units: a timer, or --courier.")
@_options
@click.option("--courier", is_flag=True, help="A service that stays and delivers at once, instead of a timer.")
def systemd(*, to: str | None, config: str | None, user: str | None, journals: tuple[str, ...], courier: bool) -> None:
    """Print systemd units: a timer that flushes every minute, or --courier.

    Each file begins with a line that says where to put it.
    """
    arguments = _delivery(to, config, journals)
    verb = ["courier"] if courier else ["flush", "--quiet", "--timeout", "50"]
    line = " ".join(setup_texts.systemd_word(word) for word in [*_program(), *verb, *arguments])
    units = setup_texts.COURIER_UNIT if courier else setup_texts.FLUSH_UNITS
    place = setup_texts.systemd_place(*_place(to, config))
    output.echo(setup_texts.fill(units, command=line, user=user or _user(), place=place), nl=False)


@command.command(epilog=_examples("cron"))
@_options
def cron(*, to: str | None, config: str | None, user: str | None, journals: tuple[str, ...]) -> None:
    """Print the line for a crontab, in both of its forms."""
    arguments = _delivery(to, config, journals)
    words = [*_program(), "flush", "--quiet", "--timeout", "50", *arguments]
    folder, variables = _place(to, config)
    before = "" if folder is None else f"cd {shlex.quote(folder)} && "
    before += "".join(f"{name}={shlex.quote(value)} " for name, value in variables.items())
    line = (before + shlex.join(words)).replace("%", r"\%")  # crontab(5): a % is a line break
    output.echo(setup_texts.fill(setup_texts.CRON, command=line, user=user or _user()), nl=False)


@command.command(epilog=_examples("prometheus"), short_help="Print alert rules, or a Grafana dashboard.")
@click.option("--dashboard", is_flag=True, help="Print a Grafana dashboard (JSON, to be imported) instead.")
def prometheus(*, dashboard: bool) -> None:
    """Print alert rules for what `status --format prometheus` and `courier --metrics` tell."""
    if dashboard:
        output.echo(output.as_json(setup_texts.dashboard()))
    else:
        output.echo(setup_texts.ALERTS, nl=False)


@command.command(epilog=_examples("logrotate"), short_help="Print a logrotate entry for the FILEs.")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
def logrotate(*, files: tuple[str, ...]) -> None:
    """Print a logrotate entry for the FILEs that file: targets and FileHandlers write."""
    names = " ".join(shlex.quote(os.path.abspath(os.path.expanduser(name))) for name in files)
    output.echo(setup_texts.fill(setup_texts.LOGROTATE, files=names), nl=False)


@command.command(epilog=_examples("completion"))
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(*, shell: str) -> None:
    """Print what makes SHELL complete verbs and options."""
    from click.shell_completion import get_completion_class

    from .main import cli

    kind = get_completion_class(shell)
    assert kind is not None
    output.echo(kind(cli, {}, "lastwords", "_LASTWORDS_COMPLETE").source())


@command.command(epilog=_examples("man"), short_help="Print the manual page lastwords(1).")
def man() -> None:
    """Print the manual page lastwords(1): what --help says of all verbs.

    To keep it: lastwords setup man > ~/.local/share/man/man1/lastwords.1
    """
    from lastwords import __version__

    from .main import cli
    from .man_page import page

    output.echo(page(cli, __version__), nl=False)
