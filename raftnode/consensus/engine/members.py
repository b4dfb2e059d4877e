"""Who is in the cluster, as a function of the log: the newest membership entry counts, committed or not.

A membership entry carries all peers as they are after it, and the application's own command, so that both take effect
at one index. That makes undoing one a matter of looking at the one before.
"""

from collections.abc import Iterable

import msgspec

from raftnode.consensus.model import PEERS_MAX, Add, Change, Peer, Remove
from raftnode.foundation.decoding import from_msgpack

REGULAR = b"\x00"
NO_OP = b"\x01"
MEMBERSHIP = b"\x02"


class RequestRefused(Exception):
    """The change cannot be made now; the message says why."""


class _Body(msgspec.Struct, frozen=True, array_like=True):
    peers: tuple[Peer, ...]
    command: bytes


def encode(peers: tuple[Peer, ...], command: bytes) -> bytes:
    """A membership entry's command."""
    return MEMBERSHIP + msgspec.msgpack.encode(_Body(peers, command))


def decode(command: bytes) -> tuple[tuple[Peer, ...], bytes]:
    """The peers and the application's command of a membership entry."""
    body = from_msgpack(command[1:], _Body)
    return body.peers, body.command


def application_part(command: bytes) -> bytes | None:
    """The application's command in an entry, None if it has none."""
    if command[:1] == MEMBERSHIP:
        return decode(command)[1]
    return command[1:] if command[:1] == REGULAR else None


def after(peers: tuple[Peer, ...], change: Change) -> tuple[Peer, ...]:
    """The peers once the change is made, by tag. Raises RequestRefused when it would change nothing or leave no
    voter."""
    by_tag = {peer.tag: peer for peer in peers}
    if isinstance(change, Remove):
        if by_tag.pop(change.tag, None) is None:
            raise RequestRefused(f"{change.tag} is not in the cluster")
    elif by_tag.get(change.peer.tag) == change.peer:
        raise RequestRefused(f"{change.peer.tag} is in the cluster already, with these settings")
    else:
        by_tag[change.peer.tag] = change.peer
    if not any(peer.voter for peer in by_tag.values()):
        raise RequestRefused("the cluster would have no voter left")
    if len(by_tag) > PEERS_MAX:
        raise RequestRefused(f"the cluster would have more than {PEERS_MAX} nodes")
    return tuple(by_tag[tag] for tag in sorted(by_tag))


def makes_voter(peers: tuple[Peer, ...], change: Change) -> str | None:
    """The tag of the node that the change newly makes a voter, if any."""
    if isinstance(change, Add) and change.peer.voter:
        old = next((peer for peer in peers if peer.tag == change.peer.tag), None)
        if old is None or not old.voter:
            return change.peer.tag
    return None


class Members:
    """The memberships of the log, oldest first. The first one is the base: the snapshot's, or the first peers."""

    def __init__(self, peers: Iterable[Peer], index: int = 0) -> None:
        self._known: list[tuple[int, tuple[Peer, ...]]] = [(index, tuple(peers))]
        self._voters: tuple[tuple[Peer, ...], frozenset[str]] = ((), frozenset())

    @property
    def current(self) -> tuple[Peer, ...]:
        """The peers that count now."""
        return self._known[-1][1]

    @property
    def voters(self) -> frozenset[str]:
        """The tags of those of them who vote. Asked for with every message, so it is kept."""
        peers = self.current
        if self._voters[0] is not peers:
            self._voters = (peers, frozenset(peer.tag for peer in peers if peer.voter))
        return self._voters[1]

    @property
    def index(self) -> int:
        """The log index of the entry that made them so, or the base's."""
        return self._known[-1][0]

    def at(self, index: int) -> tuple[int, tuple[Peer, ...]]:
        """The index and peers of the newest membership at or before `index`."""
        return next(
            (known for known in reversed(self._known) if known[0] <= index),
            self._known[0],
        )

    def learn(self, index: int, command: bytes) -> None:
        """Takes note of an entry; only membership entries count."""
        if command[:1] == MEMBERSHIP:
            self._known.append((index, decode(command)[0]))

    def truncate(self, index: int) -> None:
        """Forgets the memberships at and behind `index`."""
        while len(self._known) > 1 and self._known[-1][0] >= index:
            self._known.pop()

    def begin_at(self, peers: Iterable[Peer], index: int = 0) -> None:
        """Forgets all; these are the peers at `index`."""
        self._known = [(index, tuple(peers))]

    def rebase(self, index: int) -> None:
        """Forgets all older than the one in force at `index`, which becomes the base."""
        base = self.at(index)
        self._known = [base, *(known for known in self._known if known[0] > max(index, base[0]))]
