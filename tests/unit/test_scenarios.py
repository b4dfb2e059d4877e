"""The page of scenarios names every numbered test, and each scenario and check has one."""

import re
from collections import defaultdict
from collections.abc import Collection

import pytest

from config.__main__ import ROOT

SCENARIOS = range(1, 65)
CHECKS = {*range(1, 5), *range(6, 17), *range(31, 36), 40}
"""Those that concern the kinds that there are."""
HEAD_OF_CHECKS = "\n## Checks of tasks\n"
ROW = re.compile(r"(?m)^\| (\d+) \|.*\| ([^|]*) \|$")


@pytest.mark.parametrize(("word", "numbers"), [("scenario", SCENARIOS), ("check", CHECKS)])
def test_each_has_the_tests_that_its_row_names(word: str, numbers: Collection[int]) -> None:
    scenarios, _, checks = (ROOT / "docs/scenarios.md").read_text(encoding="utf-8").partition(HEAD_OF_CHECKS)
    rows = ROW.findall(checks if word == "check" else scenarios)
    named = {int(number): set(re.findall(r"`([^`]+)`", files)) for number, files in rows}
    numbered = re.compile(rf"(?m)^(?:async )?def test_{word}_((?:\d\d_)+)")
    found = defaultdict(set)
    for file in (ROOT / "tests").rglob("*.py"):
        for several in numbered.findall(file.read_text(encoding="utf-8")):
            for number in several.strip("_").split("_"):
                found[int(number)].add(str(file.relative_to(ROOT)))
    assert sorted(named) == sorted(numbers)
    assert named == dict(found)
