"""This node's view of everything, and whether it is fit to serve."""

import asyncio
import shutil

from aiohttp import web

from raftnode.documents.database_copies import DatabaseCopy
from raftnode.foundation.names import fold
from raftnode.liveness.resources import DESCRIPTORS_KEPT, descriptors_max, descriptors_used
from raftnode.record.model import Database, Record, Task
from raftnode.record.ownership import PlacementGroup, mentor_of, tasks_of
from raftnode.web.quorum import quorum
from raftnode.web.requests import Query, answer
from raftnode.web.routes.runs import ClusterRuns, gather_runs, run_here
from raftnode.web.routes.silent_nodes import silence
from raftnode.web.routes.topology import RAFTNODE_VERSION, SERVER_VERSION
from raftnode.web.services import SERVICES, Services
from raftnode.web.sliced_json import SLICES, JsonArray, JsonObject
from raftnode.web.views.base import members, view
from raftnode.web.views.cluster import Quorum, SilentNodes
from raftnode.web.views.status import (
    BuildVersion,
    ClusterStatus,
    DatabaseHead,
    Live,
    NodeStatus,
    NodeView,
    Ready,
)
from raftnode.web.views.tasks import TaskStatus, task_view

DISK_FREE_BYTES_MIN = 64 * 1024 * 1024
WITH_LEASE = ("Leader", "Follower")


def routes() -> list[web.RouteDef]:
    """This module's routes."""
    return [
        web.get("/status", status),
        web.get("/health/live", live),
        web.get("/health/ready", ready),
        web.get("/setup/alive", live),
        web.get("/build/version", build_version),
    ]


async def status(request: web.Request) -> web.Response:
    """The node, the cluster, and per database its topology and tasks with every reason. `database` narrows it."""
    services = request.app[SERVICES]
    record = services.replica.record
    name = Query(request).text("database")
    databases = [d for _, d in sorted(record.databases.items()) if name is None or fold(d.name) == fold(name)]
    copies = services.databases.status()
    tasks = ((database, task) for database in databases for task in tasks_of(record, database))
    runs, known, heard = await asyncio.gather(gather_runs(request, tasks), quorum(request), silence(request))
    shown = ((d.name, _database(services, record, d, copies.get(fold(d.name)), runs)) for d in databases)
    cluster = _cluster(record, heard, known)
    return await request.app[SLICES].answer(
        JsonObject([("Node", _node(services, record)), ("Cluster", cluster), ("Databases", JsonObject(shown))])
    )


async def live(request: web.Request) -> web.Response:
    """Always 200: the process answers."""
    return answer(Live(node_tag=request.app[SERVICES].tag))


async def ready(request: web.Request) -> web.Response:
    """200 when this node may serve and run tasks, else 503 with every reason why not."""
    services = request.app[SERVICES]
    reasons = not_ready(services)
    shown = Ready(ready=not reasons, node_tag=services.tag, role=services.heartbeat.role, reasons=reasons)
    return answer(shown, status=503 if reasons else 200)


async def build_version(request: web.Request) -> web.Response:
    """The version of the protocol for clients, and ours."""
    return answer(
        BuildVersion(
            product_version=".".join(SERVER_VERSION.split(".")[:2]),
            full_version=SERVER_VERSION,
            raftnode_version=RAFTNODE_VERSION,
        )
    )


