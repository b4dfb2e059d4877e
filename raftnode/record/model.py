"""The replicated record: frozen values, equal on every node that has applied the same log index.

Fields are snake_case here and PascalCase in JSON. Large maps are persistent (`immutables.Map`), so that applying a
command costs what it changes and an old record stays valid for whoever still reads it.
"""

from typing import Any, Literal, TypeVar

import msgspec
from immutables import Map

from raftnode.foundation.names import fold
from raftnode.record.observer_memory import ObserverMemory
from raftnode.record.value import RecordValue

Key = TypeVar("Key")

SCHEMA_VERSION = 2

DATABASES_MAX = 1_000
RESETS_KEPT_MAX = 200
TASKS_PER_DATABASE_MAX = 10_000
CONNECTION_STRINGS_MAX = 1_000
INDEXES_MAX = 1_000
COUNTERS_MAX = 10_000
COUNTER_MAX = 2**63 - 1
NODES_MAX = 100
NAME_LENGTH_MAX = 128
COMMAND_BYTES_MAX = 512 * 1024
REQUESTS_MAX = 10_000
REQUEST_ID_LENGTH_MAX = 256
ASKED_LENGTH_MAX = 32
WEIGHT_MAX = 100
LABELS_MAX = 32
RUNS_KEPT_MAX = 16
KEY_MAX = 2**64 - 1
GENERATION_STRIDE = 1 << 40
"""An epoch is (cluster generation, log index) in one integer: generation * GENERATION_STRIDE + index."""

NodeKind = Literal["Member", "Promotable", "Watcher"]
NodeState = Literal["Member", "Promotable", "Rehab"]
ClaimState = Literal["Held", "Released", "Void"]
RunEnd = Literal["Released", "Void", "ClaimedAgain", "EndedItsNode"]
LockMode = Literal["Unlock", "PreventDeletesIgnore", "PreventDeletesError"]
ResourceFlag = Literal["OutOfCpuCredits", "EarlyOutOfMemory", "HighDirtyMemory"]
PromotionStatus = Literal[
    "WaitingForFirstPromotion", "NotResponding", "IndexNotUpToDate", "ChangeVectorNotMerged", "WaitingForResponse",
    "Ok", "OutOfCpuCredits", "EarlyOutOfMemory", "HighDirtyMemory", "RaftIndexNotUpToDate"]  # fmt: skip


class Timings(RecordValue, frozen=True, kw_only=True):
    """The cluster's clockwork, in milliseconds; the rule that binds them stands in `config.timings`."""

    heartbeat_ms: int
    lease_ms: int
    task_stop_timeout_ms: int
    time_before_moving_to_rehab_ms: int


class ClusterNode(RecordValue, frozen=True, kw_only=True):
    """A node. `node_id` is made with the data directory and empty until the node has announced itself; `boot` and
    `nonce` are the process that has, the only one that runs tasks. `kinds` are the task kinds it can run, None while
    unknown. `placement_index` is the log index of the last change that placement reads, `flags` what it is short of."""

    tag: str
    url: str
    cluster_address: str
    node_id: str = ""
    boot: int = 0
    nonce: int = 0
    kind: NodeKind = "Member"
    weight: int = 1
    labels: tuple[str, ...] = ()
    draining: bool = False
    kinds: tuple[str, ...] | None = None
    placement_index: int = 0
    flags: tuple[ResourceFlag, ...] = ()


class TopologyStamp(RecordValue, frozen=True, kw_only=True):
    """When a topology was last written: the log index and term of the entry, and the wall clock of the leader that
    decided it, which RavenDB calls LeadersTicks."""

    index: int = 0
    term: int = 0
    leader_wall_ms: int = msgspec.field(default=0, name="LeadersTicks")


class Topology(RecordValue, frozen=True, kw_only=True):
    """The database group: which nodes hold a database, and in which state. `members[0]` is the preferred node."""

    members: tuple[str, ...] = ()
    promotables: tuple[str, ...] = ()
    rehabs: tuple[str, ...] = ()
    predefined_mentors: Map[str, str] = Map()
    demotion_reasons: Map[str, str] = Map()
    promotables_status: Map[str, PromotionStatus] = Map()
    stamp: TopologyStamp = TopologyStamp()
    nodes_modified_at: str | None = None
    dynamic_nodes_distribution: bool = False
    replication_factor: int = 1
    priority_order: tuple[str, ...] = ()
    database_topology_id_base64: str = ""
    cluster_transaction_id_base64: str = ""

    @property
    def all_nodes(self) -> tuple[str, ...]:
        """Members, then Rehabs, then Promotables."""
        return self.members + self.rehabs + self.promotables

    def state_of(self, tag: str) -> NodeState | None:
        """The node's state in this group, None if it is not in it."""
        if tag in self.members:
            return "Member"
        if tag in self.rehabs:
            return "Rehab"
        return "Promotable" if tag in self.promotables else None

    def without(self, tag: str) -> "Topology":
        """This topology with every trace of the node gone."""
        return msgspec.structs.replace(
            self,
            members=tuple(t for t in self.members if t != tag),
            promotables=tuple(t for t in self.promotables if t != tag),
            rehabs=tuple(t for t in self.rehabs if t != tag),
            predefined_mentors=_without(self.predefined_mentors, tag),
            demotion_reasons=_without(self.demotion_reasons, tag),
            promotables_status=_without(self.promotables_status, tag),
            priority_order=tuple(t for t in self.priority_order if t != tag),
        )


