"""The simulated world notices when a rule is left out, and notices nothing in the same accidents with the rule kept.

Each hunt runs in a process of its own with one fixed hash of strings, so that its seeds mean the same every time.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.hunt import RULES

ROOT = Path(__file__).resolve().parents[2]
SEEDS_MAX = 40
SEEDS_KEPT = 3
LIMIT_S = 240

CAUGHT = (
    "R",
    "wait2L",
    "silence",
    "echo",
    "authority",
    "held",
    "finished",
    "rel_epoch",
    "stop_first",
    "incarnation",
    "watchdog",
    "claim_lives",
    "clock",
    "fence_first",
    "journal_sync",
    "stored_vote",
)
ONE_OF_EACH_WORLD = sorted({schedule: rule for rule, (_, schedule) in RULES.items()}.values())


def hunt(*arguments: str) -> tuple[int, str]:
    """The exit code of the hunt and what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulation.hunt", *arguments],
        cwd=ROOT,
        env=dict(os.environ) | {"PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.timeout(LIMIT_S + 10)
@pytest.mark.parametrize("rule", CAUGHT)
def test_a_world_notices_that_a_rule_is_left_out(rule: str) -> None:
    code, printed = hunt(rule, "--seeds", str(SEEDS_MAX))
    assert (code, f"{rule}: seed" in printed) == (1, True), printed


@pytest.mark.timeout(LIMIT_S + 10)
@pytest.mark.parametrize("rule", ONE_OF_EACH_WORLD)
def test_nothing_is_noticed_while_every_rule_is_kept(rule: str) -> None:
    code, printed = hunt(rule, "--kept", "--seeds", str(SEEDS_KEPT))
    assert (code, "notice nothing" in printed) == (0, True), printed