def not_ready(services: Services) -> list[str]:
    """Why this node is not ready; empty when it is."""
    record, heartbeat, raft = services.replica.record, services.heartbeat, services.raft
    reasons = []
    if not record.nodes:
        reasons.append("The node is Passive: it is in no cluster yet.")
    elif (by := services.removed_by()) is not None:
        reasons.append(
            f"The node was removed from the cluster, as {by} says, and runs nothing. Stop it; to bring it back, empty "
            "its data directory and let it join again."
        )
    elif services.tag not in record.nodes:
        reasons.append(f"The cluster does not know node {services.tag}: it was removed, or has not joined yet.")
    elif not heartbeat.has_lease():
        why = heartbeat.complaint or "no leader has heard it lately"
        reasons.append(f"The node is {heartbeat.role} and has no lease: {why}.")
    elif heartbeat.role not in WITH_LEASE:
        reasons.append(f"The node is {heartbeat.role}.")
    status = raft.status
    if status.failure is not None:
        reasons.append(f"The node takes no part in consensus any more: {status.failure}")
    if status.applied_index < status.commit_index:
        reasons.append(f"The node has applied index {status.applied_index} of {status.commit_index} committed ones.")
    reasons += _short_of(services.settings.node.data_dir)
    faults = {name: copy.error for name, copy in services.databases.status().items() if copy.error}
    reasons += [f"Database '{name}' is faulted: {why}" for name, why in sorted(faults.items())]
    return reasons


def _short_of(data_dir: str) -> list[str]:
    reasons = []
    try:
        free_bytes = shutil.disk_usage(data_dir).free
        if free_bytes < DISK_FREE_BYTES_MIN:
            reasons.append(f"The disk is almost full: {free_bytes} bytes are free in {data_dir}.")
    except OSError as error:
        reasons.append(f"The data directory cannot be looked at: {error}.")
    used, most = descriptors_used(), descriptors_max()
    if used > most - DESCRIPTORS_KEPT:
        reasons.append(
            f"{used} of {most} file descriptors are in use, and {DESCRIPTORS_KEPT} are kept for the node itself: new "
            "HTTP connections are refused. Close some, or raise the limit (ulimit -n, LimitNOFILE=)."
        )
    return reasons


def _node(services: Services, record: Record) -> NodeStatus:
    node = record.nodes.get(services.tag)
    return NodeStatus(
        tag=services.tag,
        node_id=services.own.node_id,
        boot=services.own.boot,
        url=services.settings.url,
        cluster_address=services.settings.cluster_address,
        kind=node.kind if node else None,
        role=services.heartbeat.role,
        leader=services.heartbeat.leader,
        term=services.raft.status.term,
        has_lease=services.heartbeat.has_lease(),
        lease_left_ms=services.heartbeat.lease_left_ms,
        session=services.heartbeat.session,
        applied_index=services.raft.status.applied_index,
        commit_index=services.raft.status.commit_index,
        draining=node.draining if node else False,
        version=RAFTNODE_VERSION,
        not_ready=not_ready(services),
    )


def _cluster(record: Record, heard: SilentNodes, known: Quorum) -> ClusterStatus:
    return ClusterStatus(
        cluster_id=record.cluster_id,
        timings=record.timings,
        observer_suspended=record.observer.suspended,
        highly_available_tasks=record.highly_available_tasks,
        dynamic_nodes_distribution=record.dynamic_nodes_distribution,
        nodes={tag: view(NodeView, node, silent=heard.of(tag)) for tag, node in sorted(record.nodes.items())},
        silent_unknown=heard.silent_unknown,
        quorum=known,
    )


def _database(
    services: Services, record: Record, database: Database, copy: DatabaseCopy | None, runs: ClusterRuns
) -> JsonObject:
    topology = database.topology
    group = PlacementGroup(record, database)
    head = DatabaseHead(
        name=database.name,
        etag=database.etag,
        disabled=database.disabled,
        lock_mode=database.lock_mode,
        deletion_in_progress=dict(database.deletion_in_progress),
        topology=topology,
        mentors={tag: mentor_of(record, database, tag) for tag in (*topology.promotables, *topology.rehabs)},
        state_here=topology.state_of(services.tag),
        copy=copy,
    )
    tasks = JsonArray(_task(record, database, group, task, runs) for task in tasks_of(record, database))
    return JsonObject([*members(head), ("Tasks", tasks)])


def _task(record: Record, database: Database, group: PlacementGroup, task: Task, runs: ClusterRuns) -> TaskStatus:
    shown, _ = task_view(record, database, group, task, runs.of)
    key = database.claim_key(task)
    return view(TaskStatus, shown, run_here=run_here(runs.services, key))
