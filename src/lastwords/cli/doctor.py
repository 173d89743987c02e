"""``lastwords doctor``: everything that can be checked about a journal without changing it."""

# ruff: noqa: PLC0415 - what is heavy is imported when a verb runs: --help must not pay for it
from __future__ import annotations

from typing import TYPE_CHECKING

import click

from . import options, output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .doctor_checks import Finding

EXAMPLES = """
lastwords doctor /var/lib/app/mail.db
lastwords doctor --config /etc/app/logging.toml
lastwords doctor --quick --json '/var/lib/app/*.db'
"""
MARKS = {"ok": "ok  ", "warning": "WARN", "damage": "FAIL"}


def _print(path: str, findings: Sequence[Finding]) -> None:
    """A finding a line, the worst first; damage that several checks met is said once."""
    output.echo(output.plain(path))
    names: dict[Finding, str] = {}
    for finding in sorted(findings, key=lambda finding: ("damage", "warning", "ok").index(finding.verdict)):
        same = next((one for one in names if one[1:] == finding[1:] and finding.verdict == "damage"), None)
        if same is None:
            names[finding] = finding.check
        elif finding.check not in names[same]:
            names[same] += f", {finding.check}"
    for finding, name in names.items():
        hint = f"; {finding.hint}" if finding.hint and finding.verdict != "ok" else ""
        output.echo(output.plain(f"  {MARKS[finding.verdict]}  {name}: {finding.text}{hint}"))


@click.command(epilog=output.examples(EXAMPLES))
@options.journals
@options.of_config
@click.option("--quick", is_flag=True, help="Leave out what reads the whole file: pages, checksums and the recount.")
@options.json_
def command(*, journals: tuple[str, ...], config: str | None, handler: str | None, quick: bool, as_json: bool) -> None:
    """Check all that can be checked about a journal.

    Its pages, checksums, counts, ids, lease, place and permissions, the room on its disk. Changes nothing, and is safe
    beside a running service. Says what to type; TARGET there is where the entries go, as for flush --to. Exit code 65
    if there is damage; warnings are 0.
    """
    from lastwords.cli import doctor_checks
    from lastwords.errors import JournalError

    codes = [0]
    said = []
    for path in options.named_by(journals, config, handler):
        try:
            findings = doctor_checks.examine(path, quick=quick)
        except JournalError as error:
            output.complain(error)
            codes.append(error.exit_code)
            said.append({"journal": path, "error": str(error), "exit_code": error.exit_code, "findings": []})
            continue
        code = 65 if any(finding.verdict == "damage" for finding in findings) else 0
        codes.append(code)
        said.append(
            {"journal": path, "error": None, "exit_code": code, "findings": [finding._asdict() for finding in findings]}
        )
        if not as_json:
            _print(path, findings)
    if as_json:
        output.echo(output.as_json(said))
    output.leave(output.worst(codes))
