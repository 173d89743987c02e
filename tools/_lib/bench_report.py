"""What tools/bench measures come back as, and how they are shown."""

import dataclasses
import json
import sys
import time

MARKS = {True: "met", False: "MISSED", None: ""}


@dataclasses.dataclass
class Row:
    """One line of the table. ``ok``: is the goal met; None: there is none, or it was not measured."""

    what: str
    goal: str
    value: str
    ok: bool | None
    details: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Bench:
    """What each measure gets. ``rounds``: of interleaved slices. ``folder``: for files, removed at the end."""

    quick: bool
    rounds: int
    rng: object
    folder: str
    python: str = sys.executable
    broken: str = ""  # a negative control
    began: float = dataclasses.field(default_factory=time.monotonic)
    until: float = float("inf")  # no further round begins after that

    def each_round(self, count, what):
        """Number the rounds of a measure from 0, fewer than ``count`` if its time is over; one at least."""
        for turn in range(count):
            if turn and time.monotonic() > self.until:
                self.say("%s: no time for more than %d of %d rounds" % (what, turn, count))
                return
            self.say("%s: round %d of %d" % (what, turn + 1, count))
            yield turn

    def say(self, text):
        """Progress, for the one who waits."""
        print("[%4.0f s] %s" % (time.monotonic() - self.began, text), file=sys.stderr, flush=True)


def table(rows):
    """The rows as text; one column each for what, value, goal and whether it is met."""
    cells = [("what", "measured", "goal", "")] + [(row.what, row.value, row.goal, MARKS[row.ok]) for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(3)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), line[1].ljust(widths[1]), line[2].ljust(widths[2]), line[3]]).rstrip()
        for line in cells
    )


def columns(lines, head):
    """A table of numbers: the first column to the left, the others to the right."""
    lines = [head, *lines]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]).rstrip()
        for line in lines
    )


def write_json(path, facts, rows):
    with open(path, "w") as f:
        json.dump({**facts, "rows": [dataclasses.asdict(row) for row in rows]}, f, indent=1)
        f.write("\n")
