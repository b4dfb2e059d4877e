"""Nodes that join, watch, vote, move and leave, over real connections."""

import asyncio
from pathlib import Path

import pytest

from raftnode.cluster.replica import Replica
from raftnode.consensus.engine.members import Members, RequestRefused, after, encode
from raftnode.consensus.raft import Add, NotCommitted, Peer, Remove
from tests.unit.consensus.cluster import RaftNode, eventually, running, until


def test_the_newest_membership_in_the_log_counts_and_truncation_brings_the_older_back() -> None:
    a, b = Peer("A", "a:1"), Peer("B", "b:1")
    members = Members([a])
    members.learn(5, encode((a, b), b"add B"))
    members.learn(6, b"\x00not a membership")
    assert (members.current, members.index) == ((a, b), 5)
    assert members.at(4) == (0, (a,))
    assert members.at(5) == (5, (a, b))
    members.truncate(5)
    assert (members.current, members.index) == ((a,), 0)
    members.learn(7, encode((a, b), b"add B"))
    members.learn(9, encode((b,), b"remove A"))
    members.rebase(8)
    assert members.at(0) == (7, (a, b))
    members.truncate(1)
    assert members.current == (a, b)


def test_a_change_that_changes_nothing_or_leaves_no_voter_is_refused() -> None:
    peers = (Peer("A", "a:1"), Peer("B", "b:1", voter=False))
    for change in (Remove("A"), Remove("X"), Add(Peer("A", "a:1")), Add(Peer("A", "a:1", voter=False))):
        with pytest.raises(RequestRefused):
            after(peers, change)
    assert after(peers, Add(Peer("C", "c:1"))) == (*peers, Peer("C", "c:1"))


async def test_a_node_joins_as_a_watcher_catches_up_and_is_made_a_voter(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        leader = await cluster.leader()
        follower = next(node for node in cluster.nodes if node is not leader)
        for number in range(20):
            await leader.raft.propose(b"%d" % number)
        joiner = RaftNode("D", tmp_path)
        await joiner.listen()
        with pytest.raises(NotCommitted, match="not connected"):
            await follower.raft.change_membership(Add(Peer("D", joiner.address)), b"too early")
        watcher = Peer("D", joiner.address, voter=False)
        await joiner.run([*cluster.peers, watcher])
        added = await follower.raft.change_membership(Add(watcher), b"D watches")
        assert added.answer == 21
        cluster.nodes.append(joiner)
        await cluster.leader()
        assert (await cluster.same())[-1] == b"D watches"
        assert joiner.raft.status.voters == frozenset("ABC")
        await joiner.raft.propose(b"a watcher may propose")
        voter = Peer("D", joiner.address)
        await eventually(lambda: joiner.raft.change_membership(Add(voter), b"D votes"), NotCommitted)
        await cluster.same()
        assert all(node.raft.status.voters == frozenset("ABCD") for node in cluster.nodes)
        await leader.raft.transfer_leadership("D")
        await until(lambda: joiner.raft.status.role == "Leader")
        await joiner.restart([*cluster.peers, watcher])
        await cluster.leader()
        assert joiner.raft.status.voters == frozenset("ABCD")


async def test_a_change_whose_command_the_leader_would_refuse_is_not_appended(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        await cluster.leader()
        for node in cluster.nodes:
            with pytest.raises(NotCommitted, match="refused: it begins with '!'"):
                await node.raft.change_membership(Add(Peer("D", "d:1", voter=False)), b"!not this one")
        await cluster.nodes[0].raft.propose(b"on")
        assert await cluster.same() == [b"on"]
        assert all("D" not in {peer.tag for peer in node.raft.status.peers} for node in cluster.nodes)


async def test_a_removed_node_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        leader = await cluster.leader()
        gone = next(node for node in cluster.nodes if node is not leader)
        told = asyncio.Event()
        gone.transport.on_removed.append(lambda _by: told.set())
        await leader.raft.change_membership(Remove(gone.tag), b"out")
        async with asyncio.timeout(10):
            await told.wait()
        cluster.nodes.remove(gone)
        await cluster.leader()
        await leader.raft.propose(b"on")
        assert await cluster.same() == [b"out", b"on"]
        assert all(gone.tag not in {peer.tag for peer in node.raft.status.peers} for node in cluster.nodes)
        assert gone.raft.status.role != "Leader"
        await gone.stop()


async def test_one_node_becomes_two_and_a_leader_refuses_to_remove_itself(tmp_path: Path) -> None:
    async with running(tmp_path, "A") as cluster:
        (a,) = cluster.nodes
        b = RaftNode("B", tmp_path)
        await b.listen()
        watcher = Peer("B", b.address, voter=False)
        await b.run([*cluster.peers, watcher])
        await a.raft.change_membership(Add(watcher), b"B watches")
        await eventually(lambda: a.raft.change_membership(Add(Peer("B", b.address)), b"B votes"), NotCommitted)
        cluster.nodes.append(b)
        await cluster.same()
        leader = await cluster.leader()
        other = next(node for node in cluster.nodes if node is not leader)
        with pytest.raises(NotCommitted, match="transfer the leadership first"):
            await other.raft.change_membership(Remove(leader.tag), b"")
        assert all(node.raft.status.voters == frozenset("AB") for node in cluster.nodes)


def test_a_change_of_members_whose_command_cannot_be_read_is_refused() -> None:
    for command in (b"", b"\x07", b"\xc1", b"\x93\x01\x02\x03"):
        assert "Unreadable command" in str(Replica().refuses(command))
