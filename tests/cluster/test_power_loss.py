"""All nodes lose their power at once, and with it what each knew to be committed, which is only a hint on the disk."""

import shutil
from pathlib import Path

import pytest

from raftnode.consensus.storage.disk import SystemDisk
from raftnode.consensus.storage.hard_state import HardStateFiles
from tests.cluster.test_recovery_by_hand import FLAGS
from tests.harness.cluster import Cluster


@pytest.mark.timeout(120)
async def test_nodes_that_were_replaced_under_their_tags_meet_again_although_every_record_is_of_before(
    tmp_path: Path,
) -> None:
    """No two of the three know of each other by their records."""
    async with Cluster(tmp_path, "ABC", flags=FLAGS) as cluster:
        await cluster.lead("A")
        first = await cluster.wait_until(lambda: ids(cluster), "every node to be known by its id")
        before = (await cluster.view("A"))["Node"]["AppliedIndex"]
        for tag in "BC":
            await replace(cluster, tag)
        now = await ids(cluster)
        assert (now["A"] == first["A"], now["B"] == first["B"], now["C"] == first["C"]) == (True, False, False)
        for tag in "ABC":
            await cluster.kill(tag)
            HardStateFiles(SystemDisk(), cluster.nodes[tag].data_dir / "raft").store_commit(before)
        for tag in "ABC":
            cluster.start(tag)
        for tag in "ABC":
            await cluster.ready(tag)
        assert await ids(cluster) == now


async def ids(cluster: Cluster) -> dict[str, str]:
    """The id of the node that has each tag; empty until all are known."""
    view = await cluster.view("A")
    known = {tag: node["NodeId"] for tag, node in view["Cluster"]["Nodes"].items()} if view else {}
    return known if all(known.values()) else {}


async def replace(cluster: Cluster, tag: str) -> None:
    """The node loses its disk, is removed, and joins again with an empty one, until it votes."""
    await cluster.kill(tag)
    node = cluster.nodes[tag]
    shutil.rmtree(node.data_dir)
    await cluster.call("DELETE", f"/admin/cluster/node?nodeTag={tag}&force=true", tag="A")
    node.founder = False
    await cluster.restart(tag)

    async def votes() -> bool:
        view = await cluster.view()
        return bool(view) and view["Cluster"]["Nodes"][tag]["Kind"] == "Member"

    await cluster.wait_until(votes, f"{tag} to vote")
