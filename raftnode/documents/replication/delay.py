"""A store as it is read by whom its changes reach only after a delay: `DelayReplicationFor` of external replication.

A version is handed out once it is as old as the delay, by the clocks of the nodes that write and read it. The order
stops before the first one that is younger. One that only stood earlier in the order and was changed since is left out
there, and comes at its newest place: a document that changes all the time must not hold up the others. What the store
knew at such a place is not told until that newest place is reached, as the other side lacks the document until then.
"""

import asyncio
import time
from collections.abc import Callable

from msgspec.structs import replace

from raftnode.documents.replication.sender import SenderSource
from raftnode.documents.store.model import Batch
from raftnode.foundation import timestamps

WAIT_S_MAX = 60.0
"""A clock that was set is noticed after so long."""
WAIT_S_MIN = 1.0
"""Versions that are due one shortly after the other go together; with a short delay, within a tenth of it."""


class DelayedSource:
    """A `SenderSource`. `delay_s` is the delay; make one for each session of a sender."""

    def __init__(self, store: SenderSource, delay_s: float, clock: Callable[[], int] = time.time_ns) -> None:
        self._store, self._clock = store, clock
        self._wait_s_min = min(WAIT_S_MIN, delay_s / 10)
        self._delay = int(delay_s * timestamps.TICKS_PER_SECOND)
        # What an earlier session has left out stands, in its newest version, at the latest there.
        self._whole_from = store.last_etag
        self._known = ""
        self._due: int | None = None

    @property
    def database_id(self) -> str:
        """See `DocumentStore`."""
        return self._store.database_id

    @property
    def last_etag(self) -> int:
        """See `DocumentStore`."""
        return self._store.last_etag

    @property
    def change_vector(self) -> str:
        """See `DocumentStore`."""
        return self._store.change_vector

    async def known_at(self, etag: int) -> str:
        """See `DocumentStore`."""
        return await self._store.known_at(etag)

    async def after(self, etag: int, *, limit: int, bytes_max: int) -> Batch:
        """See `DocumentStore`. The stretch ends before the first version that is too young, and `end` tells then that
        there is no more for now."""
        batch = await self._store.after(etag, limit=limit, bytes_max=bytes_max)
        oldest_held = timestamps.from_ticks(self._clock() // timestamps.NS_PER_TICK - self._delay)
        young = {item.id for item in batch.items if item.last_modified > oldest_held}
        standing = [item for item in batch.items if item.id in young and item.etag <= batch.last_etag]
        first = min(standing, key=lambda item: item.etag, default=None)
        self._due = None if first is None else timestamps.to_ticks(first.last_modified) + self._delay
        if not young and batch.last_etag >= self._whole_from:
            self._known = batch.change_vector
            return batch
        reached = batch.last_etag if first is None else first.etag - 1
        placed = [item for item, place in zip(batch.items, batch.places, strict=True) if place <= reached]
        left_out = [item.etag for item in placed if item.id in young]
        self._whole_from = max([self._whole_from, *left_out])
        if reached >= self._whole_from:
            self._known = await self._store.known_at(reached)
        items = [item for item in placed if item.id not in young]
        end = batch.end or first is not None
        # The progress of ETL tasks that write here counts also what is held back.
        told = replace(batch, items=items, places=(), last_etag=reached, change_vector=self._known, fences=())
        return replace(told, end=end)

    async def wait_known(self, after_etag: int, change_vector: str, timeout_s: float | None) -> None:
        """See `DocumentStore`. While a version waits for its age, nothing that happens ends the wait."""
        if self._due is None:
            await self._store.wait_known(after_etag, change_vector, timeout_s)
            return
        left_s = (self._due - self._clock() // timestamps.NS_PER_TICK) / timestamps.TICKS_PER_SECOND
        wait_s = WAIT_S_MAX if timeout_s is None else timeout_s
        # Through the store, which looks whether the reader still may.
        await self._store.wait_known(self._store.last_etag, "", 0)
        await asyncio.sleep(max(self._wait_s_min, min(left_s, wait_s, WAIT_S_MAX)))
