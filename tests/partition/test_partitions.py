"""Partitions of every shape: one runner, no row lost or doubled, only what must move moves, and everything comes back.

Five nodes in network namespaces; databases on A, B and E; a task for each of them, carrying documents that are written
all along into a SQLite file. The journals of runs are compared on the machine's one clock.
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import pytest_asyncio

from raftnode.http import HttpError
from tests.harness.runs import assert_no_overlap, machine_ns
from tests.partition.lab import Lab
from tests.scenarios.conftest import Group

pytestmark = [pytest.mark.lab, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

MEMBERS = "ABE"
LEASE_AND_STOP_NS = (450 + 150) * 1_000_000
"""The fast profile's lease and stop timeout: no body outlives a cut by more."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lab(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lab]:
    """Five nodes in a network; at the end no two runs of a task may have overlapped."""
    async with Lab(tmp_path_factory.mktemp("lab"), flags=("--cluster.stabilization-time-sec", "0")) as made:
        yield made
        assert_no_overlap(made.runs(), [])


@pytest_asyncio.fixture(loop_scope="module")
async def group(lab: Lab, request: pytest.FixtureRequest) -> AsyncIterator[Group]:
    """A database of the test's own with a task for each of its nodes; afterwards everything is whole again."""
    name = f"Db{abs(hash(request.node.name)) % 10**8}"
    made = await Group(lab, name, MEMBERS).create()
    for tag in MEMBERS:
        await made.add_task(f"on{tag}", MentorNode=tag)
    for tag in MEMBERS:
        await made.held_by(f"on{tag}", tag)
    yield made
    lab.network.heal()
    for tag in lab.nodes:
        if lab.ended(tag) is not None:
            lab.start(tag)
        await lab.ready(tag)
    await lab.call("DELETE", "/admin/databases", {"DatabaseNames": [name], "HardDelete": True}, "A")


class Writing:
    """Writes documents one after the other, each to the first of the nodes that takes it, until told to stop."""

    def __init__(self, group: Group, tags: str) -> None:
        self.group, self.tags = group, tags
        self.count = 0
        self.told = False

    async def run(self) -> None:
        """Until told to stop; what was begun is finished, so that `count` is what there is."""
        while not self.told:
            for tag in self.tags:
                try:
                    await self.group.write(self.count + 1, self.count + 1, tag)
                    self.count += 1
                    break
                except HttpError:
                    await asyncio.sleep(0.02)


@asynccontextmanager
async def writing(group: Group, tags: str) -> AsyncIterator[Writing]:
    """Documents are written for as long as the block lasts."""
    writer = Writing(group, tags)
    task = asyncio.ensure_future(writer.run())
    try:
        yield writer
    finally:
        writer.told = True
        await task


async def cut_off(lab: Lab, group: Group, accident: Callable[[], None], *, led: bool) -> None:
    """B is cut off by the accident, its task moves, the cut heals, and B's share comes back.

    `led`: B leads when it happens; then the others' leases hang on the first election, which may be undecided.
    """
    others = [tag for tag in lab.nodes if tag != "B"]
    if led:
        await lead(lab, "B")
    elif await lab.leader() == "B":
        await lead(lab, "C")
    async with writing(group, "AE") as writer:
        await lab.wait_until(lambda: writer.count > 20, "documents to be written")
        epochs = await group.epochs()
        await asyncio.to_thread(accident)
        cut_ns = machine_ns()
        await lab.wait_until(partial(is_idle_candidate, lab, "B"), "B to be a Candidate that runs nothing")
        last_ns = max(i.to_ns for i in lab.runs()[key(group, "onB")] if i.node == "B")
        assert last_ns <= cut_ns + LEASE_AND_STOP_NS

        async def moved() -> bool:
            view = await lab.view(others)
            database = view["Databases"][group.name] if view else None
            if database is None or "B" not in database["Topology"]["Rehabs"]:
                return False
            return any(t["TaskName"] == "onB" and t["Holder"] in ("A", "E") for t in database["Tasks"])

        await lab.wait_until(moved, "B in Rehab and its task on A or E")
        seen = writer.count
        await lab.wait_until(lambda: len(group.rows("onB")) > seen, "the task to go on")
        if not led:
            view = await lab.view(others)
            now = {t["TaskName"]: t["Epoch"] for t in view["Databases"][group.name]["Tasks"]}
            assert {name for name in epochs if epochs[name] != now[name]} == {"onB"}
        lab.network.heal()
        await group.is_member("B")
        await group.held_by("onB", "B")
    for tag in MEMBERS:
        await group.has_rows(f"on{tag}", writer.count)
    assert_no_overlap(lab.runs(), [key(group, f"on{tag}") for tag in MEMBERS])


async def lead(lab: Lab, tag: str) -> None:
    """Makes the node the leader."""

    async def leads() -> bool:
        if await lab.leader() == tag:
            return True
        await lab.call("POST", f"/admin/cluster/reelect?nodeTag={tag}")
        return False

    await lab.wait_until(leads, f"{tag} to lead")
    await lab.wait_until(partial(all_ready, lab), "every node to be ready")


async def all_ready(lab: Lab) -> bool:
    """Whether every node has a lease."""
    views = [await lab.status(tag) for tag in lab.nodes]
    return all(view and view["Node"]["HasLease"] for view in views)


