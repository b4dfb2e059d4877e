"""The cluster's nodes: joining, leaving, voters and watchers, the leader."""

import asyncio
import re
import string
from collections.abc import Iterator

import structlog
from aiohttp import web

from raftnode.consensus.raft import Add, Peer, Remove
from raftnode.foundation import addresses
from raftnode.record.commands import AddNode, RemoveNode, SetDraining, SetNodeKind
from raftnode.record.model import ClusterNode, CommandResult, NodeKind, Record
from raftnode.record.ownership import PlacementGroup, task_of
from raftnode.web.commit import APPLY_TIMEOUT_MS, Change, commit, commit_change, first_result, unless_repeated
from raftnode.web.errors import ApiError, bad_request
from raftnode.web.forwarding import by_another
from raftnode.web.requests import Input, Query, answer, body_if_any
from raftnode.web.routes.topology import CLUSTER_ETAG, RAFTNODE_VERSION, SERVER_VERSION
from raftnode.web.services import SERVICES, Services
from raftnode.web.sliced_json import SLICES
from raftnode.web.views.cluster import (
    AppliedView,
    ClusterChanged,
    ClusterTopology,
    Joined,
    LeaderView,
    NodeInfo,
    cluster_topology,
)

log = structlog.get_logger(__name__)

NODE_ID_LENGTH_MAX = 256
DRAIN_S = 30
WAIT_S_MAX = 60


class JoinInput(Input, frozen=True, kw_only=True):
    """What a node that joins says of itself."""

    tag: str | None = None
    url: str | None = None
    cluster_address: str | None = None
    node_id: str | None = None
    watcher: bool = False


def routes() -> list[web.RouteDef]:
    """This module's routes."""
    return [
        web.get("/cluster/node-info", node_info),
        web.put("/admin/cluster/node", add_node),
        web.delete("/admin/cluster/node", remove_node),
        web.post("/admin/cluster/promote", promote),
        web.post("/admin/cluster/demote", demote),
        web.post("/admin/cluster/reelect", reelect),
        web.get("/rachis/waitfor", wait_for),
    ]


async def node_info(request: web.Request) -> web.Response:
    """Who this node is."""
    services = request.app[SERVICES]
    record = services.replica.record
    return answer(
        NodeInfo(
            node_tag=services.tag,
            topology_id=record.cluster_id,
            server_id=services.own.node_id,
            url=services.settings.url,
            cluster_address=services.settings.cluster_address,
            current_state=services.heartbeat.role,
            server_role=record.nodes[services.tag].kind if services.tag in record.nodes else "None",
            build_version=RAFTNODE_VERSION,
            raven_version=SERVER_VERSION,
        )
    )


async def add_node(request: web.Request) -> web.Response:
    """A node joins, as a watcher or as a Promotable, which is promoted once it has caught up: an empty voter would
    make votes wait for it. A repeat by the same node gets the same answer, so that joining may be tried again."""
    services = request.app[SERVICES]
    first = await first_result(request)
    if first is not None:
        return _joined(request, str(first.value), first.index)
    node = await _joining_node(request)
    if _known(services.replica.record, node):
        return _joined(request, node.tag, services.replica.record.index)
    peer = Peer(node.tag, node.cluster_address, voter=False, node_id=node.node_id)
    try:
        result = await commit_change(request, (Add(peer), AddNode(node=node)))
    except ApiError:
        if not _known(services.replica.record, node):
            raise
        return _joined(request, node.tag, services.replica.record.index)
    log.info("A node has joined the cluster, as it asked to.", tag=node.tag, url=node.url, kind=node.kind)
    return _joined(request, node.tag, result.index)


async def remove_node(request: web.Request) -> web.Response:
    """A node leaves the cluster. It is drained first; `force=true` removes it at once, and its tasks then wait until
    its claims are released or void."""
    services = request.app[SERVICES]
    query = Query(request)
    tag, force = query.required("nodeTag"), query.flag("force", False)

    async def build() -> Change:
        the_node(services.replica.record, tag)
        _refuse_last_voter(services.replica.record, tag, "Watcher")
        return Remove(tag), RemoveNode(tag=tag)

    change = await unless_repeated(request, build)
    if isinstance(change, CommandResult):
        return _changed(request, change.index)
    if tag == services.tag:
        # A node cannot see its own removal.
        return await by_another(request)
    if not force:
        await commit(request, SetDraining(tag=tag, draining=True), part="drain")
        await _drained(request, tag)
    await _lead_elsewhere(services, tag)
    result = await commit_change(request, change)
    log.info("A node was removed from the cluster, as an operator asked.", tag=tag)
    return _changed(request, result.index)


