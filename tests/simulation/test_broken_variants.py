"""The simulated world notices when a rule is left out, and nothing in the same accidents when it is kept.

Each hunt runs in a process of its own with one fixed hash of strings, so that its seeds mean the same every time.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.simulation import hunt, recovery_variants

ROOT = Path(__file__).resolve().parents[2]
SEEDS_MAX = 40
LIMIT_S = 240
HUNTERS = {rule: hunter.__name__ for hunter in (hunt, recovery_variants) for rule in sorted(hunter.RULES)}
"""Each rule, and the module that looks for a seed which notices that it is left out."""


def hunted(rule: str) -> tuple[int, str]:
    """The exit code of the hunt and what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", HUNTERS[rule], rule, "--seeds", str(SEEDS_MAX)],
        cwd=ROOT,
        env=dict(os.environ) | {"PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def hunts() -> Iterator[dict[str, "Future[tuple[int, str]]"]]:
    """All hunts, as many at once as there are cores."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield {rule: pool.submit(hunted, rule) for rule in HUNTERS}
        pool.shutdown(cancel_futures=True)


@pytest.mark.timeout(LIMIT_S + 10)
@pytest.mark.parametrize("rule", HUNTERS)
def test_a_world_notices_that_a_rule_is_left_out_and_nothing_when_it_is_kept(
    rule: str, hunts: dict[str, "Future[tuple[int, str]]"]
) -> None:
    code, printed = hunts[rule].result()
    assert (code, f"{rule}: seed" in printed) == (1, True), printed
