"""One node's parts, put together: record, consensus, lease, observer, claims and supervisor.

What a node takes from the world outside comes in through `Ports`. The daemon (`raftnode.node`) gives the machine's own,
the simulator its simulated ones; whatever stands in this file is the same in both. No rules here.
"""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import structlog

from observer.health import Health
from observer.observer import Observer
from observer.rules.facts import ObserverLimits
from raftnode.cluster.announce import Announcer
from raftnode.cluster.replica import Replica, Unavailable
from raftnode.consensus.model import ConsensusFailed, JournalFailed, Peer, RaftConfig
from raftnode.consensus.raft import Raft
from raftnode.consensus.storage.disk import Disk
from raftnode.consensus.transport.raft_channel import TransportPort
from raftnode.documents.database_copies import DatabaseCopy
from raftnode.foundation.http_client import HttpClient
from raftnode.foundation.incarnation import NodeIncarnation
from raftnode.foundation.ports import NS_PER_MS, Clock, Random
from raftnode.liveness.heartbeat import Heartbeat
from raftnode.liveness.kill_timer import Timer, Watchdog
from raftnode.liveness.report import CopyReport, NodeReport
from raftnode.record.commands import AnnounceNode, Changes, ConfirmDeletion, FormCluster
from raftnode.record.model import Record, ResourceFlag
from tasks.kinds.registry import kinds
from tasks.runtime.context import RunSettings
from tasks.runtime.environment import BodyEnvironment
from tasks.runtime.ports import TaskDatabasesPort
from tasks.runtime.run_journal import BYTES_MAX
from tasks.runtime.stall_tracker import StallTracker
from tasks.runtime.supervisor import Supervisor

log = structlog.get_logger(__name__)


class ClusterTransport(TransportPort, Protocol):
    """The other nodes; see `raftnode.consensus.transport.transport.Transport`."""

    on_impostor: list[Callable[[str, str, bool], None]]
    on_removed: list[Callable[[str], None]]

    @property
    def removed_by(self) -> str | None: ...
    def complaint(self, tag: str) -> str: ...
    def check_announced(self) -> None: ...


class DatabasesPort(TaskDatabasesPort, Protocol):
    """This node's copies of databases; see `raftnode.documents.databases.Databases`."""

    def changed(self, record: Record, changes: Changes) -> None: ...
    def status(self) -> Mapping[str, DatabaseCopy]: ...
    async def run(self) -> None: ...


AnyTransport = TypeVar("AnyTransport", bound=ClusterTransport)
AnyDatabases = TypeVar("AnyDatabases", bound=DatabasesPort)


