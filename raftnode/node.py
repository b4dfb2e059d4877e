"""The process: gives the assembly the doors of this machine, starts and stops every part in order. Holds no rules."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from config import Settings
from config.access import admits
from observer.rules.facts import ObserverLimits
from raftnode.assembly import Assembly, Ports, Setup
from raftnode.cluster.announce import NodeRefused
from raftnode.cluster.bootstrap import Bootstrap, form_of, formation_of
from raftnode.cluster.identity import (
    ClaimedDirectory,
    IdentityError,
    claim_directory,
    note_superseded,
    record_took_part,
)
from raftnode.cluster.join import JoinRefused
from raftnode.cluster.replica import Replica
from raftnode.consensus.raft import ConsensusFailed, RaftConfig
from raftnode.consensus.storage.disk import SystemDisk
from raftnode.consensus.transport.handshake import PeerPolicy
from raftnode.consensus.transport.links import TransportConfig
from raftnode.consensus.transport.listener import ListeningPort
from raftnode.consensus.transport.tls import Tls, load_tls
from raftnode.consensus.transport.transport import Transport
from raftnode.documents.databases import Databases
from raftnode.foundation import logs
from raftnode.foundation.background import watched
from raftnode.foundation.garbage_collection import GarbageCollector
from raftnode.foundation.http_client import HttpClient
from raftnode.foundation.ports import SystemClock, SystemRandom
from raftnode.liveness.kill_timer import KillTimer, WatchdogUnavailable
from raftnode.liveness.resources import DESCRIPTORS_KEPT, Memory, descriptors_max
from raftnode.record.model import Record
from raftnode.scripting.javascript import ScriptLimits
from raftnode.web.server import BindFailed, HttpServer
from raftnode.web.services import Services
from tasks.runtime.context import RunSettings, SqlLimits
from tasks.runtime.stall_tracker import open_stall_tracker

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
        self._waiting: asyncio.Timeout | None = None
        self.ready = asyncio.Event()

    def stop(self) -> None:
        """Ends `run` in order."""
        self._told.set()
        if self._waiting is not None and not self._waiting.expired():
            self._waiting.reschedule(asyncio.get_running_loop().time())

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
        except TimeoutError:
            if not self._told.is_set():
                raise
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
        # The lock on the directory is taken first and given back last: no second process may open any file in it.
        directory = claim_directory(self._data_dir, self.tag)
        stack.callback(directory.release)
        node_tls, http_tls = self._tls()
        self.http = await stack.enter_async_context(
            HttpClient(tls=http_tls.client if http_tls else None, node_id=directory.own.node_id)
        )
        # Both ports are taken now and answer later, as other programs may have them.
        self.server = HttpServer(self.settings, tls=http_tls.server if http_tls else None)
        stack.push_async_callback(self.server.stop)
        await self.server.bind()
        port = await self._bind(node_tls, stack)
        timer = KillTimer()
        stack.callback(timer.close)
        # Nothing that is needed of this machine comes after this: from here on other nodes may count on this one.
        bootstrap = await self._formation(directory)
        setup, ports = (
            self._setup(directory, bootstrap),
            self._ports(directory, bootstrap, node_tls, port, timer, stack),
        )
        self.assembly = Assembly(setup, ports)
        self.replica, self.raft = self.assembly.replica, self.assembly.raft
        await self._open(stack, directory, self._parts(directory, bootstrap))

    async def _formation(self, directory: ClaimedDirectory) -> Bootstrap:
        """With whom this node starts. It may wait for a cluster to join; being told to stop ends that."""
        try:
            async with asyncio.timeout(0 if self._told.is_set() else None) as self._waiting:
                return await formation_of(
                    self.settings, self._data_dir, directory, self.http, join_url=self._join, watcher=self._watcher
                )
        finally:
            self._waiting = None

    def _setup(self, directory: ClaimedDirectory, bootstrap: Bootstrap) -> Setup:
        cluster, tasks = self.settings.cluster, self.settings.tasks
        return Setup(
            own=directory.own,
            url=self.settings.url,
            cluster_address=self.settings.cluster_address,
            peers=bootstrap.peers,
            form=form_of(self.settings, bootstrap),
            directory=self._data_dir,
            raft=RaftConfig(
                data_dir=self._data_dir / "raft",
                took_part=directory.took_part,
                election_min_ms=cluster.election_min_ms,
                election_max_ms=cluster.election_max_ms,
                heartbeat_ms=cluster.heartbeat_ms,
                proposal_timeout_ms=cluster.proposal_timeout_ms,
                snapshot_bytes_min=cluster.snapshot_bytes_min,
            ),
            observer_period_ms=cluster.observer_period_ms,
            limits=_limits(self.settings),
            run=_run_settings(self.settings),
            checkpoint_ms=tasks.checkpoint_ms,
            run_journal_bytes_max=tasks.run_journal_bytes_max,
        )

    def _ports(
        self,
        directory: ClaimedDirectory,
        bootstrap: Bootstrap,
        tls: Tls | None,
        port: ListeningPort,
        timer: KillTimer,
        stack: AsyncExitStack,
    ) -> Ports[Transport, Databases]:
        settings, cluster = self.settings, self.settings.cluster

        def transport(replica: Replica) -> Transport:
            return Transport(
                bootstrap.wire_id,
                directory.own,
                TransportConfig(host=cluster.host, port=cluster.port, dead_peer_ms=cluster.dead_peer_ms),
                tls=tls,
                port=port,
                guard=PeerPolicy(
                    admits=lambda host: admits(settings, host),
                    node_id_of=replica.node_id_of,
                    announced=replica.announced,
                ),
            )

        stall_tracker = open_stall_tracker(self._data_dir)
        stack.callback(stall_tracker.close)
        return Ports(
            clock=SystemClock(),
            random=SystemRandom(),
            disk=SystemDisk(),
            timer=timer,
            transport=transport,
            databases=self._databases,
            flags=Memory(settings.node.memory_available_bytes_min).flags,
            failed=self.fail,
            superseded=partial(self._superseded, directory),
            http=self.http,
            stall_tracker=stall_tracker,
        )

    def _databases(self, record: Callable[[], Record], deleted: Callable[[str], Awaitable[None]]) -> Databases:
        documents = self.settings.documents
        return Databases(
            self._data_dir / "databases",
            tag=self.tag,
            record=record,
            http=self.http,
            deleted=deleted,
            batch_documents_max=documents.replication_batch_documents_max,
            batch_bytes_max=documents.replication_batch_bytes_max,
            clean_s=documents.tombstone_cleanup_sec,
        )

    def _superseded(self, directory: ClaimedDirectory) -> None:
        try:
            note_superseded(self._data_dir, directory)
        except (OSError, IdentityError) as error:
            log.error("It cannot be noted that this directory may not be used again.", reason=str(error))

    def _parts(self, directory: ClaimedDirectory, bootstrap: Bootstrap) -> Services:
        return Services(
            settings=self.settings,
            tag=self.tag,
            own=directory.own,
            wire_id=bootstrap.wire_id,
            removed_by=lambda: self.assembly.transport.removed_by,
            replica=self.replica,
            raft=self.raft,
            heartbeat=self.assembly.heartbeat,
            databases=self.assembly.databases,
            supervisor=self.assembly.supervisor,
            http=self.http,
        )

    async def _open(self, stack: AsyncExitStack, directory: ClaimedDirectory, parts: Services) -> None:
        """Starts what was built, from the wire upwards; the stack stops it from the top downwards:

        1. The tasks stop and their claims are released, which takes everything below, and HTTP still answers.
        2. HTTP finishes its answers and closes.
        3. The loops end, the heartbeat last.
        4. Raft closes its files, then the transport its connections.
        """
        await self.assembly.transport.start()
        stack.push_async_callback(self.assembly.transport.stop)
        await self.raft.start()
        stack.push_async_callback(self.raft.stop)
        # Now that it has a log: a later start that finds none knows that it was lost, and this node's votes with it.
        await asyncio.to_thread(record_took_part, self._data_dir, directory)
        for name, loop in self.assembly.loops():
            self._run(stack, name, loop)
        # HTTP starts only once the record has been read and the loops run: what answers is a node that can serve.
        await self.server.start(parts)
        stack.push_async_callback(self.server.stop)
        stack.push_async_callback(self.assembly.supervisor.stop, STOP_TASKS_S)
        # The node announces itself last, with an address at which it answers by now.
        self._run(stack, "forming", self.assembly.announcer.run(), may_end=True)
        self._run(stack, "garbage collection", GarbageCollector(lambda: self.assembly.heartbeat.lease_left_ms).run())

    async def _bind(self, tls: Tls | None, stack: AsyncExitStack) -> ListeningPort:
        """The port for the other nodes, taken and not served yet."""
        host, port = self.settings.cluster.host, self.settings.cluster.port
        taken = ListeningPort(host, port, tls=tls)
        try:
            await taken.bind()
        except OSError as error:
            raise NodeFailed(
                f"Cannot listen for the other nodes on {host}, port {port} ({error.strerror or error}): another "
                "program may use the port. End it, or choose another with cluster.host and cluster.port."
            ) from error
        stack.callback(taken.close)
        return taken

    def _run(self, stack: AsyncExitStack, name: str, loop: Any, *, may_end: bool = False) -> None:
        """Runs a loop until the stack is unwound; a loop that fails ends the node."""

        async def end() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)  # `watched` has told what failed

        def failed(error: Exception) -> None:
            self.fail(str(error) if isinstance(error, EXPECTED) else f"The {name} failed ({error!r}); see the log.")

        task = watched(loop, name, failed, may_end=may_end, expected=EXPECTED)
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


def _limits(settings: Settings) -> ObserverLimits:
    cluster = settings.cluster
    return ObserverLimits(
        stabilization_ms=cluster.stabilization_time_sec * 1000,
        rotate_ms=cluster.time_before_rotating_preferred_node_sec * 1000,
        replace_ms=cluster.time_before_adding_replica_sec * 1000,
        distance_max=cluster.max_change_vector_distance,
        grace_min=cluster.move_to_new_responsible_node_grace_period_min,
    )


def _run_settings(settings: Settings) -> RunSettings:
    tasks = settings.tasks
    return RunSettings(
        batch_documents_max=tasks.batch_documents_max,
        batch_bytes_max=tasks.batch_bytes_max,
        backoff_min_ms=tasks.backoff_min_ms,
        backoff_max_ms=tasks.backoff_max_ms,
        sql=SqlLimits(connections_max=tasks.sql_connections_max, statement_timeout_ms=tasks.sql_statement_timeout_ms),
        script_processes_max=tasks.script_processes_max,
        script=ScriptLimits(time_ms_max=tasks.script_time_ms_max, memory_bytes_max=tasks.script_memory_bytes_max),
    )


async def run_node(settings: Settings, *, join: str | None = None, watcher: bool = False) -> int:
    """Runs a node until SIGTERM or SIGINT; the exit code of the process. Says why it ends."""
    logs.configure(settings.node.tag, settings.log.format, settings.log.level)
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
