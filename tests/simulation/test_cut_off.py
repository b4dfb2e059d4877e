"""Worlds in which runs go on beside their successors, as their kind may: each is told of, and nothing else overlaps."""

import asyncio
import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SEEDS = 2
PROGRAM = """
import json, sys
from tests.simulation import directed
from tests.simulation.world import simulate
result = simulate(int(sys.argv[1]), change=directed.cut_off)
print(json.dumps({"breaches": result.breaches, "went on": result.counts["runs that went on"]}))
"""


async def lived(seed: int) -> dict[str, object]:
    """What became of the seed's world, in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, str(seed), cwd=ROOT, env=dict(os.environ) | {"PYTHONHASHSEED": "0"},
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    printed, _ = await process.communicate()
    result: dict[str, object] = json.loads(printed)
    return result


async def test_runs_that_go_on_in_a_partition_are_told_of() -> None:
    worlds = [await lived(seed) for seed in range(1, SEEDS + 1)]
    assert [world["breaches"] for world in worlds] == [[]] * SEEDS
    assert any(world["went on"] for world in worlds)
