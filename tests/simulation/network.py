"""The wires between the nodes: connections that are made and lost, and messages that are late, in order, or gone.

A pair of nodes has at most one connection. Within it messages arrive in order, each way with its own delay; a packet
that is lost costs its retransmission, slower each time until the silence ends the connection; a duplicate never gets
past TCP. A direction that is cut delivers nothing; what was on its way is lost with the connection, which both sides
notice after a while, each in its own time.

An end is known by the host that it listens at, which is its node's tag, but for a node whose directory was copied: each
copy has a host of its own. A third node is connected with one of them at a time, the newest that it lets in.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec.structs import replace

from raftnode.cluster.replica import Replica
from raftnode.consensus.transport.handshake import (
    Handshake,
    HandshakeContext,
    HandshakeRefusal,
    is_impostor,
    is_removed,
    judge,
    superseded,
)
from tests.simulation.loop import Process

if TYPE_CHECKING:
    from tests.simulation.world import World

RETRANSMISSION_S = 0.2
RETRY_S = (0.05, 0.4)


class SimulatedTransport:
    """One process's end of all its connections; what Raft and the heartbeat know as the transport."""

    def __init__(
        self, network: "SimulatedNetwork", process: Process, who: Handshake, host: str, replica: Replica
    ) -> None:
        self.on_connection: list[Callable[[str, bool], None]] = []
        self.on_impostor: list[Callable[[str, str, bool], None]] = []
        self.on_removed: list[Callable[[str], None]] = []
        self.removed_by: str | None = None
        self.tag, self.host = who.tag, host
        self.process = process
        self.peers: dict[str, str] = {}
        self.met: dict[str, Handshake] = {}
        self._network = network
        self._who = who
        self._replica = replica
        self._handlers: dict[str, Callable[[str, bytes], None]] = {}
        self._up: dict[str, str] = {}

    def send(self, tag: str, channel: str, payload: bytes) -> bool:
        host = self._up.get(tag)
        return self.process.alive and host is not None and self._network.carry(self.host, host, channel, payload)

    def on_message(self, channel: str, handler: Callable[[str, bytes], None]) -> None:
        self._handlers[channel] = handler

    def backlog_bytes(self, tag: str) -> int:
        return 0

    def connected_tags(self) -> frozenset[str]:
        return frozenset(self._up)

    def complaint(self, tag: str) -> str:
        return "" if tag in self._up else "not connected"

    def set_peers(self, addresses: dict[str, str], membership_index: int) -> None:
        self.peers = {tag: host_of(address) for tag, address in addresses.items() if tag != self.tag}
        self._who = replace(self._who, membership_index=membership_index)
        for tag, met in sorted(self.met.items()):
            another = self._replica.node_id_of(tag) not in ("", met.node_id)
            if (another or tag not in self.peers) and met.membership_index <= membership_index:
                del self.met[tag]
                self._drop(tag)
        for host in sorted(self.peers.values()):
            self._network.wanted(self.host, host)

    def _drop(self, tag: str) -> None:
        if tag in self._up:
            self._network.drop(self.host, self._up[tag])

    def check_announced(self) -> None:
        text = superseded(self._who, self._replica.announced(self.tag))
        for tell in self.on_impostor if text is not None else ():
            tell(self.tag, text or "", True)
        for tag in sorted(self._up):
            if superseded(self.met[tag], self._replica.announced(tag)):
                self._drop(tag)

    def handshake(self) -> Handshake:
        """What this end says first."""
        return self._who

    def refusal_of(self, handshake: Handshake) -> HandshakeRefusal | None:
        """Why this end does not take the other one's word; None if it does."""
        door = HandshakeContext(
            self._who,
            self.met,
            self.peers,
            node_id=self._replica.node_id_of(handshake.tag),
            announced=self._replica.announced(handshake.tag),
            connected=self._up,
        )
        return judge(handshake, door)

    def refused(self, by: str, refusal: HandshakeRefusal) -> None:
        """The other end does not take this one's word."""
        if is_impostor(refusal, self._who.membership_index):
            for tell in self.on_impostor:
                tell(self.tag, refusal.text, refusal.code == "incarnation")
        if is_removed(refusal, self._who.membership_index):
            for removed in self.on_removed:
                removed(by)

    def deliver(self, sender: "SimulatedTransport", channel: str, payload: bytes, connection: int) -> None:
        up = self._up.get(sender.tag) == sender.host
        if up and self._network.is_current(self.host, sender.host, connection):
            handler = self._handlers.get(channel)
            if handler is not None:
                handler(sender.tag, payload)

    def told(self, tag: str, host: str, up: bool, handshake: Handshake | None) -> None:
        """The connection came up or was lost."""
        before = self._up.get(tag)
        if up == (before == host):
            return
        if up:
            assert handshake is not None
            self.met[tag] = handshake
            if before is not None:
                self.told(tag, before, False, None)
                self._network.drop(self.host, before)
            self._up[tag] = host
        else:
            del self._up[tag]
        for callback in list(self.on_connection):
            callback(tag, up)


def host_of(address: str) -> str:
    """The host of "host:port"."""
    return address.rpartition(":")[0]


class _Pair:
    """Two ends. `connection` numbers the present one, 0 for none."""

    def __init__(self) -> None:
        self.connection = 0
        self.trying = False
        self.busy_until_s: dict[str, float] = {}


