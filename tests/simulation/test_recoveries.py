"""Worlds that are recovered by hand keep every promise. `test_broken_variants` leaves out the rules of the recovery."""

import re

import pytest

from tests.simulation.recovery_variants import SECONDS
from tests.simulation.test_seeds import simulate
from tests.simulation.worst import KINDS

SEEDS = 16
LIMIT_S = 240


@pytest.mark.timeout(LIMIT_S)
@pytest.mark.parametrize("recovery", sorted(KINDS))
async def test_what_survives_a_recovery_stands_and_life_goes_on(recovery: str) -> None:
    code, printed = await simulate("--recovery", recovery, "--seeds", str(SEEDS), "--seconds", str(SECONDS))
    *_, counted, last = printed.splitlines()
    assert (code, last.endswith("0 with violations: none")) == (0, True), printed[-4000:]
    found = re.match(r"(\d+) acknowledged before, (\d+) of these lost", counted)
    assert found is not None
    acknowledged, lost = int(found[1]), int(found[2])
    assert 0 < lost < acknowledged, "worlds in which nothing may be lost, or all, show nothing"
    print(counted, last)


@pytest.mark.parametrize("recovery", sorted(KINDS))
async def test_a_recovered_world_has_the_same_trace_each_time(recovery: str) -> None:
    arguments = ("--recovery", recovery, "--seed", "3", "--seconds", str(SECONDS))
    first, second = [await simulate(*arguments) for _ in range(2)]
    assert first == second
    assert first[0] == 0
    assert "begins anew at" in first[1]
