"""What the cluster observer has decided, and what it must remember: a part of the replicated record."""

from immutables import Map

from raftnode.foundation.names import fold
from raftnode.record.value import RecordValue

DECISIONS_MAX = 1_000


class Decision(RecordValue, frozen=True, kw_only=True):
    """One sentence of the cluster observer, with its reason."""

    index: int
    iteration: int
    at: str
    database: str
    message: str
    term: int = 0


class ObserverMemory(RecordValue, frozen=True, kw_only=True):
    """What the observer must remember across leader changes, keyed "database/tag" with times in ms since the epoch:
    `demotions` are the last demotions of each node in each database, `rehab_since` is when each Rehab became one, and
    `lost_since` when each node that is "NotResponding" became so."""

    suspended: bool = False
    decisions: tuple[Decision, ...] = ()
    demotions: Map[str, tuple[int, ...]] = Map()
    rehab_since: Map[str, int] = Map()
    lost_since: Map[str, int] = Map()

    def in_rehab_since(self, database: str, tag: str) -> int:
        """When the node's present stay in Rehab began, 0 if it is in none."""
        return self.rehab_since.get(f"{fold(database)}/{tag}", 0)
