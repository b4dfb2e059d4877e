"""What runs on which node: this node's runs, and those of others, asked for with a short timeout."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from raftnode.http import HttpError
from raftnode.record.model import Database, Task, claim_key, to_json
from raftnode.web.parts import PARTS, Parts
from raftnode.web.requests import answer

ASK_TIMEOUT_S = 1.0


@dataclass
class Runs:
    """Runs by node, then by claim key; and why a node's runs are not known."""

    by_node: dict[str, dict[str, Any]] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)

    def of(self, key: str, holder: str | None) -> tuple[dict[str, Any] | None, str | None]:
        """The run of a task on its holder, and why it is not known."""
        if holder is None:
            return None, None
        return self.by_node.get(holder, {}).get(key), self.unknown.get(holder)


def routes() -> list[web.RouteDef]:
    """This module's routes."""
    return [web.get("/status/runs", own_runs)]


async def own_runs(request: web.Request) -> web.Response:
    """This node's runs by claim key."""
    parts = request.app[PARTS]
    return answer({"NodeTag": parts.tag, "Runs": runs_here(parts)})


def runs_here(parts: Parts) -> dict[str, Any]:
    """This node's runs by claim key, as JSON."""
    return {key: to_json(run) for key, run in sorted(parts.supervisor.status().items())}


async def gather_runs(parts: Parts, tasks: Iterable[tuple[Database, Task]]) -> Runs:
    """The runs of these tasks' holders; a holder that does not answer in time is named."""
    record = parts.replica.record
    keys = (claim_key(database.name, task.kind, task.name) for database, task in tasks)
    claims = [record.claims[key] for key in keys if key in record.claims]
    runs = Runs(by_node={parts.tag: runs_here(parts)})
    others = {claim.tag for claim in claims if claim.state == "Held" and claim.tag != parts.tag}
    await asyncio.gather(*(_ask(parts, tag, runs) for tag in sorted(others)))
    return runs


async def _ask(parts: Parts, tag: str, runs: Runs) -> None:
    node = parts.replica.record.nodes.get(tag)
    if node is None:
        runs.unknown[tag] = f"Node {tag} holds the task and is not in the cluster any more."
        return
    try:
        reply = await parts.http.request("GET", f"{node.url}/status/runs", timeout_s=ASK_TIMEOUT_S)
        runs.by_node[tag] = reply.json()["Runs"]
    except (HttpError, KeyError, TypeError) as error:
        runs.unknown[tag] = f"Node {tag} holds the task, and its details are not known here: {error}."