class ConnectionString(RecordValue, frozen=True, kw_only=True):
    """Where a task's data goes: RavenDB's connection string JSON, opaque here; `type` is "Sql", "Raven" ..."""

    name: str
    type: str
    configuration: bytes
    etag: int = 0


class IndexDefinition(RecordValue, frozen=True, kw_only=True):
    """An index definition as JSON, opaque here."""

    name: str
    definition: bytes
    etag: int = 0


class KindTraits(RecordValue, frozen=True, kw_only=True):
    """What placement must know of a task's kind. `grace_min` is how long a sticky task waits for its holder in Rehab;
    None: as the database or the cluster is set (`record.grace`)."""

    sticky: bool = False
    resource_heavy: bool = False
    partition_tolerant: bool = False
    grace_min: int | None = None


class Task(RecordValue, frozen=True, kw_only=True):
    """An ongoing task: a header that placement reads, and a configuration (JSON) that only its kind reads.

    `key` is the task's unique hash (`ownership.task_key`), computed at the door by the kind; `etag` is the log index
    of the last edit, `placement_index` that of the last one which placement reads. `connection_string` names the one
    it uses. `retry` is the log index at which it was asked to try failed documents again, `resets` has those at which
    single transforms, by folded name, were reset. `endings`: see `held_back`.
    """

    id: int
    name: str
    kind: str
    key: int
    mentor: str | None = None
    pinned: bool = False
    disabled: bool = False
    traits: KindTraits = KindTraits()
    requires: tuple[str, ...] = ()
    connection_string: str | None = None
    configuration: bytes = b"{}"
    etag: int = 0
    placement_index: int = 0
    retry: int = 0
    resets: Map[str, int] = Map()
    endings: tuple["EndedRun", ...] = ()


class FailedDocument(RecordValue, frozen=True, kw_only=True):
    """A document that failed by itself and was skipped: why, when, and in which of the task's transforms."""

    document_id: str
    error: str
    at: str
    transform: str = ""


class Progress(RecordValue, frozen=True, kw_only=True):
    """How far a task has come. `generation` is the log index at which the task was created or reset; progress of
    an older generation is refused. `last_etags` is by database id; `processed` counts documents.

    `state` is what else the task's kind remembers, for itself alone, at most `record.progress.STATE_BYTES_MAX`.
    `error` is what held the task up when this was told, `failed` counts the documents that are skipped, and
    `failures` are the newest of them, bounded as in `record.progress`: what every node can tell by itself. The
    whole list is with the task's progress in its target.
    """

    generation: int
    epoch: int = 0
    change_vector: str = ""
    last_etags: Map[str, int] = Map()
    processed: int = 0
    at: str | None = None
    failed: int = 0
    failures: tuple[FailedDocument, ...] = ()
    error: str = ""
    state: bytes = b""


class EndedRun(RecordValue, frozen=True, kw_only=True):
    """A run that is over: its epoch and node, and how it ended and why."""

    epoch: int
    tag: str
    state: RunEnd
    reason: str = ""


class Cause(RecordValue, frozen=True, kw_only=True):
    """The log entry that put a task where it is: an edit of the "Task", of the "Group", of the "Node" `tag` or of the
    "Licence", or the end of the "Grace" in which it waited for `tag`."""

    index: int
    what: Literal["Task", "Group", "Node", "Grace", "Licence"]
    tag: str | None = None


class Claim(RecordValue, frozen=True, kw_only=True):
    """One process's replicated statement that it runs a task. `epoch` is the fencing token (see GENERATION_STRIDE),
    `nonce` is 0 in schema version 1. It outlives the task, so that a re-created one waits for the old body.
    `grace_ended` is set by the observer for sticky kinds, by the log entry `grace_index`, and counts for the stay in
    Rehab that began at `grace_since_ms` (see `ObserverMemory.rehab_since`). `rule` and `cause` are those
    of its grant; `runs` are the runs before it, oldest first."""

    tag: str
    node_id: str
    boot: int
    session: int
    epoch: int
    nonce: int = 0
    state: ClaimState = "Held"
    grace_ended: bool = False
    grace_index: int = 0
    grace_since_ms: int = 0
    reason: str = ""
    rule: str = ""
    cause: Cause | None = None
    runs: tuple[EndedRun, ...] = ()