async def promote(request: web.Request) -> web.Response:
    """A watcher becomes a voter."""
    return await _set_kind(request, "Member")


async def demote(request: web.Request) -> web.Response:
    """A voter becomes a watcher."""
    return await _set_kind(request, "Watcher")


async def reelect(request: web.Request) -> web.Response:
    """The leader hands over to another voter, or to `nodeTag`."""
    services = request.app[SERVICES]
    tag = Query(request).text("nodeTag")
    if tag is not None and the_node(services.replica.record, tag).kind != "Member":
        raise bad_request(f"Node '{tag}' is not a voter and cannot lead. Promote it first.")
    if len([n for n in services.replica.record.nodes.values() if n.kind == "Member"]) < 2:
        raise bad_request("This cluster has one voter; there is nobody to hand over to. Add a node first.")
    await services.raft.transfer_leadership(tag)
    return answer(LeaderView(leader=services.raft.status.leader, term=services.raft.status.term))


async def wait_for(request: web.Request) -> web.Response:
    """Answers once this node has applied the index."""
    services = request.app[SERVICES]
    query = Query(request)
    index = query.integer("index")
    timeout_ms = int(min(query.timespan_s("timeout", 15), WAIT_S_MAX) * 1000)
    try:
        await services.raft.wait_applied(index, timeout_ms)
    except TimeoutError:
        applied = services.raft.status.applied_index
        message = f"This node has applied index {applied} and not {index} within {timeout_ms} ms. Try again."
        raise ApiError("TimeoutException", message) from None
    return answer(AppliedView(applied_index=services.raft.status.applied_index))


def the_node(record: Record, tag: str, *, called: str = "Node") -> ClusterNode:
    """The cluster node of that tag; answers 404 if there is none."""
    node = record.nodes.get(tag)
    if node is None:
        known = ", ".join(sorted(record.nodes)) or "none"
        raise ApiError("NodeDoesNotExistException", f"{called} '{tag}' is not in the cluster. Known nodes: {known}.")
    return node


async def _joining_node(request: web.Request) -> ClusterNode:
    query = Query(request)
    said = await body_if_any(request, JoinInput) or JoinInput()
    url = (said.url or query.text("url") or "").rstrip("/")
    address = said.cluster_address or query.text("clusterAddress") or ""
    node_id = said.node_id or query.text("nodeId") or ""
    _check("Url", url, addresses.is_url(url), "http://host:port")
    _check("ClusterAddress", address, addresses.is_address(address), "host:port")
    _check("NodeId", node_id, not node_id or _is_node_id(node_id), "the id in the node's data directory")
    tag = query.text("tag") if said.tag is None else said.tag
    services = request.app[SERVICES]
    if url.startswith("https://") != services.settings.secured:
        ours = "https" if services.settings.secured else "http"
        raise bad_request(f"The joining node's url {url[:80]!r} must begin with {ours}://, as this cluster's do.")
    if services.replica.record.cluster_id == "":
        raise ApiError("NoLeaderException", "This node's cluster is not formed yet. Try again in a moment.")
    watcher = said.watcher or query.flag("watcher", False)
    return ClusterNode(
        tag=_free_tag(services.replica.record) if tag is None else tag,
        url=url,
        cluster_address=address,
        node_id=node_id,
        kind="Watcher" if watcher else "Promotable",
    )


def _check(name: str, value: str, fits: bool, form: str) -> None:
    """Refuses an address that no node could be reached at: once in the cluster, every other node would try to."""
    if not fits:
        shown = f"is {value[:80]!r}" if value else "is missing"
        raise bad_request(
            f"The joining node's '{name}' {shown}; it must be {form}. Start the node with: raftnode run --join URL."
        )


def _is_node_id(text: str) -> bool:
    return len(text) <= NODE_ID_LENGTH_MAX and re.fullmatch(r"[0-9a-zA-Z-]+", text) is not None


def _free_tag(record: Record) -> str:
    free = [letter for letter in string.ascii_uppercase if letter not in record.nodes]
    if not free:
        raise bad_request("Every one-letter tag is taken. Give the node a tag of two to four capital letters.")
    return free[0]


