"""Nodes that live, hold a lease and have the documents, but are no Members: here nobody becomes one."""

from typing import Any

import pytest

from tests.harness.cluster import Cluster
from tests.scenarios.conftest import Group

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def stabilization_time_sec() -> int:
    """Long enough for a Rehab and a Promotable to be looked at at leisure."""
    return 600


async def test_a_rehab_that_lives_runs_nothing_but_what_is_pinned_to_it(cluster: Cluster, group: Group) -> None:
    for n in range(8):
        await group.add_task(f"t{n}")
    await group.add_task("preferred", MentorNode="B")
    await group.add_task("pinned", MentorNode="B", PinToMentorNode=True)
    share = {name for name, holder in (await group.holders()).items() if holder == "B"}
    assert share > {"preferred", "pinned"}, "eight tasks on three nodes leave none without"

    await cluster.kill("B")
    await group.is_rehab("B")
    others = set(group.ids) - {"pinned"}
    away = await group.held_elsewhere(others, "B")
    before = len(intervals_of(cluster, group, "B"))
    await cluster.restart("B")
    await group.held_by("pinned", "B")
    await group.write(1, 30, "A")
    for name in group.ids:
        await group.has_rows(name, 30)

    assert await group.held_elsewhere(others, "B") == away, "a Rehab that is back concerns no other task"
    assert (await cluster.topology(group.name))["Rehabs"] == ["B"]
    status = await cluster.status("B")
    assert status is not None
    assert status["Node"]["HasLease"]
    since = intervals_of(cluster, group, "B")[before:]
    assert {interval.task for interval in since} == {f"{group.name.lower()}/SqlEtl/pinned"}


async def test_a_promotable_that_has_every_document_runs_nothing_and_one_member_fills_it(
    cluster: Cluster, group: Group
) -> None:
    for n in range(8):
        await group.add_task(f"t{n}")
    epochs = await group.epochs()
    await group.write(1, 500, "A")
    await cluster.call("PUT", f"/admin/databases/node?name={group.name}&node=C")

    async def filled() -> bool:
        stats = await cluster.call("GET", f"/databases/{group.name}/stats", tag="C")
        return bool(stats["CountOfDocuments"] == 500)

    await cluster.wait_until(filled, "500 documents on C")
    shown = {tag: await update_as_shown_by(tag, cluster, group) for tag in "ABCDE"}
    mentor = shown["A"]["Placement"]["Node"]
    assert mentor in set("ABE")
    assert {task["Placement"]["Node"] for task in shown.values()} == {mentor}
    assert {tag: (task["RunHere"] or {}).get("State") for tag, task in shown.items()} == {
        tag: "Running" if tag == mentor else None for tag in "ABCDE"
    }
    assert (await cluster.topology(group.name))["Promotables"] == ["C"]
    assert {name: epoch for name, epoch in (await group.epochs()).items() if name in epochs} == epochs
    assert intervals_of(cluster, group, "C") == []


async def update_as_shown_by(tag: str, cluster: Cluster, group: Group) -> dict[str, Any]:
    """The task that fills the Promotable, as a node shows it once it knows who holds it."""

    async def update() -> Any:
        status = await cluster.status(tag)
        tasks = status["Databases"][group.name]["Tasks"] if status else []
        return next((task for task in tasks if task["TaskType"] == "Update" and task["Holder"]), None)

    shown: dict[str, Any] = await cluster.wait_until(update, f"{tag} to show who fills the Promotable")
    return shown


def intervals_of(cluster: Cluster, group: Group, tag: str) -> list[Any]:
    """When a node acted on the group's tasks, in order of time."""
    runs = cluster.runs().items()
    mine = [i for key, some in runs if key.startswith(f"{group.name.lower()}/") for i in some if i.node == tag]
    return sorted(mine)
