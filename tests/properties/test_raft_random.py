"""Random accidents against the real engine: cut links, resets, stalls, crashes that take what was not synced, restarts
from the disk, snapshots, and membership changes. What was acknowledged stays, and all nodes apply the same."""

from collections.abc import Callable

import pytest

from raftnode.consensus.engine import RequestRefused
from raftnode.consensus.model import Add, Peer
from tests.unit.consensus.simulated import RaftWorld, SimulatedNode

SEEDS = 16
STEPS = 1_500


def accident(world: RaftWorld) -> None:
    chance = world.chance
    a, b = chance.sample(list(world.nodes), 2)

    def isolate() -> None:
        for tag in chance.sample(list(world.nodes), chance.choice((1, 2))):
            world.disconnect_all(tag)

    def crash(nodes: list[SimulatedNode]) -> None:
        for node in nodes:
            node.crash()

    accidents: list[tuple[float, Callable[[], object]]] = [
        (0.005, lambda: world.link(a, b, False)),
        (0.008, lambda: world.link(a, b, True)),
        (0.003, isolate),
        (0.010, world.connect_all),
        (0.002, lambda: crash(chance.sample(world.alive, min(1, len(world.alive))))),
        (0.0005, lambda: crash(world.alive)),
        (0.020, lambda: None if world[a].alive else world[a].start()),
        (0.010, lambda: change_membership(world)),
    ]
    idle = 1 - sum(weight for weight, _ in accidents)
    accidents.append((idle, lambda: None))
    (happens,) = chance.choices([what for _, what in accidents], [weight for weight, _ in accidents])
    happens()


def change_membership(world: RaftWorld) -> None:
    """E goes back and forth between voter and watcher."""
    for node in world.alive:
        now = next(peer for peer in node.engine.status.peers if peer.tag == "E")
        try:
            node.engine.propose_change(Add(Peer("E", now.address, not now.voter)), b"E becomes the other")
        except RequestRefused:
            continue


def busy_step(world: RaftWorld, number: int) -> int:
    chance = world.chance
    world.clock.pass_ms(chance.choice((1, 3, 10, 40)))
    for node in chance.sample(world.alive, len(world.alive)):
        for sender in world.nodes:
            world.deliver(sender, node.tag, chance.randint(0, 4))
        if chance.random() < 0.3:
            node.run_outside()
        if chance.random() < 0.7:
            node.engine.tick()
    world.note_leaders()
    if chance.random() < 0.5 and world.alive:
        node = chance.choice(world.alive)
        for _ in range(chance.randint(1, 6)):
            number += 1
            world.propose(node, b"%d." % number + b"x" * chance.choice((10, 100, 300)))
    return number


def check(world: RaftWorld) -> None:
    places: dict[int, tuple[int, bytes]] = {}
    for node in world.nodes.values():
        assert node.failures == []
        assert node.wipes == []
        for index, term, command in node.machine.applied:
            assert places.setdefault(index, (term, command)) == (term, command), f"{node.tag} differs at {index}"


def the_proposed(node: SimulatedNode) -> list[bytes]:
    return [command for command in node.machine.commands if not command.startswith(b"E becomes")]


@pytest.mark.parametrize("seed", range(SEEDS))
def test_nothing_acknowledged_is_lost_whatever_happens(seed: int) -> None:
    world = RaftWorld(
        "ABCDE", seed=seed, watchers="E" if seed % 2 else "",
        election_min_ms=150, election_max_ms=300, heartbeat_ms=40,
        snapshot_bytes_min=6_000, segment_bytes_max=1_500, trailing_entries=10,
    )  # fmt: skip
    number = 0
    for _ in range(STEPS):
        accident(world)
        number = busy_step(world, number)
        check(world)
    for node in world.nodes.values():
        if not node.alive:
            node.start()
    world.connect_all()
    world.settle()
    check(world)
    assert len(world.acknowledged) > 20
    for node in world.alive:
        commands = the_proposed(node)
        assert set(world.acknowledged) <= set(commands)
        assert len(set(commands)) == len(commands)
        assert commands == the_proposed(world["A"])
