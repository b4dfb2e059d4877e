"""Scenarios 55 to 57, 60 and 62: what becomes of the copies on nodes that are gone, moved, down, or one too many."""

from typing import Any

import pytest

from raftnode.cli.local_cluster import free_ports
from tests.harness.cluster import Cluster
from tests.scenarios.conftest import Group
from tests.scenarios.decisions import becomes, decided, has_members
from tests.scenarios.doors import DoorCluster

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def more_flags() -> tuple[str, ...]:
    """Nodes that replace soon and forget tombstones as soon as they may."""
    return ("--cluster.time-before-adding-replica-sec", "1", "--documents.tombstone-cleanup-sec", "1")


@pytest.fixture(scope="module")
def kind_of_cluster() -> type[Cluster]:
    """Replication passes through doors."""
    return DoorCluster


async def test_scenario_55_the_record_of_a_deleted_database_waits_for_a_node_that_is_down_until_that_is_removed(
    cluster: Cluster, group: Group
) -> None:
    """The node is a sixth one, as it does not come back."""
    await cluster.add("F")
    doomed = await Group(cluster, f"{group.name}doomed", "AF").create()
    await cluster.kill("F")
    deletion = {"DatabaseNames": [doomed.name], "HardDelete": True, "TimeToWaitForConfirmation": "00:00:00"}
    await cluster.call("DELETE", "/admin/databases", deletion)

    async def only_f() -> bool:
        record = await cluster.call("GET", f"/admin/databases?name={doomed.name}")
        return bool(record["DeletionInProgress"] == {"F": "HardDelete"})

    await cluster.wait_until(only_f, "A to confirm that its copy is gone")
    await cluster.call("DELETE", "/admin/cluster/node?nodeTag=F&force=true")
    del cluster.nodes["F"]

    async def gone() -> bool:
        views = [await cluster.status(tag) for tag in cluster.nodes]
        return all(
            view and doomed.name not in view["Databases"] and "F" not in view["Cluster"]["Nodes"] for view in views
        )

    await cluster.wait_until(gone, "the record to be gone everywhere")
    assert not (cluster.nodes["A"].data_dir / "databases" / doomed.name.lower()).exists()
    await Group(cluster, doomed.name, "AB").create()


async def test_scenario_56_nodes_that_come_back_at_other_addresses_are_members_there_once_they_have_said_so(
    cluster: DoorCluster, group: Group
) -> None:
    """In RavenDB such a node stays in Rehab until it is removed and added again. Here a node is known by the id in its
    data directory, and says where it is reached when it starts: all else would only be work for the operator. Two
    nodes move, so that each has to learn of the other's new address."""
    await group.add_task("onB", MentorNode="B")
    await group.held_by("onB", "B")
    for tag in "BE":
        await cluster.kill(tag)
    for tag in "BE":
        await group.is_rehab(tag)
        node = cluster.nodes[tag]
        node.http_port, node.cluster_port = free_ports(2)
        node.flags = ()
    for tag in "BE":
        cluster.start(tag)
    await has_members(group, "ABE")
    await group.held_by("onB", "B")
    moved = {tag: cluster.nodes[tag] for tag in "BE"}
    addresses = {tag: (node.url, f"{node.host}:{node.cluster_port}") for tag, node in moved.items()}

    async def known() -> bool:
        views = [(await cluster.status(tag) or {})["Cluster"]["Nodes"] for tag in cluster.nodes]
        shown = [{tag: (view[tag]["Url"], view[tag]["ClusterAddress"]) for tag in "BE"} for view in views]
        return all(view == addresses for view in shown)

    await cluster.wait_until(known, "every node to know where the two are reached")
    await group.write(1, 10, "E")
    await group.has_rows("onB", 10)
    for tag in "BE":
        await cluster.lead(tag)
        await cluster.formed()


async def test_scenario_57_tombstones_are_kept_while_a_node_of_the_group_is_down(
    cluster: Cluster, group: Group
) -> None:
    """Another database, which does not concern the node, shows that tombstones are looked at meanwhile, twice: so the
    ones that stay have been looked at in between."""
    others = await Group(cluster, f"{group.name}others", "AE").create()
    await group.write(1, 10, "A")
    await has_counts(group, "B", documents=10, tombstones=0)
    await cluster.kill("B")
    await group.is_rehab("B")
    await delete(group, 1, 9, "A")
    for n in (1, 2):
        await others.write(n, n, "A")
        await delete(others, n, n, "A")
        await has_counts(others, "A", documents=0, tombstones=0)
    await has_counts(group, "A", documents=1, tombstones=9)
    await has_counts(group, "E", documents=1, tombstones=9)
    await cluster.restart("B")
    for tag in "ABE":
        await has_counts(group, tag, documents=1, tombstones=0)


