"""Requests that this node cannot answer itself go to one that can, once: what was forwarded is not forwarded again."""

import uuid

import structlog
from aiohttp import web

from raftnode.foundation.http_client import HttpFailed, HttpUnreachable
from raftnode.foundation.names import fold
from raftnode.record.model import ClusterNode, Record
from raftnode.web.errors import ApiError, bad_request
from raftnode.web.request_bodies import whole
from raftnode.web.requests import COMMAND_BODY_BYTES_MAX, REQUEST_ID, answer
from raftnode.web.services import SERVICES
from tasks.kinds.registry import definable, known

log = structlog.get_logger(__name__)

FORWARDED = "Raftnode-Forwarded-By"
CHECK_TIMEOUT_S = 30.0
_KEPT = ("If-Match", REQUEST_ID)


async def by_one_that_knows(request: web.Request, kind: str) -> web.Response | None:
    """The answer of another node that can run the kind, None if this one can: only a kind can validate its
    configuration. Refuses what no node of the cluster can run, or none that answers."""
    if known(kind):
        return None
    services = request.app[SERVICES]
    record, failures = services.replica.record, []
    for node in [] if FORWARDED in request.headers else _able(record, kind, but=services.tag):
        try:
            reply = await _forwarded(request, node, timeout_s=CHECK_TIMEOUT_S)
        except HttpUnreachable as error:
            failures.append(f"{node.tag}: {error}")
            continue
        log.info("A task's definition was checked by another node, as this one lacks its kind.", kind=kind, by=node.tag)
        return reply
    if failures:
        raise bad_request(
            f"TaskType: this node has no task kind '{kind[:40]}', and the nodes that have it do not answer: "
            f"{'; '.join(failures)}. Try again when they do, or install the kind's package here."
        )
    raise bad_request(f"TaskType: {_nobody(record, kind, services.tag)}")


async def by_another(request: web.Request) -> web.Response:
    """The answer of another node, the leader if that is another, else a voter, to what this one cannot do itself."""
    services = request.app[SERVICES]
    nodes = [node for tag, node in sorted(services.replica.record.nodes.items()) if tag != services.tag]
    nodes.sort(key=lambda node: (node.tag != services.raft.status.leader, node.kind != "Member"))
    # A node that was asked and did not answer may have acted: under one id, a repeat elsewhere acts once.
    id, timeout_s, failures = str(uuid.uuid4()), services.settings.http.request_timeout_ms / 1000, []
    for node in [] if FORWARDED in request.headers else nodes:
        try:
            return await _forwarded(request, node, timeout_s=timeout_s, id=id)
        except HttpUnreachable as error:
            failures.append(f"{node.tag}: {error}")
    tried = "; ".join(failures) or "there is none"
    raise ApiError("NoLeaderException", f"Only another node can do this, and none answers: {tried}. Try again.")


async def by_node(request: web.Request, tag: str) -> web.Response:
    """The answer of that node, which alone can do what is asked."""
    services = request.app[SERVICES]
    node = services.replica.record.nodes.get(tag)
    if node is None or FORWARDED in request.headers:
        raise ApiError("NoLeaderException", f"Node {tag} must do this, and cannot be asked at the moment. Try again.")
    try:
        return await _forwarded(request, node, timeout_s=services.settings.http.request_timeout_ms / 1000)
    except HttpUnreachable as error:
        raise ApiError("NoLeaderException", f"Node {tag} must do this, and does not answer: {error}.") from None


async def by_leader(request: web.Request) -> web.Response | None:
    """The leader's answer to this request, or None on the leader itself, which answers it."""
    services = request.app[SERVICES]
    leader = services.raft.status.leader
    if leader == services.tag:
        return None
    node = services.replica.record.nodes.get(leader) if leader else None
    if node is None or FORWARDED in request.headers:
        raise ApiError("NoLeaderException", "No leader is known on this node at the moment. Try again.")
    try:
        return await _forwarded(request, node, timeout_s=services.settings.cluster.proposal_timeout_ms / 1000)
    except HttpUnreachable as error:
        raise ApiError("NoLeaderException", f"The leader {leader} did not answer: {error}. Try again.") from None


async def _forwarded(
    request: web.Request, node: ClusterNode, *, timeout_s: float, id: str | None = None
) -> web.Response:
    """What that node answers to the request, a refusal as well; `id` is the request's id if it has none. Raises
    HttpUnreachable."""
    services = request.app[SERVICES]
    headers = {FORWARDED: services.tag} | ({REQUEST_ID: id} if id else {})
    headers |= {name: request.headers[name] for name in _KEPT if name in request.headers}
    content = await whole(request, bytes_max=COMMAND_BODY_BYTES_MAX)
    url = node.url + request.path_qs
    try:
        reply = await services.http.request(
            request.method, url, body=content or None, headers=headers, timeout_s=timeout_s
        )
    except HttpFailed as refused:
        if not refused.type:
            raise HttpUnreachable(f"{url} answers {refused.status} {refused.message}, and not as a node") from None
        return answer(refused.answer, status=refused.status)
    return web.Response(status=reply.status, body=reply.body, content_type="application/json", charset="utf-8")


def _able(record: Record, kind: str, *, but: str) -> list[ClusterNode]:
    nodes = [node for tag, node in sorted(record.nodes.items()) if tag != but]
    return [node for node in nodes if fold(kind) in map(fold, node.kinds or ())]


def _nobody(record: Record, kind: str, here: str) -> str:
    return (
        f"no node of the cluster has the task kind '{kind[:40]}'; {here} knows: {', '.join(definable())}. Correct the "
        "kind, or install the package that has it on the nodes that are to run it "
        f"({', '.join(sorted(record.nodes))}: pip install it there, under the entry-point group raftnode.tasks), and "
        "start them again."
    )
