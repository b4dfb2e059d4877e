"""Commands about the cluster's nodes."""

from msgspec.structs import replace

from raftnode.record.commands.base import Changes, Command, Entry, Outcome, check_labels, refuse, the_node
from raftnode.record.commands.claims import without_ended_claims
from raftnode.record.model import NODES_MAX, WEIGHT_MAX, ClusterNode, NodeKind, Record, ResourceFlag, Timings


class FormCluster(Command, frozen=True, kw_only=True, tag="FormCluster"):
    """The first command of a cluster: its id, its nodes and its timings. A second one changes nothing."""

    cluster_id: str
    nodes: tuple[ClusterNode, ...]
    timings: Timings

    def apply(self, record: Record, entry: Entry) -> Outcome:
        """The record of a formed cluster; the record as it was if it is formed already. Refuses nodes that AddNode
        would refuse, and a list without a voter."""
        if record.nodes:
            return Outcome(record=record, value=record.cluster_id)
        formed = record
        for node in self.nodes:
            formed = AddNode(node=node).apply(formed, entry).record
        if not any(node.kind == "Member" for node in self.nodes):
            refuse("BadRequestException", "A cluster needs at least one voter among its first nodes.")
        return Outcome(
            record=replace(formed, cluster_id=self.cluster_id, timings=self.timings),
            value=self.cluster_id,
            changes=Changes(cluster=True),
        )


class AnnounceNode(Command, frozen=True, kw_only=True, tag="AnnounceNode"):
    """A node that has started says which incarnation it is, where it is reached and what it can run."""

    tag: str
    node_id: str
    boot: int
    url: str
    cluster_address: str
    kinds: tuple[str, ...]
    nonce: int = 0

    def apply(self, record: Record, entry: Entry) -> Outcome:
        """Refuses another node id under the same tag, a boot count that went back, and a second process of the same
        start: a cloned or restored disk."""
        node = the_node(record, self.tag)
        if node.node_id not in ("", self.node_id):
            refuse(
                "NodeIdMismatchException",
                f"Node '{self.tag}' is known under another id: its data directory was lost or cloned. "
                f"Remove '{self.tag}' from the cluster and join under a new tag.",
            )
        if node.node_id == self.node_id and self.boot < node.boot:
            refuse(
                "NodeIdMismatchException",
                f"Node '{self.tag}' has started {node.boot} times before, this one only {self.boot}: its data "
                "directory is a copy. Stop the copy.",
            )
        again = (self.boot, self.nonce) == (node.boot, node.nonce)
        if node.node_id == self.node_id and not again and (self.boot == node.boot or self.nonce == 0 < node.nonce):
            refuse(
                "NodeIdMismatchException",
                f"Another process runs as node '{self.tag}' since start {node.boot} of its data directory, and this "
                f"one is start {self.boot} of the same: its data directory is a copy, or two processes use it. Stop "
                "this one, and let it join under a new tag with an empty directory.",
            )
        announced = replace(
            node,
            node_id=self.node_id,
            boot=self.boot,
            nonce=self.nonce,
            url=self.url,
            cluster_address=self.cluster_address,
            kinds=self.kinds,
        )
        return _with_node(record, announced, entry)


class AddNode(Command, frozen=True, kw_only=True, tag="AddNode"):
    """A node joins the cluster, as a Member (voter) or a Watcher."""

    node: ClusterNode

    def apply(self, record: Record, entry: Entry) -> Outcome:
        """Refuses a tag or an address that is taken, a tag that is not one to four capital letters, and bad traits. The
        value is the tag."""
        node = self.node
        if not (1 <= len(node.tag) <= 4 and node.tag.isascii() and node.tag.isalpha() and node.tag.isupper()):
            refuse("BadRequestException", f"Node tag '{node.tag}' must be one to four capital letters A-Z.")
        _check_traits(node.weight, node.labels)
        if len(record.nodes) >= NODES_MAX:
            refuse("LimitExceededException", f"A cluster holds at most {NODES_MAX} nodes.")
        if node.tag in record.nodes:
            refuse(
                "BadRequestException", f"Node tag '{node.tag}' is taken. Choose another tag, or remove that node first."
            )
        for _, other in sorted(record.nodes.items()):
            if other.url == node.url or other.cluster_address == node.cluster_address:
                refuse("BadRequestException", f"Node '{other.tag}' has the same address. Choose another.")
        return replace(_with_node(record, node, entry), value=node.tag)


