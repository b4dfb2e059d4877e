"""The transport: who is let in, order, limits, dead peers, and reconnecting; plain and with mutual TLS."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trustme

from raftnode.consensus.transport import handshake as rules
from raftnode.consensus.transport.connection import framed
from raftnode.consensus.transport.entrance import GUESTS_MAX
from raftnode.consensus.transport.handshake import (
    PROTOCOL_VERSION,
    AnnouncedProcess,
    Handshake,
    HandshakeContext,
    PeerPolicy,
    judge,
)
from raftnode.consensus.transport.links import Links, TransportConfig
from raftnode.consensus.transport.tls import Tls, load_tls
from raftnode.consensus.transport.transport import Transport
from raftnode.foundation.incarnation import NodeIncarnation
from tests.unit.consensus.cluster import running, until

QUICK: dict[str, Any] = {"dead_peer_ms": 300, "connect_timeout_ms": 300, "patience_ms": 150, "retry_max_ms": 50}


def process(tag: str, **changes: Any) -> NodeIncarnation:
    plain: dict[str, Any] = {"tag": tag, "node_id": f"node-{tag}", "boot": 1, "nonce": 1}
    return NodeIncarnation(**(plain | changes))


class End:
    """One transport and what it heard."""

    def __init__(
        self,
        who: NodeIncarnation,
        tls: Tls | None = None,
        guard: PeerPolicy | None = None,
        cluster: str = "c",
        **limits: Any,
    ) -> None:
        self.transport = Transport(
            cluster, who, TransportConfig(**(QUICK | limits)), tls=tls, guard=guard or PeerPolicy()
        )
        self.tag = who.tag
        self.heard: list[tuple[str, bytes]] = []
        self.links: list[tuple[str, bool]] = []
        self.impostors: list[tuple[str, str]] = []
        self.removed_by: list[str] = []
        self.transport.on_message("words", lambda tag, payload: self.heard.append((tag, payload)))
        self.transport.on_connection.append(lambda tag, up: self.links.append((tag, up)))
        self.transport.on_impostor.append(lambda tag, text, superseded: self.impostors.append((tag, text)))
        self.transport.on_removed.append(self.removed_by.append)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.transport.port}"

    def knows(self, *others: "End", index: int = 0) -> None:
        self.transport.set_peers({other.tag: other.address for other in others}, index)

    def is_up(self, other: "End") -> bool:
        return other.tag in self.transport.connected_tags()


@asynccontextmanager
async def ends(*given: End) -> AsyncIterator[None]:
    for end in given:
        await end.transport.start()
    try:
        yield
    finally:
        for end in given:
            await end.transport.stop()
        assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("connection to")]


async def test_messages_arrive_in_order_both_ways_over_one_connection() -> None:
    a, b = End(process("A")), End(process("B"))
    async with ends(a, b):
        a.knows(b)
        b.knows(a)
        await until(lambda: a.is_up(b) and b.is_up(a))
        for number in range(200):
            assert a.transport.send("B", "words", b"%d" % number)
            assert b.transport.send("A", "words", b"%d" % number)
        await until(lambda: len(a.heard) == len(b.heard) == 200)
        assert b.heard == [("A", b"%d" % number) for number in range(200)]
        assert a.heard == [("B", b"%d" % number) for number in range(200)]
        assert a.links == [("B", True)]
        assert b.links == [("A", True)]


async def test_a_message_without_a_connection_or_above_the_limit_is_not_sent() -> None:
    a, b = End(process("A"), frame_bytes_max=1_000), End(process("B"))
    async with ends(a, b):
        assert not a.transport.send("B", "words", b"x")
        a.knows(b)
        b.knows(a)
        await until(lambda: a.is_up(b))
        assert not a.transport.send("B", "words", b"x" * 1_000)
        assert a.transport.send("B", "words", b"x" * 900)


async def test_a_lost_connection_is_told_and_made_again() -> None:
    a, b = End(process("A")), End(process("B"))
    async with ends(a, b):
        a.knows(b)
        b.knows(a)
        await until(lambda: a.is_up(b) and b.is_up(a))
        link = b.transport._links.by_tag["A"].connection
        assert link is not None
        link.drop("the test cuts it")
        await until(lambda: b.links == [("A", True), ("A", False), ("A", True)])
        await until(lambda: a.links == [("B", True), ("B", False), ("B", True)])


async def test_the_other_side_dials_when_the_lower_tag_does_not_know_it_yet() -> None:
    a, b = End(process("A")), End(process("B"))
    async with ends(a, b):
        b.knows(a, index=5)
        await until(lambda: a.is_up(b) and b.is_up(a))
        assert a.transport.send("B", "words", b"to a guest")
        await until(lambda: b.heard == [("A", b"to a guest")])
        a.transport.set_peers({}, 5)
        await until(lambda: not a.is_up(b))


@pytest.mark.parametrize("bad", [f"{'x' * 64}.example:1", "a..b:1", "host:65536", "host:port", ":1"])
async def test_a_bad_address_is_said_and_a_later_good_one_is_dialled(bad: str) -> None:
    a, b = End(process("A")), End(process("B"), patience_ms=60_000)
    async with ends(a, b):
        a.transport.set_peers({"B": bad}, 0)
        await until(lambda: a.transport.complaint("B") != "")
        a.knows(b)
        b.knows(a)
        await until(lambda: a.is_up(b) and b.is_up(a))


async def test_a_link_whose_keeper_fails_by_a_defect_is_kept_again(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = End(process("A")), End(process("B"), patience_ms=60_000)
    dial, failures = Links._dial, iter([KeyError("a defect"), asyncio.CancelledError()])

    async def fails_twice(self: Links, link: Any) -> None:
        failure = next(failures, None)
        if failure is not None:
            raise failure
        await dial(self, link)

    monkeypatch.setattr(Links, "_dial", fails_twice)
    async with ends(a, b):
        a.knows(b)
        b.knows(a)
        await until(lambda: a.is_up(b) and b.is_up(a))


async def test_a_node_that_a_newer_membership_does_not_contain_learns_that_it_was_removed() -> None:
    a, b = End(process("A")), End(process("B"))
    async with ends(a, b):
        b.transport.set_peers({}, 9)
        a.knows(b, index=3)
        await until(lambda: "B" in a.removed_by)
        assert not b.is_up(a)


async def test_a_node_that_is_added_again_is_removed_no_longer() -> None:
    a, b = End(process("A")), End(process("B"))
    async with ends(a, b):
        b.transport.set_peers({}, 9)
        a.knows(b, index=3)
        await until(lambda: a.transport.removed_by == "B")
        b.knows(a, index=10)
        await until(lambda: a.is_up(b))
        assert a.transport.removed_by is None
        assert a.removed_by == ["B"]


async def test_an_address_that_is_not_served_does_not_get_as_far_as_a_handshake() -> None:
    asked: list[str] = []

    def admits(host: str) -> bool:
        asked.append(host)
        return False

    a, b = End(process("A")), End(process("B"), guard=PeerPolicy(admits=admits))
    async with ends(a, b):
        reader, writer = await asyncio.open_connection(*b.address.split(":"))
        assert await reader.read() == b"" or reader.at_eof()
        writer.close()
        a.knows(b)
        await until(lambda: len(asked) > 2)
        assert set(asked) == {"127.0.0.1"}
        assert not a.is_up(b)


async def test_the_former_node_of_a_tag_is_refused_for_good_and_the_new_one_is_let_in() -> None:
    """Also when nobody has met the new one, and when the former one was connected before this node knew better."""
    ids = {"B": "node-B"}
    a = End(process("A"), guard=PeerPolicy(node_id_of=lambda tag: ids.get(tag, "")))
    former, new = End(process("B")), End(process("B", node_id="second"))
    async with ends(a, former, new):
        former.knows(a, index=5)
        a.knows(former, index=5)
        await until(lambda: a.is_up(former))
        ids["B"] = "second"
        a.knows(new, index=7)
        await until(lambda: former.impostors != [])
        assert "B is node second in the cluster, and not node-B" in former.impostors[0][1]
        new.knows(a, index=0)
        await until(lambda: new.is_up(a))


@pytest.mark.parametrize("index", [0, 5], ids=["it has applied nothing yet", "both lost what they had applied"])
async def test_a_node_that_joined_outlives_the_refusal_of_one_that_has_yet_to_hear_of_it(index: int) -> None:
    ids = {"B": "node-B"}
    behind = End(process("C"), guard=PeerPolicy(node_id_of=lambda tag: ids.get(tag, "")))
    new = End(process("B", node_id="second"))
    async with ends(behind, new):
        behind.knows(new, index=5)
        new.knows(behind, index=index)
        await until(lambda: "is node node-B in the cluster" in new.transport.complaint("C"))
        ids["B"] = "second"
        await until(lambda: new.is_up(behind))
        assert new.impostors == []


async def test_a_node_that_waits_to_be_added_is_not_told_that_it_was_removed() -> None:
    a, b = End(process("A")), End(process("B"))
    async with ends(a, b):
        b.transport.set_peers({}, 9)
        a.knows(b, index=0)
        await until(lambda: a.transport.complaint("B") != "")
        assert a.removed_by == []
        b.knows(a, index=10)
        await until(lambda: a.is_up(b))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"cluster": "other"}, "cluster"),
        ({"version": PROTOCOL_VERSION + 1}, "version"),
        ({"tag": "A"}, "tag"),
        ({"tag": "X"}, "unknown"),
        ({"boot": 2}, "incarnation"),
        ({"nonce": 8}, "incarnation"),
        ({"node_id": "another"}, "node"),
    ],
)
def test_whoever_is_not_exactly_who_he_should_be_is_refused_with_the_reason(changes: dict[str, Any], code: str) -> None:
    met = Handshake(PROTOCOL_VERSION, "c", "B", "node-B", 3, 7, 4)
    own = Handshake(PROTOCOL_VERSION, "c", "A", "node-A", 1, 1, 4)
    fields = {name: getattr(met, name) for name in met.__struct_fields__}
    context = HandshakeContext(own, {"B": met}, {"B"}, announced=AnnouncedProcess("node-B", 3, 7))
    assert judge(met, context) is None
    assert judge(Handshake(**(fields | {"boot": 4, "nonce": 99})), context) is None
    refusal = judge(Handshake(**(fields | changes)), context)
    assert refusal is not None
    assert (refusal.code, refusal.membership_index) == (code, 4)
    assert refusal.text.endswith(".")


def test_an_unknown_node_is_let_in_if_it_knows_a_newer_membership() -> None:
    own = Handshake(PROTOCOL_VERSION, "c", "A", "node-A", 1, 1, 4)
    assert judge(Handshake(PROTOCOL_VERSION, "c", "F", "node-F", 1, 1, 5), HandshakeContext(own, {}, {"B"})) is None


def test_a_node_that_is_behind_lets_in_whoever_took_a_tag_by_a_membership_it_has_yet_to_learn_of() -> None:
    """It may be the leader, from whom alone this node can learn (found by simulation)."""
    own, former = (
        Handshake(PROTOCOL_VERSION, "c", "A", "node-A", 1, 1, 4),
        Handshake(PROTOCOL_VERSION, "c", "B", "node-B", 3, 3, 4),
    )
    context = HandshakeContext(own, {"B": former}, {"B"}, node_id="node-B")
    assert judge(Handshake(PROTOCOL_VERSION, "c", "B", "another", 1, 1, 5), context) is None
    refusal = judge(Handshake(PROTOCOL_VERSION, "c", "B", "another", 1, 1, 4), context)
    assert refusal is not None
    assert refusal.code == "node"


@pytest.mark.parametrize(
    ("changes", "announced", "code"),
    [
        ({"nonce": 8}, None, "undecided"),
        ({"boot": 2}, None, "undecided"),
        ({"nonce": 8}, ("node-B", 2, 1), "undecided"),
        ({"boot": 2, "nonce": 1}, ("node-B", 2, 1), "undecided"),
        ({"nonce": 8}, ("node-B", 3, 8), None),
        ({"boot": 4, "nonce": 8}, ("node-B", 3, 7), None),
        ({}, ("node-B", 3, 8), "incarnation"),
        ({}, ("node-B", 4, 8), "incarnation"),
        ({}, ("another", 9, 9), None),
        ({}, ("node-B", 3, 0), None),
    ],
)
def test_of_two_processes_of_a_node_the_record_decides_and_until_it_does_the_one_that_is_there_stays(
    changes: dict[str, Any], announced: tuple[str, int, int] | None, code: str | None
) -> None:
    own, met = (
        Handshake(PROTOCOL_VERSION, "c", "A", "node-A", 1, 1, 4),
        Handshake(PROTOCOL_VERSION, "c", "B", "node-B", 3, 7, 4),
    )
    speaker = Handshake(**({name: getattr(met, name) for name in met.__struct_fields__} | changes))
    context = HandshakeContext(
        own, {"B": met}, {"B"}, announced=AnnouncedProcess(*announced) if announced else None, connected={"B"}
    )
    refusal = judge(speaker, context)
    assert (refusal and refusal.code) == code
    gone = judge(speaker, replace(context, connected=()))
    assert (gone and gone.code) == (code if code == "incarnation" else None), (
        "whoever is not there any more does not count"
    )


async def test_a_copied_directory_is_refused_loudly_on_both_sides_once_the_record_knows_the_first() -> None:
    announced: dict[str, AnnouncedProcess] = {}
    a = End(process("A"), guard=PeerPolicy(announced=announced.get))
    b, copy = End(process("B", boot=2)), End(process("B", boot=2, nonce=2))
    async with ends(a, b, copy):
        a.knows(b)
        b.knows(a)
        await until(lambda: a.is_up(b))
        copy.knows(a)
        await until(lambda: "has yet to hear which of the two" in copy.transport.complaint("A"))
        assert (a.impostors, copy.impostors) == ([], [])
        announced["B"] = AnnouncedProcess("node-B", 2, 1)
        await until(lambda: a.impostors != [] and copy.impostors != [])
        assert "this one is start 2 of the same: the directory was copied" in copy.impostors[0][1]
        assert a.is_up(b)


async def test_a_process_that_the_record_has_gone_past_is_let_go_and_told() -> None:
    """Also one that was let in before: each node may have met another of the two."""
    announced: dict[str, AnnouncedProcess] = {}
    a = End(process("A"), guard=PeerPolicy(announced=announced.get))
    b, copy = End(process("B", boot=2)), End(process("B", boot=2, nonce=2))
    async with ends(a, b, copy):
        a.knows(copy)
        copy.knows(a)
        await until(lambda: a.is_up(copy))
        announced["B"] = AnnouncedProcess("node-B", 2, 1)
        a.transport.check_announced()
        b.knows(a)
        await until(lambda: copy.impostors != [])
        await until(lambda: a.is_up(b))
        assert b.impostors == []


async def test_a_process_that_finds_another_one_in_its_own_record_says_so() -> None:
    announced: dict[str, AnnouncedProcess] = {}
    b = End(process("B", boot=2), guard=PeerPolicy(announced=announced.get))
    async with ends(b):
        for known in (
            None,
            AnnouncedProcess("node-B", 1, 9),
            AnnouncedProcess("node-B", 2, 1),
            AnnouncedProcess("another", 7, 7),
        ):
            if known is not None:
                announced["B"] = known
            b.transport.check_announced()
        assert b.impostors == []
        announced["B"] = AnnouncedProcess("node-B", 3, 4)
        b.transport.check_announced()
        assert [(tag, "since start 3" in text) for tag, text in b.impostors] == [("B", True)]


async def test_another_clusters_node_is_refused() -> None:
    a, b = End(process("A")), End(process("B"), cluster="other")
    async with ends(a, b):
        a.knows(b)
        b.knows(a)
        await until(lambda: "cluster" in a.transport.complaint("B"))
        assert not a.is_up(b)
        assert not b.is_up(a)


async def test_a_peer_that_falls_silent_is_dropped_and_one_that_only_listens_is_not() -> None:
    a, b = End(process("A")), End(process("B"))
    async with ends(a, b):
        a.knows(b)
        b.knows(a)
        await until(lambda: a.is_up(b) and b.is_up(a))
        await asyncio.sleep(1)  # three times the silence that would be fatal: the pings must carry it
        assert a.links == [("B", True)]
        link = b.transport._links.by_tag["A"].connection
        assert link is not None
        link.send_frame = lambda frame: None  # type: ignore[method-assign]
        await until(lambda: ("B", False) in a.links)


async def test_a_connection_that_takes_nothing_is_dropped_and_bounded_until_then() -> None:
    a = End(process("A"), send_buffer_bytes_max=200_000)
    async with ends(a):
        listener = socket.create_server(("127.0.0.1", 0), backlog=1)
        port = listener.getsockname()[1]
        a.transport.set_peers({"B": f"127.0.0.1:{port}"}, 0)
        loop = asyncio.get_running_loop()
        listener.setblocking(False)
        stalled, _ = await loop.sock_accept(listener)
        stalled.setblocking(False)
        await loop.sock_recv(stalled, 10_000)
        frame = rules.encode(Handshake(PROTOCOL_VERSION, "c", "B", "node-B", 1, 1, 0))
        await loop.sock_sendall(stalled, framed(frame))
        await until(lambda: a.transport.connected_tags() == {"B"})
        for _ in range(1_000):
            if not a.transport.send("B", "words", b"x" * 50_000):
                break
            await asyncio.sleep(0)
        assert not a.transport.send("B", "words", b"x" * 50_000)
        assert a.transport.backlog_bytes("B") <= 200_000
        await until(lambda: ("B", False) in a.links)
        stalled.close()
        listener.close()


async def test_strangers_that_say_nothing_are_dropped() -> None:
    a = End(process("A"))
    async with ends(a):
        reader, writer = await asyncio.open_connection("127.0.0.1", a.transport.port)
        assert await reader.read() == b""
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", a.transport.port)
        writer.write((10_000).to_bytes(4, "big"))
        assert await reader.read() == b""
        writer.close()


async def test_a_stranger_that_never_finishes_its_handshake_is_dropped() -> None:
    """One byte now and then is no sign of life: a hundred such strangers would keep every node out."""
    a = End(process("A"))
    async with ends(a):
        reader, writer = await asyncio.open_connection("127.0.0.1", a.transport.port)
        writer.write((4096).to_bytes(4, "big") + bytes(4))

        async def trickle() -> None:
            while True:
                writer.write(b"x")
                await asyncio.sleep(0.05)

        trickling = asyncio.create_task(trickle())
        async with asyncio.timeout(3):
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
        trickling.cancel()
        writer.close()


async def knock(end: End, tag: str, index: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection as a node of that tag that has applied the membership of that index."""
    reader, writer = await asyncio.open_connection("127.0.0.1", end.transport.port)
    writer.write(framed(rules.encode(Handshake(PROTOCOL_VERSION, "c", tag, f"node-{tag}", 1, 1, index))))
    return reader, writer


