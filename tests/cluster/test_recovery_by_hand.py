"""After the worst, by hand: one survivor starts the cluster again; a cluster begins from a saved snapshot."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from raftnode.consensus.storage.disk import SystemDisk
from raftnode.consensus.storage.hard_state import HardStateFiles
from raftnode.record.model import GENERATION_STRIDE
from tests.harness.cluster import PATIENT, Cluster
from tests.harness.runs import assert_no_overlap
from tests.scenarios.conftest import Group

FLAGS = ("--cluster.stabilization-time-sec", "0", *PATIENT)


async def raftnode(*arguments: str, given: str = "") -> "subprocess.CompletedProcess[str]":
    """One command to its end, without settings of whoever runs the tests."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAFTNODE_")}
    command = [sys.executable, "-m", "raftnode", *arguments]
    return await asyncio.to_thread(
        lambda: subprocess.run(
            command, input=given, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
    )


def of(cluster: Cluster, tag: str) -> tuple[str, ...]:
    """The settings that name a node."""
    node = cluster.nodes[tag]
    return (
        *("--data-dir", str(node.data_dir), "--node.tag", tag, "--http.port", str(node.http_port)),
        *("--cluster.port", str(node.cluster_port)),
    )


def anew(cluster: Cluster, tag: str, of_tag: str) -> None:
    """The node, with an empty directory, is to join the cluster of another."""
    shutil.rmtree(cluster.nodes[tag].data_dir)
    for other in cluster.nodes.values():
        other.founder = other.tag == of_tag


async def ends(cluster: Cluster, tag: str) -> tuple[int, int]:
    """The term and the index in which the stopped node's log ends."""
    said = await raftnode("recover", *of(cluster, tag))
    assert said.returncode == 0, said.stderr
    words = said.stdout.splitlines()[0].rstrip(".").split()
    return int(words[words.index("term") + 1]), int(words[words.index("index") + 1])


async def assert_no_recovery_while_a_node_runs(cluster: Cluster) -> None:
    """Neither beside the node itself nor beside another one; both have ended afterwards."""
    running = await raftnode("recover", *of(cluster, "A"), "--force-new-cluster", "--yes")
    assert running.returncode == 1
    assert "Another raftnode runs on the data directory" in running.stderr
    await cluster.kill("A")
    alone = await raftnode("recover", *of(cluster, "A"), "--force-new-cluster", "--yes")
    assert alone.returncode == 1
    assert f"Still running: B (127.0.0.1:{cluster.nodes['B'].cluster_port} answers)." in alone.stderr
    await cluster.kill("B")


async def test_one_survivor_of_five_goes_on_by_force_and_another_joins_it_anew(tmp_path: Path) -> None:
    async with Cluster(tmp_path, "ABCDE", flags=FLAGS) as cluster:
        group = await Group(cluster, "Shop", "ABC").create()
        await cluster.create_database("Elsewhere", "CDE")
        await group.add_task("orders")
        await group.write(1, 50, "A")
        await group.has_rows("orders", 50)
        before = int((await group.task("orders"))["Epoch"])
        for tag in "CDE":
            await cluster.kill(tag)
            shutil.rmtree(cluster.nodes[tag].data_dir)
        await group.write(51, 80, "A")
        on_b = lambda: cluster.call("GET", "/databases/Shop/docs?id=items/80", tag="B")  # noqa: E731
        await cluster.wait_until(on_b, "the last document on B")

        await assert_no_recovery_while_a_node_runs(cluster)
        survivor = max("AB", key={tag: await ends(cluster, tag) for tag in "AB"}.__getitem__)
        other = "B" if survivor == "A" else "A"
        refused = await raftnode("recover", *of(cluster, survivor), "--force-new-cluster", given="n\n")
        assert refused.returncode == 2, "nobody is asked without a terminal"
        assert "give --yes" in refused.stderr
        assert f"{other} ({cluster.nodes[other].url})" in refused.stdout
        forced = await raftnode("recover", *of(cluster, survivor), "--force-new-cluster", "--yes")
        assert forced.returncode == 0, forced.stderr
        assert "Databases without a copy here, which a recovery drops: Elsewhere." in forced.stdout
        assert "journal" not in forced.stdout + forced.stderr, "the storage's own log is not part of the answer"

        await cluster.restart(survivor)
        await group.has_rows("orders", 80)
        view = await cluster.view()
        assert list(view["Cluster"]["Nodes"]) == [survivor]
        assert list(view["Databases"]) == ["Shop"]
        task = await group.task("orders")
        assert task["Holder"] == survivor
        assert int(task["Epoch"]) // GENERATION_STRIDE > before // GENERATION_STRIDE
        log = await cluster.call("GET", "/admin/cluster/observer/decisions?take=100", tag=survivor)
        assert any("started the cluster again by itself" in decision["Message"] for decision in log["ObserverLog"])

        anew(cluster, other, survivor)
        await cluster.restart(other)
        await cluster.call("PUT", f"/admin/databases/node?name=Shop&node={other}", tag=survivor)
        await group.is_member(other)
        await group.write(81, 90, other)
        await group.has_rows("orders", 90)
        assert_no_overlap(cluster.runs(), ["orders"])


async def test_a_node_of_before_that_comes_back_after_a_forced_recovery_is_not_let_in(tmp_path: Path) -> None:
    async with Cluster(tmp_path, "ABC", flags=FLAGS) as cluster:
        await Group(cluster, "Shop", "AB").create()
        status = await cluster.status("B")
        assert status is not None
        applied = status["Node"]["AppliedIndex"]
        files = HardStateFiles(SystemDisk(), cluster.nodes["B"].data_dir / "raft")
        await cluster.wait_until(lambda: files.load_commit() >= applied, "B to note what is committed")
        for tag in "ABC":
            await cluster.kill(tag)
        forced = await raftnode("recover", *of(cluster, "A"), "--force-new-cluster", "--yes")
        assert forced.returncode == 0, forced.stderr
        await cluster.restart("A")
        cluster.start("B")
        log = cluster.nodes["B"].log_file
        await cluster.wait_until(lambda: "This is cluster" in log.read_text(), "A to refuse B")
        status = await cluster.status("A")
        assert status is not None
        assert list(status["Cluster"]["Nodes"]) == ["A"]
        assert status["Node"]["HasLease"]

        # It still has A's address, and takes documents: they stay with it.
        await cluster.call("PUT", "/databases/Shop/docs?id=late/1", {"@metadata": {"@collection": "Late"}}, "B")
        here = {"@metadata": {"@collection": "Here"}}
        await cluster.call("PUT", "/databases/Shop/docs?id=here/1", here, "A")

        async def refused() -> bool:
            of_b = await cluster.status("B")
            copy = of_b["Databases"]["Shop"]["Copy"] if of_b else None
            return copy is not None and "is not in the cluster" in copy["ReplicationErrors"].get("A", "")

        await cluster.wait_until(refused, "A to refuse B's documents")
        counted = (await cluster.call("GET", "/databases/Shop/collections/stats", None, "A"))["Collections"]
        assert "Here" in counted
        assert "Late" not in counted


async def assert_damage_is_refused(fresh: Cluster, data: bytes, bent: Path) -> None:
    """No part of a snapshot's data makes a cluster, nor does a changed one. Writes to that file."""
    for wrong, why in (
        (data[:-30], "is damaged at byte"),
        (data[:-8], "is incomplete: it ends at byte"),
        (data[:200] + bytes([data[200] ^ 1]) + data[201:], "does not match its checksum"),
        (b"", "is not a snapshot of a format"),
    ):
        await asyncio.to_thread(bent.write_bytes, wrong)
        refused = await raftnode("snapshot", "restore", str(bent), *of(fresh, "N"))
        assert refused.returncode == 1
        assert f"{bent}" in refused.stderr
        assert why in refused.stderr
        assert not fresh.nodes["N"].data_dir.exists()


async def test_a_snapshot_of_a_running_cluster_becomes_a_cluster_of_its_own(tmp_path: Path) -> None:
    file, bent = tmp_path / "cluster.snapshot", tmp_path / "bent.snapshot"
    async with Cluster(tmp_path / "old", "ABC", flags=FLAGS) as cluster:
        group = await Group(cluster, "Shop", "ABC").create()
        await group.add_task("orders")
        await group.write(1, 20, "A")
        await group.has_rows("orders", 20)
        old = await cluster.view()
        saved = await raftnode("snapshot", "save", str(file), "--url", cluster.nodes["B"].url, "--json")
        assert saved.returncode == 0, saved.stderr
        assert file.stat().st_mode & 0o777 == 0o600
        assert json.loads(saved.stdout)["ClusterId"] == old["Cluster"]["ClusterId"]
        epoch = int((await group.task("orders"))["Epoch"])
        for tag in "BC":
            await cluster.kill(tag)
        await cluster.wait_until(lambda: no_lease(cluster, "A"), "A to lose its lease")
        late = await raftnode("snapshot", "save", str(bent), "--url", cluster.nodes["A"].url)
        assert late.returncode == 5, late.stderr
        assert not bent.exists()
        local = await raftnode("snapshot", "save", str(bent), "--local", "--url", cluster.nodes["A"].url)
        assert local.returncode == 0, local.stderr

    async with Fresh(tmp_path / "new", "N", flags=FLAGS) as fresh:
        await assert_damage_is_refused(fresh, file.read_bytes(), bent)
        full = await raftnode("snapshot", "restore", str(file), *of(fresh, "N"), "--data-dir", str(tmp_path / "old"))
        assert full.returncode == 1
        assert "is not empty: it holds A, " in full.stderr
        done = await raftnode("snapshot", "restore", str(file), *of(fresh, "N"))
        assert done.returncode == 0, done.stderr
        again = await raftnode("snapshot", "restore", str(file), *of(fresh, "N"))
        assert "is not empty" in again.stderr

        await fresh.restart("N")
        renewed = Group(fresh, "Shop", "N")
        renewed.targets = group.targets
        view = await fresh.view()
        assert view["Cluster"]["ClusterId"] != old["Cluster"]["ClusterId"]
        await renewed.write(1, 25, "N")
        await renewed.has_rows("orders", 25)
        task = await renewed.task("orders")
        assert int(task["Epoch"]) // GENERATION_STRIDE > epoch // GENERATION_STRIDE
        await fresh.add("P")
        await fresh.call("PUT", "/admin/databases/node?name=Shop&node=P", tag="N")
        await renewed.is_member("P")


class Fresh(Cluster):
    """Nodes that are not started yet."""

    async def __aenter__(self) -> "Fresh":
        await self.http.__aenter__()
        return self


async def no_lease(cluster: Cluster, tag: str) -> Any:
    """Whether the node runs and has no lease."""
    status = await cluster.status(tag)
    return status is not None and not status["Node"]["HasLease"]
