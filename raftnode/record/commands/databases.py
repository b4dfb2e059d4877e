"""Commands about databases and their groups."""

from immutables import Map
from msgspec.structs import replace

from raftnode.foundation.names import fold
from raftnode.record.commands.base import (
    Changes,
    Command,
    Entry,
    Outcome,
    check_database_name,
    check_name,
    refuse,
    the_database,
    the_node,
    with_database,
)
from raftnode.record.commands.claims import without_ended_claims
from raftnode.record.fitness import fittest_first
from raftnode.record.model import (
    DATABASES_MAX,
    INDEXES_MAX,
    Database,
    IndexDefinition,
    LockMode,
    Record,
    Topology,
    TopologyStamp,
)


class CreateDatabase(Command, frozen=True, kw_only=True, tag="CreateDatabase"):
    """A new database, on the named nodes or on the `replication_factor` fittest ones (see `record.fitness`)."""

    name: str
    replication_factor: int = 1
    nodes: tuple[str, ...] = ()
    dynamic_nodes_distribution: bool = False
    settings: Map[str, str] = Map()
    topology_id: str = ""
    at: str | None = None

    def apply(self, record: Record, entry: Entry) -> Outcome:
        """Refuses a name that is taken or unfit, an unknown node, and more copies than there are nodes."""
        check_database_name(self.name)
        if record.database(self.name) is not None:
            refuse(
                "ConcurrencyException",
                f"Database '{self.name}' exists already. Choose another name, or update the database.",
            )
        if len(record.databases) >= DATABASES_MAX:
            refuse("LimitExceededException", f"A cluster holds at most {DATABASES_MAX} databases.")
        nodes = self._group(record)
        database = Database(
            name=self.name,
            etag=entry.index,
            settings=self.settings,
            topology=Topology(
                members=nodes,
                replication_factor=len(nodes),
                dynamic_nodes_distribution=self.dynamic_nodes_distribution,
                stamp=TopologyStamp(index=entry.index, term=entry.term),
                nodes_modified_at=self.at,
                database_topology_id_base64=self.topology_id,
            ),
        )
        return with_database(record, database, entry, value=list(nodes))

    def _group(self, record: Record) -> tuple[str, ...]:
        if self.nodes:
            if len(set(self.nodes)) != len(self.nodes):
                refuse("BadRequestException", "The database group names a node twice.")
            for tag in self.nodes:
                the_node(record, tag)
            return self.nodes
        if not 1 <= self.replication_factor <= len(record.nodes):
            refuse(
                "BadRequestException",
                f"Replication factor {self.replication_factor} does not fit a cluster of {len(record.nodes)} "
                f"nodes; it must be 1 to {len(record.nodes)}.",
            )
        return tuple(fittest_first(record, record.nodes)[: self.replication_factor])


class DeleteDatabase(Command, frozen=True, kw_only=True, tag="DeleteDatabase"):
    """The database goes from the named nodes, or from all. Each node confirms once its copy is gone."""

    name: str
    hard_delete: bool = False
    from_nodes: tuple[str, ...] = ()

    def apply(self, record: Record, entry: Entry) -> Outcome:
        """Refuses a node that is not in the group, and a database locked against it."""
        database = the_database(record, self.name)
        group = database.topology.all_nodes
        if database.lock_mode == "PreventDeletesError":
            refuse("DatabaseLockedException", f"Database '{self.name}' is locked against deletion.")
        if database.lock_mode == "PreventDeletesIgnore":
            return Outcome(record=record, value=[])
        for tag in self.from_nodes:
            if tag not in group:
                refuse("BadRequestException", f"Node '{tag}' does not hold database '{self.name}'.")
        leaving = tuple(dict.fromkeys(self.from_nodes)) or group
        how = "HardDelete" if self.hard_delete else "SoftDelete"
        topology = database.topology
        for tag in leaving:
            topology = topology.without(tag)
        # A node that was leaving already has been replaced, so that it does not count.
        fewer = len(set(leaving) - set(database.deletion_in_progress))
        topology = replace(
            topology,
            replication_factor=max(1, topology.replication_factor - fewer),
            stamp=replace(topology.stamp, index=entry.index, term=entry.term),
        )
        deletion = database.deletion_in_progress.update(dict.fromkeys(leaving, how))
        return with_database(
            record,
            replace(database, topology=topology, deletion_in_progress=deletion),
            entry,
            value=sorted(deletion),
        )


