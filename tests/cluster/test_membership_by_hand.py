"""Members of a running cluster, changed by hand with the command line, on real processes."""

import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.cluster.test_recovery_by_hand import FLAGS, no_lease, raftnode
from tests.harness.cluster import STEADY, Cluster
from tests.harness.runs import assert_no_overlap
from tests.scenarios.conftest import Group

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: Any) -> AsyncIterator[Cluster]:
    """Three voters; at the end no two runs of a task may have overlapped."""
    async with Cluster(tmp_path_factory.mktemp("cluster"), "ABC", flags=(*FLAGS, *STEADY)) as three:
        yield three
        assert_no_overlap(three.runs(), [])


async def said(cluster: Cluster, *arguments: str, tag: str = "A") -> Any:
    """A command's answer, asked of one node; it must be well."""
    done = await raftnode(*arguments, "--json", "--url", cluster.nodes[tag].url)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


async def kinds(cluster: Cluster) -> dict[str, str]:
    """What each node is: Member, Promotable or Watcher."""
    view = await cluster.wait_until(cluster.view, "a node with a lease")
    return {tag: node["Kind"] for tag, node in view["Cluster"]["Nodes"].items()}


async def not_ready(cluster: Cluster, tag: str) -> str:
    """Why the node is not ready."""
    status = await cluster.status(tag)
    return " ".join(status["Node"]["NotReady"]) if status else ""


async def test_a_watcher_joins_becomes_a_voter_leads_and_becomes_a_watcher_again(cluster: Cluster) -> None:
    await cluster.add("D", "--watcher")
    assert (await kinds(cluster))["D"] == "Watcher"
    refused = await raftnode("reelect", "D", "--url", cluster.nodes["A"].url)
    assert refused.returncode == 1
    assert "Node 'D' is not a voter and cannot lead. Promote it first." in refused.stderr
    await said(cluster, "node", "promote", "D")
    assert (await kinds(cluster))["D"] == "Member"
    answer = await said(cluster, "reelect", "D")
    assert answer["Leader"] == "D"
    assert await cluster.leader() == "D"
    moved = await said(cluster, "reelect", tag="D")
    assert moved["Leader"] != "D"
    assert moved["Term"] > answer["Term"]
    await said(cluster, "reelect", "D")
    await said(cluster, "node", "demote", "D")
    assert (await kinds(cluster))["D"] == "Watcher"
    assert await cluster.leader() != "D"
    await cluster.ready("D")


async def test_scenario_02_20_a_live_node_is_removed_after_its_tasks_have_moved_and_says_so(cluster: Cluster) -> None:
    await cluster.add("E")
    await cluster.wait_until(lambda: is_member(cluster, "E"), "E to vote")
    group = await Group(cluster, "Live", "ABE").create()
    await group.add_task("orders", MentorNode="E")
    await group.write(1, 20, "A")
    await group.held_by("orders", "E")
    await group.has_rows("orders", 20)
    await said(cluster, "reelect", "E")
    await said(cluster, "node", "remove", "E", "--yes")
    assert "E" not in await kinds(cluster)
    holder = (await group.holders())["orders"]
    assert holder in "AB"
    await cluster.wait_until(lambda: says_removed(cluster, "E"), "E to say that it was removed")
    await cluster.wait_until(lambda: no_lease(cluster, "E"), "E's lease to end")
    status = await cluster.status("E")
    assert status is not None
    assert all(task["RunHere"] is None for task in status["Databases"]["Live"]["Tasks"])
    await group.write(21, 30, "A")
    await group.has_rows("orders", 30)
    await cluster.kill("E")
    cluster.start("E")
    await cluster.wait_until(lambda: says_removed(cluster, "E"), "E to say so again after a start")
    await cluster.kill("E")


async def test_a_node_without_its_disk_comes_back_under_its_tag_under_the_same_leader(
    cluster: Cluster, tmp_path: Path
) -> None:
    """The new disk counts its starts from one, below what the leader had heard. The old disk is let in no more."""
    if await cluster.leader() == "C":
        await said(cluster, "reelect", "A")
    await cluster.kill("C")
    await cluster.restart("C")
    group = await Group(cluster, "Disk", "ABC").create()
    await group.add_task("orders", MentorNode="C")
    await group.write(1, 20, "A")
    await group.held_by("orders", "C")
    await group.has_rows("orders", 20)
    leader = await cluster.leader()
    view = await cluster.view("AB")
    await cluster.kill("C")
    node = cluster.nodes["C"]
    shutil.move(node.data_dir, tmp_path / "old")
    node.founder = False
    taken = await raftnode(
        *("run", "--node.tag", "C", "--data-dir", str(tmp_path / "early"), "--join", cluster.nodes["A"].url),
        *("--http.port", str(node.http_port), "--cluster.port", str(node.cluster_port)),
    )
    assert taken.returncode == 1
    assert "Node tag 'C' is taken" in taken.stderr
    await said(cluster, "node", "remove", "C", "--force", "--yes")
    await cluster.restart("C")
    await cluster.wait_until(lambda: is_member(cluster, "C"), "C to vote")
    after = await cluster.view("AB")
    assert (await cluster.leader(), after["Node"]["Term"]) == (leader, view["Node"]["Term"])
    await group.holders()
    await group.write(21, 30, "A")
    await group.has_rows("orders", 30)
    await cluster.call("PUT", "/admin/databases/node?name=Disk&node=C", tag="A")
    await group.is_member("C")
    await group.held_by("orders", "C")

    await cluster.kill("C")
    shutil.move(node.data_dir, tmp_path / "new")
    shutil.move(tmp_path / "old", node.data_dir)
    cluster.start("C")
    assert await cluster.died("C") == 1
    assert "in the cluster, and not" in node.log_file.read_text()
    shutil.rmtree(node.data_dir)
    shutil.move(tmp_path / "new", node.data_dir)
    await cluster.restart("C")


async def test_scenario_22_a_dead_node_is_removed_and_its_machine_joins_under_a_new_tag(cluster: Cluster) -> None:
    """Its pinned task runs on another Member from then on."""
    group = await Group(cluster, "Dead", "ABC").create()
    await group.add_task("orders", MentorNode="B", PinToMentorNode=True)
    await group.write(1, 20, "A")
    await group.held_by("orders", "B")
    await cluster.kill("B")
    await said(cluster, "node", "remove", "B", "--force", "--yes", tag="C")
    holder = (await group.holders())["orders"]
    assert holder in "AC"
    await group.has_rows("orders", 20)
    shutil.rmtree(cluster.nodes["B"].data_dir)
    del cluster.nodes["B"]
    await cluster.add("F")
    await cluster.wait_until(lambda: is_member(cluster, "F"), "F to vote")
    await cluster.call("PUT", "/admin/databases/node?name=Dead&node=F", tag="A")
    await group.is_member("F")


async def is_member(cluster: Cluster, tag: str) -> bool:
    """Whether the node is a voter."""
    return (await kinds(cluster)).get(tag) == "Member"


async def says_removed(cluster: Cluster, tag: str) -> bool:
    """Whether the node says that it was removed."""
    return "was removed from the cluster" in await not_ready(cluster, tag)
