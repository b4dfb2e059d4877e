"""The one table of settings: name, type, unit, default, range and meaning of each.

From it come the TOML keys (`[cluster] heartbeat_ms = 200`), the variables
(`RAFTNODE_CLUSTER_HEARTBEAT_MS`), the flags (`--cluster.heartbeat-ms`), `docs/settings.md` and
`config/default.toml`.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from raftnode.foundation import addresses
from raftnode.foundation.addresses import ADDRESS_PATTERN, URL_PATTERN

TAG_PATTERN = r"^[A-Z]{1,4}\Z"

DAY_MS = 24 * 3600 * 1000
MIB = 1024 * 1024
GIB = 1024 * MIB


def _number(low: int, high: int, unit: str, meaning: str) -> Meta:
    return Meta(ge=low, le=high, description=meaning, extra={"unit": unit})


def _ms(low: int, high: int, meaning: str) -> Meta:
    return _number(low, high, "ms", meaning)


def _sec(low: int, high: int, meaning: str) -> Meta:
    return _number(low, high, "s", meaning)


def _bytes(low: int, high: int, meaning: str) -> Meta:
    return _number(low, high, "bytes", meaning)


def _text(meaning: str, pattern: str | None = None, form: str = "", alias: str = "") -> Meta:
    return Meta(pattern=pattern, max_length=4096, description=meaning, extra={"form": form, "alias": alias})


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every section."""