class ConfirmDeletion(Command, frozen=True, kw_only=True, tag="ConfirmDeletion"):
    """A node says that its copy of the database is gone. With the last one the record goes."""

    name: str
    tag: str

    def apply(self, record: Record, entry: Entry) -> Outcome:
        """A confirmation nobody waits for changes nothing."""
        database = record.database(self.name)
        if database is None or self.tag not in database.deletion_in_progress:
            return Outcome(record=record)
        deletion = database.deletion_in_progress.delete(self.tag)
        topology = database.topology
        if topology.state_of(self.tag) is not None:
            # A Rehab that was replaced has handed over, and goes only now.
            stamp = replace(topology.stamp, index=entry.index, term=entry.term)
            topology = replace(topology.without(self.tag), stamp=stamp)
        if deletion or topology.all_nodes:
            return with_database(record, replace(database, topology=topology, deletion_in_progress=deletion), entry)
        folded = fold(database.name)
        record = replace(record, databases=record.databases.delete(folded))
        return Outcome(
            record=without_ended_claims(record, {folded}),
            changes=Changes(databases=frozenset({folded})),
        )


class AddDatabaseNode(Command, frozen=True, kw_only=True, tag="AddDatabaseNode"):
    """A node joins the database group as a Promotable, filled by its mentor."""

    name: str
    tag: str
    mentor: str | None = None

    def apply(self, record: Record, entry: Entry) -> Outcome:
        """Refuses a node that is in the group, and a mentor that is no Member of it."""
        database = the_database(record, self.name)
        the_node(record, self.tag)
        topology = database.topology
        if topology.state_of(self.tag) is not None:
            refuse("BadRequestException", f"Node '{self.tag}' holds database '{self.name}' already.")
        if self.tag in database.deletion_in_progress:
            refuse("BadRequestException", f"Node '{self.tag}' still deletes '{self.name}'. Try again later.")
        _check_mentor(self.name, topology, self.mentor)
        mentors = topology.predefined_mentors
        grown = replace(
            topology,
            promotables=(*topology.promotables, self.tag),
            replication_factor=topology.replication_factor + 1,
            predefined_mentors=mentors.set(self.tag, self.mentor) if self.mentor else mentors,
            promotables_status=topology.promotables_status.set(self.tag, "WaitingForFirstPromotion"),
        )
        return _with_topology(record, database, grown, entry)


class SetUpdateMentor(Command, frozen=True, kw_only=True, tag="SetUpdateMentor"):
    """The Member that a user wants to update a Promotable or Rehab; None leaves the choice to the hash. It is preferred
    as long as it is a Member, and forgotten with the promotion."""

    name: str
    tag: str
    mentor: str | None = None

    def apply(self, record: Record, entry: Entry) -> Outcome:
        """Refuses a node that is neither, and a mentor that is no Member."""
        database = the_database(record, self.name)
        topology = database.topology
        state = topology.state_of(self.tag)
        if state not in ("Promotable", "Rehab"):
            refuse(
                "BadRequestException",
                f"Node '{self.tag}' is {'a Member of' if state else 'not in the group of'} '{self.name}': nobody "
                "updates it.",
            )
        _check_mentor(self.name, topology, self.mentor)
        mentors = topology.predefined_mentors
        kept = mentors.delete(self.tag) if self.tag in mentors else mentors
        chosen = kept if self.mentor is None else kept.set(self.tag, self.mentor)
        return _with_topology(record, database, replace(topology, predefined_mentors=chosen), entry)


class PromoteDatabaseNode(Command, frozen=True, kw_only=True, tag="PromoteDatabaseNode"):
    """A user makes a Promotable or Rehab a Member at once, without any check of how far it is."""

    name: str
    tag: str

    def apply(self, record: Record, entry: Entry) -> Outcome:
        """Refuses a node that is not in the group; a Member stays what it is."""
        database = the_database(record, self.name)
        state = database.topology.state_of(self.tag)
        if state is None:
            refuse("BadRequestException", f"Node '{self.tag}' does not hold database '{self.name}'.")
        if state == "Member":
            return Outcome(record=record)
        if self.tag in database.deletion_in_progress:
            refuse(
                "BadRequestException",
                f"Node '{self.tag}' has been replaced in '{self.name}' and goes. Add it again when it is gone.",
            )
        left = database.topology.without(self.tag)
        promoted = replace(left, members=(*left.members, self.tag), priority_order=database.topology.priority_order)
        return _with_topology(record, database, promoted, entry)