async def is_idle_candidate(lab: Lab, tag: str) -> bool:
    """Whether the node has no lease and none of its bodies lives."""
    status = await lab.status(tag)
    if status is None:
        return False
    tasks = [t for d in status["Databases"].values() for t in d["Tasks"]]
    alive = [t for t in tasks if (t["RunHere"] or {}).get("State") in ("Running", "Stopping", "Error")]
    return status["Node"]["Role"] == "Candidate" and not alive


def key(group: Group, name: str) -> str:
    """The task's claim key."""
    return f"{group.name.lower()}/SqlEtl/{name.lower()}"


def deaf(lab: Lab, tag: str) -> None:
    """The node hears nobody; the others hear it."""
    for other in lab.nodes:
        if other != tag:
            lab.network.drop(other, tag)


def mute(lab: Lab, tag: str) -> None:
    """Nobody hears the node; it hears the others."""
    for other in lab.nodes:
        if other != tag:
            lab.network.drop(tag, other)


@pytest.mark.parametrize("led", [False, True], ids=["a follower", "the leader"])
async def test_a_node_that_is_cut_off_drops_its_tasks_and_they_move_and_return(
    lab: Lab, group: Group, led: bool
) -> None:
    await cut_off(lab, group, lambda: lab.network.isolate("B"), led=led)


@pytest.mark.parametrize("led", [False, True], ids=["a follower", "the leader"])
async def test_a_node_that_hears_nobody_drops_its_tasks_and_they_move_and_return(
    lab: Lab, group: Group, led: bool
) -> None:
    await cut_off(lab, group, lambda: deaf(lab, "B"), led=led)


@pytest.mark.parametrize("led", [False, True], ids=["a follower", "the leader"])
async def test_a_node_that_nobody_hears_drops_its_tasks_and_they_move_and_return(
    lab: Lab, group: Group, led: bool
) -> None:
    await cut_off(lab, group, lambda: mute(lab, "B"), led=led)


async def test_two_against_three_the_two_run_nothing_and_the_three_everything(lab: Lab, group: Group) -> None:
    async with writing(group, "E") as writer:
        await lab.wait_until(lambda: writer.count > 10, "documents to be written")
        lab.network.partition("AB", "CDE")
        for tag in "AB":
            await lab.wait_until(partial(is_idle_candidate, lab, tag), f"{tag} to be a Candidate that runs nothing")

        async def all_on_e() -> bool:
            view = await lab.view("CDE")
            tasks = view["Databases"][group.name]["Tasks"] if view else []
            return bool(tasks) and all(t["Holder"] == "E" for t in tasks)

        await lab.wait_until(all_on_e, "every task on E")
        seen = writer.count
        await lab.wait_until(lambda: len(group.rows("onA")) > seen, "the tasks to go on")
        lab.network.heal()
        for tag in MEMBERS:
            await group.held_by(f"on{tag}", tag)
    for tag in MEMBERS:
        await group.has_rows(f"on{tag}", writer.count)


async def test_two_two_and_one_nobody_has_a_lease_and_nothing_runs_until_it_heals(lab: Lab, group: Group) -> None:
    await group.write(1, 20, "A")
    for tag in MEMBERS:
        await group.has_rows(f"on{tag}", 20)
    lab.network.partition("AB", "CD", "E")
    for tag in lab.nodes:
        await lab.wait_until(partial(is_idle_candidate, lab, tag), f"{tag} to be a Candidate that runs nothing")
    stopped_ns = machine_ns()
    await group.write(21, 30, "A")
    await group.write(31, 40, "E")
    assert [group.rows(f"on{tag}") for tag in MEMBERS] == [list(range(1, 21))] * 3
    assert not [i for runs in lab.runs().values() for i in runs if i.to_ns > stopped_ns]
    lab.network.heal()
    for tag in MEMBERS:
        await group.has_rows(f"on{tag}", 40)
        await group.held_by(f"on{tag}", tag)


async def test_a_frozen_node_is_given_up_and_what_is_left_of_it_does_nothing_when_it_is_thawed(
    lab: Lab, group: Group
) -> None:
    async with writing(group, "AE") as writer:
        await lab.wait_until(lambda: writer.count > 20, "documents to be written")
        await lab.freeze("B")
        others = "ACDE"

        async def moved() -> bool:
            view = await lab.view(others)
            tasks: list[dict[str, Any]] = view["Databases"][group.name]["Tasks"] if view else []
            return any(t["TaskName"] == "onB" and t["Holder"] in ("A", "E") for t in tasks)

        await lab.wait_until(moved, "its task on A or E")
        seen = writer.count
        await lab.wait_until(lambda: len(group.rows("onB")) > seen, "the task to go on")
        lab.thaw("B")
        assert await lab.died("B") == -signal.SIGKILL, "the kernel timer ends a frozen process whose bodies outlived it"
        await lab.restart("B")
        await group.is_member("B")
        await group.held_by("onB", "B")
    for tag in MEMBERS:
        await group.has_rows(f"on{tag}", writer.count)
    assert_no_overlap(lab.runs(), [key(group, "onB")])


async def test_lost_packets_and_a_slow_link_cost_time_and_nothing_else(lab: Lab, group: Group) -> None:
    for sender in lab.nodes:
        for receiver in lab.nodes:
            if sender != receiver:
                lab.network.lose(sender, receiver, 5)
    lab.network.slow("B", 2000)
    async with writing(group, "A") as writer:
        await lab.wait_until(lambda: writer.count > 100, "documents to be written")
    lab.network.heal()
    for tag in MEMBERS:
        await group.has_rows(f"on{tag}", writer.count)
        await group.held_by(f"on{tag}", tag)
