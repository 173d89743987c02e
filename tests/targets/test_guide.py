"""The manual has every knob of every URL."""

import importlib
import pathlib
import re

import pytest

import lastwords

GUIDE = pathlib.Path(lastwords.__file__).parent / "guide"


@pytest.mark.parametrize(
    ("page", "module"),
    [("targets", "urls.http"), ("targets", "urls.otlp"), ("targets", "urls.syslog"), ("mail", "digest.smtp_digest")],
)
def test_every_knob_of_a_url_is_in_the_manual(page, module):
    """By its name, as code."""
    text = (GUIDE / f"{page}.md").read_text()
    knobs = importlib.import_module(f"lastwords.targets.{module}").KNOBS
    names = set().union(*knobs.values()) if "syslog" in module else set(knobs)
    assert [name for name in sorted(names) if not re.search(rf"`{name}[`=]", text)] == []


def test_every_field_of_the_json_is_in_the_manual(entry):
    """With what it means."""
    from lastwords.targets.wording import fields

    text = (GUIDE / "targets.md").read_text()
    assert [name for name in fields(entry()) if f"`{name}`" not in text] == []
