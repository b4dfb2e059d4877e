"""One database under the rules: the questions they all ask, and the forms of their answers."""

import msgspec

from observer.rules.facts import NS_PER_MS, DatabaseReport, Facts, NodeFacts
from raftnode.foundation.names import fold
from raftnode.record.model import ClusterNode, Database, Record, ResourceFlag, Topology


class TopologyChange(msgspec.Struct, frozen=True, kw_only=True):
    """A new topology, the nodes it moves to Rehab, those whose copy goes, and a sentence that says what and why."""

    topology: Topology
    why: str
    demoted: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """Something to be said though nothing can be done. Said once, as long as `key` stays the same."""

    key: str
    why: str


class DatabaseView(msgspec.Struct, frozen=True, kw_only=True):
    """A database, and what is known of its nodes."""

    record: Record
    database: Database
    facts: Facts

    @property
    def topology(self) -> Topology:
        """The topology as it was read."""
        return self.database.topology

    def node(self, tag: str) -> ClusterNode | None:
        """The node in the cluster."""
        return self.record.nodes.get(tag)

    def draining(self, tag: str) -> bool:
        """Whether the node is being drained."""
        node = self.node(tag)
        return node is not None and node.draining

    def leaving(self, tag: str) -> bool:
        """Whether the node's copy goes."""
        return tag in self.database.deletion_in_progress

    def flags(self, tag: str) -> tuple[ResourceFlag, ...]:
        """The resources the node is short of: as somebody has said, or as it reports itself."""
        node, facts = self.node(tag), self.facts_of(tag)
        return tuple(sorted({*(node.flags if node else ()), *(facts.flags if facts else ())}))

    def facts_of(self, tag: str) -> NodeFacts | None:
        """What is known of the node."""
        return self.facts.nodes.get(tag)

    def report(self, tag: str) -> DatabaseReport | None:
        """The node's newest report of its copy."""
        facts = self.facts_of(tag)
        return facts.current.get(fold(self.database.name)) if facts else None

    def previous_report(self, tag: str) -> DatabaseReport | None:
        """The node's report before the newest one."""
        facts = self.facts_of(tag)
        return facts.previous.get(fold(self.database.name)) if facts else None

    def good_since_ns(self, tag: str) -> int | None:
        """Since when the node has been heard and its copy well; None if it is not, or nobody knows."""
        facts = self.facts_of(tag)
        state = facts.copies.get(fold(self.database.name)) if facts else None
        return None if facts is None or state is None or facts.silent or not state.well else state.since_ns

    def lost(self, tag: str) -> str | None:
        """Why the node is lost to this database for now, or None if it is not, or may only be slow."""
        if self.node(tag) is None:
            return f"{tag} is not in the cluster"
        facts = self.facts_of(tag)
        if facts is None:
            return None
        if facts.silent:
            return silence(facts, self.facts)
        return self._unwell(tag, facts)

    def lost_for_ms(self, tag: str) -> int | None:
        """For how long the node has been lost, by the record, which outlives leaders; None if it is not lost."""
        since_ms = self.record.observer.lost_since.get(f"{fold(self.database.name)}/{tag}")
        return None if since_ms is None or self.lost(tag) is None else max(0, self.facts.now_ms - since_ms)

    def slow_ms(self, tag: str) -> int:
        """For how long the node has not been heard or its copy not been well; 0 where nothing speaks against it."""
        facts = self.facts_of(tag)
        if facts is None:
            return 0
        state = facts.copies.get(fold(self.database.name))
        since_ns = facts.heard_ns if state is None or state.well else min(facts.heard_ns, state.since_ns)
        return (self.facts.now_ns - since_ns) // NS_PER_MS

    def good(self, tag: str) -> bool:
        """Whether the node is known to serve now, and is meant to go on."""
        known = self.facts_of(tag) is not None and self.lost(tag) is None
        return known and not self.draining(tag) and self.slow_ms(tag) < self.facts.limits.rotate_ms

    def _unwell(self, tag: str, facts: NodeFacts) -> str | None:
        report, state = self.report(tag), facts.copies.get(fold(self.database.name))
        if report is None or state is None or state.well:
            return None
        for_ms = (self.facts.now_ns - state.since_ns) // NS_PER_MS
        if for_ms < self.facts.silence_ms:
            return None
        error = f": {report.error}" if report.error else ""
        return f"the database has been {report.status} on {tag} for {for_ms} ms{error}"


def silence(node: NodeFacts, facts: Facts) -> str:
    """Since when a silent node has been so, as a part of a sentence."""
    heard_ms = (facts.now_ns - node.heard_ns) // NS_PER_MS
    error = f"; last error: {node.error}" if node.error else ""
    return f"{node.tag} has not been heard for {heard_ms} ms (limit {facts.silence_ms} ms){error}"
