"""Many worlds, each of a minute and more, and the same one twice. A thousand are run by `scripts/test --long`."""

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SEEDS, SEEDS_LONG = 50, 1000
LIMIT_S = 900


async def simulate(*arguments: str) -> tuple[int, str]:
    """The command's exit code and what it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "scripts/simulate", *arguments, cwd=ROOT, env=dict(os.environ) | {"PYTHONHASHSEED": "0"},
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(LIMIT_S):
            printed, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, printed.decode()


@pytest.mark.timeout(LIMIT_S + 10)
@pytest.mark.parametrize("seeds", [SEEDS, pytest.param(SEEDS_LONG, marks=pytest.mark.long)])
async def test_many_worlds_keep_every_promise(seeds: int) -> None:
    code, printed = await simulate("--first-seed", "1", "--seeds", str(seeds))
    last = printed.splitlines()[-1]
    assert (code, last.endswith("0 with violations: none")) == (0, True), printed[-4000:]
    assert last.startswith(f"{seeds} seeds from 1, ")
    simulated = re.search(r"(\d+) s simulated", last)
    assert simulated is not None
    assert int(simulated[1]) >= 60 * seeds
    print(last)


async def test_a_seed_gives_the_same_trace_each_time() -> None:
    (first_code, first), (second_code, second) = [await simulate("--seed", "7") for _ in range(2)]
    assert first_code == second_code == 0
    assert re.search(r"trace hash [0-9a-f]{32}", first)
    assert first == second


async def test_another_seed_gives_another_trace() -> None:
    hashes = [(await simulate("--seed", seed, "--seconds", "5"))[1].splitlines()[-1] for seed in ("1", "2")]
    assert hashes[0] != hashes[1]
