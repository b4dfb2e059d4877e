"""One test for each sentence of what highly available tasks are, on five real nodes."""

import signal
from typing import Any

import pytest

from raftnode.foundation.http_client import HttpFailed
from tests.harness.cluster import Cluster
from tests.harness.runs import machine_ns
from tests.scenarios.conftest import Group, etl

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_task_is_defined_per_database_group(cluster: Cluster, group: Group) -> None:
    other = await Group(cluster, f"{group.name}other", "CD").create()
    task_id = await group.add_task("orders")
    for tag in cluster.nodes:

        async def shown(tag: str = tag) -> Any:
            status = await cluster.status(tag)
            return status and status["Databases"].get(group.name, {}).get("Tasks") and status

        status = await cluster.wait_until(shown, f"{tag} to know the task")
        assert [t["TaskId"] for t in status["Databases"][group.name]["Tasks"]] == [task_id]
        assert status["Databases"][other.name]["Tasks"] == []


async def test_it_runs_on_a_single_node(cluster: Cluster, group: Group) -> None:
    await group.add_task("orders")
    await group.write(1, 50, "A")
    await group.has_rows("orders", 50)
    intervals = cluster.runs()[f"{group.name.lower()}/SqlEtl/orders"]
    holder = await cluster.holder(group.name, "orders")
    assert {interval.node for interval in intervals} == {holder}
    assert holder in set("ABE")


async def test_a_node_can_have_many(group: Group) -> None:
    for n in range(8):
        await group.add_task(f"t{n}", MentorNode="B")
    assert set((await group.holders()).values()) == {"B"}
    await group.write(1, 20, "E")
    for n in range(8):
        await group.has_rows(f"t{n}", 20)


async def test_only_a_member_runs_tasks(cluster: Cluster, group: Group) -> None:
    with pytest.raises(HttpFailed, match="MentorNode 'C' is not in the group"):
        await group.add_task("outside", MentorNode="C")
    await group.add_task("rehab", MentorNode="B")
    await group.held_by("rehab", "B")
    await cluster.kill("B")
    await group.is_rehab("B")
    holder = (await group.holders())["rehab"]
    assert holder in (await cluster.topology(group.name))["Members"]
    await cluster.restart("B")
    await group.is_member("B")


async def test_a_cluster_that_does_not_function_runs_nothing(cluster: Cluster, group: Group) -> None:
    for tag in "ABE":
        await group.add_task(f"on{tag}", MentorNode=tag)
    await group.holders()
    for tag in "CDE":
        await cluster.kill(tag)

    async def nobody_leads() -> bool:
        views = [await cluster.status(tag) for tag in "AB"]
        return all(v and v["Node"]["Role"] == "Candidate" and not v["Node"]["HasLease"] for v in views)

    async def nothing_runs() -> bool:
        views = [await cluster.status(tag) for tag in "AB"]
        tasks = [t for v in views if v for d in v["Databases"].values() for t in d["Tasks"]]
        return all((t["RunHere"] or {}).get("State") not in ("Running", "Stopping", "Error") for t in tasks)

    await cluster.wait_until(nobody_leads, "A and B without a lease")
    await cluster.wait_until(nothing_runs, "nothing to run on A and B")
    stopped_ns = machine_ns()
    await group.write(1, 10, "A")
    assert not [i for intervals in cluster.runs().values() for i in intervals if i.to_ns > stopped_ns]
    assert group.rows("onA") == []
    for tag in "CDE":
        cluster.start(tag)
    for tag in "CDE":
        await cluster.ready(tag)
    for tag in "ABE":
        await group.has_rows(f"on{tag}", 10)
    for tag in "ABE":
        await group.is_member(tag)


