"""Nodes that stand still: given up when it lasts, and never acting on what they had before."""

import signal

import pytest

from tests.harness.runs import assert_no_overlap, machine_ns
from tests.partition.lab import Lab
from tests.partition.scene import MEMBERS, goes_on, key, lead, moved, returned, writing
from tests.scenarios.conftest import Group

pytestmark = [pytest.mark.lab, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

LEASE_MS, STOP_MS, REHAB_MS = 450, 2500, 3500
either = pytest.mark.parametrize("leader", ["C", "B"], ids=["a follower", "the leader"])


@pytest.fixture(scope="module")
def flags() -> tuple[str, ...]:
    """So much time to stop that a test can thaw a node in it, on a busy machine too."""
    stop = ("--cluster.task-stop-timeout-ms", str(STOP_MS))
    return (*stop, "--cluster.time-before-moving-to-rehab-ms", str(REHAB_MS))


@either
async def test_a_frozen_node_is_given_up_and_what_is_left_of_it_does_nothing_when_it_is_thawed(
    lab: Lab, group: Group, leader: str
) -> None:
    await lead(lab, leader)
    async with writing(group, "AE") as writer:
        await lab.freeze("B")
        await moved(group, "onB", "B", [tag for tag in lab.nodes if tag != "B"])
        await goes_on(group, writer, "onB")
        lab.thaw("B")
        assert await lab.died("B") == -signal.SIGKILL, "the kernel timer ends a frozen process whose bodies outlived it"
        await lab.restart("B")
        await returned(group)
    for tag in MEMBERS:
        await group.has_rows(f"on{tag}", writer.count)
    assert_no_overlap(lab.runs(), [key(group, f"on{tag}") for tag in MEMBERS])


@either
async def test_a_node_that_is_thawed_after_its_lease_and_before_its_death_begins_anew_and_nothing_moves(
    lab: Lab, group: Group, leader: str
) -> None:
    await lead(lab, leader)
    async with writing(group, "AE") as writer:
        before = await group.epochs()
        await lab.freeze("B")
        ends_ns = machine_ns() + LEASE_MS * 1_000_000
        await lab.wait_until(lambda: machine_ns() > ends_ns, "the end of B's lease")
        lab.thaw("B")

        async def anew() -> bool:
            task = await group.task("onB")
            return bool(task["Holder"] == "B" and int(task["Epoch"]) > before["onB"])

        await lab.wait_until(anew, "a new run on B")
        await goes_on(group, writer, "onB")
        assert lab.ended("B") is None
        assert set((await lab.topology(group.name))["Members"]) == set(MEMBERS)
        if leader != "B":
            assert {name for name, epoch in (await group.epochs()).items() if epoch != before[name]} == {"onB"}
    for tag in MEMBERS:
        await group.has_rows(f"on{tag}", writer.count)
    runs = lab.runs()
    assert {interval.node for interval in runs[key(group, "onB")]} == {"B"}
    assert_no_overlap(runs, [key(group, f"on{tag}") for tag in MEMBERS])
