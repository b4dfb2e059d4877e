"""Messages between the cluster's nodes: one connection a pair, several channels on it, never waiting.

The node with the lower tag dials. The other one dials only when it has been without a connection for a while, which
is how a node that was added or renamed reaches one that does not know its address yet. The newest connection wins.
"""

import asyncio
from collections.abc import Callable

import structlog

from raftnode.consensus.transport.connection import Connection
from raftnode.consensus.transport.entrance import Entrance
from raftnode.consensus.transport.handshake import Handshake, PeerPolicy
from raftnode.consensus.transport.links import Links, TransportConfig
from raftnode.consensus.transport.listener import ListeningPort
from raftnode.consensus.transport.tls import Tls
from raftnode.foundation.incarnation import NodeIncarnation

log = structlog.get_logger(__name__)

REMOVED_PATIENCE = 10  # how many times rarer a removed node asks to be let in again


class Transport:
    """The transport of one node. Handlers are called on the event loop, one message at a time, in order per peer."""

    def __init__(
        self,
        cluster_id: str,
        own: NodeIncarnation,
        config: TransportConfig,
        *,
        tls: Tls | None = None,
        guard: PeerPolicy = PeerPolicy(),  # noqa: B008
        port: ListeningPort | None = None,
    ) -> None:
        self._config = config
        self._handlers: dict[str, Callable[[str, bytes], None]] = {}
        self._links = Links(
            own.tag,
            config,
            tls=tls,
            connection=self._connection,
            retry_max_ms=lambda: config.retry_max_ms * (REMOVED_PATIENCE if self.removed_by else 1),
        )
        self._entrance = Entrance(cluster_id, own, guard, self._links, self._let_in)
        self.on_connection: list[Callable[[str, bool], None]] = []
        """Called with a tag and whether the connection to it came up or was lost."""
        self.on_impostor = self._entrance.on_impostor
        """Called with a tag and a text when two incarnations cannot both be right; True: this one will never be."""
        self.on_removed = self._entrance.on_removed
        """Called with the tag of a peer whose newer membership does not contain this node."""
        self.check_announced = self._entrance.check_announced
        """To be called when the record's nodes have changed."""
        self.connected_tags = self._links.connected_tags
        self._port = port or ListeningPort(config.host, config.port, tls=tls, handshake_ms=config.connect_timeout_ms)
        self._running = False
        self._watch: asyncio.TimerHandle | None = None

    # life

    async def start(self) -> None:
        """Listens and begins to connect. Raises OSError when the address cannot be had."""
        self._loop = asyncio.get_running_loop()
        await self._port.serve(lambda: self._connection(None))
        self._running = True
        self._links.start()
        self._on_watch()

    async def stop(self) -> None:
        """Closes everything; returns when no task and no connection is left."""
        if not self._running:
            return
        self._running = False
        self._port.close()
        if self._watch is not None:
            self._watch.cancel()
        await self._links.stop()
        for connection in self._all_connections():
            connection.drop("this node stops")

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return self._port.number

    @property
    def removed_by(self) -> str | None:
        """The peer by whose newer membership this node was removed; None once it is let in."""
        return self._entrance.removed_by

    # messages

    def send(self, tag: str, channel: str, payload: bytes) -> bool:
        """Hands a message over without waiting. False: there is no connection, or too much waits on it."""
        connection = self._links.connection(tag)
        if connection is None:
            return False
        size = len(payload)
        if size + 64 > self._config.frame_bytes_max:
            log.error("A message is above the frame limit and is not sent.", tag=tag, channel=channel, bytes=size)
            return False
        if connection.backlog_bytes + size > self._config.send_buffer_bytes_max:
            return False
        connection.send(channel, payload)
        return True

    def on_message(self, channel: str, handler: Callable[[str, bytes], None]) -> None:
        """Has `handler(tag, payload)` called for every message of the channel."""
        if not channel:
            raise ValueError("A channel needs a name.")
        self._handlers[channel] = handler

    def backlog_bytes(self, tag: str) -> int:
        """What waits to be sent to the peer."""
        connection = self._links.connection(tag)
        return connection.backlog_bytes if connection else 0

    def complaint(self, tag: str) -> str:
        """Why a peer cannot be reached at the moment; empty if it can, or is none."""
        link = self._links.by_tag.get(tag)
        return link.complaint if link else ""

    def set_peers(self, addresses: dict[str, str], membership_index: int) -> None:
        """Whom to be connected with, "host:port" by tag, and the log index of the membership that says so. Who is none
        of them may stay only by a newer membership than this."""
        self._entrance.membership_index = membership_index
        for tag, link in list(self._links.by_tag.items()):
            gone = tag not in addresses or self._entrance.is_another(link)
            if gone and link.membership_index <= membership_index:
                self._entrance.met.pop(tag, None)
                self._links.forget(link)
        self._links.connect_to(addresses)

    # connections

    def _connection(self, dialed: str | None) -> Connection:
        limits = self._config
        return Connection(
            self._entrance,
            self,
            dialed=dialed,
            frame_bytes_max=limits.frame_bytes_max,
            dead_peer_ms=limits.dead_peer_ms,
        )

    def _let_in(self, connection: Connection, handshake: Handshake) -> None:
        connection.tag = handshake.tag
        self._links.take(handshake.tag, connection, handshake.membership_index)
        self._entrance.met[handshake.tag] = handshake
        if not connection.welcome.done():
            connection.welcome.set_result(None)
        log.info("A peer is connected.", tag=handshake.tag, dialed=connection.dialed is not None)
        self._tell(handshake.tag, True)

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
        self._entrance.strangers.discard(connection)
        tag = connection.tag
        if tag is None or not self._links.lost(tag, connection):
            return  # nobody was told of it, or a newer one has taken its place, and that was told
        if tag not in self._links.by_tag:
            self._entrance.met.pop(tag, None)
        log.info("The connection to a peer is lost.", tag=tag, reason=reason)
        self._tell(tag, False)

    def _tell(self, tag: str, up: bool) -> None:
        for callback in list(self.on_connection):
            callback(tag, up)

    def _on_watch(self) -> None:
        """Pings what was quiet and drops what is dead."""
        dead_s, now_s = self._config.dead_peer_ms / 1000, self._loop.time()
        self._watch = self._loop.call_later(dead_s / 6, self._on_watch)
        for connection in self._all_connections():
            if now_s - connection.heard_s > dead_s:
                connection.drop(f"nothing was heard for {self._config.dead_peer_ms} ms")
            elif connection.stalled(now_s):
                connection.drop(f"nothing could be sent for {self._config.dead_peer_ms} ms")
            elif connection.tag is not None and now_s - connection.spoke_s > dead_s / 4:
                connection.send("", b"")

    def _all_connections(self) -> list[Connection]:
        return [*self._entrance.strangers, *self._links.connections()]
