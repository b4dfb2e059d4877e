"""The composition root: builds every part, hands them to each other, starts and stops them in order. Holds no rules."""

import asyncio
import signal
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import structlog

from config import Settings
from config.access import admits
from observer.health import Health
from observer.observer import Observer
from observer.rules.facts import Limits
from raftnode import log as logging
from raftnode.consensus.forming import Forming, NodeRefused
from raftnode.consensus.hello import Guard
from raftnode.consensus.raft import ConsensusFailed, JournalFailed, Raft, RaftConfig
from raftnode.consensus.replica import Replica, Unavailable
from raftnode.consensus.tls import Tls, load_tls
from raftnode.consensus.transport import NodeIdentity, Transport, TransportConfig
from raftnode.documents.databases import Databases
from raftnode.formation import Formation, form_of, formation_of
from raftnode.heartbeat import Heartbeat
from raftnode.http import Http
from raftnode.identity import Identity, IdentityError, claim_directory, note_took_part
from raftnode.javascript import ScriptLimits
from raftnode.joining import JoinRefused
from raftnode.ports import NS_PER_MS, SystemClock
from raftnode.record.commands import AnnounceNode, ConfirmDeletion
from raftnode.resources import DESCRIPTORS_KEPT, Memory, descriptors_max
from raftnode.watchdog import KillTimer, Watchdog, WatchdogUnavailable
from raftnode.web.parts import Parts
from raftnode.web.server import BindFailed, Server
from tasks.context import RunSettings
from tasks.kinds import kinds
from tasks.plan import Own
from tasks.supervisor import Supervisor

log = structlog.get_logger(__name__)

STOP_TASKS_S = 10.0
DESCRIPTORS_MIN = 2 * DESCRIPTORS_KEPT
EXPECTED = (IdentityError, JoinRefused, ConsensusFailed, BindFailed, WatchdogUnavailable, NodeRefused)


class NodeFailed(Exception):
    """The node cannot start or go on; the message is for the operator."""