def _known(record: Record, node: ClusterNode) -> bool:
    """Whether the node is in the cluster already: it has joined, or an operator announced it, and it has no id yet."""
    present = record.nodes.get(node.tag)
    if present is None or node.node_id == "":
        return False
    if present.node_id == "":
        announced = (present.url, present.cluster_address, present.kind)
        return announced == (node.url, node.cluster_address, node.kind)
    return (present.node_id, present.cluster_address) == (node.node_id, node.cluster_address)


def _joined(request: web.Request, tag: str, index: int) -> web.Response:
    record = request.app[SERVICES].replica.record
    return answer(
        Joined(
            raft_command_index=index,
            node_tag=tag,
            cluster_id=record.cluster_id,
            wire_id=request.app[SERVICES].wire_id,
            timings=record.timings,
            nodes=[node for _, node in sorted(record.nodes.items())],
            topology=_topology(request),
        )
    )


def _changed(request: web.Request, index: int) -> web.Response:
    return answer(ClusterChanged(raft_command_index=index, topology=_topology(request)))


def _topology(request: web.Request) -> ClusterTopology:
    return cluster_topology(request.app[SERVICES].replica.record, request.app[CLUSTER_ETAG].value)


async def _set_kind(request: web.Request, kind: NodeKind) -> web.Response:
    services = request.app[SERVICES]
    tag = Query(request).required("nodeTag")

    async def build() -> Change | None:
        node = the_node(services.replica.record, tag)
        if node.kind == kind:
            # This node may only not have heard yet that it is another by now.
            await services.raft.wait_applied(await services.raft.barrier(), APPLY_TIMEOUT_MS)
            node = the_node(services.replica.record, tag)
        if node.kind == kind:
            return None
        _refuse_last_voter(services.replica.record, tag, kind)
        peer = Peer(tag, node.cluster_address, voter=kind == "Member", node_id=node.node_id)
        return Add(peer), SetNodeKind(tag=tag, kind=kind)

    change = await unless_repeated(request, build)
    index = services.replica.record.index
    if isinstance(change, CommandResult):
        index = change.index
    elif change is not None:
        if kind != "Member":
            await _lead_elsewhere(services, tag)
        index = (await commit_change(request, change)).index
    return _changed(request, index)


async def _lead_elsewhere(services: Services, tag: str) -> None:
    """A leader can neither remove nor demote itself: another one takes over first."""
    if services.raft.status.leader == tag:
        await services.raft.transfer_leadership(None)


def _refuse_last_voter(record: Record, tag: str, kind: NodeKind) -> None:
    voters = [node.tag for node in record.nodes.values() if node.kind == "Member"]
    if kind != "Member" and voters == [tag]:
        raise bad_request(f"Node '{tag}' is the last voter and stays one. Add or promote another first.")


async def _drained(request: web.Request, tag: str) -> None:
    """Waits until the node holds only tasks that stay with it however long one waits."""
    services, slices = request.app[SERVICES], request.app[SLICES]
    try:
        async with asyncio.timeout(DRAIN_S):
            while True:
                seen = services.replica.record
                if await slices.first(_leaving(seen, tag)) is None:
                    return
                await services.replica.until(lambda record: record is not seen)  # noqa: B023 (called before it changes)
    except TimeoutError:
        leaving = await slices.all(_leaving(services.replica.record, tag))
        held = ", ".join(sorted(key for key in leaving if key is not None)[:10])
        message = (
            f"Node '{tag}' is draining and still holds after {DRAIN_S} s: {held}. Try again, or remove it with "
            "force=true: its tasks then wait until its claims end."
        )
        raise ApiError("TimeoutException", message) from None


def _leaving(record: Record, tag: str) -> Iterator[str | None]:
    """The keys of the tasks that the node holds and must hand over, with a None for each claim that is none of them."""
    groups: dict[str, PlacementGroup] = {}
    for key in record.held.values():
        yield key if record.claims[key].tag == tag and _goes(record, key, tag, groups) else None


def _goes(record: Record, key: str, tag: str, groups: dict[str, PlacementGroup]) -> bool:
    found = task_of(record, key)
    if found is None:
        return True
    database, task = found
    if database.name not in groups:
        groups[database.name] = PlacementGroup(record, database)
    return groups[database.name].place(task)[0] != tag
