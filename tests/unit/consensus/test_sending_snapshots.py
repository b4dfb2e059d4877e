"""A follower that is sent the leader's snapshot gets there, whatever becomes of it when it holds all pieces."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from tests.unit.consensus.simulated import RaftWorld, SimulatedNode


def about_to_install() -> tuple[RaftWorld, SimulatedNode, SimulatedNode]:
    """A follower that holds all of the leader's snapshot and has told the leader so."""
    world = RaftWorld("ABC", snapshot_bytes_min=2_000, segment_bytes_max=500, trailing_entries=2)
    leader = world.leader()
    follower = next(node for node in world.alive if node is not leader)
    world.settle()
    world.disconnect_all(follower.tag)
    while leader.engine.status.snapshot_index <= follower.engine.status.last_index:
        world.propose(leader, b"x" * 100)
        world.round()
    world.connect_all()
    while not follower.outside:
        world.clock.pass_ms(10)
        for node in world.alive:
            for sender in world.nodes:
                world.deliver(sender, node.tag)
            node.engine.tick()
    world.deliver(follower.tag, leader.tag)
    return world, leader, follower


def died(world: RaftWorld, follower: SimulatedNode) -> None:
    """The follower dies and is back."""
    follower.crash()
    follower.start()
    world.connect_all()


def test_a_follower_that_dies_while_it_installs_the_snapshot_is_sent_it_again() -> None:
    world, leader, follower = about_to_install()
    died(world, follower)
    world.settle()
    assert follower.machine.commands == leader.machine.commands


def test_a_follower_that_dies_before_the_leader_hears_of_the_installed_snapshot_goes_on_from_it() -> None:
    world, leader, follower = about_to_install()
    follower.run_outside()
    died(world, follower)
    assert follower.engine.status.applied_index == follower.engine.status.snapshot_index > 1
    world.settle()
    assert follower.machine.commands == leader.machine.commands


def test_a_snapshot_that_could_not_be_installed_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    world, leader, follower = about_to_install()
    restore: Callable[[Iterable[bytes]], Any] = follower.machine.restore

    def once(chunks: Iterable[bytes]) -> None:
        monkeypatch.setattr(follower.machine, "restore", restore)
        raise ValueError("the memory has a bad day")

    monkeypatch.setattr(follower.machine, "restore", once)
    world.settle()
    assert follower.machine.commands == leader.machine.commands
