"""A node that starts: it takes its port first, waits to join only for as long as it is let, and says what is wrong."""

import asyncio
import socket
from collections.abc import Awaitable
from pathlib import Path

import pytest

from raftnode.cluster import announce as announcer
from raftnode.cluster.announce import Announcer
from raftnode.cluster.replica import Replica
from raftnode.consensus.raft import Peer, Raft, RaftConfig
from raftnode.node import Node, NodeFailed
from raftnode.record.commands import AnnounceNode, Command, FormCluster, encode
from raftnode.record.model import ClusterNode, CommandResult, Timings
from tests.unit.consensus.cluster import until
from tests.unit.consensus.support import Nowhere
from tests.unit.web.conftest import free_port, running, settings_in

LIMIT_S = 20


async def _within(work: Awaitable[None]) -> None:
    async with asyncio.timeout(LIMIT_S):
        await work


async def test_a_node_that_waits_to_join_stops_when_it_is_told_to(tmp_path: Path) -> None:
    node = Node(settings_in(tmp_path / "a"), join=f"http://127.0.0.1:{free_port()}")
    run = asyncio.create_task(node.run())
    await until(lambda: node._waiting is not None)
    node.stop()
    node.stop()
    await _within(run)
    again = Node(settings_in(tmp_path / "a"), join=f"http://127.0.0.1:{free_port()}")
    again.stop()
    await _within(again.run())


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("127.0.0.1:8080", "like http://host:8080"),
        ("localhost:8080", "like http://host:8080"),
        ("http://", "like http://host:8080"),
        ("http://[::1", "like http://host:8080"),
        ("http://127.0.0.1:99999", "like http://host:8080"),
        ("http://127.0.0.1:0", "like http://host:8080"),
        ("http://127.0.0.1:http", "like http://host:8080"),
        ("https://127.0.0.1:8080", "must begin with http://"),
        ("ftp://127.0.0.1:8080", "like http://host:8080"),
    ],
)
async def test_an_address_that_can_never_be_joined_is_refused_at_once(tmp_path: Path, url: str, said: str) -> None:
    with pytest.raises(NodeFailed, match=said):
        await _within(Node(settings_in(tmp_path / "a"), join=url).run())


@pytest.mark.parametrize("name", ["http", "cluster"])
async def test_a_node_whose_port_is_taken_ends_before_it_takes_part(tmp_path: Path, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = settings_in(tmp_path / "a", **{f"{name}__port": str(taken.getsockname()[1])})
        with pytest.raises(NodeFailed, match=rf"{name}\.port"):
            await _within(Node(settings).run())
        assert not (tmp_path / "a" / "raft").exists()
        assert not (tmp_path / "a" / "cluster.json").exists()
        async with running(settings_in(tmp_path / "b", node__tag="B")) as other:
            with pytest.raises(NodeFailed, match=rf"{name}\.port"):
                await _within(Node(settings, join=other.url).run())
            assert list(other.node.replica.record.nodes) == ["B"]


async def test_a_machine_without_a_kill_timer_joins_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(settings_in(tmp_path / "b", node__tag="B")) as other:
        monkeypatch.setattr("os.getpid", lambda: 1)
        with pytest.raises(NodeFailed, match="first process of a container"):
            await _within(Node(settings_in(tmp_path / "a"), join=other.url).run())
        assert list(other.node.replica.record.nodes) == ["B"]


class Counting(Replica):
    """A replica that counts what is proposed, and has it refused at once."""

    proposed = 0

    async def propose(
        self, command: Command, *, timeout_ms: int = 5000, request_id: str | None = None, asked: str = ""
    ) -> CommandResult:
        self.proposed += 1
        return await super().propose(command, timeout_ms=10, request_id=request_id, asked=asked)


async def test_a_node_that_was_removed_proposes_nothing_until_it_is_let_in_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announcer, "REMOVED_POLL_S", 0.001)
    replica = Counting()
    peers = [Peer(tag, f"{tag}:1") for tag in "AB"]
    raft = Raft(tag="A", peers=peers, transport=Nowhere(), machine=replica, config=RaftConfig(data_dir=tmp_path))
    replica.attach(raft)
    node = ClusterNode(tag="A", url="http://a:1", cluster_address="a:1")
    form = FormCluster(cluster_id="c", nodes=(node,), timings=Timings(
        heartbeat_ms=50, lease_ms=600, task_stop_timeout_ms=100, time_before_moving_to_rehab_ms=2000
    ))  # fmt: skip
    announcement = AnnounceNode(tag="A", node_id="a", boot=2, url="http://a:1", cluster_address="a:1", kinds=())
    replica.apply(1, 1, encode(form))
    asked, removed = 0, True

    def is_removed() -> bool:
        nonlocal asked
        asked += 1
        return removed

    run = asyncio.create_task(Announcer(replica, raft, form, announcement, is_removed).run())
    await until(lambda: asked > 20)
    assert replica.proposed == 0
    removed = False
    await until(lambda: replica.proposed > 0)
    run.cancel()
    await asyncio.wait([run])
