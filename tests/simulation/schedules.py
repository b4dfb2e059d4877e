"""Worlds in which one kind of accident happens much more often than chance would have it.

Each is given a world before it lives. With every rule in place nothing is violated in any of them.
"""

from collections.abc import Callable
from typing import Any

from config.timings import PROFILES, rehab_ms_min
from raftnode.consensus.model import NotCommitted, OutcomeUnknown
from raftnode.record.commands import Command, Decide, DeleteTask, PutTask, ReleaseTask, SetTaskPin, decode, encode
from raftnode.record.ownership import task_key
from tests.clocks import FASTEST, SLOWEST
from tests.simulation import body
from tests.simulation.body import NAME
from tests.simulation.node import Machine
from tests.simulation.operators import DATABASE
from tests.simulation.world import World

Schedule = Callable[[World], None]

PACE = PROFILES["default"] | {"time_before_moving_to_rehab_ms": rehab_ms_min(1800, 1000)}
"""The default profile with the shortest R that the settings allow."""
BUSY_S = 55.0
"""Until when the accidents of a schedule go on."""


def as_it_comes(world: World) -> None:
    """Whatever chance brings."""
    world.pace = PACE


def every(world: World, low_s: float, high_s: float, what: Callable[[], None]) -> None:
    """Has something happen again and again."""

    def once() -> None:
        if world.loop.time() < BUSY_S:
            what()
            every(world, low_s, high_s, what)

    world.later(world.chance.uniform(low_s, high_s), once)


def lagging(world: World) -> None:
    """Nodes are busy taking in a snapshot now and then: they are heard and hear, and apply nothing meanwhile."""
    as_it_comes(world)
    every(world, 0.2, 1.5, lambda: _lag(world))


def _lag(world: World, tag: str | None = None, for_s: float = 0.0) -> None:
    ready = [machine for machine in world.machines.values() if machine.ready and tag in (None, machine.tag)]
    if not ready:
        return
    machine = world.chance.choice(ready)
    engine: Any = machine.raft._engine
    if engine is None or engine._snapshots.installing or engine.status.role != "Follower":
        return
    world.note(f"{machine.tag} applies nothing for a while")
    engine._snapshots.installing = True
    process = machine.process

    def go_on() -> None:
        engine._snapshots.installing = False
        if process is not None and process.alive and machine.process is process:
            process.context.run(machine.raft.schedule_tick)

    world.later(for_s or world.chance.uniform(0.2, 2.5), go_on)


def starving(world: World) -> None:
    """Nodes have no memory for an entry now and then."""
    as_it_comes(world)
    every(world, 1.0, 4.0, world.faults.out_of_memory)


def restless(world: World) -> None:
    """Operators move tasks to and fro all the time, over slow wires and with nodes that lag."""
    lagging(world)
    every(world, 0.05, 0.3, lambda: _pin(world))


def _pin(world: World, tag: str | None = None) -> None:
    ready = [machine for machine in world.machines.values() if machine.ready]
    if not ready:
        return
    machine = world.chance.choice(ready)
    database = machine.replica.record.database(DATABASE)
    if database is None or not database.tasks or not database.topology.members:
        return
    task = world.chance.choice(sorted(database.tasks))
    mentor = tag or world.chance.choice(database.topology.members)
    world.on(machine, world.operators._propose(machine, SetTaskPin(database=DATABASE, id=task, mentor=mentor)))


def late_copies(world: World) -> None:
    """What ended a claim comes a second time, up to four seconds later: releases from anywhere, decisions in their own
    term. Tasks move to and fro meanwhile."""
    restless(world)
    applied, copied = world.logs.applied, set[int]()

    def watched(node: str, index: int, term: int, command: bytes, *records: Any) -> None:
        applied(node, index, term, command, *records)
        found = decode(command).command
        if isinstance(found, ReleaseTask | Decide) and index not in copied:
            copied.add(index)
            world.later(world.chance.uniform(0.05, 4.0), lambda: _propose_again(world, found, index))

    world.logs.applied = watched  # type: ignore[assignment,method-assign]


def _propose_again(world: World, command: ReleaseTask | Decide, index: int) -> None:
    ready = [machine for machine in world.machines.values() if machine.ready]
    if isinstance(command, Decide):
        ready = [
            machine
            for machine in ready
            if (machine.raft.status.role, machine.raft.status.term) == ("Leader", command.term)
        ]
    if ready and world.loop.time() < BUSY_S:
        machine = world.chance.choice(ready)
        world.on(machine, _copy(machine, command, f"copy of {index}"))


async def _copy(machine: Machine, command: ReleaseTask | Decide, request_id: str) -> None:
    data = encode(command, request_id)
    try:
        if isinstance(command, Decide):
            await machine.raft.propose_here(data, term=command.term, timeout_ms=3000)
        else:
            await machine.raft.propose(data, timeout_ms=3000)
    except (NotCommitted, OutcomeUnknown):
        machine.world.note(f"{machine.tag} could not propose a copy")


def names_again(world: World) -> None:
    """Operators delete tasks and make them again at once under the same name, with another key."""
    as_it_comes(world)
    operators, chance = world.operators, world.chance
    usual = operators._command
    gone: list[str] = []

    def command(machine: Machine) -> Command | None:
        database = machine.replica.record.database(DATABASE)
        if gone:
            name = gone.pop()
            operators._number += 1
            return PutTask(database=DATABASE, name=name, kind=NAME, key=task_key(NAME, str(operators._number)))
        if database is not None and len(database.tasks) >= 3 and chance.random() < 0.5:
            task = chance.choice(sorted(database.tasks.values(), key=lambda task: task.id))
            gone.append(task.name)
            return DeleteTask(database=DATABASE, id=task.id)
        return usual(machine)

    operators._command = command  # type: ignore[method-assign]
    every(world, 0.1, 0.4, operators.act)


