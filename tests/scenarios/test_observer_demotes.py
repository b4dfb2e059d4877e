"""Scenarios 44 to 48, 53 and 54: who leaves the Members, who is preferred among them, and who comes back."""

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.harness.cluster import Cluster
from tests.scenarios.conftest import Group
from tests.scenarios.decisions import becomes, decided, has_members, messages
from tests.scenarios.doors import DoorCluster

pytestmark = pytest.mark.asyncio(loop_scope="module")

R_MS = 2000
"""The limit of silence in PATIENT."""
ROTATE_MS = 1000
MANY = 25


@pytest.fixture(scope="module")
def more_flags() -> tuple[str, ...]:
    """Nodes that rotate before they demote, and to which two changes are too many to be behind by."""
    return (
        *("--cluster.time-before-rotating-preferred-node-sec", str(ROTATE_MS // 1000)),
        *("--cluster.max-change-vector-distance", "1"),
    )


@pytest.fixture(scope="module")
def kind_of_cluster() -> type[Cluster]:
    """Replication passes through doors."""
    return DoorCluster


async def test_scenario_44_a_member_that_is_down_for_longer_than_the_limit_is_in_rehab(
    cluster: Cluster, group: Group
) -> None:
    """RavenDB's test allows four seconds; the limit is two here."""
    await group.add_task("onB", MentorNode="B")
    await group.held_by("onB", "B")
    await cluster.kill("B")
    topology = await becomes(group, "B in Rehab", lambda t: bool(t["Rehabs"]))
    assert (sorted(topology["Members"]), topology["Rehabs"]) == (["A", "E"], ["B"])
    [said] = await decided(group, r"B was moved to Rehab: (B has not been heard for (\d+) ms \(limit (\d+) ms\).*)\.")
    assert int(said[2]) >= int(said[3]) == R_MS
    assert topology["DemotionReasons"] == {"B": said[1]}
    assert topology["PromotablesStatus"] == {"B": "NotResponding"}
    assert (await group.held_elsewhere({"onB"}, "B")).keys() == {"onB"}


async def test_scenario_45_members_that_documents_do_not_reach_are_in_rehab_until_they_do(
    cluster: DoorCluster, group: Group
) -> None:
    """RavenDB's test breaks the replication inside the server; here the HTTP servers of B and E are out of
    reach, while the leader hears every node. Two documents are one more than the distance allows."""
    await cluster.shut_doors("BE")
    try:
        await group.write(1, 2, "A")
        # On a busy machine a report may be late, and the status says so until the next one.
        status = dict.fromkeys("BE", "ChangeVectorNotMerged")
        topology = await becomes(group, "two Rehabs that lag", lambda t: t["PromotablesStatus"] == status)
        assert (topology["Members"], sorted(topology["Rehabs"])) == (["A"], ["B", "E"])
        assert topology["DemotionReasons"] == {tag: f"{tag} is 2 changes behind A (limit 1)" for tag in "BE"}
    finally:
        await cluster.open_doors()
    topology = await has_members(group, "ABE")
    assert topology["DemotionReasons"] == topology["PromotablesStatus"] == {}
    for tag in "BE":
        await decided(group, rf"{tag} was promoted to Member: it has caught up and been healthy for .*")
        assert (await cluster.call("GET", f"/databases/{group.name}/stats", tag=tag))["CountOfDocuments"] == 2


async def test_scenario_46_the_order_that_a_user_has_fixed_holds_again_when_a_member_is_back(
    cluster: Cluster, group: Group
) -> None:
    """Two databases with opposite orders, so that it cannot be chance."""
    orders = {"ABE": group, "EBA": await Group(cluster, f"{group.name}backwards", "ABE").create()}
    for order, ordered in orders.items():
        wish = {"MembersOrder": list(order), "Fixed": True}
        await cluster.call("POST", f"/admin/databases/reorder?name={ordered.name}", wish)
    await cluster.kill("A")
    for order, ordered in orders.items():
        topology = await becomes(ordered, "A in Rehab", lambda t: t["Rehabs"] == ["A"])
        assert sorted(topology["Members"]) == ["B", "E"]
        assert topology["PriorityOrder"] == list(order)
    await cluster.restart("A")
    for order, ordered in orders.items():
        await becomes(ordered, f"the order {order}", partial(_is_ordered, order))
        await decided(ordered, r"A was promoted to Member: it has caught up and been healthy for .*")


async def test_scenario_47_the_preferred_nodes_of_many_databases_spread_over_the_nodes_after_one_was_away(
    cluster: Cluster,
) -> None:
    """RavenDB draws lots; here the order follows from the names, so that it is the same each time."""
    groups = [Group(cluster, f"Many{n}", "ABE") for n in range(MANY)]
    await asyncio.gather(*(group.create() for group in groups))
    for group in groups:
        assert (await cluster.topology(group.name))["Members"] == ["A", "B", "E"]
    await cluster.kill("B")
    for group in groups:
        await group.is_rehab("B")
    await cluster.restart("B")
    preferred: Counter[str] = Counter()
    for group in groups:
        preferred[(await has_members(group, "ABE"))["Members"][0]] += 1
        await decided(group, r"B was promoted to Member: it has caught up and been healthy for .*")
    assert preferred.keys() == set("ABE")
    assert min(preferred.values()) > 1, preferred
    await cluster.call("DELETE", "/admin/databases", {"DatabaseNames": [g.name for g in groups], "HardDelete": True})


async def test_scenario_48_a_preferred_node_that_stays_loading_is_no_longer_the_first_and_then_in_rehab(
    cluster: Cluster, group: Group
) -> None:
    """RavenDB's test holds the loading up inside the server; here somebody else has the file locked."""
    assert (await cluster.topology(group.name))["Members"] == ["A", "B", "E"]
    directory = cluster.nodes["A"].data_dir / "databases" / group.name.lower()
    await cluster.call("POST", "/admin/databases/disable", {"DatabaseNames": [group.name]})
    # SQLite removes the write-ahead log with the last connection.
    await cluster.wait_until(lambda: not list(directory.glob("*-wal")), "A to have closed the database")
    [file] = directory.glob("*.sqlite")
    with locked(file):
        await cluster.call("POST", "/admin/databases/enable", {"DatabaseNames": [group.name]})
        [rotated] = await decided(
            group, r"A is no longer the preferred node, B is: it has been unhealthy for (\d+) ms \(limit (\d+) ms\)\."
        )
        assert int(rotated[1]) >= int(rotated[2]) == ROTATE_MS
        topology = await becomes(group, "A in Rehab", lambda t: t["Rehabs"] == ["A"])
        assert topology["Members"] == ["B", "E"]
        [demoted] = await decided(group, r"A was moved to Rehab: the database has been Loading on A for (\d+) ms\.")
        assert int(demoted[1]) >= R_MS
        said = await messages(group)
        assert said.index(rotated[0]) < said.index(demoted[0])
        status = await cluster.status("A")
        assert status is not None
        assert status["Databases"][group.name]["Copy"]["Status"] == "Loading"
    await has_members(group, "ABE")


async def test_scenario_53_a_rehab_that_a_user_promotes_while_it_is_down_is_back_in_rehab(
    cluster: Cluster, group: Group
) -> None:
    """RavenDB grants it the whole grace once more; here what counts is how long the node has not been heard, so that
    it goes back at once and its tasks wait for nothing."""
    pattern = r"B was moved to Rehab: B has not been heard for (\d+) ms .*"
    await cluster.kill("B")
    await decided(group, pattern)
    await cluster.call("POST", f"/admin/databases/promote?name={group.name}&node=B")
    # Only a Member is moved to Rehab: the second sentence shows that the user's promotion took place.
    first, second = await decided(group, pattern, times=2)
    assert int(second[1]) > int(first[1]) >= R_MS
    topology = await becomes(group, "B in Rehab", lambda t: t["Rehabs"] == ["B"])
    assert sorted(topology["Members"]) == ["A", "E"]
    await cluster.restart("B")
    await has_members(group, "ABE")


async def test_scenario_54_a_node_without_cpu_credits_is_in_rehab_until_it_has_some(
    cluster: Cluster, group: Group
) -> None:
    """RavenDB reads the credits of its own cloud; here a monitor or an operator says it of the node."""
    await group.add_task("onB", MentorNode="B")
    first = await group.held_by("onB", "B")
    await cluster.call("POST", "/admin/cluster/node/flags?nodeTag=B&flags=OutOfCpuCredits")
    try:
        topology = await becomes(group, "B in Rehab", lambda t: t["Rehabs"] == ["B"])
        assert topology["PromotablesStatus"] == {"B": "OutOfCpuCredits"}
        assert topology["DemotionReasons"] == {"B": "B is short of a resource: OutOfCpuCredits"}
        await decided(group, r"B was moved to Rehab: B is short of a resource: OutOfCpuCredits\.")
        assert (await group.held_elsewhere({"onB"}, "B"))["onB"] > int(first["Epoch"])
    finally:
        await cluster.call("POST", "/admin/cluster/node/flags?nodeTag=B&flags=")
    topology = await has_members(group, "ABE")
    assert topology["DemotionReasons"] == topology["PromotablesStatus"] == {}
    await group.held_by("onB", "B")


def _is_ordered(order: str, topology: dict[str, Any]) -> bool:
    return bool(topology["Members"] == list(order))


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Nobody else can read the SQLite file meanwhile, nor open it."""
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("ROLLBACK")


async def test_a_promotable_whose_chosen_mentor_dies_in_the_middle_is_filled_by_another_member(
    cluster: DoorCluster, group: Group
) -> None:
    await group.write(1, 300, "A")
    await cluster.shut_doors("D")
    try:
        await cluster.call("PUT", f"/admin/databases/node?name={group.name}&node=D&mentor=B")
        await updated_by(group, "D", "B")
        await cluster.kill("B")
        await updated_by(group, "D", "AE")
    finally:
        await cluster.open_doors()
    await becomes(group, "D as a Member", lambda t: "D" in t["Members"])
    assert (await cluster.call("GET", f"/databases/{group.name}/stats", tag="D"))["CountOfDocuments"] == 300
    cluster.start("B")
    await has_members(group, "ABDE")


async def test_the_update_of_a_rehab_is_a_task_of_its_mentor_which_a_user_may_choose_and_another_takes_over(
    cluster: DoorCluster, group: Group
) -> None:
    await cluster.shut_doors("B")
    try:
        await group.write(1, 2, "A")
        await becomes(group, "B lagging", lambda t: t["PromotablesStatus"] == {"B": "ChangeVectorNotMerged"})
        first = await updated_by(group, "B", "AE")
        [chosen] = {"A", "E"} - {first}
        path = f"/databases/{group.name}/admin/tasks/pin?type=Update&taskName=B&node={chosen}&pinned=false"
        assert (await cluster.call("POST", path, tag="C"))["ResponsibleNode"] == chosen
        await updated_by(group, "B", chosen)

        async def told() -> bool:
            task = await cluster.task(group.name, "B")
            return bool(task["TaskType"] == "Update" and task["Behind"] == 2)

        await cluster.wait_until(told, f"{chosen} to tell how far B is behind")
        await cluster.kill(chosen)
        await group.is_rehab(chosen)
        await updated_by(group, "B", first)
        status = await cluster.call("GET", "/status", tag=first)
        assert [t["TaskName"] for t in status["Databases"][group.name]["Tasks"]] == ["B"], "nobody updates who is lost"
    finally:
        await cluster.open_doors()
    await group.is_member("B")
    cluster.start(chosen)
    await has_members(group, "ABE")


async def updated_by(group: Group, tag: str, mentors: str) -> str:
    """Waits until one of these holds the update of the node; that one."""

    async def held() -> str | None:
        status = await group.cluster.view()
        tasks = status["Databases"][group.name]["Tasks"] if status else []
        holders = [t["Holder"] for t in tasks if (t["TaskType"], t["TaskName"]) == ("Update", tag)]
        return holders[0] if holders and holders[0] in [*mentors] else None

    return str(await group.cluster.wait_until(held, f"the update of {tag} on one of {mentors}"))
