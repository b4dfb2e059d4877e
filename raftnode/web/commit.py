"""How a request changes the record: propose, wait until this node has applied it, answer."""

import asyncio
import contextlib
from collections.abc import Iterable

import msgspec
import structlog
import xxhash
from aiohttp import web

from raftnode.decoding import UNREADABLE, from_json
from raftnode.http import HttpError, HttpFailed
from raftnode.record.commands import Command, Entry, Refused
from raftnode.record.model import Result
from raftnode.web.bodies import whole
from raftnode.web.errors import ApiError, of_result
from raftnode.web.parts import PARTS, Parts
from raftnode.web.requests import REQUEST_ID, request_id

log = structlog.get_logger(__name__)

APPLY_TIMEOUT_MS = 5_000
MEMBERS_TIMEOUT_S = 3.0


async def commit(request: web.Request, command: Command, *, part: str = "") -> Result:
    """The command's result, once this node has applied it too: whoever reads here next sees it.

    Works from any node. A repeated raft-request-id takes effect once; `part` tells apart several commands of one
    request. Raises ApiError when the command is refused, Unavailable when the cluster did not answer.
    """
    parts = request.app[PARTS]
    id = request_id(request)
    result = await parts.replica.propose(
        command,
        timeout_ms=parts.settings.cluster.proposal_timeout_ms,
        request_id=f"{id}/{part}" if id and part else id,
        asked=await asked(request) if id else "",
    )
    return await settled(parts, result)


async def asked(request: web.Request) -> str:
    """A hash of what the request asks for. Not of the command: that has what this node adds, like the time or a new id.
    How the same JSON is spelled, the order of query values, and the request id do not count."""
    content = await whole(request)
    with contextlib.suppress(*UNREADABLE):
        content = msgspec.json.encode(from_json(content), order="sorted") if content else content
    values = sorted((name.lstrip("?").lower(), value) for name, value in request.query.items())
    where = [request.method, request.path.lower(), [pair for pair in values if pair[0] != REQUEST_ID]]
    return xxhash.xxh3_64_hexdigest(msgspec.json.encode([*where, request.headers.get("If-Match")]) + content)


def is_repeat(request: web.Request, *, part: str = "") -> bool:
    """Whether a request of this id took effect already, so that what it needs may be gone: it gets its first answer."""
    id = request_id(request)
    known = request.app[PARTS].replica.record.requests
    return id is not None and (f"{id}/{part}" if part else id) in known


def rehearse(request: web.Request, commands: Iterable[Command]) -> None:
    """Refuses the request before any of its commands is proposed, if one would be refused as things stand."""
    parts = request.app[PARTS]
    record = parts.replica.record
    try:
        for command in commands:
            record = command.apply(record, Entry(record.index + 1, parts.raft.term)).record
    except Refused as refused:
        raise of_result(refused.error) from None


async def settled(parts: Parts, result: Result) -> Result:
    """The result after this node has applied its index; a refusal is raised."""
    if result.error is not None:
        raise of_result(result.error)
    try:
        await parts.raft.wait_applied(result.index, APPLY_TIMEOUT_MS)
    except TimeoutError:
        log.info(
            "A command was answered before this node has applied it, as this node lags behind.", index=result.index
        )
    return result


async def wait_on_nodes(parts: Parts, tags: Iterable[str], index: int) -> None:
    """Waits, for a short time, until the other nodes have applied the index too: clients go round all of them."""
    nodes = parts.replica.record.nodes
    urls = {tag: nodes[tag].url for tag in tags if tag != parts.tag and tag in nodes}
    await asyncio.gather(*(_wait_on_node(parts, tag, url, index) for tag, url in urls.items()))


async def _wait_on_node(parts: Parts, tag: str, url: str, index: int) -> None:
    try:
        await parts.http.request("GET", f"{url}/rachis/waitfor?index={index}", timeout_s=MEMBERS_TIMEOUT_S)
    except HttpError as error:
        log.info("A command was answered before every node has applied it.", tag=tag, index=index, reason=str(error))


async def at_leader(request: web.Request) -> web.Response | None:
    """The leader's answer to this request, or None on the leader itself, which answers it."""
    parts = request.app[PARTS]
    leader = parts.raft.leader
    if leader == parts.tag:
        return None
    node = parts.replica.record.nodes.get(leader) if leader else None
    if node is None or FORWARDED in request.headers:
        raise ApiError("NoLeaderException", "No leader is known on this node at the moment. Try again.")
    try:
        reply = await parts.http.request(
            request.method,
            f"{node.url}{request.path_qs}",
            body=await whole(request),
            headers={FORWARDED: parts.tag},
            timeout_s=parts.settings.cluster.proposal_timeout_ms / 1000,
        )
    except HttpFailed as failed:
        raise ApiError(failed.type.rpartition(".")[2], failed.message, status=failed.status) from None
    except HttpError as error:
        raise ApiError("NoLeaderException", f"The leader {leader} did not answer: {error}. Try again.") from None
    return web.Response(status=reply.status, body=reply.body, content_type="application/json", charset="utf-8")


FORWARDED = "Raftnode-Forwarded-By"