def slow_sinks(world: World) -> None:
    """Requests to a sink, and its answers, take up to four seconds."""
    as_it_comes(world)
    every(world, 1.0, 3.0, lambda: _pin(world))


SLOW_HOP_S = (0.001, 4.0)


def hop_slowly(patch: Any) -> None:
    """What `slow_sinks` needs of the bodies."""
    patch.setattr(body, "HOP_S", SLOW_HOP_S)


def winners_alone(world: World) -> None:
    """When a node is elected, all others lose their power before they hear of it, and for a while nobody hears it."""
    as_it_comes(world)
    world.faults.strike = lambda: None  # type: ignore[method-assign]
    for machine in world.machines.values():
        machine._role = _alone_on_winning(world, machine, machine._role)  # type: ignore[assignment,method-assign]


def _alone_on_winning(world: World, machine: Machine, tell: Callable[[str, int], None]) -> Callable[[str, int], None]:
    def role(role: str, term: int) -> None:
        tell(role, term)
        if role in ("Leader", "LeaderElect") and world.loop.time() < BUSY_S and world.chance.random() < 0.7:
            world.later(0, strike)

    def strike() -> None:
        others = [other for other in world.machines.values() if other is not machine]
        world.note(f"{machine.tag} has won, and is alone")
        ways = {(machine.tag, other.tag) for other in others} | {(other.tag, machine.tag) for other in others}
        world.network.cut_ways(ways)
        world.later(4.0, lambda: world.network.cut.difference_update(ways))
        for other in others:
            other.die()
            world.later(world.chance.uniform(0.05, 0.3), other.start)

    return role


def returning_late(world: World) -> None:
    """Again and again a Member is cut off for longer than R, and lags when it is back."""
    as_it_comes(world)
    world.faults.strike = lambda: None  # type: ignore[method-assign]
    every(world, 8.0, 10.0, lambda: _leave_and_come_back(world))


def _leave_and_come_back(world: World) -> None:
    followers = [tag for tag in world.group if _follows(world, tag)]
    if not followers:
        return
    tag = world.chance.choice(followers)
    others = [other for other in world.machines if other != tag]
    ways = {(tag, other) for other in others} | {(other, tag) for other in others}
    world.note(f"{tag} is cut off, and lags when it is back")
    world.network.cut_ways(ways)
    back_s = world.chance.uniform(4.0, 6.0)
    world.later(back_s - 0.1, lambda: _lag(world, tag, 1.7))
    world.later(back_s, lambda: world.network.cut.difference_update(ways))


def slow_holders(world: World) -> None:
    """The machine that holds every task has as slow a clock as clocks may have, the others as fast ones. Now and then
    it is not heard any more, and freezes just before its lease ends. The observer looks all the time."""
    world.pace = PACE | {"observer_period_ms": 10}
    slow = world.group[0]
    for machine in world.machines.values():
        machine.rate = SLOWEST if machine.tag == slow else FASTEST
    world.faults.strike = lambda: None  # type: ignore[method-assign]
    every(world, 0.4, 0.6, lambda: _pin(world, slow))
    every(world, 9.0, 10.0, lambda: _silence_and_freeze(world, slow))


def _silence_and_freeze(world: World, tag: str) -> None:
    if not _follows(world, tag):
        return
    ways = {(tag, other) for other in world.machines if other != tag}
    world.note(f"{tag} is not heard, and freezes")
    world.network.cut_ways(ways)
    machine = world.machines[tag]
    world.later(1.3, machine.pause)
    world.later(5.0, lambda: world.network.cut.difference_update(ways))
    world.later(5.2, machine.thaw)
    world.later(5.4, machine.start)


def hanging_on_the_old_leader(world: World) -> None:
    """Again and again a Member hears only the leader, then the two are cut off from all others, and the Member freezes
    just before the leader has to give up."""
    as_it_comes(world)
    world.faults.strike = lambda: None  # type: ignore[method-assign]
    every(world, 12.0, 14.0, lambda: _hang(world))


def _hang(world: World) -> None:
    leading = [m.tag for m in world.machines.values() if m.ready and m.raft.status.role == "Leader"]
    members = [tag for tag in world.group if _follows(world, tag)]
    if len(leading) != 1 or not members:
        return
    leader, member = leading[0], world.chance.choice(members)
    others = [tag for tag in world.machines if tag not in (leader, member)]
    first = {(member, tag) for tag in others} | {(tag, member) for tag in others}
    both = first | {(leader, tag) for tag in others} | {(tag, leader) for tag in others}
    alone_s = world.chance.uniform(0.0, 1.0)
    world.note(f"{member} hears only the leader {leader}")
    world.network.cut_ways(first)
    world.later(alone_s, lambda: world.network.cut_ways(both))
    machine = world.machines[member]
    if world.chance.random() < 0.5:
        world.later(alone_s + world.chance.uniform(1.2, 1.8), machine.pause)
    world.later(8.0, machine.thaw)
    world.later(9.0, lambda: world.network.cut.difference_update(both))
    world.later(9.1, machine.start)


def _follows(world: World, tag: str) -> bool:
    machine = world.machines.get(tag)
    return (
        machine is not None
        and machine.ready
        and machine.raft.status.role == "Follower"
        and machine.raft.status.leader is not None
    )
