"""Messages between the cluster's nodes: one connection a pair, several channels on it, never waiting.

The node with the lower tag dials. The other one dials only when it has been without a connection for a while, which
is how a node that was added or renamed reaches one that does not know its address yet. The newest connection wins.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

import structlog

from raftnode.consensus.transport import handshake as greeting
from raftnode.consensus.transport.connection import Connection
from raftnode.consensus.transport.handshake import Door, Guard, Hello, NodeIdentity, Refusal
from raftnode.consensus.transport.listener import Port
from raftnode.consensus.transport.tls import Tls
from raftnode.foundation import addresses
from raftnode.foundation.background import kept
from raftnode.foundation.backoff import backoff
from raftnode.foundation.decoding import UNREADABLE
from raftnode.foundation.ports import SystemRandom

log = structlog.get_logger(__name__)

STRANGERS_MAX = 100
REMOVED_PATIENCE = 10  # how many times rarer a removed node asks to be let in again
GUESTS_MAX = 16
"""How many nodes may be let in that this node does not know, as they know a newer membership."""


@dataclass(frozen=True)
class TransportConfig:
    """Where to listen, and the limits. Times are milliseconds, sizes are bytes. Port 0 takes a free one."""

    host: str = "127.0.0.1"
    port: int = 0
    dead_peer_ms: int = 1_500
    connect_timeout_ms: int = 1_000
    retry_min_ms: int = 50
    retry_max_ms: int = 500
    patience_ms: int = 1_000
    frame_bytes_max: int = 8 * 1024 * 1024
    send_buffer_bytes_max: int = 16 * 1024 * 1024


@dataclass
class _Link:
    """One peer: its address if it is known, the connection if there is one, and the task that keeps it."""

    tag: str
    address: str | None
    membership_index: int = 0
    connection: Connection | None = None
    down: asyncio.Event = field(default_factory=asyncio.Event)
    up: asyncio.Event = field(default_factory=asyncio.Event)
    keeper: asyncio.Task[None] | None = None
    complaint: str = ""


class Transport:
    """The transport of one node. Handlers are called on the event loop, one message at a time, in order per peer."""

    def __init__(
        self,
        identity: NodeIdentity,
        config: TransportConfig,
        *,
        tls: Tls | None = None,
        guard: Guard = Guard(),  # noqa: B008
        port: Port | None = None,
    ) -> None:
        self.removed_by: str | None = None
        """The peer by whose newer membership this node was removed; None once it is let in."""
        self.on_connection: list[Callable[[str, bool], None]] = []
        """Called with a tag and whether the connection to it came up or was lost."""
        self.on_impostor: list[Callable[[str, str, bool], None]] = []
        """Called with a tag and a text when two incarnations cannot both be right; True: this one will never be."""
        self.on_removed: list[Callable[[str], None]] = []
        """Called with the tag of a peer whose newer membership does not contain this node."""
        self._identity = identity
        self._config = config
        self._tls = tls
        self._random = SystemRandom()
        self._guard = guard
        self._handlers: dict[str, Callable[[str, bytes], None]] = {}
        self._links: dict[str, _Link] = {}
        self._addresses: dict[str, str] = {}
        self._membership_index = 0
        self._met: dict[str, Hello] = {}
        self._strangers: set[Connection] = set()
        self._port = port or Port(config.host, config.port, tls=tls, handshake_ms=config.connect_timeout_ms)
        self._running = False
        self._watch: asyncio.TimerHandle | None = None

    # life

    async def start(self) -> None:
        """Listens and begins to connect. Raises OSError when the address cannot be had."""
        self._loop = asyncio.get_running_loop()
        await self._port.serve(lambda: self._connection(None))
        self._running = True
        self._keep_links()
        self._on_watch()

    async def stop(self) -> None:
        """Closes everything; returns when no task and no connection is left."""
        if not self._running:
            return
        self._running = False
        self._port.close()
        if self._watch is not None:
            self._watch.cancel()
        keepers = [link.keeper for link in self._links.values() if link.keeper is not None]
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)
        for connection in [*self._strangers, *(link.connection for link in self._links.values() if link.connection)]:
            connection.drop("this node stops")

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return self._port.number

    # messages

    def send(self, tag: str, channel: str, payload: bytes) -> bool:
        """Hands a message over without waiting. False: there is no connection, or too much waits on it."""
        link = self._links.get(tag)
        if link is None or link.connection is None:
            return False
        size = len(payload)
        if size + 64 > self._config.frame_bytes_max:
            log.error("A message is above the frame limit and is not sent.", tag=tag, channel=channel, bytes=size)
            return False
        if link.connection.backlog_bytes + size > self._config.send_buffer_bytes_max:
            return False
        link.connection.send(channel, payload)
        return True

    def on_message(self, channel: str, handler: Callable[[str, bytes], None]) -> None:
        """Has `handler(tag, payload)` called for every message of the channel."""
        if not channel:
            raise ValueError("A channel needs a name.")
        self._handlers[channel] = handler

    def backlog_bytes(self, tag: str) -> int:
        """What waits to be sent to the peer."""
        link = self._links.get(tag)
        return link.connection.backlog_bytes if link and link.connection else 0

    def complaint(self, tag: str) -> str:
        """Why a peer cannot be reached at the moment; empty if it can, or is none."""
        link = self._links.get(tag)
        return link.complaint if link else ""

    def connected_tags(self) -> frozenset[str]:
        """The peers there is a connection to."""
        return frozenset(tag for tag, link in self._links.items() if link.connection)

    def set_peers(self, addresses: dict[str, str], membership_index: int) -> None:
        """Whom to be connected with, "host:port" by tag, and the log index of the membership that says so."""
        self._addresses = {tag: address for tag, address in addresses.items() if tag != self._identity.tag}
        self._membership_index = membership_index
        for tag, link in list(self._links.items()):
            met, expected = self._met.get(tag), self._guard.node_id_of(tag)
            another = met is not None and expected not in ("", met.node_id)
            if (another or tag not in self._addresses) and link.membership_index <= membership_index:
                self._forget(link)
        self._keep_links()

    def check_announced(self) -> None:
        """When the record's nodes have changed: lets go of every process that it has gone past, tells if it is this."""
        text = greeting.superseded(self._hello(), self._guard.announced(self._identity.tag))
        if text is not None:
            self._impostor(self._identity.tag, text, superseded=True)
        for tag, link in list(self._links.items()):
            met = self._met.get(tag)
            if link.connection is not None and met and greeting.superseded(met, self._guard.announced(tag)):
                link.connection.drop("another process of that node has announced itself")

    # keeping connected

    def _keep_links(self) -> None:
        for tag, address in self._addresses.items():
            link = self._link(tag)
            link.address = address
            if link.keeper is None and self._running:
                link.keeper = kept(partial(self._keep, link), f"connection to {tag}")

    def _link(self, tag: str) -> _Link:
        link = self._links.get(tag)
        if link is None:
            link = self._links[tag] = _Link(tag, None)
            link.down.set()
        return link

    def _forget(self, link: _Link) -> None:
        del self._links[link.tag]
        self._met.pop(link.tag, None)
        if link.keeper is not None:
            link.keeper.cancel()
        if link.connection is not None:
            link.connection.drop("the peer left the cluster")

    async def _keep(self, link: _Link) -> None:
        failures = 0
        while True:
            await link.down.wait()
            if self._identity.tag > link.tag and await self._comes_up(link, self._config.patience_ms):
                continue
            try:
                await self._dial(link)
                failures = 0
            except (OSError, TimeoutError, ValueError) as error:  # ValueError: no host's name
                self._complain(link, str(error) or "it did not answer in time")
            failures += 1
            longest_ms = self._config.retry_max_ms * (REMOVED_PATIENCE if self.removed_by else 1)
            await self._comes_up(link, backoff(failures, self._config.retry_min_ms, longest_ms))

    async def _comes_up(self, link: _Link, wait_ms: float) -> bool:
        try:
            async with asyncio.timeout(wait_ms / 1000 * (0.5 + self._random.random())):
                await link.up.wait()
        except TimeoutError:
            return False
        return True

    async def _dial(self, link: _Link) -> None:
        assert link.address is not None
        host, port = addresses.split(link.address)
        async with asyncio.timeout(self._config.connect_timeout_ms / 1000):
            _, connection = await self._loop.create_connection(
                lambda: self._connection(link.tag),
                host,
                port,
                ssl=self._tls.client if self._tls else None,
            )
            try:
                await connection.welcome
            except asyncio.CancelledError:
                connection.drop("the other side did not answer the greeting in time")
                raise

    def _complain(self, link: _Link, complaint: str) -> None:
        if complaint != link.complaint:
            log.info(
                "A peer cannot be reached; it is tried again.", tag=link.tag, address=link.address, reason=complaint
            )
            link.complaint = complaint

    def _connection(self, dialed: str | None) -> Connection:
        limits = self._config
        return Connection(self, dialed=dialed, frame_bytes_max=limits.frame_bytes_max, dead_peer_ms=limits.dead_peer_ms)

    def _on_watch(self) -> None:
        """Pings what was quiet and drops what is dead."""
        dead_s, now_s = self._config.dead_peer_ms / 1000, self._loop.time()
        self._watch = self._loop.call_later(dead_s / 6, self._on_watch)
        for connection in list(self._all_connections()):
            if now_s - connection.heard_s > dead_s:
                connection.drop(f"nothing was heard for {self._config.dead_peer_ms} ms")
            elif connection.stalled(now_s):
                connection.drop(f"nothing could be sent for {self._config.dead_peer_ms} ms")
            elif connection.tag is not None and now_s - connection.spoke_s > dead_s / 4:
                connection.send("", b"")

    def _all_connections(self) -> Iterable[Connection]:
        yield from self._strangers
        yield from (link.connection for link in self._links.values() if link.connection)

    # what happens on a connection

    def opened(self, connection: Connection) -> None:
        if connection.dialed is None and not self._guard.admits(connection.peer_host):
            connection.drop(f"{connection.peer_host} is not served (security.unsecured_access_allowed)")
            return
        if len(self._strangers) >= STRANGERS_MAX and connection.dialed is None:
            connection.drop(f"{STRANGERS_MAX} connections have not said who they are, which is the limit")
            return
        self._strangers.add(connection)
        if connection.dialed is not None:
            connection.send_frame(greeting.encode(self._hello()))

    def greeted(self, connection: Connection, frame: bytes) -> None:
        try:
            hello = greeting.decode(frame)
        except UNREADABLE as error:
            log.warning("A connection is refused, as its greeting cannot be read.", reason=str(error))
            connection.drop("the greeting cannot be read")
            return
        if isinstance(hello, Refusal):
            self._refused(connection, hello)
            return
        refusal = self._judge(connection, hello)
        if refusal is not None:
            log.warning("A node is refused.", tag=hello.tag, code=refusal.code, reason=refusal.text)
            if refusal.code in ("node", "incarnation"):
                self._impostor(hello.tag, refusal.text)
            if connection.dialed is None:
                connection.send_frame(greeting.encode(refusal))
            connection.finish(refusal.text)
            return
        if connection.dialed is None:
            connection.send_frame(greeting.encode(self._hello()))
        self._adopt(connection, hello)

    def received(self, connection: Connection, channel: str, payload: bytes) -> None:
        handler = self._handlers.get(channel)
        if handler is None or connection.tag is None:
            log.debug("A message is dropped, as nobody takes its channel.", tag=connection.tag, channel=channel)
            return
        try:
            handler(connection.tag, payload)
        except Exception:
            log.exception("A message's handler failed.", tag=connection.tag, channel=channel)

    def closed(self, connection: Connection, reason: str) -> None:
        self._strangers.discard(connection)
        link = self._links.get(connection.tag or "")
        if connection.tag is None:
            return
        if link is not None and link.connection is connection:
            link.connection = None
            link.up.clear()
            link.down.set()
            if link.address is None:
                del self._links[link.tag]
                self._met.pop(link.tag, None)
        elif link is not None and link.connection is not None:
            return  # a newer one has taken its place, and that was told
        log.info("The connection to a peer is lost.", tag=connection.tag, reason=reason)
        self._tell(connection.tag, False)

    # greetings

    def _hello(self) -> Hello:
        return self._identity.hello(self._membership_index)

    def _judge(self, connection: Connection, hello: Hello) -> Refusal | None:
        if connection.dialed is not None and hello.tag != connection.dialed:
            text = f"{hello.tag} answers at the address of {connection.dialed}: correct the addresses."
            return Refusal("tag", text, self._membership_index)
        guests = {tag for tag in self._links if tag not in self._addresses}
        if hello.tag not in self._addresses and hello.tag not in guests and len(guests) >= GUESTS_MAX:
            text = f"{GUESTS_MAX} nodes that {self._identity.tag} does not know are connected, which is the limit."
            return Refusal("unknown", text, 0)
        door = Door(
            self._hello(),
            self._met,
            frozenset(self._addresses),
            connection.certificate_names(),
            self._guard.node_id_of(hello.tag),
            self._guard.announced(hello.tag),
            self.connected_tags(),
        )
        return greeting.judge(hello, door)

    def _refused(self, connection: Connection, refusal: Refusal) -> None:
        tag = connection.dialed
        connection.drop(f"it refuses this node: {refusal.text}")
        if tag is None:
            return
        if greeting.is_impostor(refusal, self._membership_index):
            log.error("This node is refused, as it is not the one it was.", tag=tag, reason=refusal.text)
            self._impostor(self._identity.tag, refusal.text, superseded=refusal.code == "incarnation")
        if greeting.is_removed(refusal, self._membership_index):
            known, self.removed_by = self.removed_by, tag
            for callback in self.on_removed if known is None else ():
                callback(tag)

    def _adopt(self, connection: Connection, hello: Hello) -> None:
        link = self._link(hello.tag)
        before = link.connection
        connection.tag = hello.tag
        self._strangers.discard(connection)
        self._met[hello.tag] = hello
        link.membership_index = hello.membership_index
        link.complaint, self.removed_by = "", None
        if before is not None:
            before.drop("a newer connection takes its place")
        link.connection = connection
        link.down.clear()
        link.up.set()
        if not connection.welcome.done():
            connection.welcome.set_result(None)
        log.info("A peer is connected.", tag=hello.tag, dialed=connection.dialed is not None)
        self._tell(hello.tag, True)

    def _impostor(self, tag: str, text: str, superseded: bool = False) -> None:
        for callback in self.on_impostor:
            callback(tag, text, superseded)

    def _tell(self, tag: str, up: bool) -> None:
        for callback in list(self.on_connection):
            callback(tag, up)