class InitialNode(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A node of the cluster to be formed."""

    tag: Annotated[str, _text("Its tag", TAG_PATTERN)]
    url: Annotated[str, _text("Its HTTP address", URL_PATTERN), Meta(min_length=1)]
    cluster_address: Annotated[str, _text("Its consensus address", ADDRESS_PATTERN), Meta(min_length=1)]


class NodeSettings(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """This node."""

    tag: Annotated[str, _text("The node's name in the cluster", TAG_PATTERN, "1 to 4 capital letters", "--tag")] = "A"
    data_dir: Annotated[
        str,
        _text("Directory of everything the node keeps; one process at a time", alias="--data-dir"),
        Meta(min_length=1),
    ] = "./data"
    url: Annotated[
        str,
        _text(
            "Address at which other nodes and clients reach this node's HTTP server. Empty: the one in"
            " cluster.initial_nodes, otherwise derived from http.host and http.port",
            URL_PATTERN,
            "http://host:port or https://host:port",
        ),
    ] = ""
    memory_available_bytes_min: Annotated[
        int,
        _bytes(0, 1024 * GIB, "With less available memory than this, the node reports EarlyOutOfMemory. 0: never"),
    ] = 32 * MIB


class HttpSettings(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The HTTP server."""

    host: Annotated[str, _text("Address to listen on"), Meta(min_length=1)] = "127.0.0.1"
    port: Annotated[int, _number(1, 65535, "", "Port to listen on")] = 8080
    body_bytes_max: Annotated[int, _bytes(MIB, GIB, "Largest request body; a larger one is answered with 413")] = (
        128 * MIB
    )
    request_timeout_ms: Annotated[
        int, _ms(100, DAY_MS, "Longest time a request may take before it is answered with 503")
    ] = 60_000


class ClusterSettings(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Consensus, the lease and the cluster observer."""

    host: Annotated[str, _text("Address to listen on for the other nodes"), Meta(min_length=1)] = "127.0.0.1"
    port: Annotated[int, _number(1, 65535, "", "Port to listen on for the other nodes")] = 38888
    public_address: Annotated[
        str,
        _text(
            "Address at which the other nodes reach this one. Empty: the one in cluster.initial_nodes,"
            " otherwise derived from cluster.host and cluster.port",
            ADDRESS_PATTERN,
            "host:port",
        ),
    ] = ""
    initial_nodes: Annotated[
        tuple[InitialNode, ...],
        Meta(
            max_length=100,
            description="The nodes that form the cluster, the same list on each of them; read only by a node"
            " without data. Empty: this node alone",
            extra={
                "form": "a list of {tag, url (http://host:port), cluster_address (host:port)};"
                " JSON in variables and flags"
            },
        ),
    ] = ()
    profile: Annotated[
        Literal["default", "fast", "wan"],
        Meta(
            description="A set of matching timings; timings that are set individually override it",
            extra={"alias": "--profile"},
        ),
    ] = "default"
    heartbeat_ms: Annotated[int, _ms(5, 60_000, "How often the leader sends a heartbeat to each node")] = 200
    election_min_ms: Annotated[
        int, _ms(20, 300_000, "Shortest silence of the leader after which a node stands for election")
    ] = 500
    election_max_ms: Annotated[int, _ms(20, 300_000, "Longest such silence; each wait is random between the two")] = (
        1000
    )
    lease_ms: Annotated[int, _ms(50, 600_000, "How long a node may run tasks after the leader last heard it")] = 1800
    task_stop_timeout_ms: Annotated[
        int,
        _ms(20, 600_000, "How long tasks may take to stop when the lease has ended; then the process is killed"),
    ] = 1000
    time_before_moving_to_rehab_ms: Annotated[
        int, _ms(100, 3_600_000, "Silence after which a node's claims are void and it is moved to Rehab")
    ] = 4000
    observer_period_ms: Annotated[int, _ms(10, 60_000, "How often the cluster observer decides")] = 200
    time_before_adding_replica_sec: Annotated[
        int, _sec(1, 30 * 86400, "How long a node of a database group may be lost before another replaces it")
    ] = 900
    time_before_rotating_preferred_node_sec: Annotated[
        int, _sec(1, 86400, "How long the preferred node may be slow before it goes to the end of the list")
    ] = 5
    stabilization_time_sec: Annotated[
        int, _sec(0, 600, "How long a node must be healthy before it is promoted; it never delays a demotion")
    ] = 5
    max_change_vector_distance: Annotated[
        int, _number(1, 2**40, "changes", "How far a member may lag behind before it is moved to Rehab")
    ] = 65536
    move_to_new_responsible_node_grace_period_min: Annotated[
        int,
        _number(
            0,
            10080,
            "min",
            "How long a task of a sticky kind (backup) waits for its node, once that is in Rehab, before another takes"
            " it. A database may have its own among its settings: Backup.MoveToNewResponsibleNodeGracePeriodInMin",
        ),
    ] = 30
    proposal_timeout_ms: Annotated[
        int, _ms(100, 600_000, "How long a command waits for the cluster before its outcome is unknown")
    ] = 5000
    dead_peer_ms: Annotated[
        int, _ms(50, 600_000, "Silence after which a connection to another node is dropped and dialled again")
    ] = 1500
    snapshot_bytes_min: Annotated[int, _bytes(64 * 1024, 64 * GIB, "The log is never compacted below this size")] = (
        16 * MIB
    )


class TasksSettings(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Running tasks."""

    batch_documents_max: Annotated[int, _number(1, 100_000, "documents", "Most documents in one batch of a task")] = (
        1024
    )
    batch_bytes_max: Annotated[int, _bytes(1024, GIB, "Most bytes of documents in one batch of a task")] = 16 * MIB
    backoff_min_ms: Annotated[int, _ms(1, 600_000, "First wait of a task that has failed; it doubles each time")] = 500
    backoff_max_ms: Annotated[int, _ms(1, DAY_MS, "Longest wait of a task that fails again and again")] = 30_000
    checkpoint_ms: Annotated[int, _ms(1, 60_000, "How long progress is collected before it is replicated")] = 50
    script_time_ms_max: Annotated[int, _ms(1, 600_000, "Longest run of a script over one batch")] = 10_000
    script_memory_bytes_max: Annotated[int, _bytes(8 * MIB, 4 * GIB, "Most memory of a script")] = 128 * MIB
    script_processes_max: Annotated[
        int,
        _number(0, 1000, "processes", "Most processes of this node for scripts; its tasks take turns. 0: one per core"),
    ] = 0
    sql_connections_max: Annotated[
        int,
        _number(1, 1000, "connections", "Most connections of this node to one SQL target; tasks take them in turn"),
    ] = 4
    sql_statement_timeout_ms: Annotated[
        int,
        _ms(
            100,
            DAY_MS,
            "Longest run of one statement in a target of PostgreSQL or MariaDB, unless the task says. Also the longest"
            " time that a dead or isolated node can keep a task's next run waiting there",
        ),
    ] = 30_000
    run_journal_bytes_max: Annotated[
        int, _bytes(64 * 1024, GIB, "Size at which the journal of task runs starts a new file; one old file is kept")
    ] = 16 * MIB


class DocumentsSettings(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The document database of each node."""

    document_bytes_max: Annotated[int, _bytes(1024, 64 * MIB, "Largest document")] = 64 * MIB
    batch_operations_max: Annotated[int, _number(1, 1_000_000, "operations", "Most operations in one bulk request")] = (
        10_000
    )
    page_documents_max: Annotated[int, _number(1, 1_000_000, "documents", "Most documents in one response")] = 10_000
    replication_batch_documents_max: Annotated[
        int, _number(1, 100_000, "documents", "Most documents in one batch of replication")
    ] = 1024
    tombstone_cleanup_sec: Annotated[
        int, _sec(1, 86400, "How often tombstones that every node and task has processed are purged")
    ] = 60
    replication_batch_bytes_max: Annotated[int, _bytes(1024, GIB, "Most bytes in one batch of replication")] = 8 * MIB


class SecuritySettings(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may reach the node."""

    certificate_file: Annotated[str, _text("The node's certificate with its chain, PEM")] = ""
    key_file: Annotated[str, _text("The private key of the certificate, PEM")] = ""
    ca_file: Annotated[str, _text("The authority that signs the nodes' and clients' certificates, PEM")] = ""
    unsecured_access_allowed: Annotated[
        Literal["local", "private_network", "public_network"],
        Meta(description="Who is served without certificates: this machine, private networks, or everybody"),
    ] = "local"


class LogSettings(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the node says."""

    format: Annotated[Literal["console", "json"], Meta(description="Log output for people or for machines")] = "console"
    level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="The least important messages that are shown")
    ] = "info"


class Settings(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings of a node."""

    node: NodeSettings = NodeSettings()
    http: HttpSettings = HttpSettings()
    cluster: ClusterSettings = ClusterSettings()
    tasks: TasksSettings = TasksSettings()
    documents: DocumentsSettings = DocumentsSettings()
    security: SecuritySettings = SecuritySettings()
    log: LogSettings = LogSettings()

    @property
    def secured(self) -> bool:
        """Whether certificates are given, so that both channels speak mutual TLS."""
        return bool(self.security.certificate_file)

    @property
    def initial_node(self) -> InitialNode | None:
        """This node's own entry in `cluster.initial_nodes`."""
        return next((n for n in self.cluster.initial_nodes if n.tag == self.node.tag), None)

    @property
    def url(self) -> str:
        """The address at which others reach this node's HTTP server."""
        scheme = "https" if self.secured else "http"
        listed = self.initial_node.url if self.initial_node else ""
        return self.node.url or listed or f"{scheme}://{addresses.join(self.http.host, self.http.port)}"

    @property
    def cluster_address(self) -> str:
        """The address at which the other nodes reach this one's consensus port."""
        listed = self.initial_node.cluster_address if self.initial_node else ""
        return self.cluster.public_address or listed or addresses.join(self.cluster.host, self.cluster.port)
