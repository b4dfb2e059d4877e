"""Whether there is a leader, and if not, how many voters answer: without one nothing is claimed, moved or run."""

import asyncio
from typing import Any

from aiohttp import web

from raftnode.web.parts import PARTS
from raftnode.web.routes.runs import answers


async def quorum(request: web.Request) -> dict[str, Any]:
    """{Leader, Voters, Answering, Sentence}: the last two are null while this node knows a leader; else the voters that
    answer this node, itself included, and what that means."""
    parts = request.app[PARTS]
    voters = sorted(node.tag for node in parts.replica.record.nodes.values() if node.kind == "Member")
    leader = parts.heartbeat.leader
    if leader is not None:
        return {"Leader": leader, "Voters": voters, "Answering": None, "Sentence": None}
    others = [tag for tag in voters if tag != parts.tag]
    heard = await asyncio.gather(*(answers(request, tag) for tag in others))
    answering = [tag for tag, well in zip(others, heard, strict=True) if well] + [parts.tag] * (parts.tag in voters)
    return {"Leader": None, "Voters": voters, "Answering": sorted(answering), "Sentence": _sentence(voters, answering)}


def _sentence(voters: list[str], answering: list[str]) -> str:
    if not voters:
        return "No leader: the node is in no cluster yet."
    count = f"{len(answering)} of {len(voters)} voters answer{'s' * (len(answering) == 1)}"
    if 2 * len(answering) <= len(voters):
        return f"No leader: nothing runs; {count}."
    return f"No leader is known here: until one is, nothing is claimed or moved, and leases run out; {count}."
