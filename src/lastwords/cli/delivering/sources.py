"""Which journals to deliver from, and by which way: ``--to`` or ``--config``, and the JOURNAL arguments."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Protocol

import click

from lastwords.errors import JournalError
from lastwords.handler import inside
from lastwords.journal import ownership

from .. import options, output
from . import config, destination
from .job import Job, Way, inspect


class Source(Protocol):
    """Where the targets come from."""

    def paths(self) -> list[str]:
        """The journals to work on."""

    def way(self, job: Job) -> Way:
        """How entries leave ``job.path``. Raises Misconfigured, JournalError."""

    def line(self, path: str) -> str:
        """Journals of one line have one target. Raises Misconfigured for a journal without."""


class FromTo:
    """``--to``: one target for all journals. It is found at once: a wrong one must not wait for an emergency."""

    def __init__(self, to: str, journals: tuple[str, ...]) -> None:
        self._paths = options.required(journals)
        self.target = destination.resolve(to)

    def paths(self) -> list[str]:
        return self._paths

    def line(self, path: str) -> str:
        return ""

    def way(self, job: Job) -> Way:
        job.notes += self.target.warnings
        return Way(self.target)


class FromConfig:
    """``--config``: each journal's own target, as the application has it."""

    def __init__(self, source: str, handler: str | None, journals: tuple[str, ...]) -> None:
        self._configuration = config.Configuration(source)
        self._handler = handler
        self._names: dict[str, str] = {}  # of the handler, by path
        self._built: dict[str, Way] = {}  # by path
        if journals:
            for path in options.expand(journals).paths:
                self._names[path] = self._configuration.for_path(path, handler)
            return
        wanted = [self._configuration.named(handler)] if handler else list(self._configuration.journals)
        for name in wanted:
            if name in self._configuration.relative:
                raise output.Misconfigured(
                    f"--config {source}: handler {name!r}: journal: {self._configuration.relative[name]}"
                )
            path_ = self._configuration.journals[name]
            if path_ is None:  # only the handler itself knows its journal
                path_, self._built[path_] = self._build(name, None)
            self._names[path_] = name

    def paths(self) -> list[str]:
        return list(self._names)

    def line(self, path: str) -> str:
        if path not in self._names:
            self._names[path] = self._configuration.for_path(path, self._handler)
        return self._names[path]

    def way(self, job: Job) -> Way:
        if job.path not in self._built:
            _, self._built[job.path] = self._build(self._names[job.path], job)
        return self._built[job.path]

    def _build(self, name: str, job: Job | None) -> tuple[str, Way]:
        path = self._configuration.journals[name] if job is None else job.path
        if job is not None:
            self._configuration.refuse_elsewhere(name, job.destination)
        with nullcontext() if path is None else ownership.as_owner(path, targets_too=True):
            handler, warned = self._configuration.build(name, None if job is None else job.path)
        engine, target = inside(handler)
        if target is None or engine.courier is None:
            raise output.Misconfigured(f"handler {name!r} has no target (target=None); say where with --to")
        if job is not None:
            job.notes += warned
        knobs = {key: value for key, value in engine.courier.knobs.items() if key != "linger"}
        engine.abandon()
        own = self._configuration.is_of(name, handler.journal)
        return handler.journal, Way(target, knobs, engine.keeper.keep_delivered, engine.journal, of_owner=True, own=own)


def choose(
    to: str | None, config_: str | None, handler: str | None, journals: tuple[str, ...], *, otherwise: str
) -> Source:
    """The source that the options name. ``otherwise``: what to say when there is none."""
    ctx = click.get_current_context()
    given = ctx.get_parameter_source("to") is not click.core.ParameterSource.ENVIRONMENT
    if config_ is not None and to is not None and given:
        raise click.UsageError("--to and --config exclude each other", ctx)
    if handler is not None and config_ is None:
        raise click.UsageError("--handler chooses from a --config", ctx)
    if config_ is not None:
        return FromConfig(config_, handler, journals)
    if to is not None:
        return FromTo(to, journals)
    raise click.UsageError(otherwise, ctx)


def look(source: Source, *, named: bool) -> list[tuple[Job, bool]]:
    """Look at each journal. Of a configuration, those that no service has made yet are left out."""
    found = []
    for path in source.paths():
        job, to_do = inspect(path)
        if not named and job.error is not None and job.error.exit_code == 66:
            continue
        found.append((job, to_do))
    return found


def equip(source: Source, job: Job) -> bool:
    """Give ``job`` its way; False if that failed for this journal alone."""
    job.error = None  # damage, which the delivery finds again, and repairs
    try:
        job.way = source.way(job)
    except JournalError as error:
        job.error = error
    return job.error is None