async def test_no_more_than_some_unknown_nodes_are_let_in_and_none_is_remembered() -> None:
    a = End(process("A"))
    async with ends(a):
        a.transport.set_peers({}, 3)
        tags = [f"G{chr(65 + number)}" for number in range(GUESTS_MAX)]
        guests = [await knock(a, tag, 4) for tag in tags]
        await until(lambda: a.transport.connected_tags() == set(tags))
        reader, writer = await knock(a, "TOO", 4)
        assert b"which is the limit" in await reader.read()
        writer.close()
        for _, guest in guests:
            guest.close()
        await until(lambda: not a.transport.connected_tags())
        assert a.transport._entrance.met == {}


async def test_an_unknown_node_that_connects_again_is_reached_over_the_newer_connection() -> None:
    a = End(process("A"))
    async with ends(a):
        a.transport.set_peers({}, 3)
        _, former = await knock(a, "G", 4)
        reader, guest = await knock(a, "G", 4)
        await until(lambda: a.links == [("G", True), ("G", False), ("G", True)])
        assert a.transport.connected_tags() == {"G"}
        assert a.transport.send("G", "words", b"the log")
        await reader.readuntil(b"the log")
        guest.close()
        await until(lambda: not a.transport.connected_tags())
        former.close()


async def test_a_damaged_frame_ends_the_connection_and_reaches_nobody() -> None:
    a = End(process("A"))
    async with ends(a):
        a.transport.set_peers({}, 3)
        message = msgspec.msgpack.encode(("words", b"sound"))
        reader, writer = await knock(a, "B", 4)
        damaged = bytearray(framed(message))
        damaged[-1] ^= 1
        writer.write(framed(message) + damaged + framed(message))
        await reader.read()
        await until(lambda: a.links == [("B", True), ("B", False)])
        assert a.heard == [("B", b"sound")]
        writer.close()


