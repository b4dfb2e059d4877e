"""Worlds in which the same few accidents come one after the other, at the worst of times; see `schedules`."""

from functools import partial
from typing import Any

from raftnode.consensus.engine.members import REGULAR
from raftnode.consensus.engine.messages import TimeoutNow, encode
from raftnode.record.commands import Decide, decode
from tests.clocks import FASTEST, SLOWEST
from tests.simulation.node import Machine
from tests.simulation.schedules import PACE, _follows, _lag, _pin, as_it_comes, every
from tests.simulation.world import World

LOOK_S = 0.0002
LATE_S = 0.6
WAITING_MAX = 10
CUT_OFF_S = 2.5
COPIES_LIVE_S = 4.5
COPY_UNTIL_S = 50.0


def freezing(world: World) -> None:
    """Members freeze for longer than R, one after the other."""
    as_it_comes(world)
    world.faults.strike = lambda: None  # type: ignore[method-assign]
    every(world, 2.0, 3.0, lambda: _freeze(world))


def _freeze(world: World) -> None:
    machine = world.machines.get(world.chance.choice(world.group))
    if machine is not None and machine.ready:
        world.note(f"{machine.tag} freezes")
        machine.pause()
        world.later(world.chance.uniform(3.0, 7.0), machine.thaw)
        world.later(8.0, machine.start)


def unheard(world: World) -> None:
    """Members hear the others and are not heard, for longer than R, one after the other."""
    as_it_comes(world)
    world.faults.strike = lambda: None  # type: ignore[method-assign]
    every(world, 6.0, 8.0, lambda: _mute(world))


def _mute(world: World) -> None:
    followers = [tag for tag in world.group if _follows(world, tag)]
    if followers:
        tag = world.chance.choice(followers)
        ways = {(tag, other) for other in world.machines if other != tag}
        world.note(f"{tag} is not heard")
        world.network.cut_ways(ways)
        world.later(5.0, lambda: world.network.cut.difference_update(ways))


def handed_over(world: World) -> None:
    """Again and again a leader hands over to another node, and hears nothing more from the moment it has said so, nor
    does a Member that goes on under it and freezes when the old leader has to give up. The clocks of the two are as
    slow as clocks may be, the others' as fast; beats are frequent and the observer looks all the time."""
    world.pace = PACE | {"heartbeat_ms": 20, "observer_period_ms": 5}
    world.group = ("A", "B", "C")
    world.faults.strike = lambda: None  # type: ignore[method-assign]
    for machine in world.machines.values():
        machine.rate = SLOWEST if machine.tag in "AB" else FASTEST
    every(world, 0.4, 0.6, lambda: _towards(world))
    every(world, 11.0, 12.0, lambda: _hand_over_and_cut(world))


def _pair(world: World) -> tuple[str, str] | None:
    """The leader and the Member beside it, when both are slow."""
    for leader, member in (("A", "B"), ("B", "A")):
        machine = world.machines.get(leader)
        if machine is not None and machine.ready and machine.raft.status.role == "Leader" and _follows(world, member):
            return leader, member
    return None


def _towards(world: World) -> None:
    pair = _pair(world)
    if pair is not None:
        _pin(world, pair[1])
        return
    machine = world.machines.get("A")
    if machine is not None and _follows(world, "A"):
        world.on(machine, _lead(machine))


async def _lead(machine: Machine) -> None:
    try:
        await machine.raft.transfer_leadership(machine.tag, timeout_ms=1000)
    except Exception as error:
        machine.world.note(f"{machine.tag} does not lead: {error}")


def _hand_over_and_cut(world: World) -> None:
    pair = _pair(world)
    if pair is None or not _follows(world, "D"):
        return
    leader, member = pair
    world.note(f"{leader} hands over to D and hears nothing more, nor does {member}")
    others = [tag for tag in world.machines if tag not in pair]
    ways = {(a, b) for a in pair for b in others} | {(b, a) for a in pair for b in others}
    world.network.cut_ways(ways)
    _stand(world, "D", leader)
    machine = world.machines[member]
    world.later(world.chance.uniform(1.77, 1.8), machine.pause)
    world.later(7.0, lambda: world.network.cut.difference_update(ways))
    world.later(7.1, machine.start)


