"""Which tombstones nobody needs any more: those that every node of the group and every task has passed."""

from collections.abc import Mapping

import msgspec

from raftnode.documents.store.model import Document
from raftnode.record.model import Database, Topology


class ConsumedUpTo(msgspec.Struct, frozen=True):
    """How far everybody has come. All nodes of the group hold what stands up to `etag`; each task has had what stands
    up to its etag and what its progress vector counts."""

    etag: int
    tasks: tuple[tuple[int, str], ...] = ()

    def frees(self, tombstone: Document) -> bool:
        """Whether nobody needs the tombstone any more."""
        return tombstone.etag <= self.etag and all(
            tombstone.etag <= etag or tombstone.counted_in(vector) for etag, vector in self.tasks
        )


def passed(database: Database, tag: str, database_id: str, sent: Mapping[str, int]) -> ConsumedUpTo | None:
    """How far everybody has come in this node's copy, or None if that is not known of every node.

    `sent` is how far this node's senders are, by tag. A Promotable is filled by its mentor and not by this node, so
    that nothing is known of it here, and nothing goes until it is a Member.
    """
    etag = held_by_all(database.topology, tag, sent)
    if etag is None:
        return None
    tasks = []
    for id in database.tasks:
        progress = database.progress.get(id)
        tasks.append((0, "") if progress is None else (progress.last_etags.get(database_id, 0), progress.change_vector))
    return ConsumedUpTo(etag, tuple(tasks))


def held_by_all(topology: Topology, tag: str, sent: Mapping[str, int]) -> int | None:
    """Up to which etag of this node's copy every other copy of the group holds everything, None if that is not known of
    all. See `passed`."""
    others = set(topology.all_nodes) - {tag}
    if not others <= sent.keys():
        return None
    return min((sent[other] for other in others), default=(1 << 63) - 1)