async def test_every_record_change_re_evaluates_and_restarts_nothing_it_does_not_concern(
    cluster: Cluster, group: Group
) -> None:
    for name in ("one", "two", "three"):
        await group.add_task(name, MentorNode="A")
    before = await group.epochs()

    await cluster.call("PUT", f"/databases/{group.name}/admin/indexes", {"Indexes": [{"Name": "i", "Maps": ["m"]}]})
    members = (await cluster.topology(group.name))["Members"]
    order = {"MembersOrder": members[::-1], "Fixed": False}
    await cluster.call("POST", f"/admin/databases/reorder?name={group.name}", order)
    assert await group.epochs() == before, "an index definition and an order of members concern no task here"

    await group.put_string("one")
    await _epoch_changes(cluster, group, "one", before["one"])
    after_string = await group.epochs()
    assert {n for n in before if before[n] != after_string[n]} == {"one"}

    disabled = [{"Name": "t", "Collections": ["Items"], "Script": "loadToItems({Value: this.Value + 0});"}]
    await cluster.put_etl(group.name, etl("two", MentorNode="A", Transforms=disabled), group.ids["two"])
    await _epoch_changes(cluster, group, "two", before["two"])
    after_task = await group.epochs()
    assert {n for n in after_string if after_string[n] != after_task[n]} == {"two"}

    await cluster.pin(group.name, group.ids["three"], "E", pinned=False)
    await group.held_by("three", "E")
    after_pin = await group.epochs()
    assert {n for n in after_task if after_task[n] != after_pin[n]} == {"three"}


async def test_editing_key_fields_re_evaluates_the_task(cluster: Cluster, group: Group) -> None:
    await group.add_task("orders")
    await group.write(1, 30, "A")
    await group.has_rows("orders", 30)
    before = await group.task("orders")
    await cluster.put_etl(
        group.name, etl("orders", Transforms=[_transform("loadToItems({Value: this.Value * 1});")]), group.ids["orders"]
    )
    await _epoch_changes(cluster, group, "orders", int(before["Epoch"]))
    assert (await group.task("orders"))["TaskKey"] == before["TaskKey"], "a script is no key field"
    renamed = etl("orders renamed") | {"ConnectionStringName": "orders"}
    await cluster.put_etl(group.name, renamed, group.ids["orders"])
    await group.holders()
    after = await group.task("orders renamed")
    assert after["TaskKey"] != before["TaskKey"]
    assert after["TaskId"] == before["TaskId"]
    await group.write(31, 40, "E")
    await group.has_rows("orders", 40)


async def test_a_preferred_mentor_runs_it(group: Group) -> None:
    for tag in "ABE":
        await group.add_task(f"for{tag}", MentorNode=tag)
        task = await group.held_by(f"for{tag}", tag)
        assert task["Placement"]["Rule"] == "Mentor"


async def test_scenario_21_a_pinned_task_waits_for_its_node_in_rehab_and_goes_on_from_its_progress_when_it_returns(
    cluster: Cluster, group: Group
) -> None:
    await group.add_task("pinned", MentorNode="B", PinToMentorNode=True)
    await group.write(1, 20, "A")
    await group.has_rows("pinned", 20)
    first = await group.task("pinned")
    await cluster.kill("B")
    await group.is_rehab("B")
    await group.write(21, 40, "A")

    async def void() -> bool:
        return bool((await group.task("pinned"))["ClaimState"] == "Void")

    await cluster.wait_until(void, "B's claim to be void")
    waiting = await group.task("pinned")
    assert (waiting["Placement"]["Node"], waiting["Placement"]["Rule"]) == ("B", "PinnedMentor")
    assert group.rows("pinned") == list(range(1, 21))
    await cluster.restart("B")
    await group.has_rows("pinned", 40)
    after = await group.held_by("pinned", "B")
    assert int(after["Epoch"]) > int(first["Epoch"])
    await group.is_member("B")
    assert after["Progress"]["Generation"] == first["Progress"]["Generation"]

    async def counted() -> bool:
        progress = (await group.task("pinned"))["Progress"]
        return bool(progress["Processed"] == 40)

    await cluster.wait_until(counted, "40 documents counted: none of the first 20 was carried again")