async def test_a_damaged_length_ends_the_connection_before_it_swallows_what_comes_after() -> None:
    a = End(process("A"))
    async with ends(a):
        a.transport.set_peers({}, 3)
        reader, writer = await knock(a, "B", 4)
        damaged = bytearray(framed(msgspec.msgpack.encode(("words", b"sound"))))
        damaged[1] ^= 1
        writer.write(damaged)
        await reader.read()
        await until(lambda: a.links == [("B", True), ("B", False)])
        writer.close()


@pytest.mark.parametrize(
    "frame",
    [b"\xc1", b"\xa1\xff", b"\x92\xa1\xff\xc4\x00", b"\x98\xa5Hello\x01\xa1\xff\xa1B\xa1n\x01\x01\x00"],
)
async def test_what_cannot_be_read_ends_the_connection_without_an_exception(frame: bytes) -> None:
    a = End(process("A"))
    failures: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: failures.append(context))
    async with ends(a):
        a.transport.set_peers({}, 3)
        reader, writer = await asyncio.open_connection("127.0.0.1", a.transport.port)
        writer.write(framed(frame))
        assert await reader.read() == b""
        writer.close()
        reader, writer = await knock(a, "B", 4)
        writer.write(framed(frame))
        await reader.read()
        await until(lambda: a.links == [("B", True), ("B", False)])
        writer.close()
    assert failures == []