class RemoveNode(Command, frozen=True, kw_only=True, tag="RemoveNode"):
    """A node leaves the cluster and every database group. Claims it holds stand until they are void."""

    tag: str

    def apply(self, record: Record, entry: Entry) -> Outcome:
        """Refuses the last node."""
        the_node(record, self.tag)
        if len(record.nodes) == 1:
            refuse("BadRequestException", f"Node '{self.tag}' is the last one of the cluster and stays.")
        databases = record.databases
        changed = set()
        for folded, database in record.databases.items():
            deletion = database.deletion_in_progress
            if database.topology.state_of(self.tag) is None and self.tag not in deletion:
                continue
            changed.add(folded)
            if self.tag in deletion:
                deletion = deletion.delete(self.tag)
            topology = database.topology.without(self.tag)
            if not topology.all_nodes and not deletion:
                databases = databases.delete(folded)
                continue
            left = replace(
                database,
                topology=replace(topology, stamp=replace(topology.stamp, index=entry.index, term=entry.term)),
                deletion_in_progress=deletion,
                etag=entry.index,
            )
            databases = databases.set(folded, left)
        record = replace(record, nodes=record.nodes.delete(self.tag), databases=databases)
        return Outcome(
            record=without_ended_claims(record, changed - set(databases)),
            changes=Changes(cluster=True, databases=frozenset(changed)),
        )


class SetNodeKind(Command, frozen=True, kw_only=True, tag="SetNodeKind"):
    """A watcher becomes a Member (voter), or a Member a watcher."""

    tag: str
    kind: NodeKind

    def apply(self, record: Record, entry: Entry) -> Outcome:
        """Refuses to make the last voter a watcher."""
        node = the_node(record, self.tag)
        voters = [n.tag for n in record.nodes.values() if n.kind == "Member"]
        if self.kind != "Member" and voters == [self.tag]:
            refuse("BadRequestException", f"Node '{self.tag}' is the last voter and stays one.")
        return _with_node(record, replace(node, kind=self.kind), entry)


class SetDraining(Command, frozen=True, kw_only=True, tag="SetDraining"):
    """A draining node is skipped by placement; its tasks are handed over."""

    tag: str
    draining: bool

    def apply(self, record: Record, entry: Entry) -> Outcome:
        """Refuses an unknown node."""
        return _with_node(record, replace(the_node(record, self.tag), draining=self.draining), entry)


class SetNodeFlags(Command, frozen=True, kw_only=True, tag="SetNodeFlags"):
    """The resources a node is short of, as whoever watches it says; none when it is well again."""

    tag: str
    flags: tuple[ResourceFlag, ...] = ()

    def apply(self, record: Record, entry: Entry) -> Outcome:
        """Refuses an unknown node."""
        node = the_node(record, self.tag)
        return _with_node(record, replace(node, flags=tuple(sorted(set(self.flags)))), entry)


class SetNodeTraits(Command, frozen=True, kw_only=True, tag="SetNodeTraits"):
    """A node's weight in placement (1 to 100) and its labels. None leaves it as it is."""

    tag: str
    weight: int | None = None
    labels: tuple[str, ...] | None = None

    def apply(self, record: Record, entry: Entry) -> Outcome:
        """Refuses a weight out of range and a label that is no name."""
        node = the_node(record, self.tag)
        weight = node.weight if self.weight is None else self.weight
        labels = node.labels if self.labels is None else self.labels
        _check_traits(weight, labels)
        return _with_node(record, replace(node, weight=weight, labels=labels), entry)


class SetLicence(Command, frozen=True, kw_only=True, tag="SetLicence"):
    """What the licence permits: see `Record`. None leaves it as it is."""

    highly_available_tasks: bool | None = None
    dynamic_nodes_distribution: bool | None = None

    def apply(self, record: Record, entry: Entry) -> Outcome:
        """Always holds."""
        tasks, nodes = self.highly_available_tasks, self.dynamic_nodes_distribution
        licensed = replace(
            record,
            highly_available_tasks=record.highly_available_tasks if tasks is None else tasks,
            dynamic_nodes_distribution=record.dynamic_nodes_distribution if nodes is None else nodes,
            licence_index=entry.index,
        )
        return Outcome(record=licensed, changes=Changes(cluster=True))


def _check_traits(weight: int, labels: tuple[str, ...]) -> None:
    # Placement draws once per unit of weight, so an unbounded weight would stop every node.
    if not 1 <= weight <= WEIGHT_MAX:
        refuse("BadRequestException", f"Weight {weight} is out of range; it must be 1 to {WEIGHT_MAX}.")
    check_labels(labels)


def _with_node(record: Record, node: ClusterNode, entry: Entry) -> Outcome:
    before = record.nodes.get(node.tag)
    if before is None or _placement_reads(before) != _placement_reads(node):
        node = replace(node, placement_index=entry.index)
    return Outcome(record=replace(record, nodes=record.nodes.set(node.tag, node)), changes=Changes(cluster=True))


def _placement_reads(node: ClusterNode) -> tuple[object, ...]:
    return node.weight, node.labels, node.draining, node.kinds
