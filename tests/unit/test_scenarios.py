"""The page of scenarios names every numbered test, and each scenario has one."""

import re
from collections import defaultdict

from config.__main__ import ROOT

SCENARIOS = 64
ROW = re.compile(r"(?m)^\| (\d+) \|.*\| ([^|]*) \|$")
TEST = re.compile(r"(?m)^(?:async )?def test_scenario_((?:\d\d_)+)")


def test_each_scenario_has_the_tests_that_its_row_names() -> None:
    named = {
        int(number): set(re.findall(r"`([^`]+)`", files))
        for number, files in ROW.findall((ROOT / "docs/scenarios.md").read_text(encoding="utf-8"))
    }
    found = defaultdict(set)
    for file in (ROOT / "tests").rglob("*.py"):
        for numbers in TEST.findall(file.read_text(encoding="utf-8")):
            for number in numbers.strip("_").split("_"):
                found[int(number)].add(str(file.relative_to(ROOT)))
    assert sorted(named) == list(range(1, SCENARIOS + 1))
    assert named == dict(found)
