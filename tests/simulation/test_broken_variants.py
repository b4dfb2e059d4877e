"""The simulated world notices when a rule is left out, and nothing in the same accidents when it is kept.

Each hunt runs in a process of its own with one fixed hash of strings, so that its seeds mean the same every time.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.simulation import hunt, recovery_variants

ROOT = Path(__file__).resolve().parents[2]
SEEDS_MAX = 40
LIMIT_S = 240
HUNTERS = {rule: hunter.__name__ for hunter in (hunt, recovery_variants) for rule in sorted(hunter.RULES)}
"""Each rule, and the module that looks for a seed which notices that it is left out."""


class Hunts:
    """All hunts, as they end."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self._found: dict[str, tuple[int, str]] = {}

    def of(self, rule: str) -> tuple[int, str]:
        """Waits for the rule's hunt: its exit code and what it printed."""
        assert self._process.stdout is not None
        while rule not in self._found:
            line = self._process.stdout.readline()
            assert line, f"the hunts ended with {self._process.wait()}"
            ended, code, printed = json.loads(line)
            self._found[ended] = code, printed
        return self._found[rule]


@pytest.fixture(scope="module")
def hunts() -> Iterator[Hunts]:
    """All hunts, as many at once as there are cores."""
    named = [f"{module}:{rule}" for rule, module in HUNTERS.items()]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.simulation.hunts", str(SEEDS_MAX), *named],
        cwd=ROOT,
        env=dict(os.environ) | {"PYTHONHASHSEED": "0"},
        stdout=subprocess.PIPE,
        text=True,
    )
    yield Hunts(process)
    process.terminate()
    process.communicate()


@pytest.mark.timeout(LIMIT_S)
@pytest.mark.parametrize("rule", HUNTERS)
def test_a_world_notices_that_a_rule_is_left_out_and_nothing_when_it_is_kept(rule: str, hunts: Hunts) -> None:
    code, printed = hunts.of(rule)
    assert (code, f"{rule}: seed" in printed) == (1, True), printed