class SimulatedNetwork:
    """All pairs. Directions are (from, to)."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._loop = world.loop
        self._pairs: dict[tuple[str, str], _Pair] = {}
        self._connections = 0
        self.ends: dict[str, SimulatedTransport] = {}
        self.cut: set[tuple[str, str]] = set()
        self.delay_s: dict[tuple[str, str], tuple[float, float]] = {}
        self.loss: dict[tuple[str, str], float] = {}
        self.messages = 0

    def attach(self, end: SimulatedTransport) -> None:
        """A process has begun to listen."""
        self.ends[end.host] = end

    def pair(self, a: str, b: str) -> _Pair:
        pair = self._pairs.get((a, b))
        if pair is None:
            pair = self._pairs[a, b] = self._pairs[b, a] = _Pair()
        return pair

    def is_current(self, a: str, b: str, connection: int) -> bool:
        return self.pair(a, b).connection == connection

    # messages

    def carry(self, sender: str, to: str, channel: str, payload: bytes) -> bool:
        """Sends a message on its way."""
        pair, way = self.pair(sender, to), (sender, to)
        if not pair.connection:
            return False
        self.messages += 1
        if way in self.cut:
            return True
        chance = self._world.chance
        low, high = self.delay_s.get(way, (0.0002, 0.002))
        arrives_s = self._loop.time() + low + (high - low) * chance.random()
        loss, waits_s = self.loss.get(way, 0.0), 0.0
        while loss and chance.random() < loss:
            waits_s = RETRANSMISSION_S + 2 * waits_s
        arrives_s += waits_s
        if waits_s > self._world.pace["dead_peer_ms"] / 1000:
            self._later(self._notice_s(), self._gone, sender, to, pair.connection)
        arrives_s = max(arrives_s, pair.busy_until_s.get(to, 0.0))
        pair.busy_until_s[to] = arrives_s
        end, by = self.ends[to], self.ends[sender]
        self._loop.call_at_true(
            arrives_s, end.deliver, by, channel, payload, pair.connection, context=end.process.context
        )
        return True

    # connections

    def wanted(self, a: str, b: str) -> None:
        """One of the two wants to be connected with the other."""
        pair = self.pair(a, b)
        if not pair.connection and not pair.trying:
            pair.trying = True
            self._later(self._world.chance.uniform(0.001, 0.02), self._try, a, b)

    def _try(self, a: str, b: str) -> None:
        pair = self.pair(a, b)
        pair.trying = False
        if pair.connection:
            return
        one, other = (self.ends.get(host) for host in (a, b))
        wanted = any(end and end.process.alive and peer in end.peers.values() for end, peer in ((one, b), (other, a)))
        if not wanted:
            return
        if one and other and self._meet(one, other):
            self._connections += 1
            pair.connection = self._connections
            pair.busy_until_s = {}
            self._tell(one, other, True)
            self._tell(other, one, True)
            return
        pair.trying = True
        self._later(self._world.chance.uniform(*RETRY_S), self._try, a, b)

    def _meet(self, one: SimulatedTransport, other: SimulatedTransport) -> bool:
        running = all(end.process.alive and not end.process.paused for end in (one, other))
        open_ways = not {(one.host, other.host), (other.host, one.host)} & self.cut
        if not (running and open_ways):
            return False
        met = True
        for end, guest in ((one, other), (other, one)):
            refusal = end.refusal_of(guest.handshake())
            if refusal is not None:
                met = False
                self._loop.call_soon(guest.refused, end.tag, refusal, context=guest.process.context)
        return met

    def drop(self, a: str, b: str) -> None:
        """The connection of the two ends; both know at once, or soon."""
        pair = self.pair(a, b)
        if pair.connection:
            pair.connection = 0
            for end, peer in ((self.ends[a], self.ends[b]), (self.ends[b], self.ends[a])):
                if end.process.alive:
                    self._tell(end, peer, False)
            self.wanted(a, b)

    def _tell(self, end: SimulatedTransport, peer: SimulatedTransport, up: bool) -> None:
        handshake = peer.handshake() if up else None
        self._loop.call_soon(end.told, peer.tag, peer.host, up, handshake, context=end.process.context)

    def _notice_s(self) -> float:
        """How long it takes until a silent connection is given up."""
        return self._world.pace["dead_peer_ms"] / 1000 * self._world.chance.uniform(1, 1.3)

    def _later(self, delay_s: float, callback: Callable[..., None], *args: object) -> None:
        self._loop.call_at_true(self._loop.time() + delay_s, callback, *args, context=self._world.context)

    # accidents

    def cut_ways(self, ways: set[tuple[str, str]]) -> None:
        """Nothing goes that way any more; connections that depend on it die after a while."""
        for a, b in sorted(ways - self.cut):
            self.cut.add((a, b))
            connection = self.pair(a, b).connection
            if connection:
                self._later(self._notice_s(), self._given_up, a, b, connection)

    def _given_up(self, a: str, b: str, connection: int) -> None:
        if {(a, b), (b, a)} & self.cut and self.is_current(a, b, connection):
            self.drop(a, b)

    def heal(self) -> None:
        """Every way is open, quick and without loss."""
        self.cut.clear()
        self.delay_s.clear()
        self.loss.clear()

    def died(self, tag: str) -> None:
        """The process is gone: its kernel says so to whoever it can reach, the others notice later."""
        for other in sorted(self.ends):
            if other != tag and (connection := self.pair(tag, other).connection):
                if (tag, other) in self.cut:
                    self._later(self._notice_s(), self._gone, tag, other, connection)
                else:
                    self.drop(tag, other)

    def paused(self, tag: str) -> None:
        """The process stands still: the others give its connections up after a while."""
        for other in sorted(self.ends):
            if other != tag and (connection := self.pair(tag, other).connection):
                self._later(self._notice_s(), self._still_paused, tag, other, connection)

    def _still_paused(self, tag: str, other: str, connection: int) -> None:
        if self.ends[tag].process.paused:
            self._gone(tag, other, connection)

    def _gone(self, tag: str, other: str, connection: int) -> None:
        if self.is_current(tag, other, connection):
            self.drop(tag, other)
