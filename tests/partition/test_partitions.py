"""Partitions of every shape: one runner, no row lost or doubled, only what must move moves, and everything comes back.

Five nodes in network namespaces; databases on A, B and E; a task for each of them, carrying documents that are written
all along into a SQLite file. The journals of runs are compared on the machine's one clock.
"""

import asyncio
from collections.abc import Callable
from functools import partial

import pytest

from tests.harness.runs import assert_no_overlap, machine_ns
from tests.partition.lab import Lab
from tests.partition.scene import (
    MEMBERS,
    all_good,
    deaf,
    goes_on,
    idle_candidate,
    key,
    last_acted_ns,
    lead,
    lossy,
    moved,
    mute,
    returned,
    revive,
    same_documents,
    tasks,
    writing,
)
from tests.scenarios.conftest import Group, etl

pytestmark = [pytest.mark.lab, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

LEASE_AND_STOP_NS = (450 + 150) * 1_000_000
"""The fast profile's lease and stop timeout: no body outlives a cut by more."""


async def cut_off(lab: Lab, group: Group, accident: Callable[[], None], *, leader: str) -> None:
    """B is cut off by the accident, its task moves, the cut heals, and B's share comes back.

    When B leads, the others' leases hang on the first election, which may be undecided: then a task may begin a new
    run, on the node that has it. When another leads, nothing at all happens to the other tasks and to the leader.
    """
    others = [tag for tag in lab.nodes if tag != "B"]
    await lead(lab, leader)
    async with writing(group, "AE") as writer:
        epochs = await group.epochs()
        term = (await lab.view())["Node"]["Term"]
        await goes_on(group, writer, "onB")  # a body that was cut off while it began would have acted nowhere
        await asyncio.to_thread(accident)
        cut_ns = machine_ns()
        await idle_candidate(lab, "B")
        assert last_acted_ns(lab, group, "onB", "B") <= cut_ns + LEASE_AND_STOP_NS
        await moved(group, "onB", "B", others)
        now = await tasks(group, others)
        assert {name: task["Holder"] for name, task in now.items() if name != "onB"} == {"onA": "A", "onE": "E"}
        await goes_on(group, writer, "onB")
        lab.network.heal()
        await returned(group)
        if leader != "B":
            assert {name for name, epoch in (await group.epochs()).items() if epoch != epochs[name]} == {"onB"}
            assert (await lab.view())["Node"]["Term"] == term, "whoever comes back disturbs nobody"
    for tag in MEMBERS:
        await group.has_rows(f"on{tag}", writer.count)
    assert_no_overlap(lab.runs(), [key(group, f"on{tag}") for tag in MEMBERS])


either = pytest.mark.parametrize("leader", ["C", "B"], ids=["a follower", "the leader"])


@either
async def test_a_node_that_is_cut_off_drops_its_tasks_and_they_move_and_return(
    lab: Lab, group: Group, leader: str
) -> None:
    await cut_off(lab, group, lambda: lab.network.isolate("B"), leader=leader)


@either
async def test_a_node_that_hears_nobody_drops_its_tasks_and_they_move_and_return(
    lab: Lab, group: Group, leader: str
) -> None:
    await cut_off(lab, group, lambda: deaf(lab, "B"), leader=leader)


@either
async def test_a_node_that_nobody_hears_drops_its_tasks_and_they_move_and_return(
    lab: Lab, group: Group, leader: str
) -> None:
    await cut_off(lab, group, lambda: mute(lab, "B"), leader=leader)


async def test_a_node_that_only_the_leader_has_lost_drops_its_tasks_and_they_move_and_return(
    lab: Lab, group: Group
) -> None:
    await cut_off(lab, group, lambda: lab.network.partition("B", "C"), leader="C")


async def test_a_leader_that_loses_its_majority_gives_way_to_the_one_node_that_reaches_all(
    lab: Lab, group: Group
) -> None:
    await lead(lab, "D")
    async with writing(group, "A") as writer:
        lab.network.partition("A", "B", "D", "E")

        async def led_by_c() -> bool:
            return await all_good(lab) and await lab.leader() == "C"

        await lab.wait_until(led_by_c, "C to lead all")
        await returned(group)
        await goes_on(group, writer, "onA")
        lab.network.heal()
    for tag in MEMBERS:
        await group.has_rows(f"on{tag}", writer.count)
    assert_no_overlap(lab.runs(), [key(group, f"on{tag}") for tag in MEMBERS])


@pytest.mark.parametrize("leader", ["A", "C"], ids=["the two", "the three"])
async def test_two_against_three_the_two_run_nothing_and_the_three_everything_whoever_has_led(
    lab: Lab, group: Group, leader: str
) -> None:
    await lead(lab, leader)
    async with writing(group, "E") as writer:
        lab.network.partition("AB", "CDE")
        cut_ns = machine_ns()
        for tag in "AB":
            await idle_candidate(lab, tag)
            assert last_acted_ns(lab, group, f"on{tag}", tag) <= cut_ns + LEASE_AND_STOP_NS

        async def all_on_e() -> bool:
            return {task["Holder"] for task in (await tasks(group, "CDE")).values()} == {"E"}

        await lab.wait_until(all_on_e, "every task on E")
        await goes_on(group, writer, "onA", "onB", "onE")
        lab.network.heal()
        await returned(group)
    for tag in MEMBERS:
        await group.has_rows(f"on{tag}", writer.count)
    assert_no_overlap(lab.runs(), [key(group, f"on{tag}") for tag in MEMBERS])


async def test_two_two_and_one_nobody_has_a_lease_and_nothing_runs_until_it_heals(lab: Lab, group: Group) -> None:
    await group.write(1, 20, "A")
    for tag in MEMBERS:
        await group.has_rows(f"on{tag}", 20)
    lab.network.partition("AB", "CD", "E")
    for tag in lab.nodes:
        await idle_candidate(lab, tag)
    stopped_ns = machine_ns()
    await group.write(21, 30, "A")
    await group.write(31, 40, "E")
    assert [group.rows(f"on{tag}") for tag in MEMBERS] == [list(range(1, 21))] * 3
    assert not [i for runs in lab.runs().values() for i in runs if i.to_ns > stopped_ns]
    lab.network.heal()
    for tag in MEMBERS:
        await group.has_rows(f"on{tag}", 40)
    await returned(group)


async def test_leases_too_short_for_the_packets_that_are_lost_cost_runs_and_no_row(lab: Lab, group: Group) -> None:
    async with writing(group, "A") as writer:
        lossy(lab, percent=10)
        lab.network.slow("B", 2000)
        await writer.some(1000)
        lab.network.heal()
        revive(lab)
        await returned(group)
    for tag in MEMBERS:
        await group.has_rows(f"on{tag}", writer.count)
    assert_no_overlap(lab.runs(), [key(group, f"on{tag}") for tag in MEMBERS])


async def test_what_is_written_on_both_sides_is_the_same_everywhere_after_healing(lab: Lab, group: Group) -> None:
    await group.write(1, 10, "A")
    await same_documents(group, 10)
    for tag in MEMBERS:
        await lab.put_etl(group.name, etl(f"on{tag}", MentorNode=tag), group.ids[f"on{tag}"])
    lab.network.partition("AB", "CDE")
    await idle_candidate(lab, "A")
    await group.write(1, 20, "A")
    for n in [*range(1, 6), *range(21, 31)]:
        document = {"Value": -n, "@metadata": {"@id": f"items/{n}", "@collection": "Items"}}
        await lab.import_documents(group.name, [document], "E")
    lab.network.heal()
    values = await same_documents(group, 30)
    assert {id: value for id, value in values.items() if id not in contested()} == uncontested()
    assert all(abs(values[f"items/{n}"]) == n for n in range(1, 6))
    rows = sorted(values.values())
    for tag in MEMBERS:
        await lab.wait_until(partial(has_rows, group, f"on{tag}", rows), f"the winners in on{tag}'s target")


def has_rows(group: Group, name: str, rows: list[int]) -> bool:
    """Whether the task's target holds exactly these."""
    return group.rows(name) == rows


def contested() -> set[str]:
    """The documents that both sides write while they are apart."""
    return {f"items/{n}" for n in range(1, 6)}


def uncontested() -> dict[str, int]:
    """What the others must hold: A's side writes what is above, E's what is below zero."""
    return {f"items/{n}": n if n <= 20 else -n for n in range(6, 31)}