async def test_a_promotable_is_filled_by_one_mentor(cluster: Cluster, group: Group) -> None:
    await group.write(1, 2000, "A")
    await cluster.call("PUT", f"/admin/databases/node?name={group.name}&node=C")
    await group.is_member("C")
    key = f"{group.name.lower()}/Update/c"
    mentors = {interval.node for interval in cluster.runs()[key]}
    assert len(mentors) == 1
    assert mentors < set("ABE")
    stats = await cluster.call("GET", f"/databases/{group.name}/stats", tag="C")
    assert stats["CountOfDocuments"] == 2000


async def test_scenario_03_every_node_that_applied_index_i_names_the_same_responsible_node(
    cluster: Cluster, group: Group
) -> None:
    for n in range(10):
        await group.add_task(f"t{n}")
    named: dict[int, dict[str, Any]] = {}
    compared = 0
    for step in range(6):
        await cluster.call("POST", f"/admin/cluster/drain?nodeTag=B&value={str(step % 2 == 0).lower()}")
        for tag in cluster.nodes:
            status = await cluster.status(tag)
            assert status is not None
            tasks = status["Databases"].get(group.name, {}).get("Tasks", [])
            view = {task["TaskName"]: task["Placement"]["Node"] for task in tasks}
            index = status["Node"]["AppliedIndex"]
            compared += index in named
            assert named.setdefault(index, view) == view
    assert compared > 0, "no two nodes were seen at one index"


async def test_scenario_10_a_node_back_from_rehab_gets_its_share_by_hand_over_and_only_those_tasks_move(
    cluster: Cluster, group: Group
) -> None:
    for n in range(12):
        await group.add_task(f"t{n}")
    before = await group.holders()
    epochs = await group.epochs()
    share = {name for name, holder in before.items() if holder == "B"}
    assert share, "twelve tasks on three nodes leave none without"
    await cluster.kill("B", signal.SIGKILL)
    await group.is_rehab("B")
    away = await group.holders()
    assert {name for name in before if before[name] != away[name]} == share
    moved = await group.epochs()
    assert {name for name in epochs if epochs[name] != moved[name]} == share
    await cluster.restart("B")
    await group.is_member("B")

    async def back() -> bool:
        return await group.holders() == before

    await cluster.wait_until(back, "B's share on B again")
    after = await group.epochs()
    assert {name for name in moved if moved[name] != after[name]} == share


async def test_a_node_promoted_gets_its_share_by_hand_over_and_only_those_tasks_move(
    cluster: Cluster, group: Group
) -> None:
    for n in range(12):
        await group.add_task(f"t{n}")
    before, epochs = await group.holders(), await group.epochs()
    await cluster.call("PUT", f"/admin/databases/node?name={group.name}&node=D")
    await group.is_member("D")
    after, new_epochs = await group.holders(), await group.epochs()
    share = {name for name, holder in after.items() if holder == "D"}
    assert share, "twelve tasks on four nodes leave none without"
    assert {name for name in before if before[name] != after[name]} == share
    assert {name for name in epochs if epochs[name] != new_epochs[name]} == share


async def test_what_is_written_on_one_member_is_read_on_another(cluster: Cluster, group: Group) -> None:
    await group.write(1, 100, "A")

    async def there() -> bool:
        stats = await cluster.call("GET", f"/databases/{group.name}/stats", tag="E")
        return bool(stats["CountOfDocuments"] == 100)

    await cluster.wait_until(there, "a hundred documents on E")
    answer = await cluster.call("GET", f"/databases/{group.name}/docs?id=items/100", tag="E")
    assert answer["Results"][0]["Value"] == 100


async def _epoch_changes(cluster: Cluster, group: Group, name: str, epoch: int) -> None:
    async def changed() -> bool:
        task = await group.task(name)
        return bool(task["ClaimState"] == "Held" and int(task["Epoch"]) > epoch)

    await cluster.wait_until(changed, f"a new run of {name}")


def _transform(script: str) -> dict[str, Any]:
    return {"Name": "t", "Collections": ["Items"], "Script": script}
