"""Several nodes: replication, forwarding, failover, isolation, snapshots, leadership transfer."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from raftnode.consensus.raft import NotCommitted, OutcomeUnknown
from tests.unit.consensus.cluster import eventually, running, until


async def test_every_node_applies_what_any_node_proposed(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        answers = await asyncio.gather(
            *(node.raft.propose(b"%s-%d" % (node.tag.encode(), i)) for node in cluster.nodes for i in range(20))
        )
        assert len({answer.index for answer in answers}) == 60
        assert sorted(await cluster.same()) == sorted(b"%c-%d" % (c, i) for c in b"ABC" for i in range(20))


async def test_a_follower_gets_its_own_machines_answer(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        leader = await cluster.leader()
        follower = next(node for node in cluster.nodes if node is not leader)
        proposed = await follower.raft.propose(b"x")
        assert follower.raft.status.applied_index >= proposed.index
        assert proposed.answer == len(follower.machine.commands)


async def test_when_the_leader_dies_the_others_go_on_and_it_catches_up_later(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        leader = await cluster.leader()
        await leader.raft.propose(b"before")
        await leader.stop()
        others = [node for node in cluster.nodes if node is not leader]
        await eventually(lambda: others[0].raft.propose(b"after"), NotCommitted, OutcomeUnknown)
        await leader.listen()
        await leader.run(cluster.peers)
        await cluster.leader()
        assert set(await cluster.same()) == {b"before", b"after"}


async def test_an_isolated_leader_steps_down_within_its_fallback_and_loses_nothing_on_return(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        old = await cluster.leader()
        others = [node for node in cluster.nodes if node is not old]
        old.cut()
        lost = asyncio.ensure_future(old.raft.propose(b"never committed", timeout_ms=300))
        await until(lambda: old.raft.status.role == "Follower")
        assert old.raft.status.leader is None
        await cluster.leader(others)
        await others[0].raft.propose(b"committed")
        with pytest.raises((NotCommitted, OutcomeUnknown)):
            await lost
        old.heal()
        await cluster.leader()
        assert await cluster.same() == [b"committed"]


async def test_an_isolated_follower_knows_no_leader_and_does_not_raise_the_term(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        leader = await cluster.leader()
        follower = next(node for node in cluster.nodes if node is not leader)
        term = leader.raft.status.term
        follower.cut()
        await until(lambda: follower.raft.status.leader is None)
        assert follower.raft.status.role == "Follower"
        follower.heal()
        await until(lambda: follower.raft.status.leader == leader.tag)
        assert (leader.raft.status.term, leader.raft.status.role) == (term, "Leader")


async def test_a_follower_without_its_log_is_sent_the_snapshot(tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"snapshot_bytes_min": 20_000, "segment_bytes_max": 4_000, "trailing_entries": 5}
    async with running(tmp_path, **sizes) as cluster:
        leader = await cluster.leader()
        follower = next(node for node in cluster.nodes if node is not leader)
        await follower.stop()
        others = [node for node in cluster.nodes if node is not follower]
        behind = follower.raft.status.last_index
        while min(node.raft.status.snapshot_index for node in others) < behind + 20:
            await eventually(lambda: others[0].raft.propose(b"y" * 400), NotCommitted, OutcomeUnknown)
        await follower.listen()
        await follower.run(cluster.peers)
        await cluster.leader()
        await cluster.same()
        assert follower.raft.status.snapshot_index > behind
        await follower.restart(cluster.peers)
        await cluster.leader()
        await cluster.same()


async def test_peers_that_connected_before_the_node_had_read_its_directory_are_supplied_by_it(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        late = cluster["A"]
        await late.stop()
        await late.listen()
        late.transport.set_peers({peer.tag: peer.address for peer in cluster.peers}, 0)
        await until(lambda: late.transport.connected_tags() == {"B", "C"})
        await late.run(cluster.peers)
        await cluster.leader()
        await eventually(lambda: late.raft.transfer_leadership("A"), NotCommitted)
        await late.raft.propose(b"x")
        await cluster.same()


async def test_leadership_goes_to_the_named_node_and_back_from_a_follower(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        leader = await cluster.leader()
        target = next(node for node in cluster.nodes if node is not leader)
        await leader.raft.transfer_leadership(target.tag)
        assert leader.raft.status.leader == target.tag
        await cluster.leader()
        await leader.raft.transfer_leadership(leader.tag)
        await until(lambda: leader.raft.status.role == "Leader")


async def test_the_leader_knows_who_voted_for_it_and_when_it_asked(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        leader = await cluster.leader()
        votes = leader.raft.votes_granted(leader.raft.status.term)
        assert leader.tag in votes
        assert len(votes) >= 2
        assert leader.raft.status.elected_ns is not None
        assert all(asked_ns <= leader.raft.status.elected_ns for asked_ns in votes.values())
        assert leader.raft.votes_granted(leader.raft.status.term + 1) == {}
        follower = next(node for node in cluster.nodes if node is not leader)
        assert follower.raft.status.elected_ns is None


async def test_a_leader_that_steps_down_leaves_a_cluster_that_elects_again(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        leader = await cluster.leader()
        term = leader.raft.status.term
        roles = []
        leader.raft.on_role_change.append(lambda role, at: roles.append((role, at)))
        leader.raft.step_down()
        assert roles == [("Follower", term)]
        leader.raft.step_down(term + 5)
        assert leader.raft.status.term == term + 5
        await cluster.leader()
