"""The traps of PySyncObj 0.3.17 in how a cluster lives: 4, 6, 7, 8 and 9. Each is shown on the bare package where it
can be, and closed here."""

import asyncio
from pathlib import Path

import pytest

from raftnode.consensus.raft import ApplyFailed, NotCommitted, OutcomeUnknown
from tests.unit.consensus.cluster import eventually, running
from tests.unit.consensus.simulated import RaftWorld, SimulatedNode
from tests.unit.consensus.stock import StockWorld


def follower_of(world: RaftWorld, leader: SimulatedNode) -> SimulatedNode:
    return next(node for node in world.alive if node is not leader)


def test_trap_04_a_follower_whose_leader_is_gone_says_so() -> None:
    stock = StockWorld("LAB")
    stock.elect("L")
    stock.connected("A", "L", False)
    stock.connected("A", "B", False)
    for _ in range(500):
        stock.now_s += 0.1
        stock.nodes["A"].doTick(0)
    assert str(stock.nodes["A"]._getLeader()) == "L", "the package no longer follows the dead: trap 4 is gone"

    world = RaftWorld("ABC")
    leader = world.leader()
    follower = follower_of(world, leader)
    world.disconnect_all(follower.tag)
    gone_ns = world.clock.now_ns
    world.run_until(lambda: follower.engine.status.leader is None)
    assert world.clock.now_ns - gone_ns < 1_000_000_000
    assert follower.engine.status.role == "Follower"


def test_trap_04_an_isolated_leader_does_not_stay_one() -> None:
    stock = StockWorld("LAB")
    stock.elect("L")
    for _ in range(100):
        stock.now_s += 0.1
        stock.nodes["L"].doTick(0)
    assert stock.nodes["L"]._isLeader(), "the package no longer leads for 30 s without a quorum: trap 4 is gone"

    world = RaftWorld("ABC")
    leader = world.leader()
    world.disconnect_all(leader.tag)
    cut_ns = world.clock.now_ns
    world.run_until(lambda: leader.engine.status.role == "Follower")
    assert world.clock.now_ns - cut_ns < 1_000_000_000
    assert leader.engine.status.leader is None


async def test_trap_06_a_raising_apply_ends_its_node_and_is_never_half_done(tmp_path: Path) -> None:
    stock = StockWorld("L", appendEntriesUseBatch=False)
    stock.elect("L")
    stock.nodes["L"].put("boom")
    applied = stock.nodes["L"].raftLastApplied
    raised = 0
    for _ in range(12):
        try:
            stock.nodes["L"].doTick(0)
        except ValueError:
            raised += 1
    assert raised > 1
    assert stock.nodes["L"].raftLastApplied == applied
    assert stock.nodes["L"].values.count("boom") > 1, "the package no longer applies it again and again: trap 6 is gone"

    async with running(tmp_path) as cluster:
        leader = await cluster.leader()
        leader.machine.raises = MemoryError()
        with pytest.raises(OutcomeUnknown):
            await leader.raft.propose(b"heavy")
        assert isinstance(leader.raft.status.failure, ApplyFailed)
        await leader.restart(cluster.peers)
        other = await cluster.leader()
        await eventually(lambda: other.raft.propose(b"after"), NotCommitted)
        assert await cluster.same() == [b"heavy", b"after"]


async def test_trap_07_a_lost_answer_ends_as_unknown_and_never_hangs(tmp_path: Path) -> None:
    stock = StockWorld("LAB")
    stock.elect("L")
    outcomes: list[int] = []
    stock.nodes["A"].put("x", callback=lambda _result, error: outcomes.append(error))
    stock.nodes["A"].doTick(0)
    stock.queues["A", "L"].clear()
    stock.settle(500)
    assert outcomes == [], "the package no longer forgets whom it owes an answer: trap 7 is gone"

    async with running(tmp_path) as cluster:
        leader = await cluster.leader()
        follower = next(node for node in cluster.nodes if node is not leader)
        send = follower.transport.send
        follower.transport.send = (  # type: ignore[method-assign]
            lambda tag, channel, payload: True if channel == "proposal" else send(tag, channel, payload)
        )
        with pytest.raises(OutcomeUnknown, match="100 ms"):
            await follower.raft.propose(b"lost", timeout_ms=100)
        waiting = asyncio.ensure_future(follower.raft.propose(b"lost too", timeout_ms=60_000))
        await asyncio.sleep(0)
        follower.cut()
        with pytest.raises(OutcomeUnknown, match="was lost before it answered"):
            await waiting


