"""Whether there is a leader, and if not, how many voters answer: without one nothing is claimed, moved or run."""

import asyncio

from aiohttp import web

from raftnode.web.routes.runs import answers
from raftnode.web.services import SERVICES
from raftnode.web.views.cluster import Quorum


async def quorum(request: web.Request) -> Quorum:
    """Whether this node knows a leader; if not, how many voters answer it, and what that means."""
    services = request.app[SERVICES]
    voters = sorted(node.tag for node in services.replica.record.nodes.values() if node.kind == "Member")
    leader = services.heartbeat.leader
    if leader is not None:
        return Quorum(leader=leader, voters=voters)
    others = [tag for tag in voters if tag != services.tag]
    heard = await asyncio.gather(*(answers(request, tag) for tag in others))
    answering = [tag for tag, well in zip(others, heard, strict=True) if well] + [services.tag] * (
        services.tag in voters
    )
    return Quorum(leader=None, voters=voters, answering=sorted(answering), sentence=_sentence(voters, answering))


def _sentence(voters: list[str], answering: list[str]) -> str:
    if not voters:
        return "No leader: the node is in no cluster yet."
    count = f"{len(answering)} of {len(voters)} voters answer{'s' * (len(answering) == 1)}"
    if 2 * len(answering) <= len(voters):
        return f"No leader: nothing runs; {count}."
    return f"No leader is known here: until one is, nothing is claimed or moved, and leases run out; {count}."
