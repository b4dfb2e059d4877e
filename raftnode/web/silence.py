"""Which nodes the leader does not hear: only it can tell, so every other node asks it."""

from aiohttp import web

from raftnode.foundation.decoding import UNREADABLE, from_json
from raftnode.foundation.http_client import HttpError
from raftnode.web.parts import PARTS, Parts
from raftnode.web.requests import answer
from raftnode.web.routes.runs import ASK_TIMEOUT_S, SILENT
from raftnode.web.views.cluster import Silence

PATH = "/cluster/silence"


def routes() -> list[web.RouteDef]:
    """This module's routes."""
    return [web.get(PATH, own)]


async def own(request: web.Request) -> web.Response:
    """What this node knows as leader."""
    return answer(_own(request.app[PARTS]))


async def silence(request: web.Request) -> Silence:
    """What the leader knows, from any node."""
    parts, asked_lately = request.app[PARTS], request.app[SILENT]
    here = _own(parts)
    leader = parts.heartbeat.leader
    if here.silent is not None or leader is None or leader == parts.tag:
        return here
    node = parts.replica.record.nodes.get(leader)
    missing = Silence(silent_unknown=f"Which nodes are silent is not known: the leader {leader} does not answer.")
    if node is None or leader in asked_lately:
        return missing
    try:
        reply = await parts.http.request("GET", node.url + PATH, timeout_s=ASK_TIMEOUT_S)
        told = from_json(reply.body, Silence)
    except (HttpError, *UNREADABLE):
        asked_lately.missed(leader)
        return missing
    asked_lately.heard(leader)
    return told


def _own(parts: Parts) -> Silence:
    if parts.heartbeat.role == "Leader":
        return Silence(silent=parts.heartbeat.silent_tags())
    return Silence(silent_unknown="Which nodes are silent is not known: there is no leader.")