class Node:
    """One node of the cluster. `run` returns when it is told to stop, and raises NodeFailed."""

    def __init__(self, settings: Settings, *, join: str | None = None, watcher: bool = False) -> None:
        self.settings = settings
        self.tag = settings.node.tag
        self._data_dir = Path(settings.node.data_dir)
        self._join, self._watcher = join, watcher
        self._told = asyncio.Event()
        self._failure: str | None = None
        self.ready = asyncio.Event()

    def stop(self) -> None:
        """Ends `run` in order."""
        self._told.set()

    def fail(self, reason: str) -> None:
        """Ends `run` with NodeFailed."""
        self._failure = self._failure or reason
        self._told.set()

    async def run(self) -> None:
        """Starts every part, serves until it is told to stop, and stops every part in the opposite order."""
        try:
            async with AsyncExitStack() as stack:
                await self._start(stack)
                self.ready.set()
                await self._told.wait()
        except EXPECTED as error:
            raise NodeFailed(str(error)) from error
        except OSError as error:
            raise NodeFailed(f"The operating system refuses: {error}.") from error
        if self._failure is not None:
            raise NodeFailed(self._failure)

    async def _start(self, stack: AsyncExitStack) -> None:
        if descriptors_max() < DESCRIPTORS_MIN:
            raise NodeFailed(
                f"This process may open {descriptors_max()} files at once; a node needs {DESCRIPTORS_MIN}, and nine "
                "more for each database. Raise the limit (ulimit -n, or LimitNOFILE= in the service's unit)."
            )
        identity = claim_directory(self._data_dir, self.tag)
        stack.callback(identity.release)
        node_tls, http_tls = self._tls()
        self.http = await stack.enter_async_context(Http(tls=http_tls.client if http_tls else None))
        formation = await formation_of(
            self.settings, self._data_dir, identity, self.http, join_url=self._join, watcher=self._watcher
        )
        self._build_consensus(identity, formation, node_tls)
        self._build_lease(identity, stack)
        self._build_work(identity)
        self.server = Server(self._parts(identity, formation), tls=http_tls.server if http_tls else None)
        await self._open(stack, identity, formation)

    def _build_consensus(self, identity: Identity, formation: Formation, tls: Tls | None) -> None:
        cluster = self.settings.cluster
        self.clock = SystemClock()
        self.replica = Replica()
        self.transport = Transport(
            NodeIdentity(formation.wire_id, self.tag, identity.node_id, identity.boot, identity.nonce),
            TransportConfig(host=cluster.host, port=cluster.port, dead_peer_ms=cluster.dead_peer_ms),
            tls=tls,
            guard=Guard(admits=lambda host: admits(self.settings, host), node_id_of=self.replica.node_id_of),
        )
        self.transport.on_impostor.append(lambda tag, text: self.fail(text) if tag == self.tag else None)
        self.transport.on_removed.append(self._removed)
        self.raft = Raft(
            tag=self.tag,
            peers=formation.peers,
            transport=self.transport,
            machine=self.replica,
            config=RaftConfig(
                data_dir=self._data_dir / "raft",
                took_part=identity.took_part,
                election_min_ms=cluster.election_min_ms,
                election_max_ms=cluster.election_max_ms,
                heartbeat_ms=cluster.heartbeat_ms,
                proposal_timeout_ms=cluster.proposal_timeout_ms,
                snapshot_bytes_min=cluster.snapshot_bytes_min,
            ),
            clock=self.clock,
        )
        self.raft.on_fatal.append(self._no_consensus)
        self.replica.attach(self.raft)

    def _build_lease(self, identity: Identity, stack: AsyncExitStack) -> None:
        timer = KillTimer()
        stack.callback(timer.close)
        self.watchdog = Watchdog(timer, self.clock)
        self.heartbeat = Heartbeat(
            raft=self.raft,
            network=self.transport,
            clock=self.clock,
            boot=identity.boot,
            nonce=identity.nonce,
            timings=lambda: self.replica.record.timings,
            heartbeat_ms=self.settings.cluster.heartbeat_ms,
            report_payload=lambda: self._report(identity),
            on_lease=self._lease_until,
        )

    def _build_work(self, identity: Identity) -> None:
        settings = self.settings
        self.databases = Databases(
            self._data_dir / "databases",
            tag=self.tag,
            record=lambda: self.replica.record,
            http=self.http,
            deleted=self._confirm_deletion,
            batch_documents_max=settings.documents.replication_batch_documents_max,
            batch_bytes_max=settings.documents.replication_batch_bytes_max,
            clean_s=settings.documents.tombstone_cleanup_sec,
        )
        self._memory = Memory(settings.node.memory_available_bytes_min)
        self.supervisor = Supervisor(
            Own(self.tag, identity.node_id, identity.boot),
            replica=self.replica,
            lease=self.heartbeat,
            databases=self.databases,
            directory=self._data_dir,
            bodies_running=self.watchdog.bodies_running,
            settings=_run_settings(settings),
            http=self.http,
            checkpoint_ms=settings.tasks.checkpoint_ms,
            journal_bytes_max=settings.tasks.run_journal_bytes_max,
        )
        self.health = Health(
            tag=self.tag,
            node_id=identity.node_id,
            heartbeat=self.heartbeat,
            clock=self.clock,
            own_report=lambda: self._report(identity),
            last_error=self.transport.complaint,
        )
        self.observer = Observer(
            replica=self.replica,
            heartbeat=self.heartbeat,
            health=self.health,
            clock=self.clock,
            period_ms=settings.cluster.observer_period_ms,
            limits=_limits(settings),
        )

    def _parts(self, identity: Identity, formation: Formation) -> Parts:
        return Parts(
            settings=self.settings,
            tag=self.tag,
            identity=identity,
            wire_id=formation.wire_id,
            removed_by=lambda: self.transport.removed_by,
            replica=self.replica,
            raft=self.raft,
            heartbeat=self.heartbeat,
            databases=self.databases,
            supervisor=self.supervisor,
            http=self.http,
        )

    async def _open(self, stack: AsyncExitStack, identity: Identity, formation: Formation) -> None:
        self.replica.subscribe(self.databases.changed)
        self.replica.subscribe(self.supervisor.on_tick)
        # A node that leaves and joins again between two beats must be seen to leave.
        self.replica.subscribe(lambda record, changes: self.heartbeat.check() if changes.cluster else None)
        self.heartbeat.subscribe(self.supervisor.on_lease)
        await self._listen()
        stack.push_async_callback(self.transport.stop)
        await self.raft.start()
        stack.push_async_callback(self.raft.stop)
        await asyncio.to_thread(note_took_part, self._data_dir, identity)
        announcement = AnnounceNode(
            tag=self.tag,
            node_id=identity.node_id,
            boot=identity.boot,
            url=self.settings.url,
            cluster_address=self.settings.cluster_address,
            kinds=kinds(),
        )
        forming = Forming(self.replica, self.raft, form_of(self.settings, formation), announcement)
        for name, loop in (
            ("heartbeat", self.heartbeat.run()),
            ("databases", self.databases.run()),
            ("supervisor", self.supervisor.run()),
            ("observer", self.observer.run()),
        ):
            self._run(stack, name, loop)
        await self.server.start()
        stack.push_async_callback(self.server.stop)
        stack.push_async_callback(self.supervisor.stop, STOP_TASKS_S)
        self._run(stack, "forming", forming.run())

    async def _listen(self) -> None:
        host, port = self.settings.cluster.host, self.settings.cluster.port
        try:
            await self.transport.start()
        except OSError as error:
            raise NodeFailed(
                f"Cannot listen for the other nodes on {host}, port {port} ({error.strerror or error}): another "
                "program may use the port. End it, or choose another with cluster.host and cluster.port."
            ) from error

    def _no_consensus(self, error: ConsensusFailed) -> None:
        remedy = " Mend the disk or make room on it, then start the node again: nothing that was acknowledged is lost."
        self.fail(f"{error}{remedy if isinstance(error, JournalFailed) else ''}")

    def _run(self, stack: AsyncExitStack, name: str, loop: Any) -> None:
        """Runs a loop until the stack is unwound; a loop that fails ends the node."""
        task = asyncio.get_running_loop().create_task(loop, name=name)

        async def end() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        def ended(task: asyncio.Task[None]) -> None:
            error = None if task.cancelled() else task.exception()
            if isinstance(error, EXPECTED):
                self.fail(str(error))
            elif error is not None:
                log.error("a part of the node failed", part=name, exc_info=error)
                self.fail(f"The {name} failed ({error!r}); see the log.")

        task.add_done_callback(ended)
        stack.push_async_callback(end)

    def _tls(self) -> tuple[Tls | None, Tls | None]:
        """The cluster channel's contexts, and those for HTTP, whose client checks the host's name."""
        if not self.settings.secured:
            return None, None
        security = self.settings.security
        files = Path(security.certificate_file), Path(security.key_file), Path(security.ca_file)
        try:
            node, http = load_tls(*files), load_tls(*files)
        except OSError as error:
            raise NodeFailed(
                "The certificates cannot be loaded (security.certificate_file, security.key_file, security.ca_file): "
                f"{error}."
            ) from error
        http.client.check_hostname = True
        return node, http

    def _report(self, identity: Identity) -> dict[str, Any]:
        copies = self.databases.status()
        shown = {
            name: {
                "status": copy.status,
                "documents": copy.documents,
                "last_etag": copy.last_etag,
                "change_vector": copy.change_vector,
                "sent": dict(copy.sent),
                "error": copy.error,
            }
            for name, copy in copies.items()
        }
        return {"node_id": identity.node_id, "flags": self._memory.flags(), "databases": shown}

    def _lease_until(self, until_ns: int) -> None:
        timings = self.replica.record.timings
        assert timings is not None, "there is no lease before the cluster is formed"
        self.watchdog.lease_until(until_ns, timings.task_stop_timeout_ms * NS_PER_MS)

    def _removed(self, by: str) -> None:
        log.warning(
            "This node was removed from the cluster: it runs nothing and is asked for nothing. To bring it back, empty "
            "its data directory and let it join anew.",
            told_by=by,
        )

    async def _confirm_deletion(self, name: str) -> None:
        try:
            await self.replica.propose(ConfirmDeletion(name=name, tag=self.tag))
        except Unavailable as error:
            log.info("confirming a deletion is tried again", database=name, reason=str(error))


