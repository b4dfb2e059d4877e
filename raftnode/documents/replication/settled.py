"""How far every copy of another group has what was sent to one of them.

A source forgets a tombstone only when nobody there can lack it: a copy that has not got it yet from the one that took
it in may be the next that the source sends to, and would keep the document for ever.
"""

from collections import deque

from raftnode.documents.replication.sender import ReceiverState

PLACES_MAX = 1_000


class SettledPlaces:
    """Of one session with one node. Up to `etag` of the source's order every copy of the destination holds everything,
    and every one counts `change_vector`, or will not need it: it holds the documents."""

    def __init__(self) -> None:
        self.etag, self.change_vector = 0, ""
        self._pending: deque[tuple[int, int]] = deque()

    @property
    def pending(self) -> bool:
        """Whether something was taken in by the one node that the others may not have."""
        return bool(self._pending)

    def told(self, etag: int, receiver: ReceiverState) -> None:
        """The node has the source's order up to that place, and so it stands in its own up to its last one."""
        if not self._pending or self._pending[-1][0] != etag:
            self._pending.append((etag, receiver.last_etag))
        if len(self._pending) > PLACES_MAX:
            # While a copy is down for long. Fewer places only make the answer later.
            self._pending = deque(list(self._pending)[1::2])
        self.asked(receiver)

    def asked(self, receiver: ReceiverState) -> None:
        """What the node says of its group by now."""
        while self._pending and self._pending[0][1] <= receiver.settled_etag:
            self.etag = self._pending.popleft()[0]
        self.change_vector = receiver.settled_change_vector