def _stand(world: World, tag: str, leader: str) -> None:
    """The leader's word that it hands over arrives."""
    machine = world.machines[tag]
    engine = machine.raft._engine
    assert engine is not None
    assert machine.process is not None
    machine.process.context.run(engine.receive, leader, encode(TimeoutNow(engine.status.term)))


def stale_decisions(world: World) -> None:
    """Again and again a leader that does not hear a Member hands over and is cut off, decides that the Member is silent
    just before it has to give up, and is back; the Member, which the new leader hears, lags then."""
    world.pace = PACE | {"observer_period_ms": 50}
    world.faults.strike = lambda: None  # type: ignore[method-assign]
    every(world, 11.0, 12.0, lambda: _decide_too_late(world))


def _decide_too_late(world: World) -> None:
    leading = [m.tag for m in world.machines.values() if m.ready and m.raft.status.role == "Leader"]
    members = [tag for tag in world.group if _follows(world, tag)]
    successors = [tag for tag in world.machines if _follows(world, tag) and tag not in members[:1]]
    if len(leading) != 1 or not members or not successors:
        return
    leader, member, successor = leading[0], members[0], successors[0]
    others = [tag for tag in world.machines if tag != leader]
    ways = {(leader, tag) for tag in others} | {(tag, leader) for tag in others}
    world.note(f"{leader} does not hear {member}, and will decide too late")
    world.network.cut_ways({(member, leader)})

    def transfer_leadership() -> None:
        world.network.cut_ways(ways)
        if _follows(world, successor):
            _stand(world, successor, leader)

    world.later(1.5, transfer_leadership)
    world.later(3.5, lambda: _lag(world, member, 1.7))
    world.later(3.6, lambda: world.network.cut.difference_update(ways))


def last_decisions(world: World) -> None:
    """Again and again a Member is cut off until the leader decides that it is silent, and the leader dies when all
    others have that decision and none has applied it. The Member is back for the election, and whatever the others say
    to the winner is late: for a while it hears the Member alone, and cannot apply an entry of its own."""
    as_it_comes(world)
    world.faults.strike = lambda: None  # type: ignore[method-assign]
    every(world, 12.0, 13.0, lambda: _isolate(world))


def _isolate(world: World) -> None:
    leading = [machine for machine in world.machines.values() if machine.ready and machine.raft.status.role == "Leader"]
    members = [tag for tag in world.group if _follows(world, tag)]
    if len(leading) != 1 or not members:
        return
    leader, member = leading[0], world.chance.choice(members)
    world.note(f"{member} is cut off until {leader.tag} decides that it is silent")
    others = [tag for tag in world.machines if tag != member]
    world.network.cut_ways({(member, tag) for tag in others} | {(tag, member) for tag in others})
    successors = [world.machines[tag] for tag in others if tag != leader.tag]
    _until_decided(world, leader, member, successors, world.loop.time() + 6.0)


def _until_decided(world: World, leader: Machine, member: str, successors: list[Machine], until_s: float) -> None:
    if world.loop.time() > until_s or not all(machine.ready for machine in (leader, *successors)):
        world.network.heal()
        return
    if not all(_has_decision(machine) for machine in (leader, *successors)):
        world.later(LOOK_S, lambda: _until_decided(world, leader, member, successors, until_s))
        return
    world.note(f"{leader.tag} has decided, and dies")
    leader.die()
    world.later(9.0, leader.start)
    world.network.heal()
    won: list[str] = []
    for successor in successors:
        successor.raft.on_role_change.append(partial(_hears_only, world, won, successor.tag, member))


def _has_decision(machine: Machine) -> bool:
    """Whether the end of its log, which it has yet to apply, ends claims."""
    engine: Any = machine.raft._engine
    newest = [
        decode(command.removeprefix(REGULAR)).command
        for command, index, _ in engine._journal.entries[-WAITING_MAX:]
        if index > engine.status.applied_index and command.startswith(REGULAR)
    ]
    return any(isinstance(command, Decide) and command.voids for command in newest)


