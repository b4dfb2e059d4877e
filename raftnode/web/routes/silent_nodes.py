"""Which nodes the leader does not hear: only it can tell, so every other node asks it."""

from aiohttp import web

from raftnode.foundation.decoding import DECODE_ERRORS, from_json
from raftnode.foundation.http_client import HttpError
from raftnode.web.requests import answer
from raftnode.web.routes.runs import ASK_TIMEOUT_S, SILENT
from raftnode.web.services import SERVICES, Services
from raftnode.web.views.cluster import SilentNodes

PATH = "/cluster/silence"


def routes() -> list[web.RouteDef]:
    """This module's routes."""
    return [web.get(PATH, own)]


async def own(request: web.Request) -> web.Response:
    """What this node knows as leader."""
    return answer(_own(request.app[SERVICES]))


async def silence(request: web.Request) -> SilentNodes:
    """What the leader knows, from any node."""
    services, asked_lately = request.app[SERVICES], request.app[SILENT]
    here = _own(services)
    leader = services.heartbeat.leader
    if here.silent is not None or leader is None or leader == services.tag:
        return here
    node = services.replica.record.nodes.get(leader)
    missing = SilentNodes(silent_unknown=f"Which nodes are silent is not known: the leader {leader} does not answer.")
    if node is None or leader in asked_lately:
        return missing
    try:
        reply = await services.http.request("GET", node.url + PATH, timeout_s=ASK_TIMEOUT_S)
        told = from_json(reply.body, SilentNodes)
    except (HttpError, *DECODE_ERRORS):
        asked_lately.missed(leader)
        return missing
    asked_lately.heard(leader)
    return told


def _own(services: Services) -> SilentNodes:
    leader = services.heartbeat.leader
    if services.heartbeat.role == "Leader":
        # The lease remembers nodes that have left the cluster.
        return SilentNodes(silent=services.heartbeat.silent_tags().intersection(services.replica.record.nodes))
    why = "there is no leader" if leader is None else f"only the leader {leader} knows"
    return SilentNodes(silent_unknown=f"Which nodes are silent is not known: {why}.")
