"""Background tasks: none ends unseen, and none is made in any other way."""

import ast
import asyncio
from pathlib import Path

import pytest

from raftnode.foundation import background
from raftnode.foundation.background import TaskEnded, kept, set_or_after, watched

ROOT = Path(__file__).resolve().parents[3]
AWAITED_OR_SAID_WHERE_MADE = {
    "raftnode/cluster/announce.py",
    "raftnode/scripting/sandbox.py",
    "tasks/etl/runner.py",
    "tasks/kinds/backup/task.py",
    "tasks/runtime/subprocesses.py",
    "tasks/sinks/sql/pool.py",
    "tasks/sinks/sql/sink.py",
}
MAKERS = {"create_task", "ensure_future", "run_coroutine_threadsafe"}


async def _failing() -> None:
    raise RuntimeError("a defect")


async def _ending() -> None:
    pass


async def _stray() -> None:
    raise asyncio.CancelledError


@pytest.mark.parametrize(("work", "kind"), [(_failing, RuntimeError), (_ending, TaskEnded), (_stray, TaskEnded)])
async def test_whoever_is_responsible_is_told_of_an_end(work: object, kind: type[Exception]) -> None:
    told: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
    watched(work(), "part", told.set_result)  # type: ignore[operator]
    assert isinstance(await told, kind)


async def test_a_task_that_may_end_or_is_cancelled_tells_nobody() -> None:
    told: list[Exception] = []
    ends = watched(_ending(), "part", told.append, may_end=True)
    waits = watched(asyncio.sleep(3600), "part", told.append)
    await ends
    waits.cancel()
    await asyncio.wait([waits])
    await asyncio.sleep(0)
    assert told == []


@pytest.mark.parametrize("work", [_failing, _ending, _stray])
async def test_a_kept_task_is_begun_again_until_it_is_cancelled(work: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "PAUSE_MIN_S", 0.001)
    monkeypatch.setattr(background, "PAUSE_MAX_S", 0.001)
    thrice = asyncio.Event()
    lives = 0

    async def lived() -> None:
        nonlocal lives
        lives += 1
        if lives == 3:
            thrice.set()
        await work()  # type: ignore[operator]

    task = kept(lived, "part")
    await thrice.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


def test_no_task_is_made_but_in_a_group_or_by_these() -> None:
    found = []
    for top in ("raftnode", "observer", "tasks", "config"):
        for path in sorted((ROOT / top).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if name == "raftnode/foundation/background.py" or name in AWAITED_OR_SAID_WHERE_MADE:
                continue
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MAKERS:
                    owner = ast.unparse(node.func.value)
                    if not owner.endswith("group"):
                        found.append(f"{name}:{node.lineno}: {owner}.{node.func.attr}")
    assert found == [], "use raftnode.foundation.background, or a TaskGroup"


async def test_a_wait_ends_when_the_event_is_set_or_after_the_time() -> None:
    event = asyncio.Event()
    await set_or_after(event, 0)
    assert event.is_set(), "by the wait itself"
    event.clear()
    asyncio.get_running_loop().call_soon(event.set)
    async with asyncio.timeout(60):
        await set_or_after(event, 3600)
    event.clear()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await set_or_after(event, None)
    assert not event.is_set()
