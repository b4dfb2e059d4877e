"""Packets that get lost and a link that is slow: the default leases outlast what that costs, and nothing moves. The
leader may change, as a few packets lost in a row look like its death; that moves no task."""

import pytest

from tests.harness.runs import assert_no_overlap
from tests.partition.lab import Lab
from tests.partition.scene import MEMBERS, goes_on, key, lossy, writing
from tests.scenarios.conftest import Group

pytestmark = [pytest.mark.lab, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

DOCUMENTS = 1000


@pytest.fixture(scope="module")
def profile() -> str:
    """Leases that outlast some packets that are lost one after the other."""
    return "default"


async def test_a_twentieth_of_the_packets_lost_and_a_slow_link_move_nothing(lab: Lab, group: Group) -> None:
    holders = await group.holders()
    lossy(lab, percent=5)
    lab.network.slow("B", 2000)
    async with writing(group, "A") as writer:
        await writer.some(DOCUMENTS)
        await goes_on(group, writer, *holders)
    for tag in MEMBERS:
        await group.has_rows(f"on{tag}", writer.count)
    decided = await lab.call("GET", f"/admin/cluster/observer/decisions?database={group.name}")
    assert decided["ObserverLog"] == []
    assert await group.holders() == holders
    assert_no_overlap(lab.runs(), [key(group, f"on{tag}") for tag in MEMBERS])
