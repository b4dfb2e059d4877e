"""One link a peer, kept up for as long as the peer is one: it is dialed, and tried again when it cannot be reached."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import structlog

from raftnode.consensus.transport.connection import Connection
from raftnode.consensus.transport.tls import Tls
from raftnode.foundation import addresses
from raftnode.foundation.background import kept
from raftnode.foundation.backoff import backoff
from raftnode.foundation.ports import SystemRandom

log = structlog.get_logger(__name__)


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
class Link:
    """One peer: its address if it is known, the connection if there is one, and the task that keeps it. `complaint`:
    why it cannot be reached at the moment. `membership_index`: that of the newest membership it said it had applied."""

    tag: str
    address: str | None
    membership_index: int = 0
    connection: Connection | None = None
    down: asyncio.Event = field(default_factory=asyncio.Event)
    up: asyncio.Event = field(default_factory=asyncio.Event)
    keeper: asyncio.Task[None] | None = None
    complaint: str = ""


class Links:
    """The links of one node. `connection` makes one for who is dialed; `retry_max_ms` is asked before each wait."""

    def __init__(
        self,
        own_tag: str,
        config: TransportConfig,
        *,
        tls: Tls | None,
        connection: Callable[[str | None], Connection],
        retry_max_ms: Callable[[], int],
    ) -> None:
        self.by_tag: dict[str, Link] = {}
        self.addresses: dict[str, str] = {}
        """The peers', by tag. A link to anybody else is that of a guest."""
        self._own_tag = own_tag
        self._config = config
        self._tls = tls
        self._random = SystemRandom()
        self._connection = connection
        self._retry_max_ms = retry_max_ms
        self._running = False

    def start(self) -> None:
        """Begins to connect."""
        self._running = True
        self._keep_all()

    async def stop(self) -> None:
        """Dials nobody any more. Connections stay."""
        self._running = False
        keepers = [link.keeper for link in self.by_tag.values() if link.keeper is not None]
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)  # `kept` has told what failed

    def connection(self, tag: str) -> Connection | None:
        """The connection to a peer, if there is one."""
        link = self.by_tag.get(tag)
        return link.connection if link else None

    def connections(self) -> Iterator[Connection]:
        """All that are up."""
        return (link.connection for link in self.by_tag.values() if link.connection)

    def connected_tags(self) -> frozenset[str]:
        """To whom."""
        return frozenset(tag for tag, link in self.by_tag.items() if link.connection)

    def guests(self) -> frozenset[str]:
        """Those of them that are no peers, as far as this node knows."""
        return frozenset(self.by_tag.keys() - self.addresses.keys())

    def connect_to(self, peers: dict[str, str]) -> None:
        """Makes these the peers, with their addresses by tag."""
        self.addresses = {tag: address for tag, address in peers.items() if tag != self._own_tag}
        self._keep_all()

    def take(self, tag: str, connection: Connection, membership_index: int) -> None:
        """The connection is the peer's from now on; it takes the place of an earlier one."""
        before = self.connection(tag)
        if before is not None:
            before.drop("a newer connection takes its place")
        # Only now: a link to a guest goes with its connection.
        link = self._link(tag)
        link.membership_index, link.complaint = membership_index, ""
        link.connection = connection
        link.down.clear()
        link.up.set()

    def lost(self, tag: str, connection: Connection) -> bool:
        """The connection has ended. False: a newer one has taken its place."""
        link = self.by_tag.get(tag)
        if link is None:
            return True
        if link.connection is not connection:
            return link.connection is None
        link.connection = None
        link.up.clear()
        link.down.set()
        if link.address is None:
            del self.by_tag[tag]
        return True

    def forget(self, link: Link) -> None:
        """Lets go of a peer that is none any more."""
        del self.by_tag[link.tag]
        if link.keeper is not None:
            link.keeper.cancel()
        if link.connection is not None:
            link.connection.drop("the peer left the cluster")

    def _keep_all(self) -> None:
        for tag, address in self.addresses.items():
            link = self._link(tag)
            link.address = address
            if link.keeper is None and self._running:
                link.keeper = kept(partial(self._keep, link), f"connection to {tag}")

    def _link(self, tag: str) -> Link:
        link = self.by_tag.get(tag)
        if link is None:
            link = self.by_tag[tag] = Link(tag, None)
            link.down.set()
        return link

    async def _keep(self, link: Link) -> None:
        failures = 0
        while True:
            await link.down.wait()
            if self._own_tag > link.tag and await self._comes_up(link, self._config.patience_ms):
                continue
            try:
                await self._dial(link)
                failures = 0
            except (OSError, TimeoutError, ValueError) as error:  # ValueError: no host's name
                self._complain(link, str(error) or "it did not answer in time")
            failures += 1
            await self._comes_up(link, backoff(failures, self._config.retry_min_ms, self._retry_max_ms()))

    async def _comes_up(self, link: Link, wait_ms: float) -> bool:
        try:
            async with asyncio.timeout(wait_ms / 1000 * (0.5 + self._random.random())):
                await link.up.wait()
        except TimeoutError:
            return False
        return True

    async def _dial(self, link: Link) -> None:
        assert link.address is not None
        host, port = addresses.split(link.address)
        async with asyncio.timeout(self._config.connect_timeout_ms / 1000):
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: self._connection(link.tag),
                host,
                port,
                ssl=self._tls.client if self._tls else None,
            )
            try:
                await connection.welcome
            except asyncio.CancelledError:
                connection.drop("the other side did not answer the handshake in time")
                raise

    def _complain(self, link: Link, complaint: str) -> None:
        if complaint != link.complaint:
            log.info(
                "A peer cannot be reached; it is tried again.", tag=link.tag, address=link.address, reason=complaint
            )
            link.complaint = complaint
