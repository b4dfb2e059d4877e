"""One status value, published by whatever changes it: nobody ever reads the middle of a transition, or the past."""

from collections.abc import Callable
from typing import Any

import pytest

from raftnode.consensus.engine import Engine
from raftnode.consensus.model import Add, ConsensusFailed, Peer, RaftStatus
from tests.unit.consensus.simulated import AppliedCommands, RaftWorld, SimulatedNode

CALLS = (
    "tick",
    "receive",
    "connected",
    "propose",
    "propose_no_op",
    "transfer_leadership",
    "step_down",
    "snapshot",
    "fail",
    "close",
)


def read_now(engine: Engine) -> RaftStatus:
    """What the engine would publish at this moment."""
    published = engine.status
    engine._publish()
    now, engine.status = engine.status, published
    return now


class Watch:
    """Compares the status with what the engine is, after every call and within those that tell somebody something."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self.stale: list[str] = []

    def look(self, engine: Engine, when: str) -> None:
        self.seen.add(when)
        if engine.status != read_now(engine):
            self.stale.append(when)

    def calls(self, patch: pytest.MonkeyPatch) -> None:
        """Looks after each call."""

        def watched(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
            def call(engine: Engine, *given: Any) -> Any:
                try:
                    return original(engine, *given)
                finally:
                    self.look(engine, name)

            return call

        for name in CALLS:
            patch.setattr(Engine, name, watched(name, getattr(Engine, name)))

    def listeners(self, patch: pytest.MonkeyPatch, world: RaftWorld) -> None:
        """Looks within those calls in which somebody is told."""

        def told(name: str) -> Callable[..., None]:
            def listener(node: SimulatedNode, *_told: Any) -> None:
                self.look(node.engine, name)

            return listener

        def run_outside(node: SimulatedNode) -> None:
            original(node)
            self.look(node.engine, "run_outside")

        def after_tick(machine: AppliedCommands) -> None:
            engine = next(node.engine for node in world.nodes.values() if node.machine is machine)
            self.look(engine, "after_tick")
            if machine.applied and engine.status.applied_index < machine.applied[-1][0]:
                self.stale.append("after_tick, of what was applied")

        original = SimulatedNode.run_outside
        patch.setattr(SimulatedNode, "run_outside", run_outside)
        patch.setattr(SimulatedNode, "members_changed", told("members_changed"))
        patch.setattr(SimulatedNode, "failed", told("failed"))
        patch.setattr(AppliedCommands, "after_tick", after_tick)


@pytest.mark.parametrize("seed", range(3))
def test_the_status_is_published_by_whatever_changes_it(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch()
    watch.calls(monkeypatch)
    world = RaftWorld(
        "ABCD", seed=seed, watchers="D", snapshot_bytes_min=2_000, segment_bytes_max=500, trailing_entries=2
    )
    watch.listeners(monkeypatch, world)
    for turn in range(4):
        leader = world.leader()
        away = next(node for node in world.alive if node is not leader)
        world.disconnect_all(away.tag)
        for number in range(60):
            world.propose(leader, b"%d" % number * 20)
            world.round()
        leader.engine.propose_no_op()
        leader.engine.propose_change(Add(Peer("D", f"D:{turn + 2}", voter=False)), b"moved")
        leader.engine.snapshot()
        world.connect_all()
        world.settle()
        leader.engine.step_down(leader.engine.status.term + 1)
        leader = world.leader()
        world.settle()
        leader.engine.transfer_leadership(None)
        while leader.engine.status.leads:
            world.round()
    leader = world.leader()
    leader.engine.fail(ConsensusFailed("the disk is gone"))
    assert (leader.engine.status.role, leader.engine.status.leader) == ("Follower", None)
    leader.alive = False
    world.leader().engine.close()
    assert watch.stale == []
    assert watch.seen == {*CALLS, "after_tick", "failed", "members_changed", "run_outside"}


def test_a_status_is_a_value_of_one_moment() -> None:
    world = RaftWorld("ABC")
    leader = world.leader()
    world.settle()
    before = leader.engine.status
    world.propose(leader, b"more")
    world.settle()
    now = leader.engine.status
    assert before.applied_index < now.applied_index == now.commit_index == now.last_index
    assert (now.peers, now.voters) == (world.peers, frozenset("ABC"))
    assert now.peers is before.peers, "who is in the cluster is compared by identity, with every beat"
    with pytest.raises(AttributeError):
        now.role = "Follower"  # type: ignore[misc]
    assert isinstance(now.peers[0], Peer)
