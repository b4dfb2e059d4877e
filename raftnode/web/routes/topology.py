"""What clients know of the cluster: topologies with etags that only grow, and the header that tells of a newer one."""

import re
from importlib.metadata import version

from aiohttp import web

from raftnode.record.commands import Changes
from raftnode.record.model import NAME_LENGTH_MAX, Database, Record
from raftnode.web.errors import ApiError, Handler
from raftnode.web.requests import Query, answer, etag_of
from raftnode.web.routes.silent_nodes import silence
from raftnode.web.services import SERVICES, Services
from raftnode.web.views import cluster as views
from raftnode.web.views.cluster import ClusterView, PeerConnection
from raftnode.web.views.databases import ClientConfiguration, DatabaseTopology, MemberAddress

VERSION_HEADER = "Raven-Server-Version"
SERVER_VERSION = "7.2.0"
"""The version of RavenDB whose protocol this server speaks; clients check it."""

RAFTNODE_VERSION = version("raftnode")
REFRESH_HEADER = "Refresh-Topology"
OWN_ETAG_PATHS = ("/topology", "/cluster/topology")
_DATABASE_PATH = re.compile(r"/databases/([^/]+)/")


class ClusterEtag:
    """The etag of the cluster's topology on this node: the log index up to which it is known to be complete.

    It grows with every change of a node's tag, address or kind. Nodes may count differently after a restart, but an
    etag always covers every change up to it, which is all that clients rely on.
    """

    def __init__(self, record: Record) -> None:
        self.value = record.index
        self._seen = _shape(record)

    def __call__(self, record: Record, changes: Changes) -> None:
        """The replica's listener."""
        if changes.cluster and (shape := _shape(record)) != self._seen:
            self._seen = shape
            self.value = record.index


def routes() -> list[web.RouteDef]:
    """This module's routes."""
    return [
        web.get("/topology", database_topology),
        web.get("/cluster/topology", cluster_topology),
        web.get("/databases/{database}/configuration/client", client_configuration),
    ]


async def database_topology(request: web.Request) -> web.Response:
    """The Members of a database's group. Clients write to every node listed, so Rehabs and Promotables are not."""
    services = request.app[SERVICES]
    name = Query(request).required("name")
    record = services.replica.record
    database = record.database(name)
    if database is None:
        raise database_missing(name)
    nodes = [
        MemberAddress(url=record.nodes[tag].url, cluster_tag=tag, database=database.name)
        for tag in database.topology.members
        if tag in record.nodes
    ]
    return answer(DatabaseTopology(nodes=nodes, etag=database_etag(request.app, database)))


async def cluster_topology(request: web.Request) -> web.Response:
    """The cluster's nodes, its leader, and this node's role."""
    services = request.app[SERVICES]
    record = services.replica.record
    etag = request.app[CLUSTER_ETAG].value
    heard = await silence(request)
    return answer(
        ClusterView(
            topology=views.cluster_topology(record, etag),
            etag=etag,
            leader=services.heartbeat.leader,
            current_state=services.heartbeat.role,
            node_tag=services.tag,
            current_term=services.raft.status.term,
            status={
                tag: PeerConnection(name=tag, connected=not heard.of(tag))
                for tag in record.nodes
                if tag != services.tag
            },
        )
    )


async def client_configuration(request: web.Request) -> web.Response:
    """There is no client configuration in a database record: the answer says so and never asks for a refresh."""
    name = request.match_info["database"]
    if request.app[SERVICES].replica.record.database(name) is None:
        raise database_missing(name)
    return answer(ClientConfiguration())


def database_etag(app: web.Application, database: Database) -> int:
    """The etag of a database's topology: it grows when the group changes, and when an address does."""
    return max(database.topology.stamp.index, app[CLUSTER_ETAG].value)


def database_missing(name: str) -> ApiError:
    """The answer by which official clients know that there is no such database."""
    shown = name[:NAME_LENGTH_MAX]
    return ApiError(
        "DatabaseDoesNotExistException",
        f"Database '{shown}' does not exist. Create it first, or correct the name.",
        status=503,
        headers={"Database-Missing": shown.encode("unicode_escape").decode("ascii")},
    )


async def versioned(_: web.Request, response: web.StreamResponse) -> None:
    """Adds the server's version to every reply, before its first byte."""
    response.headers[VERSION_HEADER] = SERVER_VERSION


@web.middleware
async def announce(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Adds Refresh-Topology where the caller's topology is old."""
    response = await handler(request)
    if response.prepared:
        return response
    etag = etag_of(request.headers.get("Topology-Etag"))
    if (
        etag is not None
        and re.fullmatch(r"-?\d{1,19}", etag, re.ASCII)
        and request.path.rstrip("/") not in OWN_ETAG_PATHS
    ):
        current = _current_etag(request)
        if current is not None and int(etag) < current:
            response.headers[REFRESH_HEADER] = "true"
    return response


def _current_etag(request: web.Request) -> int | None:
    match = _DATABASE_PATH.match(request.path)
    if match is None:
        return request.app[CLUSTER_ETAG].value
    services: Services = request.app[SERVICES]
    database = services.replica.record.database(match[1])
    return database_etag(request.app, database) if database else None


def _shape(record: Record) -> frozenset[tuple[str, str, str]]:
    return frozenset((node.tag, node.url, node.kind) for node in record.nodes.values())


CLUSTER_ETAG = web.AppKey("cluster_etag", ClusterEtag)
