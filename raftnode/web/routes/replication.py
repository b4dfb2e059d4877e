"""Replication between nodes: where the receiving copy stands, and taking in what a sender has."""

from aiohttp import web

from raftnode.documents.replication.sender import BODY_BYTES_MAX, NODE_HEADER, accepted, receive
from raftnode.web.errors import ApiError
from raftnode.web.request_bodies import whole
from raftnode.web.requests import Query, answer
from raftnode.web.services import SERVICES
from raftnode.web.stores import store_to_read


def routes() -> list[web.RouteDef]:
    """This module's routes. Between nodes only; the database comes after the word, as in RavenDB's own."""
    return [
        web.get("/replication/{database}/accepted", get_accepted),
        web.post("/replication/{database}/documents", post_documents),
    ]


async def get_accepted(request: web.Request) -> web.Response:
    """How far the source's order was taken in here, and what this copy knows."""
    _of_this_cluster(request)
    store = await store_to_read(request)
    return answer(await accepted(store, Query(request).required("source")))


async def post_documents(request: web.Request) -> web.Response:
    """Takes in a batch. Idempotent."""
    _of_this_cluster(request)
    store = await store_to_read(request)
    # The limit is replication's own: a small http.body_bytes_max must not keep the group apart.
    payload = await whole(request, bytes_max=BODY_BYTES_MAX)
    return answer(await receive(store, payload, Query(request).text("destination")))


def _of_this_cluster(request: web.Request) -> None:
    """Refuses who is no node of the cluster as this node knows it. A node that has just joined tries again."""
    services, sender = request.app[SERVICES], request.headers.get(NODE_HEADER, "")
    if all(node.node_id != sender for node in services.replica.record.nodes.values()):
        if not sender:
            raise ApiError("NodeIdMismatchException", f"Only nodes replicate, and they send the header {NODE_HEADER}.")
        raise ApiError(
            "NodeIdMismatchException",
            f"The node with the id '{sender}' is not in the cluster as node {services.tag} knows it, and its documents "
            "are refused. A node that was removed, or whose cluster was formed again without it, has to join again "
            "with an empty data directory.",
        )