def _limits(settings: Settings) -> Limits:
    cluster = settings.cluster
    return Limits(
        stabilization_ms=cluster.stabilization_time_sec * 1000,
        rotate_ms=cluster.time_before_rotating_preferred_node_sec * 1000,
        replace_ms=cluster.time_before_adding_replica_sec * 1000,
        distance_max=cluster.max_change_vector_distance,
    )


def _run_settings(settings: Settings) -> RunSettings:
    tasks = settings.tasks
    return RunSettings(
        batch_documents_max=tasks.batch_documents_max,
        batch_bytes_max=tasks.batch_bytes_max,
        backoff_min_ms=tasks.backoff_min_ms,
        backoff_max_ms=tasks.backoff_max_ms,
        script=ScriptLimits(time_ms_max=tasks.script_time_ms_max, memory_bytes_max=tasks.script_memory_bytes_max),
    )


async def run_node(settings: Settings, *, join: str | None = None, watcher: bool = False) -> int:
    """Runs a node until SIGTERM or SIGINT; the exit code of the process. Says why it ends."""
    logging.configure(settings)
    node = Node(settings, join=join, watcher=watcher)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, node.stop)
    try:
        await node.run()
    except NodeFailed as error:
        log.error("This node ends.", reason=str(error))
        return 1
    log.info("This node has stopped, as it was told to.")
    return 0
