"""The ends matrix of README, made from what the tests said. Run by hand after a change of tests/faults/test_ends.py:

    python tools/_lib/ends_matrix.py

Runs those tests on every supported Python and writes the table between the two markers in README.md. The tests check
that the table names just the ends there are (tests/project/test_readme.py).
"""

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import environments

BEGIN, END = "<!-- ends: made by tools/_lib/ends_matrix.py -->", "<!-- /ends -->"


def results(python, version):
    """{name of the end: True if it passed} on one Python."""
    inner = environments.environment(python, version)
    report = os.path.join(environments.ROOT, ".cache", "ends-%s.xml" % environments.text_of(version))
    os.makedirs(os.path.dirname(report), exist_ok=True)
    subprocess.run(
        [inner, "-m", "pytest", "-q", "-n", "2", "tests/faults/test_ends.py", "--junitxml", report],
        cwd=environments.ROOT,
        check=False,
    )
    found = {}
    for case in ET.parse(report).iter("testcase"):
        match = re.search(r"\[(.*)\]$", case.get("name"))
        name = match.group(1) if match else case.get("name").removeprefix("test_").replace("_", " ")
        found[name] = len(case) == 0
    return found


def table(groups, by_version):
    """Markdown: a row for each group, a column for each Python."""
    lines = ["| ways of ending | " + " | ".join(map(environments.text_of, by_version)) + " |"]
    lines.append("|---|" + "---|" * len(by_version))
    for group, names in groups.items():
        cells = ["%d of %d" % (sum(found.get(n, False) for n in names), len(names)) for found in by_version.values()]
        lines.append("| **%s**: %s | %s |" % (group, "; ".join(names), " | ".join(cells)))
    return "\n".join(lines)


def main():
    sys.path.insert(0, os.path.join(environments.ROOT, "tests", "faults"))
    from ends_groups import GROUPS

    by_version = {version: results(python, version) for version, python in environments.supported().items()}
    path = os.path.join(environments.ROOT, "README.md")
    with open(path) as f:
        text = f.read()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    with open(path, "w") as f:
        f.write(before + BEGIN + "\n" + table(GROUPS, by_version) + "\n" + END + after)


if __name__ == "__main__":
    main()