def test_trap_08_a_node_that_was_asleep_does_not_depose_the_leader() -> None:
    stock = StockWorld("LAB")
    stock.elect("L")
    stock.now_s += 4
    stock.nodes["A"].doTick(0)
    term = stock.nodes["L"].raftCurrentTerm
    stock.deliver("A", "L")
    assert stock.nodes["L"].raftCurrentTerm > term, "the package no longer lets a sleeper depose: trap 8 is gone"
    assert not stock.nodes["L"]._isLeader()

    world = RaftWorld("ABC")
    leader = world.leader()
    sleeper = follower_of(world, leader)
    term = leader.engine.status.term
    for _ in range(400):
        world.clock.pass_ms(10)
        for node in world.alive:
            if node is not sleeper:
                for sender in world.nodes:
                    world.deliver(sender, node.tag)
                node.engine.tick()
    sleeper.engine.tick()
    for _ in range(300):
        world.round()
    assert (leader.engine.status.role, leader.engine.status.term) == ("Leader", term)
    assert sleeper.engine.status.leader == leader.tag


def test_trap_08_a_node_that_was_cut_off_for_long_comes_back_with_the_same_term() -> None:
    world = RaftWorld("ABC")
    leader = world.leader()
    follower = follower_of(world, leader)
    term = leader.engine.status.term
    world.disconnect_all(follower.tag)
    for _ in range(500):
        world.round()
    world.connect_all()
    for _ in range(300):
        world.round()
    assert {node.engine.status.term for node in world.alive} == {term}
    assert leader.engine.status.role == "Leader"


def test_trap_09_a_commit_waits_for_no_timer() -> None:
    stock = StockWorld("LAB")
    stock.elect("L")
    outcomes: list[int] = []
    stock.nodes["L"].put("x", callback=lambda _result, error: outcomes.append(error))
    stock.settle(20, step_s=0)
    assert outcomes == [], "the package no longer waits for its heartbeat: trap 9 is gone"

    world = RaftWorld("ABC")
    leader = world.leader()
    world.settle()
    world.propose(leader, b"x")
    for _ in range(4):
        world.round(0)
    assert world.acknowledged == [b"x"]
    assert all(node.machine.commands == [b"x"] for node in world.alive), "the followers learn of it at once, too"


def test_trap_09_commands_beyond_the_limit_are_refused_cleanly_and_the_rest_is_applied() -> None:
    world = RaftWorld("ABC", uncommitted_entries_max=5_000)
    leader = world.leader()
    taken = sum(world.propose(leader, b"%d" % number) for number in range(6_000))
    assert 4_990 <= taken <= 5_000
    world.run_until(lambda: len(world.acknowledged) == taken)


def test_trap_08_a_stalled_follower_still_takes_the_leadership_that_is_handed_to_it() -> None:
    world = RaftWorld("ABC")
    leader = world.leader()
    world.settle()
    successor = follower_of(world, leader)
    leader.engine.transfer_leadership(successor.tag)
    world.deliver(leader.tag, successor.tag)
    world.clock.pass_ms(world.config.election_min_ms * 0.9)
    successor.engine.tick()
    assert successor.engine.status.term > leader.engine.status.term, (
        "it must stand at once, and not wait for its own timeout"
    )
    world.run_until(lambda: successor.engine.status.role == "Leader")
