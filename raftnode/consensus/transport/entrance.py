"""Who comes in: the handshake of every connection, and what it tells about this and other processes of a node.

The rules stand in `handshake.py`; here is what a node remembers for them, and what follows from their answers.
"""

from collections.abc import Callable

import structlog

from raftnode.consensus.transport import handshake as rules
from raftnode.consensus.transport.connection import Connection
from raftnode.consensus.transport.handshake import (
    Handshake,
    HandshakeContext,
    HandshakeRefusal,
    PeerPolicy,
)
from raftnode.consensus.transport.links import Link, Links
from raftnode.foundation.decoding import DECODE_ERRORS
from raftnode.foundation.incarnation import NodeIncarnation

log = structlog.get_logger(__name__)

STRANGERS_MAX = 100
GUESTS_MAX = 16
"""How many nodes may be let in that this node does not know, as they know a newer membership."""


class Entrance:
    """The entrance of one node. `let_in` is called with every connection whose other side may come in."""

    def __init__(
        self,
        cluster_id: str,
        own: NodeIncarnation,
        guard: PeerPolicy,
        links: Links,
        let_in: Callable[[Connection, Handshake], None],
    ) -> None:
        self.membership_index = 0
        """The log index of the membership that this node has applied."""
        self.removed_by: str | None = None
        """The peer by whose newer membership this node was removed; None once it is let in."""
        self.on_impostor: list[Callable[[str, str, bool], None]] = []
        self.on_removed: list[Callable[[str], None]] = []
        self.strangers: set[Connection] = set()
        """The connections whose other side has not come in yet."""
        self.met: dict[str, Handshake] = {}
        """The last process of each peer that came in, for as long as there is a link to it."""
        self._cluster_id, self._own = cluster_id, own
        self._guard = guard
        self._links = links
        self._let_in = let_in

    # a connection's calls

    def opened(self, connection: Connection) -> None:
        if connection.dialed is None and not self._guard.admits(connection.peer_host):
            connection.drop(f"{connection.peer_host} is not served (security.unsecured_access_allowed)")
            return
        if len(self.strangers) >= STRANGERS_MAX and connection.dialed is None:
            connection.drop(f"{STRANGERS_MAX} connections have not said who they are, which is the limit")
            return
        self.strangers.add(connection)
        if connection.dialed is not None:
            connection.send_frame(rules.encode(self._own_handshake()))

    def handshake_received(self, connection: Connection, frame: bytes) -> None:
        try:
            handshake = rules.decode(frame)
        except DECODE_ERRORS as error:
            log.warning("A connection is refused, as its handshake cannot be read.", reason=str(error))
            connection.drop("the handshake cannot be read")
            return
        if isinstance(handshake, HandshakeRefusal):
            self._refused(connection, handshake)
            return
        refusal = self._judge(connection, handshake)
        if refusal is not None:
            log.warning("A node is refused.", tag=handshake.tag, code=refusal.code, reason=refusal.text)
            if refusal.code in ("node", "incarnation"):
                self._impostor(handshake.tag, refusal.text)
            if connection.dialed is None:
                connection.send_frame(rules.encode(refusal))
            connection.finish(refusal.text)
            return
        if connection.dialed is None:
            connection.send_frame(rules.encode(self._own_handshake()))
        self.strangers.discard(connection)
        self.removed_by = None
        self._let_in(connection, handshake)

    # what the record says

    def check_announced(self) -> None:
        """Lets go of every process that the record has gone past, and tells if this is one."""
        text = rules.superseded(self._own_handshake(), self._guard.announced(self._own.tag))
        if text is not None:
            self._impostor(self._own.tag, text, superseded=True)
        for tag, link in list(self._links.by_tag.items()):
            met = self.met.get(tag)
            if link.connection is not None and met and rules.superseded(met, self._guard.announced(tag)):
                link.connection.drop("another process of that node has announced itself")

    def is_another(self, link: Link) -> bool:
        """Whether the cluster now has another node under the tag than the one that came in."""
        met, expected = self.met.get(link.tag), self._guard.node_id_of(link.tag)
        return met is not None and expected not in ("", met.node_id)

    # inside

    def _own_handshake(self) -> Handshake:
        return rules.handshake_of(self._cluster_id, self._own, self.membership_index)

    def _judge(self, connection: Connection, handshake: Handshake) -> HandshakeRefusal | None:
        if connection.dialed is not None and handshake.tag != connection.dialed:
            text = f"{handshake.tag} answers at the address of {connection.dialed}: correct the addresses."
            return HandshakeRefusal("tag", text, self.membership_index)
        peers, guests = self._links.addresses, self._links.guests()
        if handshake.tag not in peers and handshake.tag not in guests and len(guests) >= GUESTS_MAX:
            text = f"{GUESTS_MAX} nodes that {self._own.tag} does not know are connected, which is the limit."
            return HandshakeRefusal("unknown", text, 0)
        context = HandshakeContext(
            self._own_handshake(),
            self.met,
            frozenset(peers),
            connection.certificate_names(),
            self._guard.node_id_of(handshake.tag),
            self._guard.announced(handshake.tag),
            self._links.connected_tags(),
        )
        return rules.judge(handshake, context)

    def _refused(self, connection: Connection, refusal: HandshakeRefusal) -> None:
        tag = connection.dialed
        connection.drop(f"it refuses this node: {refusal.text}")
        if tag is None:
            return
        if rules.is_impostor(refusal, self.membership_index):
            log.error("This node is refused, as it is not the one it was.", tag=tag, reason=refusal.text)
            self._impostor(self._own.tag, refusal.text, superseded=refusal.code == "incarnation")
        if rules.is_removed(refusal, self.membership_index):
            known, self.removed_by = self.removed_by, tag
            for callback in self.on_removed if known is None else ():
                callback(tag)

    def _impostor(self, tag: str, text: str, superseded: bool = False) -> None:
        for callback in self.on_impostor:
            callback(tag, text, superseded)
