"""A request whose task kind this node lacks goes to a node that has it: only a kind can validate its configuration."""

import uuid

import structlog
from aiohttp import web

from raftnode.foundation.http_client import HttpFailed, HttpUnreachable
from raftnode.foundation.names import fold
from raftnode.record.model import Record
from raftnode.web.errors import ApiError, bad_request
from raftnode.web.request_bodies import whole
from raftnode.web.requests import COMMAND_BODY_BYTES_MAX, answer
from raftnode.web.services import SERVICES
from tasks.kinds.registry import kinds, known

log = structlog.get_logger(__name__)

FORWARDED = "raftnode-forwarded-by"
_KEPT = ("If-Match", "raft-request-id")


async def by_one_that_knows(request: web.Request, kind: str) -> web.Response | None:
    """The answer of another node that can run the kind, None if this one can. Refuses what no node of the cluster can
    run, or none that answers."""
    if known(kind):
        return None
    services = request.app[SERVICES]
    record, failures = services.replica.record, []
    able = [n for n in _able(record, kind) if n != services.tag] if FORWARDED not in request.headers else []
    headers = {name: request.headers[name] for name in _KEPT if name in request.headers} | {FORWARDED: services.tag}
    content = await whole(request, bytes_max=COMMAND_BODY_BYTES_MAX)
    for tag in able:
        url = record.nodes[tag].url + request.path_qs
        try:
            reply = await services.http.request(request.method, url, body=content, headers=headers)
        except HttpFailed as refused:
            return answer(refused.answer, status=refused.status)
        except HttpUnreachable as error:
            failures.append(f"{tag}: {error}")
            continue
        log.info("A task's definition was checked by another node, as this one lacks its kind.", kind=kind, by=tag)
        return web.Response(status=reply.status, body=reply.body, content_type="application/json")
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
    headers = {FORWARDED: services.tag, "raft-request-id": str(uuid.uuid4())}
    headers |= {name: request.headers[name] for name in _KEPT if name in request.headers}
    timeout_s = services.settings.http.request_timeout_ms / 1000
    failures = []
    for node in nodes if FORWARDED not in request.headers else []:
        try:
            reply = await services.http.request(
                request.method, node.url + request.path_qs, headers=headers, timeout_s=timeout_s
            )
        except HttpFailed as refused:
            return answer(refused.answer, status=refused.status)
        except HttpUnreachable as error:
            failures.append(f"{node.tag}: {error}")
        else:
            return web.Response(status=reply.status, body=reply.body, content_type="application/json")
    tried = "; ".join(failures) or "there is none"
    raise ApiError("NoLeaderException", f"Only another node can do this, and none answers: {tried}. Try again.")


def _able(record: Record, kind: str) -> list[str]:
    return [tag for tag, node in sorted(record.nodes.items()) if fold(kind) in (fold(one) for one in node.kinds or ())]


def _nobody(record: Record, kind: str, here: str) -> str:
    return (
        f"no node of the cluster has the task kind '{kind[:40]}'; {here} knows: {', '.join(kinds())}. Correct the "
        "kind, or install the package that has it on the nodes that are to run it "
        f"({', '.join(sorted(record.nodes))}: pip install it there, under the entry-point group raftnode.tasks), and "
        "start them again."
    )
