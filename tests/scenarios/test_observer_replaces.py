"""Scenarios 49 to 52: the group keeps its replication factor, whoever is edited, lost, replaced or added."""

import pytest

from raftnode.foundation.http_client import HttpFailed
from tests.harness.cluster import Cluster
from tests.scenarios.conftest import Group
from tests.scenarios.decisions import becomes, decided, has_members, messages
from tests.scenarios.doors import DoorCluster

pytestmark = pytest.mark.asyncio(loop_scope="module")

REPLACE_MS = 1000


@pytest.fixture(scope="module")
def more_flags() -> tuple[str, ...]:
    """Nodes that replace soon."""
    return ("--cluster.time-before-adding-replica-sec", str(REPLACE_MS // 1000))


@pytest.fixture(scope="module")
def kind_of_cluster() -> type[Cluster]:
    """Replication passes through doors."""
    return DoorCluster


async def test_scenario_49_a_group_that_a_user_edits_has_its_replication_factor_again(
    cluster: Cluster, group: Group
) -> None:
    """RavenDB takes a whole record from a user, with a Member moved to the Rehabs. Here the topology is no user's to
    write: that is refused. A user can say that the node is not fit, and edit what is left of the group."""
    await distribute(group)
    wish = {"DatabaseName": group.name, "Topology": {"Members": ["A", "B"], "Rehabs": ["E"]}}
    with pytest.raises(HttpFailed, match="exists already"):
        await cluster.call("PUT", f"/admin/databases?name={group.name}", wish)
    assert (await cluster.topology(group.name))["Members"] == ["A", "B", "E"]
    await cluster.call("POST", "/admin/cluster/node/flags?nodeTag=E&flags=HighDirtyMemory")
    try:
        await becomes(group, "E in Rehab", lambda t: t["Rehabs"] == ["E"])
        order = {"MembersOrder": ["B", "A"], "Fixed": True}
        await cluster.call("POST", f"/admin/databases/reorder?name={group.name}", order)
        topology = await cluster.topology(group.name)
        assert (topology["Members"], topology["Rehabs"]) == (["B", "A"], ["E"])
    finally:
        await cluster.call("POST", "/admin/cluster/node/flags?nodeTag=E&flags=")
    topology = await has_members(group, "ABE")
    assert topology["Members"] == ["B", "A", "E"]
    assert topology["ReplicationFactor"] == 3
    await decided(group, r"E was moved to Rehab: E is short of a resource: HighDirtyMemory\.")
    await decided(group, r"E was promoted to Member: it has caught up and been healthy for .*")


async def test_scenario_50_when_two_members_of_three_die_the_group_moves_to_two_other_nodes(
    cluster: Cluster, group: Group
) -> None:
    """The two that were replaced are removed when they come back, and the tasks are where the group is."""
    await distribute(group)
    await group.write(1, 100, "A")
    for tag in "BE":
        await group.add_task(f"on{tag}", MentorNode=tag, PinToMentorNode=True)
        await group.has_rows(f"on{tag}", 100)
    for tag in "BE":
        await cluster.kill(tag)
    lost = r"[BE] has been lost for (\d+) ms \(limit 1000 ms\): [BE] has not been heard for \d+ ms .*"
    added = await decided(group, rf"[CD] was added as a Promotable: the group has [12] of 3 copies, as {lost}", times=2)
    assert {match[0][0] for match in added} == set("CD")
    assert min(int(match[1]) for match in added) >= REPLACE_MS
    topology = await becomes(group, "three Members", lambda t: len(t["Members"]) == 3)
    assert sorted(topology["Members"]) == ["A", "C", "D"]
    assert topology["ReplicationFactor"] == 3
    await decided(group, r"[BE], [BE] will be removed: the database has its 3 Members \([ACD], [ACD], [ACD]\)\.")
    for tag in "CD":
        await decided(group, rf"{tag} was promoted to Member: it has caught up and been healthy for .*")
        assert await documents(group, tag) == 100
    for tag in "BE":
        await group.held_elsewhere({f"on{tag}"}, tag)
    await group.write(101, 120, "C")
    for tag in "BE":
        await group.has_rows(f"on{tag}", 120)
        cluster.start(tag)
    await has_members(group, "ACD")


async def test_scenario_51_a_replaced_node_that_comes_back_hands_over_what_only_it_has_and_is_then_removed(
    cluster: DoorCluster, group: Group
) -> None:
    """The document is written on B while the HTTP servers of the other Members are out of reach, so that it cannot
    have left B before B dies."""
    await distribute(group)
    await cluster.shut_doors("AE")
    try:
        await group.write(1, 1, "B")
        await cluster.kill("B")
    finally:
        await cluster.open_doors()
    [added] = await decided(
        group, r"([CD]) was added as a Promotable: the group has 2 of 3 copies, as B has been lost for .*"
    )
    members = f"AE{added[1]}"
    waiting = await becomes(group, "three Members again", lambda t: len(t["Members"]) == 3)
    assert sorted(waiting["Members"]) == sorted(members)
    await decided(group, r"B will be removed: the database has its 3 Members \(.*\)\.")
    waiting = await cluster.topology(group.name)
    assert waiting["Rehabs"] == ["B"]
    assert waiting["DemotionReasons"] == {"B": "it has been replaced, and goes once the Members have all that it has"}
    assert [await documents(group, tag) for tag in members] == [0, 0, 0]
    cluster.start("B")
    await has_members(group, members)
    assert [await documents(group, tag) for tag in members] == [1, 1, 1], "not removed before all has arrived"
    assert "has handed over all it had" in cluster.nodes["B"].log_file.read_text()

    async def gone() -> bool:
        record = await cluster.call("GET", f"/admin/databases?name={group.name}")
        return record["DeletionInProgress"] is None

    await cluster.wait_until(gone, "B to have deleted its copy")
    assert not (cluster.nodes["B"].data_dir / "databases" / group.name.lower()).exists()


async def test_scenario_52_a_node_that_a_user_adds_is_promotable_and_a_member_as_soon_as_the_user_says(
    cluster: Cluster, group: Group
) -> None:
    """RavenDB's test stops the observer's promotions by a hook; here the observer is suspended meanwhile."""
    two = await Group(cluster, f"{group.name}two", "AB").create()
    await cluster.call("POST", "/admin/cluster/observer/suspend?value=true")
    try:
        await cluster.call("PUT", f"/admin/databases/node?name={two.name}&node=E")
        topology = await cluster.topology(two.name)
        assert (topology["Members"], topology["Promotables"]) == (["A", "B"], ["E"])
        assert topology["PromotablesStatus"] == {"E": "WaitingForFirstPromotion"}
        await cluster.call("POST", f"/admin/databases/promote?name={two.name}&node=E")
        topology = await cluster.topology(two.name)
        assert (topology["Members"], topology["Promotables"]) == (["A", "B", "E"], [])
        assert (topology["PromotablesStatus"], topology["ReplicationFactor"]) == ({}, 3)
        assert await messages(two) == [], "it was the user, not the observer"
    finally:
        await cluster.call("POST", "/admin/cluster/observer/suspend?value=false")
    await two.write(1, 10, "A")

    async def filled() -> bool:
        return await documents(two, "E") == 10

    await cluster.wait_until(filled, "ten documents on E")


async def distribute(group: Group) -> None:
    """The observer may replace nodes of this group."""
    await group.cluster.call("POST", f"/admin/databases/dynamic-node-distribution?name={group.name}&enable=true")


async def documents(group: Group, tag: str) -> int:
    """How many documents the node holds."""
    return int((await group.cluster.call("GET", f"/databases/{group.name}/stats", tag=tag))["CountOfDocuments"])
