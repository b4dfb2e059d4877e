"""What runs on which node: this node's runs, and those of others, asked for with a short timeout."""

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import msgspec
from aiohttp import web

from raftnode.decoding import UNREADABLE, JsonDecoder, from_json
from raftnode.http import Http, HttpError
from raftnode.record.model import Database, Record, Task, claim_key
from raftnode.web import views
from raftnode.web.parts import PARTS, Parts
from raftnode.web.requests import PAGE_MAX, Query
from raftnode.web.slices import SLICES, Object

ASK_TIMEOUT_S = 1.0
RUNS_PAGE = 500


class RunsThere(msgspec.Struct, frozen=True, rename="pascal"):
    """What `own_runs` of another node answers."""

    runs: dict[str, msgspec.Raw]
    next: str | None = None


_decoder: JsonDecoder[RunsThere] = JsonDecoder(RunsThere)


@dataclass
class Runs:
    """This node's runs; those of others, by node and then by claim key, read when they are asked for; and why a
    node's runs are not known."""

    parts: Parts
    by_node: dict[str, dict[str, msgspec.Raw]] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)

    def of(self, key: str, holder: str | None) -> tuple[dict[str, Any] | None, str | None]:
        """The run of a task on its holder, and why it is not known."""
        if holder is None:
            return None, None
        if holder == self.parts.tag:
            return run_here(self.parts, key), None
        run = self.by_node.get(holder, {}).get(key)
        return None if run is None else from_json(bytes(run)), self.unknown.get(holder)


def routes() -> list[web.RouteDef]:
    """This module's routes."""
    return [web.get("/status/runs", own_runs)]


async def own_runs(request: web.Request) -> web.Response:
    """This node's runs by claim key: the first `take` of those after the key `after`. `Next` is where the following
    page begins, null on the last one."""
    parts, query = request.app[PARTS], Query(request)
    after, take = query.text("after") or "", query.integer("take", PAGE_MAX, low=1, high=PAGE_MAX)
    left = sorted(key for key in parts.supervisor.claim_keys() if key > after)
    page = left[:take]
    runs = Object(_runs(parts, page))
    next_page = page[-1] if len(left) > take else None
    return await request.app[SLICES].answer(Object([("NodeTag", parts.tag), ("Runs", runs), ("Next", next_page)]))


async def gather_runs(request: web.Request, tasks: Iterable[tuple[Database, Task]]) -> Runs:
    """The runs of these tasks' holders; a holder that does not answer in time is named."""
    parts = request.app[PARTS]
    runs = Runs(parts)
    holders = await request.app[SLICES].all(_holders(parts.replica.record, tasks))
    others = {tag for tag in holders if tag not in (None, parts.tag)}
    await asyncio.gather(*(_ask(parts, tag, runs) for tag in sorted(others)))
    return runs


def run_here(parts: Parts, key: str) -> Any:
    """This node's run of the task of that claim key, as JSON; None if there is none."""
    return views.run(parts.supervisor.status_of(key))


def _runs(parts: Parts, keys: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """What has ended meanwhile is left out."""
    for key in keys:
        run = run_here(parts, key)
        if run is not None:
            yield key, run


def _holders(record: Record, tasks: Iterable[tuple[Database, Task]]) -> Iterator[str | None]:
    for database, task in tasks:
        claim = record.claims.get(claim_key(database.name, task.kind, task.name))
        yield claim.tag if claim is not None and claim.state == "Held" else None


async def _ask(parts: Parts, tag: str, runs: Runs) -> None:
    node = parts.replica.record.nodes.get(tag)
    if node is None:
        runs.unknown[tag] = f"Node {tag} holds the task and is not in the cluster any more."
        return
    try:
        async with asyncio.timeout(ASK_TIMEOUT_S):
            runs.by_node[tag] = await _pages(parts.http, f"{node.url}/status/runs")
    except TimeoutError:
        runs.unknown[tag] = f"Node {tag} holds the task, and did not say within {ASK_TIMEOUT_S:g} s how that is."
    except (HttpError, *UNREADABLE) as error:
        runs.unknown[tag] = f"Node {tag} holds the task, and its details are not known here: {error}."


async def _pages(http: Http, url: str) -> dict[str, msgspec.Raw]:
    """All runs of another node, a page at a time: reading one of any size at once would hold the loop."""
    runs: dict[str, msgspec.Raw] = {}
    after = ""
    while True:
        reply = await http.request("GET", f"{url}?after={quote(after)}&take={RUNS_PAGE}", timeout_s=ASK_TIMEOUT_S)
        page = _decoder.decode(reply.body)
        runs |= page.runs
        if page.next is None or page.next <= after:
            return runs
        after = page.next