class Database(RecordValue, frozen=True, kw_only=True):
    """A database record. `etag` is the log index of the last change other than progress. `task_ids` finds a task by
    its folded name; it follows from `tasks`. `counters` are the last values given, by folded name.
    """

    name: str
    etag: int
    topology: Topology
    connection_strings: Map[str, ConnectionString] = Map()
    tasks: Map[int, Task] = Map()
    indexes: Map[str, IndexDefinition] = Map()
    settings: Map[str, str] = Map()
    lock_mode: LockMode = "Unlock"
    disabled: bool = False
    deletion_in_progress: Map[str, str] = Map()
    progress: Map[int, Progress] = Map()
    task_ids: Map[str, int] = Map()
    counters: Map[str, int] = Map()

    def task_named(self, name: str) -> Task | None:
        """The task of that name, case-insensitively."""
        id = self.task_ids.get(fold(name))
        return None if id is None else self.tasks[id]

    def claim_key(self, task: Task) -> str:
        """The key of the task's claim."""
        return claim_key(self.name, task.kind, task.name)

    def with_task(self, task: Task) -> "Database":
        """This database with the task added, or in the place of the one with its id."""
        before = self.tasks.get(task.id)
        ids = _without(self.task_ids, fold(before.name)) if before else self.task_ids
        return msgspec.structs.replace(
            self, tasks=self.tasks.set(task.id, task), task_ids=ids.set(fold(task.name), task.id)
        )

    def without_task(self, task: Task) -> "Database":
        """This database without the task and its progress."""
        return msgspec.structs.replace(
            self,
            tasks=self.tasks.delete(task.id),
            task_ids=self.task_ids.delete(fold(task.name)),
            progress=_without(self.progress, task.id),
        )

    def indexed(self) -> "Database":
        """This database with `task_ids` worked out from `tasks`."""
        return msgspec.structs.replace(self, task_ids=Map({fold(t.name): t.id for t in self.tasks.values()}))


class CommandError(RecordValue, frozen=True, kw_only=True):
    """Why a command was refused: RavenDB's exception name and a sentence with the remedy."""

    type: str
    message: str


class CommandResult(RecordValue, frozen=True, kw_only=True):
    """The answer to a command: the log index it stands at, and either an error or a value. `asked`: the hash of what
    was asked for under its request id; empty if that is not known."""

    index: int
    error: CommandError | None = None
    value: Any = None
    asked: str = ""


class Record(RecordValue, frozen=True, kw_only=True):
    """The whole replicated state. Databases are keyed by their folded (lower-case) name, claims by `claim_key`.
    `held` finds a held claim's key by its epoch; it follows from `claims`. The licence: without
    `highly_available_tasks` a task waits for its last holder, without `dynamic_nodes_distribution` no copy of a
    database is replaced; `licence_index` is the log index of its last change."""

    schema_version: int = SCHEMA_VERSION
    index: int = 0
    cluster_id: str = ""
    generation: int = 0
    timings: Timings | None = None
    nodes: Map[str, ClusterNode] = Map()
    databases: Map[str, Database] = Map()
    claims: Map[str, Claim] = Map()
    held: Map[int, str] = Map()
    identities: Map[str, int] = Map()
    observer: ObserverMemory = ObserverMemory()
    highly_available_tasks: bool = True
    dynamic_nodes_distribution: bool = True
    licence_index: int = 0
    requests: Map[str, CommandResult] = Map()
    request_order: Map[int, str] = Map()
    request_first: int = 0
    request_next: int = 0

    def database(self, name: str) -> Database | None:
        """The database of that name, case-insensitively."""
        return self.databases.get(fold(name))

    def with_claim(self, key: str, claim: Claim) -> "Record":
        """This record with the claim under that key."""
        left = self.without_claim(key)
        held = left.held.set(claim.epoch, key) if claim.state == "Held" else left.held
        return msgspec.structs.replace(left, claims=left.claims.set(key, claim), held=held)

    def without_claim(self, key: str) -> "Record":
        """This record without the claim of that key, if there is one."""
        claim = self.claims.get(key)
        if claim is None:
            return self
        return msgspec.structs.replace(self, claims=self.claims.delete(key), held=_without(self.held, claim.epoch))

    def indexed(self) -> "Record":
        """This record with `held` worked out from `claims`."""
        return msgspec.structs.replace(
            self, held=Map({c.epoch: k for k, c in self.claims.items() if c.state == "Held"})
        )


def claim_key(database: str, kind: str, name: str) -> str:
    """The key of a task's claim: "database/kind/name", folded. Unambiguous, as only the name may hold a slash."""
    return f"{fold(database)}/{kind}/{fold(name)}"


def _without(mapping: Map[Key, Any], key: Key) -> Map[Key, Any]:
    return mapping.delete(key) if key in mapping else mapping
