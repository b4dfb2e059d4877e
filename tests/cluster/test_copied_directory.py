"""A node's directory is copied, or its lock deleted, and two processes are one node: one of them works, the other ends
and says why, and no task runs on both at any time."""

import json
import signal
from collections import Counter
from pathlib import Path

from tests.harness.cluster import PATIENT, Cluster
from tests.harness.runs import assert_no_overlap
from tests.scenarios.conftest import Group

FLAGS = ("--cluster.stabilization-time-sec", "0", *PATIENT)
ROUNDS = 2


async def busy(cluster: Cluster) -> Group:
    """Three tasks that belong to C, which leads nobody."""
    await cluster.lead("A")
    group = await Group(cluster, "Shop", "ABC").create()
    await group.write(1, 20, "A")
    for name in ("orders", "invoices", "letters"):
        await group.add_task(name, MentorNode="C", PinToMentorNode=True)
        await group.held_by(name, "C")
        await group.has_rows(name, 20)
    return group


async def one_ends(cluster: Cluster, names: tuple[str, str]) -> tuple[str, str]:
    """Waits until one of the two processes has ended: that one, and the one that goes on."""

    def ended() -> list[str]:
        return [name for name in names if cluster.ended(name) is not None]

    await cluster.wait_until(ended, f"{names[0]} or {names[1]} to end")
    (loser,) = ended()
    winner = names[1 - names.index(loser)]
    assert await cluster.died(loser) == 1
    await cluster.ready(winner)
    said = cluster.nodes[loser].log_file.read_text().splitlines()
    last = next(line for line in reversed(said) if "This node ends" in line)
    assert "Another process runs as" in last, last
    assert "Stop this one" in last, last
    return loser, winner


async def stays_out(cluster: Cluster, name: str) -> None:
    """Whatever starts it again, as a service manager does: each start counts, and one day it would be the newest."""
    for _ in range(2):
        cluster.start(name)
        assert await cluster.died(name) == 1
    said = cluster.nodes[name].log_file.read_text().splitlines()
    last = next(line for line in reversed(said) if "This node ends" in line)
    assert "The cluster has gone past" in last, last


async def works_on(group: Group, first: int, last: int) -> None:
    """Every task carries on, and what comes is there once."""
    await group.write(first, last, "A")
    for name in group.targets:
        await group.held_by(name, "C")
        await group.has_rows(name, last)


def epochs_started(directories: list[Path]) -> Counter[int]:
    """How often a body was started under each epoch."""
    started: Counter[int] = Counter()
    for directory in directories:
        for line in (directory / "runs.jsonl").read_text().splitlines():
            entry = json.loads(line)
            if entry["event"] == "start":
                started[entry["epoch"]] += 1
    return started


def nothing_ran_twice(cluster: Cluster, group: Group) -> None:
    assert_no_overlap(cluster.runs(), list(group.targets))
    started = epochs_started(sorted({node.data_dir for node in cluster.nodes.values()}))
    assert set(started.values()) == {1}, started


async def test_a_stopped_nodes_directory_is_copied_and_both_are_started(tmp_path: Path) -> None:
    """They are the same start of one node, and cannot tell; neither hears the other."""
    async with Cluster(tmp_path, "ABC", flags=FLAGS) as cluster:
        group = await busy(cluster)
        source = "C"
        for turn, number in enumerate((signal.SIGTERM, signal.SIGKILL), 1):
            await cluster.kill(source, number)
            cluster.twin(source, f"C{turn}")
            both = (source, f"C{turn}")
            for name in both if turn % 2 else reversed(both):
                cluster.start(name)
            loser, source = await one_ends(cluster, both)
            await works_on(group, 20 * turn + 1, 20 * turn + 20)
        await stays_out(cluster, loser)
        nothing_ran_twice(cluster, group)


async def test_a_running_nodes_directory_is_copied_and_the_copy_is_started(tmp_path: Path) -> None:
    """The copy looks like a later start of the node: it takes over when what the first one held is void."""
    async with Cluster(tmp_path, "ABC", flags=FLAGS) as cluster:
        group = await busy(cluster)
        source = "C"
        for turn in range(1, ROUNDS + 1):
            cluster.twin(source, f"C{turn}")
            cluster.start(f"C{turn}")
            loser, winner = await one_ends(cluster, (source, f"C{turn}"))
            assert loser == source
            source = winner
            await works_on(group, 20 * turn + 1, 20 * turn + 20)
        await stays_out(cluster, loser)
        nothing_ran_twice(cluster, group)


async def test_an_old_copy_of_a_directory_never_becomes_the_node_however_often_it_is_started(tmp_path: Path) -> None:
    async with Cluster(tmp_path, "ABC", flags=FLAGS) as cluster:
        group = await busy(cluster)
        await cluster.kill("C", signal.SIGTERM)
        cluster.twin("C", "backup")
        await cluster.restart("C")
        cluster.start("backup")
        assert await cluster.died("backup") == 1
        await stays_out(cluster, "backup")
        await works_on(group, 21, 40)
        nothing_ran_twice(cluster, group)


async def test_the_lock_is_deleted_and_a_second_process_started_on_the_directory(tmp_path: Path) -> None:
    """Both would write one journal and one vote."""
    async with Cluster(tmp_path, "ABC", flags=FLAGS) as cluster:
        group = await busy(cluster)
        directory = cluster.nodes["C"].data_dir
        cluster.twin("C", "again", directory)
        cluster.start("again")
        assert await cluster.died("again") == 1
        (directory / "lock").unlink()
        cluster.start("again")
        assert await cluster.died("again") == 1
        said = cluster.nodes["again"].log_file.read_text()
        assert said.count("Another raftnode runs on the data directory") == 2
        await works_on(group, 21, 40)
        nothing_ran_twice(cluster, group)