class ReorderMembers(Command, frozen=True, kw_only=True, tag="ReorderMembers"):
    """The order of the Members, the preferred node first; `fixed` keeps it as the priority order."""

    name: str
    members: tuple[str, ...]
    fixed: bool = False

    def apply(self, record: Record, entry: Entry) -> Outcome:
        """Refuses a list that is not the Members in another order."""
        database = the_database(record, self.name)
        if sorted(self.members) != sorted(database.topology.members):
            refuse(
                "BadRequestException",
                f"MembersOrder must name each Member once: {', '.join(database.topology.members) or 'none'}.",
            )
        order = self.members if self.fixed else ()
        return _with_topology(
            record, database, replace(database.topology, members=self.members, priority_order=order), entry
        )


class SetDynamicDistribution(Command, frozen=True, kw_only=True, tag="SetDynamicDistribution"):
    """Whether the observer may replace a node that stays away."""

    name: str
    enable: bool

    def apply(self, record: Record, entry: Entry) -> Outcome:
        """Refuses an unknown database."""
        database = the_database(record, self.name)
        topology = replace(database.topology, dynamic_nodes_distribution=self.enable)
        return with_database(record, replace(database, topology=topology), entry)


class SetDatabaseState(Command, frozen=True, kw_only=True, tag="SetDatabaseState"):
    """A disabled database takes no requests and runs no tasks."""

    name: str
    disabled: bool

    def apply(self, record: Record, entry: Entry) -> Outcome:
        """Refuses an unknown database."""
        return with_database(record, replace(the_database(record, self.name), disabled=self.disabled), entry)


class SetLockMode(Command, frozen=True, kw_only=True, tag="SetLockMode"):
    """Whether the database may be deleted."""

    name: str
    mode: LockMode

    def apply(self, record: Record, entry: Entry) -> Outcome:
        """Refuses an unknown database."""
        return with_database(record, replace(the_database(record, self.name), lock_mode=self.mode), entry)


class PutIndex(Command, frozen=True, kw_only=True, tag="PutIndex"):
    """An index definition is added or replaced."""

    database: str
    name: str
    definition: bytes

    def apply(self, record: Record, entry: Entry) -> Outcome:
        """Refuses a bad name and one index too many."""
        database = the_database(record, self.database)
        check_name("Index name", self.name)
        folded = fold(self.name)
        if folded not in database.indexes and len(database.indexes) >= INDEXES_MAX:
            refuse("LimitExceededException", f"A database holds at most {INDEXES_MAX} indexes.")
        index = IndexDefinition(name=self.name, definition=self.definition, etag=entry.index)
        return with_database(record, replace(database, indexes=database.indexes.set(folded, index)), entry)


class DeleteIndex(Command, frozen=True, kw_only=True, tag="DeleteIndex"):
    """An index definition goes."""

    database: str
    name: str

    def apply(self, record: Record, entry: Entry) -> Outcome:
        """An index that is not there stays so."""
        database = the_database(record, self.database)
        folded = fold(self.name)
        if folded not in database.indexes:
            return Outcome(record=record)
        return with_database(record, replace(database, indexes=database.indexes.delete(folded)), entry)


def _check_mentor(name: str, topology: Topology, mentor: str | None) -> None:
    if mentor is not None and mentor not in topology.members:
        refuse(
            "BadRequestException",
            f"Mentor '{mentor}' is not a Member of '{name}'. Members: {', '.join(topology.members) or 'none'}.",
        )


def _with_topology(record: Record, database: Database, topology: Topology, entry: Entry) -> Outcome:
    stamped = replace(topology, stamp=replace(topology.stamp, index=entry.index, term=entry.term))
    return with_database(record, replace(database, topology=stamped), entry, value=list(topology.all_nodes))