async def test_scenario_60_a_rehab_that_is_alive_becomes_a_member_when_no_member_is(
    cluster: Cluster, group: Group
) -> None:
    """Where nobody can take over, that is said once. The dead Members go to Rehab as soon as another one is alive."""
    helpless = await Group(cluster, f"{group.name}helpless", "AB").create()
    await group.write(1, 10, "A")
    await has_counts(group, "E", documents=10, tombstones=0)
    await cluster.call("POST", "/admin/cluster/node/flags?nodeTag=E&flags=HighDirtyMemory")
    try:
        await becomes(group, "E in Rehab", lambda t: t["Rehabs"] == ["E"])
        for tag in "AB":
            await cluster.kill(tag)
        topology = await becomes(group, "E as its only Member", lambda t: t["Members"] == ["E"])
        assert sorted(topology["Rehabs"]) == ["A", "B"]
        await decided(
            group,
            r"E was promoted to Member as a last resort: no Member is alive \((A|B|A, B)\), "
            r"and of E it is the most up-to-date\.",
        )
        [alert] = await decided(
            helpless,
            r"The database is unreachable: no Member is alive \((A|B|A, B)\), and nobody healthy can take over\.",
        )
        assert ", ".join((await cluster.topology(helpless.name))["Members"]) == alert[1]
        await group.write(11, 12, "E")
    finally:
        await cluster.call("POST", "/admin/cluster/node/flags?nodeTag=E&flags=")
    for tag in "AB":
        cluster.start(tag)
    await has_members(group, "ABE")
    await has_counts(group, "A", documents=12, tombstones=0)


async def test_scenario_62_a_promotable_that_nobody_needs_is_removed_and_the_replication_factor_stays(
    cluster: DoorCluster, group: Group
) -> None:
    """B is replaced, and is back before its replacement is filled: whose HTTP server nobody reaches, so that it is
    heard and yet gets no documents."""
    await cluster.call("POST", f"/admin/databases/dynamic-node-distribution?name={group.name}&enable=true")
    await group.write(1, 10, "A")
    await cluster.shut_doors("CD")
    try:
        await cluster.kill("B")
        topology = await becomes(group, "a Promotable", lambda t: bool(t["Promotables"]))
        [extra] = topology["Promotables"]
        assert (sorted(topology["Members"]), topology["Rehabs"]) == (["A", "E"], ["B"])
        await decided(group, rf"{extra} was added as a Promotable: the group has 2 of 3 copies, as B has been lost .*")
        await cluster.restart("B")
        topology = await has_members(group, "ABE")
        assert topology["ReplicationFactor"] == 3
        await decided(group, r"B was promoted to Member: .*")
        await decided(group, rf"{extra} will be removed: the database has its 3 Members \([ABE], [ABE], [ABE]\)\.")
    finally:
        await cluster.open_doors()

    async def gone() -> bool:
        record = await cluster.call("GET", f"/admin/databases?name={group.name}")
        return record["DeletionInProgress"] is None

    await cluster.wait_until(gone, f"{extra} to have deleted its copy")
    assert not (cluster.nodes[extra].data_dir / "databases" / group.name.lower()).exists()
    assert (await cluster.topology(group.name))["ReplicationFactor"] == 3


async def delete(group: Group, first: int, last: int, tag: str) -> None:
    """Deletes the documents of those numbers, on one node."""
    commands = [{"Type": "DELETE", "Id": f"items/{n}"} for n in range(first, last + 1)]
    await group.cluster.call("POST", f"/databases/{group.name}/bulk_docs", {"Commands": commands}, tag)


async def has_counts(group: Group, tag: str, *, documents: int, tombstones: int) -> None:
    """Waits until the node holds that many of both."""

    async def holds() -> bool:
        stats: dict[str, Any] = await group.cluster.call("GET", f"/databases/{group.name}/stats", tag=tag)
        return (stats["CountOfDocuments"], stats["CountOfTombstones"]) == (documents, tombstones)

    await group.cluster.wait_until(holds, f"{documents} documents and {tombstones} tombstones on {tag}")
