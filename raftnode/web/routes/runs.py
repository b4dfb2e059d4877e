"""What runs on which node: this node's runs, and those of others, asked for with a short timeout.

A task's state, error and lag are the holder's to tell, and any node may be asked for them: it asks the holders. A node
that has just not answered is not asked again for a moment, so that a frozen one does not slow every answer down. What
every node knows by itself stands in the record: see `record.model.Progress`.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

import msgspec
from aiohttp import web

from raftnode.foundation.decoding import DECODE_ERRORS, JsonDecoder
from raftnode.foundation.http_client import HttpClient, HttpError, HttpUnreachable
from raftnode.record.model import Database, Record, Task
from raftnode.web.requests import PAGE_MAX, Query
from raftnode.web.services import SERVICES, Services
from raftnode.web.sliced_json import SLICES, JsonObject
from raftnode.web.views.runs import RunsPage, RunView
from raftnode.web.views.runs import run as run_view

ASK_TIMEOUT_S = 0.5
SILENT_S = 2.0
"""A node that did not answer is taken not to answer for so long."""
RUNS_PAGE = 500


_page_decoder: JsonDecoder[RunsPage] = JsonDecoder(RunsPage)
_run_decoder: JsonDecoder[RunView] = JsonDecoder(RunView)


@dataclass
class ClusterRuns:
    """This node's runs; those of others, by node and then by claim key, read when they are asked for; and why a
    node's runs are not known."""

    services: Services
    by_node: dict[str, Mapping[str, msgspec.Raw]] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)
    details: bool = False

    def of(self, key: str, holder: str | None) -> tuple[RunView | None, str | None]:
        """The run of a task on its holder, here if it has none, and why it is not known."""
        if holder is None or holder == self.services.tag:
            return run_here(self.services, key, details=self.details), None
        run = self.by_node.get(holder, {}).get(key)
        try:
            return None if run is None else _run_decoder.decode(run), self.unknown.get(holder)
        except DECODE_ERRORS as error:
            return None, _not_known(holder, error)


class SilentUntil:
    """The nodes that did not answer lately, and until when, in s of the loop's clock, that is believed."""

    def __init__(self) -> None:
        self._until_s: dict[str, float] = {}

    def __contains__(self, tag: str) -> bool:
        return asyncio.get_running_loop().time() < self._until_s.get(tag, 0.0)

    def heard(self, tag: str) -> None:
        """The node has answered."""
        self._until_s.pop(tag, None)

    def missed(self, tag: str) -> None:
        """The node has not answered."""
        self._until_s[tag] = asyncio.get_running_loop().time() + SILENT_S


SILENT = web.AppKey("silent", SilentUntil)


def routes() -> list[web.RouteDef]:
    """This module's routes."""
    return [web.get("/status/runs", own_runs)]


async def own_runs(request: web.Request) -> web.Response:
    """This node's runs by claim key: the first `take` of those after the key `after`. `Next` is where the following
    page begins, null on the last one. With `key` the one of that task, with all that it has skipped."""
    services, query = request.app[SERVICES], Query(request)
    after, take = query.text("after") or "", query.integer("take", PAGE_MAX, low=1, high=PAGE_MAX)
    key = query.text("key")
    if key is not None:
        run = run_here(services, key, details=True)
        found = [] if run is None else [(key, run)]
        return await request.app[SLICES].answer(
            JsonObject([("NodeTag", services.tag), ("Runs", JsonObject(found)), ("Next", None)])
        )
    left = sorted(key for key in services.supervisor.claim_keys() if key > after)
    page = left[:take]
    runs = JsonObject(_runs(services, page))
    next_page = page[-1] if len(left) > take else None
    return await request.app[SLICES].answer(
        JsonObject([("NodeTag", services.tag), ("Runs", runs), ("Next", next_page)])
    )


async def gather_run(request: web.Request, database: Database, task: Task) -> ClusterRuns:
    """The run of one task, with all its details."""
    return await gather_runs(request, [(database, task)], key=database.claim_key(task))


async def gather_runs(
    request: web.Request, tasks: Iterable[tuple[Database, Task]], *, key: str | None = None
) -> ClusterRuns:
    """The runs of these tasks' holders, or the one under `key` with all its details; a holder that does not answer in
    time is named."""
    services = request.app[SERVICES]
    runs = ClusterRuns(services, details=key is not None)
    holders = await request.app[SLICES].all(_holders(services.replica.record, tasks))
    others = {tag for tag in holders if tag not in (None, services.tag)}
    await asyncio.gather(*(_ask(request, tag, key, runs) for tag in sorted(others)))
    return runs


async def answers(request: web.Request, tag: str) -> bool:
    """Whether another node answers at all."""
    services, silent = request.app[SERVICES], request.app[SILENT]
    node = services.replica.record.nodes.get(tag)
    if node is None or tag in silent:
        return False
    try:
        await services.http.request("GET", f"{node.url}/health/live", timeout_s=ASK_TIMEOUT_S)
    except HttpError:
        silent.missed(tag)
        return False
    silent.heard(tag)
    return True


def run_here(services: Services, key: str, *, details: bool = False) -> RunView | None:
    """This node's run of the task of that claim key; None if there is none. The documents that it has skipped,
    which may be many, are details."""
    return run_view(services.supervisor.status_of(key), details=details)


def _runs(services: Services, keys: Iterable[str]) -> Iterator[tuple[str, RunView]]:
    """What has ended meanwhile is left out."""
    for key in keys:
        run = run_here(services, key)
        if run is not None:
            yield key, run


def _holders(record: Record, tasks: Iterable[tuple[Database, Task]]) -> Iterator[str | None]:
    for database, task in tasks:
        claim = record.claims.get(database.claim_key(task))
        yield claim.tag if claim is not None and claim.state == "Held" else None


async def _ask(request: web.Request, tag: str, key: str | None, runs: ClusterRuns) -> None:
    services, silent = request.app[SERVICES], request.app[SILENT]
    node = services.replica.record.nodes.get(tag)
    if node is None:
        runs.unknown[tag] = f"Node {tag} holds the task and is not in the cluster any more."
        return
    missing = f"Node {tag} holds the task and does not answer at {node.url}."
    if tag in silent:
        runs.unknown[tag] = missing
        return
    try:
        async with asyncio.timeout(ASK_TIMEOUT_S):
            runs.by_node[tag] = await _pages(services.http, f"{node.url}/status/runs", key)
    except (TimeoutError, HttpUnreachable):
        runs.unknown[tag] = missing
    except (HttpError, *DECODE_ERRORS) as error:
        runs.unknown[tag] = _not_known(tag, error)
    if tag in runs.unknown:
        silent.missed(tag)
    else:
        silent.heard(tag)


def _not_known(tag: str, error: Exception) -> str:
    return f"Node {tag} holds the task, and its details are not known here: {error}."


async def _pages(http: HttpClient, url: str, key: str | None) -> dict[str, msgspec.Raw]:
    """All runs of another node, or the one under the key, a page at a time: reading one of any size at once would hold
    the loop."""
    runs: dict[str, msgspec.Raw] = {}
    after, one = "", "" if key is None else f"&key={quote(key, safe='')}"
    while True:
        page_of = f"{url}?after={quote(after, safe='')}&take={RUNS_PAGE}{one}"
        reply = await http.request("GET", page_of, timeout_s=ASK_TIMEOUT_S)
        page = _page_decoder.decode(reply.body)
        runs.update(page.runs)
        if page.next is None or page.next <= after:
            return runs
        after = page.next