@pytest.fixture
def authority(tmp_path: Path) -> "CertificateAuthority":
    return CertificateAuthority(tmp_path)


class CertificateAuthority:
    """Issues certificates into files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ca = trustme.CA()

    def tls(self, *names: str) -> Tls:
        leaf = self.ca.issue_cert(*names)
        paths = [self.directory / f"{names[0]}.{kind}" for kind in ("pem", "key", "ca")]
        leaf.cert_chain_pems[0].write_to_path(paths[0])
        leaf.private_key_pem.write_to_path(paths[1])
        self.ca.cert_pem.write_to_path(paths[2])
        return load_tls(*paths)


async def test_with_mutual_tls_the_certificate_names_the_tag(authority: CertificateAuthority) -> None:
    a, b = End(process("A"), authority.tls("A")), End(process("B"), authority.tls("B"))
    async with ends(a, b):
        a.knows(b)
        b.knows(a)
        await until(lambda: a.is_up(b) and b.is_up(a))
        assert a.transport.send("B", "words", b"in secret")
        await until(lambda: b.heard == [("A", b"in secret")])
        link = a.transport._links.by_tag["B"].connection
        assert link is not None
        assert link._transport is not None
        assert link._transport.get_extra_info("ssl_object").version() == "TLSv1.3"


async def test_a_certificate_for_another_tag_is_refused(authority: CertificateAuthority) -> None:
    a, b = End(process("A"), authority.tls("A")), End(process("B"), authority.tls("C"))
    async with ends(a, b):
        a.knows(b)
        b.knows(a)
        await until(lambda: "subjectAltName" in a.transport.complaint("B"))
        assert not a.is_up(b)


async def test_a_plain_stranger_and_a_foreign_certificate_do_not_get_in(
    authority: CertificateAuthority, tmp_path: Path
) -> None:
    (tmp_path / "foreign").mkdir()
    foreign = CertificateAuthority(tmp_path / "foreign")
    a = End(process("A"), authority.tls("A"))
    b, plain = End(process("B"), foreign.tls("B")), End(process("C"))
    async with ends(a, b, plain):
        a.knows(b, plain)
        b.knows(a)
        plain.knows(a)
        await until(lambda: a.transport.complaint("B") != "" and a.transport.complaint("C") != "")
        await until(lambda: b.transport.complaint("A") != "" and plain.transport.complaint("A") != "")
        assert a.links == []


def test_contexts_that_ask_for_no_certificate_are_refused(authority: CertificateAuthority) -> None:
    good = authority.tls("A")
    with pytest.raises(ValueError, match="CERT_REQUIRED"):
        Tls(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), good.client)
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    old.verify_mode = ssl.CERT_REQUIRED
    with pytest.raises(ValueError, match=r"TLS 1\.3"):
        Tls(old, good.client)


async def test_a_cluster_works_over_mutual_tls(authority: CertificateAuthority, tmp_path: Path) -> None:
    contexts = {tag: authority.tls(tag) for tag in "ABC"}
    async with running(tmp_path / "cluster", tls_by_tag=contexts) as cluster:
        for node in cluster.nodes:
            await node.raft.propose(node.tag.encode())
        assert sorted(await cluster.same()) == [b"A", b"B", b"C"]
