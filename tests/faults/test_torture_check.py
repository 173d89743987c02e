"""The judge of tools/torture: each finding it can make, on histories made by hand."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "tools" / "_lib"))
import torture_check

ACKNOWLEDGED = ["w1/0/0", "w1/0/1", "w1/1/0", "w1/0/2"]


def batch(who, number, *entries):
    """Entries as "seq key", under one uuid."""
    split = [entry.split(" ", 1) for entry in entries]
    return {"who": who, "batch": number, "entries": [[f"u-{seq}", f"{key} xxx"] for seq, key in split]}


GOOD = [
    batch("w1", 1, "1 w1/0/0", "2 w1/0/1"),
    batch("c1", 1, "1 w1/0/0", "2 w1/0/1"),  # w1 was killed before its mark
    batch("c1", 2, "3 w1/1/0"),
    batch("c1", 3),  # refused
]
LEFT = [["u-4", "w1/0/2 xxx"]]


def findings(batches=GOOD, pending=LEFT, killed=("w1",), acknowledged=ACKNOWLEDGED):
    return torture_check.judge(acknowledged, batches, pending, set(killed)).findings


def test_a_good_history_has_no_findings():
    """With its figures."""
    verdict = torture_check.judge(ACKNOWLEDGED, GOOD, LEFT, {"w1"})
    assert verdict.findings == []
    assert (verdict.received, verdict.lost, verdict.duplicates, verdict.worst) == (3, 0, 2, 2)


@pytest.mark.parametrize(
    ("wrong", "finding"),
    [
        ({"pending": []}, "1 acknowledged records are neither"),
        ({"acknowledged": [*ACKNOWLEDGED, "w9/0/0"]}, "1 acknowledged records are neither"),
        ({"killed": ()}, "2 entries came twice"),
        ({"killed": ("c1",)}, "2 entries came twice"),
        ({"batches": [*GOOD, batch("c1", 4, "3 w1/1/0")]}, "1 entries came twice"),
        ({"batches": [GOOD[0], batch("w1", 2), *GOOD[1:]]}, "2 entries came twice"),  # it was not in flight any more
        ({"pending": [["u-3", "w1/0/2 xxx"]]}, "1 ids name more than one record"),
        ({"batches": [*GOOD[:2], batch("c1", 2, "5 w1/0/0", "6 w1/1/0")]}, "1 records came under more than one id"),
        ({"batches": [GOOD[2], *GOOD[:2]]}, "2 entries arrived after their successors"),
        ({"batches": [batch("c1", 1, "1 w1/0/1", "2 w1/0/0", "3 w1/1/0")]}, "1 records of one thread arrived in another order"),
        ({"pending": [["u-4", "w1/0/2 xxy"]]}, "1 messages were altered"),
    ],
)  # fmt: skip
def test_each_kind_of_damage_is_found(wrong, finding):
    """One change to the good history, one finding."""
    found = findings(**wrong)
    assert any(text.startswith(finding) for text in found), found
