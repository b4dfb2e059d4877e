"""Scenario 64, and a node that flaps: what a cut costs when it lasts, and when it comes again and again."""

import asyncio
from itertools import groupby

import pytest

from tests.harness.cluster import PATIENT
from tests.harness.runs import assert_no_overlap, machine_ns
from tests.partition.lab import Lab
from tests.partition.scene import idle_candidate, insert_only, key, lead, moved, returned, tasks, writing
from tests.scenarios.conftest import Group
from tests.scenarios.decisions import decided, messages

pytestmark = [pytest.mark.lab, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

FLAP_SEC = 6
"""Ten flaps a minute."""
CUTS_SEC = (3.0, 4.5, 2.5)
"""Each longer than the limit of silence in PATIENT, so that each alone would move the node's tasks."""


@pytest.fixture(scope="module")
def flags() -> tuple[str, ...]:
    """Promotions wait as long as they do by default."""
    return (*PATIENT, "--cluster.stabilization-time-sec", "5")


async def test_scenario_64_the_task_of_a_node_that_is_isolated_runs_on_another_member_and_the_node_runs_nothing(
    lab: Lab, group: Group
) -> None:
    """Five nodes, the database on A, B and E, the task on B. The node that is cut off says itself that it is a
    Candidate with nothing to run; the others say why the task is where it is."""
    others = [tag for tag in lab.nodes if tag != "B"]
    await lead(lab, "C")
    async with writing(group, "AE"):
        lab.network.isolate("B")
        await idle_candidate(lab, "B")
        await moved(group, "onB", "B", others)
        stopped_ns = machine_ns()
        task = (await tasks(group, others))["onB"]
        assert task["Holder"] in ("A", "E")
        await decided(group, r"B was moved to Rehab: B has not been heard for \d+ ms .*")
        why = await lab.call("GET", f"/databases/{group.name}/tasks/{group.ids['onB']}/why", tag="A")
        assert (why["Placement"]["Node"], why["Placement"]["Rule"]) == (task["Holder"], "Hash")
        seen = len(group.rows("onB"))
        await lab.wait_until(lambda: len(group.rows("onB")) > seen, "the task to go on")
    status = await lab.status("B")
    assert status is not None
    assert (status["Node"]["Role"], status["Node"]["HasLease"]) == ("Candidate", False)
    assert not [i for i in lab.runs()[key(group, "onB")] if i.node == "B" and i.to_ns > stopped_ns]


@pytest.mark.parametrize(
    ("flaps", "leader"),
    [
        pytest.param(3, "C", id="three times"),
        pytest.param(50, "B", id="for five minutes", marks=[pytest.mark.long, pytest.mark.timeout(600)]),
    ],
)
async def test_each_task_of_a_node_that_flaps_ten_times_a_minute_moves_out_once_and_back_once(
    lab: Lab, group: Group, flaps: int, leader: str
) -> None:
    """Some tasks have a mentor, some a place by hash. Those of the other nodes do not move at all."""
    for n in range(6):
        await group.add_task(f"t{n}", **insert_only())
    before = await group.holders()
    assert list(before.values()).count("B") > 1, "six tasks on three nodes leave none without"
    await lead(lab, leader)
    async with writing(group, "AE") as writer:
        began = asyncio.get_running_loop().time()
        for n in range(flaps):
            lab.network.isolate("B")
            await until(began + n * FLAP_SEC + CUTS_SEC[n % len(CUTS_SEC)])
            lab.network.heal()
            await until(began + (n + 1) * FLAP_SEC)
        await returned(group)
        assert await group.holders() == before
    runs = lab.runs()
    for name, holder in before.items():
        await group.has_rows(name, writer.count)
        went = [node for node, _ in groupby(interval.node for interval in runs[key(group, name)])]
        assert went[0] == went[-1] == holder
        assert len(went) == (3 if holder == "B" else 1), f"{name} moves at most out once and back once: {went}"
    said = await messages(group)
    assert len([message for message in said if "moved to Rehab" in message]) == 1
    assert len([message for message in said if "promoted to Member" in message]) == 1
    assert_no_overlap(runs, [key(group, name) for name in before])


async def until(moment: float) -> None:
    """Waits until this reading of the loop's clock: the flapping itself has a rhythm, nothing else waits for it."""
    await asyncio.sleep(max(0.0, moment - asyncio.get_running_loop().time()))