@dataclass(frozen=True, kw_only=True)
class Ports(Generic[AnyTransport, AnyDatabases]):
    """The doors to the world outside.

    `transport` is made from the record on this node, which tells who may have a tag; `databases` from what gives the
    newest record, and from what is awaited with a database's name once its copy is gone. `flags` tells what the machine
    is short of. `failed` ends the process, with a reason for the operator. `superseded` remembers that no process may
    use its directory again, as the node has gone on in another one. `stall_tracker` finds out which task has ended one.
    """

    clock: Clock
    random: Random
    disk: Disk
    timer: Timer
    transport: Callable[[Replica], AnyTransport]
    databases: Callable[[Callable[[], Record], Callable[[str], Coroutine[Any, Any, None]]], AnyDatabases]
    flags: Callable[[], Sequence[ResourceFlag]]
    failed: Callable[[str], None]
    superseded: Callable[[], None]
    http: HttpClient | None = None
    stall_tracker: StallTracker | None = None


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Which process of which node this is, with whom it starts, and its limits and times.

    `form` is proposed if this node is the first to lead a cluster without a record.
    """

    own: NodeIncarnation
    url: str
    cluster_address: str
    peers: Sequence[Peer]
    form: FormCluster
    directory: Path
    raft: RaftConfig
    observer_period_ms: int
    limits: ObserverLimits
    run: RunSettings | None = None
    checkpoint_ms: int = 50
    run_journal_bytes_max: int = BYTES_MAX


@dataclass(frozen=True)
class _Reported:
    """The last report, and what it was made of."""

    copies: Mapping[str, DatabaseCopy]
    report: NodeReport


class Assembly(Generic[AnyTransport, AnyDatabases]):
    """The parts of one process. Start the transport and `raft` first, then run all of `loops` and `announcer`, which
    ends once the record knows this process. To stop, await `supervisor.stop` while everything else still runs, as it
    proposes releases, then end the loops, `raft` and the transport.

    Nothing is started here. A part is built after those it calls; what calls back is connected last.
    """

    def __init__(
        self, setup: Setup, ports: Ports[AnyTransport, AnyDatabases], *, replica: Replica | None = None
    ) -> None:
        self._setup, self._ports = setup, ports
        self._reported = _Reported({}, NodeReport(node_id=setup.own.node_id))
        # The record first: the transport asks it who may have a tag, the databases what there should be.
        self.replica = replica or Replica()
        self.transport = ports.transport(self.replica)
        self.databases = ports.databases(lambda: self.replica.record, self._confirm_deletion)
        self._build_consensus()
        self._build_lease()
        self._build_work()
        self._connect()

    def loops(self) -> tuple[tuple[str, Coroutine[Any, Any, None]], ...]:
        """What must run until the process ends, each with its name. The heartbeat comes first and ends last: a
        supervisor that runs without it would have a lease that nobody renews or ends."""
        return (
            ("heartbeat", self.heartbeat.run()),
            ("databases", self.databases.run()),
            ("supervisor", self.supervisor.run()),
            ("observer", self.observer.run()),
        )

    def _build_consensus(self) -> None:
        setup, ports = self._setup, self._ports
        self.raft = Raft(
            tag=setup.own.tag,
            peers=setup.peers,
            transport=self.transport,
            machine=self.replica,
            config=setup.raft,
            clock=ports.clock,
            random=ports.random,
            disk=ports.disk,
        )
        self.replica.attach(self.raft)
        announcement = AnnounceNode(
            tag=setup.own.tag,
            node_id=setup.own.node_id,
            boot=setup.own.boot,
            nonce=setup.own.nonce,
            url=setup.url,
            cluster_address=setup.cluster_address,
            kinds=kinds(),
        )
        self.announcer = Announcer(
            self.replica, self.raft, setup.form, announcement, lambda: self.transport.removed_by is not None
        )

    def _build_lease(self) -> None:
        setup, ports = self._setup, self._ports
        self.watchdog = Watchdog(ports.timer, ports.clock)
        self.heartbeat = Heartbeat(
            raft=self.raft,
            network=self.transport,
            clock=ports.clock,
            boot=setup.own.boot,
            nonce=setup.own.nonce,
            timings=lambda: self.replica.record.timings,
            nodes=lambda: self.replica.record.nodes,
            heartbeat_ms=setup.raft.heartbeat_ms,
            own_report=self._report,
            on_lease=self._lease_until,
        )

    def _build_work(self) -> None:
        setup, ports = self._setup, self._ports
        environment = BodyEnvironment(
            setup.own.tag,
            replica=self.replica,
            databases=self.databases,
            directory=setup.directory,
            random=ports.random,
            settings=setup.run,
            http=ports.http,
            checkpoint_ms=setup.checkpoint_ms,
            journal_bytes_max=setup.run_journal_bytes_max,
            stall_tracker=ports.stall_tracker,
        )
        self.supervisor = Supervisor(
            setup.own,
            replica=self.replica,
            lease=self.heartbeat,
            environment=environment,
            bodies_running=self.watchdog.bodies_running,
            random=ports.random,
            removed=lambda: self.transport.removed_by is not None,
        )
        self.health = Health(
            tag=setup.own.tag,
            heartbeat=self.heartbeat,
            clock=ports.clock,
            own_report=self._report,
            last_error=self.transport.complaint,
        )
        self.observer = Observer(
            replica=self.replica,
            heartbeat=self.heartbeat,
            health=self.health,
            clock=ports.clock,
            period_ms=setup.observer_period_ms,
            limits=setup.limits,
        )

    def _connect(self) -> None:
        """Who is told of what. Listeners to the record are called in this order in each tick."""
        self.transport.on_impostor.append(self._impostor)
        self.transport.on_removed.append(self._removed)
        self.raft.on_fatal.append(self._no_consensus)
        # The databases before the supervisor: a body that starts in this tick asks for a copy that this tick has made.
        self.replica.subscribe(self.databases.changed)
        self.replica.subscribe(self.supervisor.on_tick)
        # A node that leaves and joins again between two beats must be seen to leave.
        self.replica.subscribe(lambda record, changes: self.heartbeat.check() if changes.cluster else None)
        self.replica.subscribe(lambda record, changes: self.transport.check_announced() if changes.cluster else None)
        # A session that has ended stops its bodies in the same turn of the loop, whatever noticed it.
        self.heartbeat.subscribe(self.supervisor.on_lease)

    def _report(self) -> NodeReport:
        """What the observer is told of this node; the same object as long as it is the same."""
        copies, flags = self.databases.status(), tuple(self._ports.flags())
        before, report = self._reported.copies, self._reported.report
        told = report.databases
        if copies is not before:
            told = {name: told[name] if before.get(name) is copy else _of_copy(copy) for name, copy in copies.items()}
        if told is not report.databases or flags != report.flags:
            report = NodeReport(node_id=self._setup.own.node_id, flags=flags, databases=told)
            self._reported = _Reported(copies, report)
        return report

    def _lease_until(self, until_ns: int) -> None:
        timings = self.replica.record.timings
        assert timings is not None, "there is no lease before the cluster is formed"
        self.watchdog.lease_until(until_ns, timings.task_stop_timeout_ms * NS_PER_MS)

    def _impostor(self, tag: str, text: str, superseded: bool) -> None:
        if tag == self._setup.own.tag:
            if superseded:
                self._ports.superseded()
            self._ports.failed(text)

    def _removed(self, by: str) -> None:
        log.warning(
            "This node was removed from the cluster: it runs nothing and is asked for nothing. To bring it back, empty "
            "its data directory and let it join again.",
            told_by=by,
        )
        self.supervisor.on_lease()

    def _no_consensus(self, error: ConsensusFailed) -> None:
        remedy = " Fix the disk or make room on it, then start the node again: nothing that was acknowledged is lost."
        self._ports.failed(f"{error}{remedy if isinstance(error, JournalFailed) else ''}")

    async def _confirm_deletion(self, name: str) -> None:
        try:
            await self.replica.propose(ConfirmDeletion(name=name, tag=self._setup.own.tag))
        except Unavailable as error:
            log.info("A deletion could not be confirmed; it is tried again.", database=name, reason=str(error))


def _of_copy(copy: DatabaseCopy) -> CopyReport:
    return CopyReport(
        status=copy.status,
        documents=copy.documents,
        last_etag=copy.last_etag,
        change_vector=copy.change_vector,
        sent=dict(copy.sent),
        error=copy.error,
    )
