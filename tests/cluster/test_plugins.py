"""A kind of task that only some nodes have, on real processes."""

import asyncio
import json
import signal
import uuid
from pathlib import Path

import pytest

from raftnode.foundation.http_client import HttpFailed
from tests.harness import hostile_tasks
from tests.harness.cluster import PATIENT, Cluster
from tests.harness.plugins import install
from tests.harness.runs import machine_ns
from tests.unit.tasks.runtime.test_subprocesses import HIDING, sleeping

DATABASE = "Plugged"


async def test_any_node_takes_a_task_of_a_kind_that_another_has_and_the_others_say_what_to_install(
    tmp_path: Path,
) -> None:
    cluster = Cluster(tmp_path, "AB", flags=PATIENT)
    cluster.nodes["A"].prefix += install(tmp_path / "packages", Path(hostile_tasks.__file__), "hostile_etl")
    async with cluster:
        await cluster.create_database(DATABASE, "AB")
        task = {"EtlType": "Hostile", "Name": "t"}
        answer = await cluster.call("PUT", f"/databases/{DATABASE}/admin/etl", task, "B")
        assert answer["ResponsibleNode"] == "A"

        async def held() -> bool:
            return await cluster.holder(DATABASE, "t") == "A"

        await cluster.wait_until(held, "A to run the task")
        other = {"TaskType": "HostileEtl", "Name": "other"}
        answer = await cluster.call("PUT", f"/databases/{DATABASE}/admin/tasks", other, "B")
        assert answer["ResponsibleNode"] == "A"
        with pytest.raises(HttpFailed, match=r"KeyError: 'Name'\. Is that field missing"):
            await cluster.call("PUT", f"/databases/{DATABASE}/admin/etl", {"EtlType": "Hostile"}, "B")
        with pytest.raises(HttpFailed, match=r"no node of the cluster has the task kind 'NoneSuchEtl'.*pip install"):
            await cluster.call("PUT", f"/databases/{DATABASE}/admin/etl", {"EtlType": "NoneSuch", "Name": "n"}, "B")
        await cluster.call("DELETE", f"/databases/{DATABASE}/admin/tasks?taskName=t", None, "B")
        await cluster.create_database("Alone", "B")
        answer = await cluster.call("PUT", "/databases/Alone/admin/etl", task, "A")
        assert answer["ResponsibleNode"] is None
        why = await cluster.call("GET", "/databases/Alone/tasks/t/why", None, "B")
        assert "Install the package that has it on B" in str(why)


async def test_a_task_whose_runs_have_ended_two_nodes_is_named_and_held_back_until_it_is_enabled_by_hand(
    tmp_path: Path,
) -> None:
    cluster = Cluster(tmp_path, "ABC", flags=PATIENT)
    found = install(tmp_path / "packages", Path(hostile_tasks.__file__), "hostile_etl")
    for node in cluster.nodes.values():
        node.prefix += found
    async with cluster:
        await cluster.create_database(DATABASE, "ABC")
        await cluster.put_etl(DATABASE, {"EtlType": "Hostile", "Name": "t", "Does": "block"})

        def dead() -> list[str]:
            return [tag for tag in "ABC" if cluster.ended(tag) is not None]

        for _ in range(2):
            [tag] = await cluster.wait_until(dead, "the task to end a node")
            assert await cluster.died(tag) == -signal.SIGKILL
            cluster.start(tag)

        async def rule() -> str:
            return str((await cluster.task(DATABASE, "t"))["Placement"]["Rule"])

        async def held_back() -> bool:
            return await rule() == "HeldBack"

        await cluster.wait_until(held_back, "the task to be held back")
        for tag in "ABC":
            await cluster.ready(tag)
        why = (await cluster.call("GET", f"/databases/{DATABASE}/tasks/t/why"))["Because"]
        assert "in _block" in why
        assert "raftnode task enable 't'" in why
        task = await cluster.call("GET", f"/databases/{DATABASE}/task?taskName=t")
        assert (task["State"], task["TaskConnectionStatus"]) == ("HeldBack", "None")
        assert "raftnode task enable t" in task["Error"]
        assert dead() == []
        named = [n.tag for n in cluster.nodes.values() if b"A task has ended this node" in n.log_file.read_bytes()]
        assert named
        await cluster.call("POST", f"/databases/{DATABASE}/admin/tasks/state?taskName=t&disable=false")
        assert await rule() == "Hash"


async def test_what_a_task_has_started_ends_with_its_node_before_the_task_runs_elsewhere(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, "ABC", flags=PATIENT)
    found = install(tmp_path / "packages", Path(hostile_tasks.__file__), "hostile_etl")
    for node in cluster.nodes.values():
        node.prefix += found
    seconds = f"3600.{uuid.uuid4().int % 10**12:012}"
    async with cluster:
        await cluster.create_database(DATABASE, "ABC")
        task = {"EtlType": "Hostile", "Name": "t", "Does": "spawn", "Command": HIDING.format(seconds)}
        await cluster.put_etl(DATABASE, task)
        holder = await cluster.wait_until(lambda: cluster.holder(DATABASE, "t"), "the task to run")
        first = await cluster.wait_until(lambda: len(sleeping(seconds)) == 3 and sleeping(seconds), "its processes")
        await cluster.kill(holder)
        await cluster.wait_until(lambda: not set(first) & set(sleeping(seconds)), "all of them to be gone")
        left = [tag for tag in "ABC" if tag != holder]

        async def elsewhere() -> bool:
            return await cluster.holder(DATABASE, "t", left) in left

        await cluster.wait_until(elsewhere, "the task to run elsewhere")
        await cluster.wait_until(lambda: len(sleeping(seconds)) == 3, "its processes there")
    assert await asyncio.to_thread(sleeping, seconds) == []


async def test_a_partition_tolerant_task_goes_on_without_a_lease_and_its_node_is_not_ended(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, "ABC", flags=PATIENT)
    found = install(tmp_path / "packages", Path(hostile_tasks.__file__), "hostile_etl")
    for node in cluster.nodes.values():
        node.prefix += found
    async with cluster:
        await cluster.create_database(DATABASE, "ABC")
        tolerant = {"PartitionTolerant": True}
        await cluster.put_etl(DATABASE, {"EtlType": "Hostile", "Name": "t", "MentorNode": "A", "Traits": tolerant})

        def runs() -> int:
            file = cluster.nodes["A"].data_dir / "runs.jsonl"
            events = [json.loads(line)["event"] for line in file.read_text().splitlines()] if file.exists() else []
            return events.count("start") - events.count("end")

        await cluster.wait_until(lambda: runs() == 1, "A to run the task")
        await cluster.kill("B")
        await cluster.kill("C")

        async def without_lease() -> bool:
            status = await cluster.status("A")
            return status is not None and not status["Node"]["HasLease"]

        await cluster.wait_until(without_lease, "A to lose its lease")
        over_ns = machine_ns() + 3 * 10**9
        await cluster.wait_until(lambda: machine_ns() > over_ns, "all the time that bodies with a lease had")
        assert (cluster.ended("A"), runs()) == (None, 1)
