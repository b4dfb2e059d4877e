"""A broadcast wakes all that wait when it is made, and nobody else."""

import asyncio

from raftnode.foundation.broadcast import Broadcast


async def test_all_that_wait_are_woken_and_who_comes_later_waits_for_the_next() -> None:
    changed, woken = Broadcast(), list[str]()

    async def waits(name: str) -> None:
        await changed.wait()
        woken.append(name)

    async with asyncio.TaskGroup() as group:
        group.create_task(waits("a"))
        group.create_task(waits("b"))
        await asyncio.sleep(0)
        changed.notify_all()
        late = group.create_task(waits("late"))
        for _ in range(5):
            await asyncio.sleep(0)
        assert (sorted(woken), late.done()) == (["a", "b"], False)
        changed.notify_all()
    assert sorted(woken) == ["a", "b", "late"]


async def test_one_that_gives_up_waiting_leaves_the_others_their_broadcast() -> None:
    changed = Broadcast()
    patient = asyncio.ensure_future(changed.wait())
    hasty = asyncio.ensure_future(changed.wait())
    await asyncio.sleep(0)
    hasty.cancel()
    changed.notify_all()
    await patient
    assert (await asyncio.wait([hasty]))[0].pop().cancelled()