def _hears_only(world: World, won: list[str], winner: str, member: str, role: str, term: int) -> None:
    """What follows the first election after the leader's death."""
    if role != "LeaderElect" or won:
        return
    won.append(winner)
    world.note(f"{winner} hears {member} alone")
    late = {(tag, winner): (LATE_S, LATE_S) for tag in world.machines if tag not in (winner, member)}
    world.network.delay_s.update(late)
    world.later(LATE_S, world.network.delay_s.clear)


def copied(world: World) -> None:
    """Again and again the directory of a Member is copied: while it runs, and then its copy is started, or when it has
    stopped, and then both are. One that runs may be cut off meanwhile, and learn late of its copy. Whoever is left of
    the two after a while is the node from then on."""
    as_it_comes(world)
    world.faults.strike = lambda: None  # type: ignore[method-assign]
    every(world, 0.3, 1.0, lambda: _pin(world))
    every(world, 6.0, 8.0, lambda: _copy(world))


def _copy(world: World) -> None:
    members = [tag for tag in world.group if _follows(world, tag)]
    if not members or world.loop.time() > COPY_UNTIL_S:
        return
    first = world.machines[world.chance.choice(members)]
    stopped = world.chance.random() < 0.5
    world.note(f"{first.tag} is copied{' when it has stopped' if stopped else ''}")
    if stopped:
        first.die()
    elif world.chance.random() < 0.7:
        others = [machine.host for machine in world.machines.values() if machine is not first]
        ways = {way for other in others for way in ((first.host, other), (other, first.host))}
        world.note(f"{first.tag} is cut off")
        world.network.cut_ways(ways)
        world.later(CUT_OFF_S, lambda: world.network.cut.difference_update(ways))
    twin = first.twin(f"{first.host}*")
    both = [first, twin] if stopped else [twin]
    world.chance.shuffle(both)
    for machine in both:
        machine.start()
    world.later(COPIES_LIVE_S, lambda: _one_is_left(world, first, twin))


def _one_is_left(world: World, first: Machine, twin: Machine) -> None:
    living = [machine for machine in (first, twin) if machine.alive]
    world.note(f"of {first.tag} there are {len(living)} left")
    if len(living) != 1:
        world.breach(f"COPIES {len(living)} processes of {first.tag} go on")
    kept = (living or [first])[0]
    for machine in (first, twin):
        if machine is not kept:
            machine.die()
            machine.retired = True
    kept.twinned = False
    world.machines[kept.tag] = kept


def started_again(world: World) -> None:
    """Again and again a Member dies and is started again at once, is given tasks, and is cut off. Its clock begins
    anew, so that a stamp of its former process is far in its future."""
    as_it_comes(world)
    world.faults.strike = lambda: None  # type: ignore[method-assign]
    every(world, 11.0, 13.0, lambda: _start_again(world))


def _start_again(world: World) -> None:
    members = [tag for tag in world.group if _follows(world, tag)]
    if not members:
        return
    machine = world.machines[world.chance.choice(members)]
    ways = {way for tag in world.machines if tag != machine.tag for way in ((machine.tag, tag), (tag, machine.tag))}
    world.note(f"{machine.tag} is started again, given tasks, and cut off")
    machine.die()
    world.later(0.1, machine.start)
    for after_s in (0.6, 0.8, 1.0, 1.2, 1.4):
        world.later(after_s, lambda: _pin(world, machine.tag))
    world.later(world.chance.uniform(2.0, 3.0), lambda: world.network.cut_ways(ways))
    world.later(9.0, lambda: world.network.cut.difference_update(ways))


def cut_off(world: World) -> None:
    """Whoever runs a task that tolerates partitions is cut off for longer than R, one after the other, and lives."""
    as_it_comes(world)
    world.faults.strike = lambda: None  # type: ignore[method-assign]
    every(world, 5.0, 7.0, lambda: _cut_off(world))


def _cut_off(world: World) -> None:
    running = [run for runs in world.bodies.running.values() for run in runs if run.tolerant and run.process.alive]
    if not running or world.network.cut:
        return
    tag = world.chance.choice(running).node
    ways = {way for other in world.machines if other != tag for way in ((tag, other), (other, tag))}
    world.note(f"{tag} is cut off")
    world.network.cut_ways(ways)
    world.later(10.0, lambda: world.network.cut.difference_update(ways))
