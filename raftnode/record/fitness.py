"""Which nodes are the fittest for one more copy of a database: one rule for the user, the observer and the record."""

from collections import Counter
from collections.abc import Iterable

from raftnode.record.model import Record


def fittest_first(record: Record, tags: Iterable[str]) -> list[str]:
    """These nodes of the cluster, the fittest first: those that are drained come last, then the one that is in the
    fewest groups comes first, then the first tag. A copy that is being deleted counts no more."""
    groups = Counter(tag for database in record.databases.values() for tag in database.topology.all_nodes)
    return sorted(tags, key=lambda tag: (record.nodes[tag].draining, groups[tag], tag))
