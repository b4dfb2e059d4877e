"""The traps of PySyncObj 0.3.17 in what it trusts: 5, 11 and 12. Each is shown on the bare package where it can be, and
closed here."""

import asyncio
import pickle
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import pysyncobj
import pysyncobj.syncobj
import pytest

import raftnode.consensus
from raftnode.consensus.engine import RequestRefused, patches
from raftnode.consensus.model import Add, Peer, Remove
from tests.unit.consensus.cluster import running
from tests.unit.consensus.simulated import RaftWorld
from tests.unit.consensus.stock import StockWorld, fresh_package

ROOT = Path(raftnode.consensus.__file__).parent


class Payload:
    """Pickles to a call that leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


async def test_trap_05_a_pickled_frame_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "it ran"
    pickled = pickle.dumps(Payload(mark))
    fresh_package().syncobj.pickle.loads(pickled)  # what the package does to the first frame of any connection
    assert mark.exists()
    mark.unlink()

    async with running(tmp_path / "cluster") as cluster:
        node = cluster.nodes[0]
        compressed = zlib.compress(pickled, 3)
        for frame in (
            struct.pack("i", len(compressed)) + compressed,
            struct.pack(">I", len(pickled)) + pickled,
            struct.pack(">I", len(compressed)) + compressed,
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
            writer.write(frame)
            assert await reader.read() == b""
            writer.close()
        node.raft._engine.receive("B", pickled)  # type: ignore[union-attr]
        await node.raft.propose(b"still here")
        assert not mark.exists()
        assert node.raft.status.failure is None


def test_trap_05_the_package_cannot_pickle_in_this_process() -> None:
    for module in (pysyncobj.syncobj, pysyncobj.serializer, pysyncobj.tcp_connection):
        for name in ("loads", "dumps", "load", "dump"):
            with pytest.raises(patches.PickleRefused):
                getattr(module.pickle, name)(b"anything")
    for name in ("loads", "dumps"):
        with pytest.raises(patches.PickleRefused):
            getattr(pysyncobj.journal, name)(b"anything")


async def test_trap_05_a_whole_life_pickles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: Any, **_kwargs: Any) -> None:
        raise AssertionError("something was pickled")

    for name in ("loads", "dumps", "load", "dump"):
        monkeypatch.setattr(pickle, name, refuse)
    sizes: dict[str, Any] = {"snapshot_bytes_min": 2_000, "segment_bytes_max": 500, "trailing_entries": 2}
    async with running(tmp_path, **sizes) as cluster:
        leader = await cluster.leader()
        while leader.raft.status.snapshot_index == 0:
            await leader.raft.propose(b"x" * 200)
        await leader.restart(cluster.peers)
        await cluster.leader()
        await cluster.same()
        assert all(node.raft.status.failure is None for node in cluster.nodes)


def test_trap_05_no_module_of_ours_imports_pickle_and_privates_stay_in_the_engine() -> None:
    for path in ROOT.rglob("*.py"):
        text = path.read_text()
        assert not re.search(r"^\s*(import|from) (pickle|dill|marshal|shelve)", text, re.MULTILINE), path
        if path.parent.name != "engine":
            assert "_SyncObj__" not in text, path
            assert not re.search(r"^\s*(import|from) pysyncobj", text, re.MULTILINE), path


def test_trap_11_a_second_membership_change_waits_for_the_first() -> None:
    stock = StockWorld("LAB", dynamicMembershipChange=True)
    stock.elect("L")
    change = stock.package.syncobj._bchr(2)
    answers: list[int] = []
    for tag in "XY":
        body = stock.package.syncobj.pickle.dumps(["add", tag, tag])
        stock.nodes["L"]._applyCommand(change + body, lambda _result, error: answers.append(error))
    stock.nodes["L"].doTick(0)
    others = {node.id for node in stock.nodes["L"].otherNodes}
    assert {"X", "Y"} <= others, "the package no longer takes two changes at once: trap 11 is gone"

    world = RaftWorld("ABC")
    leader = world.leader()
    world.settle()
    leader.engine.propose_change(Add(Peer("D", "d:1", voter=False)), b"add D")
    with pytest.raises(RequestRefused, match="one membership change at a time"):
        leader.engine.propose_change(Add(Peer("E", "e:1", voter=False)), b"add E")
    world.run_until(lambda: leader.engine.applied_members[0] > 0)
    leader.engine.propose_change(Add(Peer("E", "e:1", voter=False)), b"add E")
    world.run_until(lambda: all(node.machine.commands == [b"add D", b"add E"] for node in world.alive))
    assert all({peer.tag for peer in node.engine.status.peers} == set("ABCDE") for node in world.alive)


def test_trap_11_nothing_changes_before_the_leaders_own_entry_is_applied() -> None:
    world = RaftWorld("ABC")
    world.run_until(lambda: any(node.engine.status.role == "LeaderElect" for node in world.alive))
    elect = next(node for node in world.alive if node.engine.status.role == "LeaderElect")
    with pytest.raises(RequestRefused, match="not confirmed"):
        elect.engine.propose_change(Remove("C" if elect.tag != "C" else "B"), b"too early")


def test_trap_11_a_node_becomes_a_voter_only_when_it_has_caught_up() -> None:
    world = RaftWorld("ABCD", watchers="D")
    leader = world.leader()
    world.settle()
    for tag, reason in (("X", "not connected"), ("D", "not connected")):
        world.disconnect_all("D")
        with pytest.raises(RequestRefused, match=reason):
            leader.engine.propose_change(Add(Peer(tag, "d:1")), b"too early")
    world.connect_all()
    world.settle()
    leader.engine.propose_change(Add(Peer("D", "d:1")), b"D votes")
    world.settle()
    assert leader.engine.status.voters == frozenset("ABCD")
    leader.engine.propose_change(Add(Peer("D", "d:1", voter=False)), b"D watches")
    world.settle()
    assert all(node.engine.status.voters == frozenset("ABC") for node in world.alive)
    assert world["D"].machine.commands == [b"D votes", b"D watches"]


def test_trap_11_a_leader_does_not_remove_itself() -> None:
    world = RaftWorld("ABC")
    leader = world.leader()
    for change in (Remove(leader.tag), Add(Peer(leader.tag, "x:1", voter=False))):
        with pytest.raises(RequestRefused, match="transfer the leadership first"):
            leader.engine.propose_change(change, b"")


def test_trap_11_a_restart_takes_its_membership_from_the_disk_and_not_from_its_settings() -> None:
    for snapshot_bytes_min in (10**6, 300):
        world = RaftWorld("ABCD", watchers="D", snapshot_bytes_min=snapshot_bytes_min, segment_bytes_max=200)
        leader = world.leader()
        world.settle()
        leader.engine.propose_change(Add(Peer("D", "moved:1")), b"D votes, elsewhere")
        world.settle()
        for number in range(20):
            world.propose(leader, b"%d" % number)
            world.round()
        world.settle()
        for node in world.alive:
            node.crash()
        for node in world.nodes.values():
            node.start()
            assert next(peer for peer in node.engine.status.peers if peer.tag == "D") == Peer("D", "moved:1")


def test_trap_12_adding_a_method_renumbers_the_packages_commands_and_ours_have_no_numbers() -> None:
    stock: Any = fresh_package()
    replicated = stock.replicated

    class Old(stock.SyncObj):  # type: ignore[misc]
        @replicated  # type: ignore[untyped-decorator]
        def put(self) -> None: ...

    class New(stock.SyncObj):  # type: ignore[misc]
        @replicated  # type: ignore[untyped-decorator]
        def get(self) -> None: ...
        @replicated  # type: ignore[untyped-decorator]
        def put(self) -> None: ...

    conf = stock.SyncObjConf(autoTick=False)
    old, new = (
        kind(stock.node.Node("A"), [], conf, transportClass=stock.transport.Transport)._methodToID["put_v0"]
        for kind in (Old, New)
    )
    assert old != new, "the package no longer renumbers: trap 12 is gone"

    world = RaftWorld("A")
    assert world.leader().engine._core._methodToID == {}


def test_trap_12_an_entry_of_an_unknown_type_changes_nothing_and_is_passed_once() -> None:
    world = RaftWorld("ABC")
    leader = world.leader()
    world.settle()
    journal = leader.engine._journal
    journal.append((b"\x03a version entry of the package", journal.last_index + 1, leader.engine.status.term))
    world.propose(leader, b"once")
    world.settle()
    assert all(node.machine.commands == [b"once"] for node in world.alive)
    assert all(node.failures == [] for node in world.alive)
