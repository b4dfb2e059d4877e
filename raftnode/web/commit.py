"""How a request changes the record: propose, wait until this node has applied it, answer."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

import msgspec
import structlog
import xxhash
from aiohttp import web

from raftnode.consensus.raft import Add, NotCommitted, OutcomeUnknown, Remove
from raftnode.foundation.decoding import DECODE_ERRORS, from_json
from raftnode.foundation.http_client import HttpError
from raftnode.record.commands import Command, CommandRefused, Entry
from raftnode.record.model import CommandResult
from raftnode.web.errors import ApiError, of_result
from raftnode.web.request_bodies import whole
from raftnode.web.requests import COMMAND_BODY_BYTES_MAX, REQUEST_ID, request_id
from raftnode.web.services import SERVICES, Services

log = structlog.get_logger(__name__)

APPLY_TIMEOUT_MS = 5_000
MEMBERS_TIMEOUT_S = 3.0
CATCH_UP_MS = 1_000

Made = TypeVar("Made")
Change = tuple[Add | Remove, Command]
"""A change of Raft's membership and the command of the same log entry."""


async def commit(
    request: web.Request, build: Command | Callable[[], Awaitable[Command]], *, part: str = ""
) -> CommandResult:
    """The result of a command, or of the one that `build` gives (see `unless_repeated`), once this node has applied
    it too: whoever reads here next sees it.

    Works from any node. A repeated raft-request-id takes effect once; `part` tells apart several commands of one
    request. Raises ApiError when the command is refused, Unavailable when the cluster did not answer.
    """
    services = request.app[SERVICES]
    command = build if isinstance(build, Command) else await unless_repeated(request, build, part=part)
    if isinstance(command, CommandResult):
        return command
    id, asks = await _identified(request, part)
    timeout_ms = services.settings.cluster.proposal_timeout_ms
    result = await services.replica.propose(command, timeout_ms=timeout_ms, request_id=id, asked=asks)
    return await await_applied(services, result)


async def commit_change(request: web.Request, change: Change) -> CommandResult:
    """Like `commit`, for a change of the cluster's nodes."""
    services = request.app[SERVICES]
    id, asks = await _identified(request, "")
    return await await_applied(services, await services.replica.change_membership(*change, request_id=id, asked=asks))


async def commit_each(
    request: web.Request, names: Sequence[str], build: Callable[[list[str]], list[Command]]
) -> list[CommandResult]:
    """The results of several commands of one request, one for each name. `build` gives those of the names whose
    command has not taken effect yet; if one of them would be refused, none is proposed."""
    first: dict[str, CommandResult | None] = {}

    async def commands() -> dict[str, Command]:
        first.update({name: await first_result(request, part=name) for name in names})
        new = [name for name in names if first[name] is None]
        made = build(new) if new else []
        _dry_run(request, made)
        return dict(zip(new, made, strict=True))

    made = await _as_of_now(request, commands)
    return [first[name] or await commit(request, made[name], part=name) for name in names]


async def unless_repeated(
    request: web.Request, build: Callable[[], Awaitable[Made]], *, part: str = ""
) -> Made | CommandResult:
    """What `build` makes of a request as things stand. It is not asked about the repeat of a request that took
    effect, as what it looks at may have changed since: a repeat gets the result of the first, whatever that was."""

    async def first_or_checked() -> Made | CommandResult:
        return await first_result(request, part=part) or await build()

    return await _as_of_now(request, first_or_checked)


async def first_result(request: web.Request, *, part: str = "") -> CommandResult | None:
    """The result of the request of this id if it took effect already, None if it did not. Raises ApiError if that was
    a refusal, or if the id was used for another request."""
    services = request.app[SERVICES]
    id, asks = await _identified(request, part)
    first = services.replica.first_result(id, asks) if id else None
    return None if first is None else await await_applied(services, first)


async def _as_of_now(request: web.Request, build: Callable[[], Awaitable[Made]]) -> Made:
    """What the checks give. A node that lags behind may not know yet that a request is a repeat: before its checks
    refuse one, it hears what was acknowledged anywhere, if there is a leader to tell it."""
    services = request.app[SERVICES]
    try:
        return await build()
    except ApiError:
        if request_id(request) is None or services.heartbeat.role == "Leader" or not await _caught_up(services):
            raise
    return await build()


async def _caught_up(services: Services) -> bool:
    try:
        await services.raft.wait_applied(await services.raft.barrier(timeout_ms=CATCH_UP_MS), CATCH_UP_MS)
    except (NotCommitted, OutcomeUnknown, TimeoutError):
        return False
    return True


async def _identified(request: web.Request, part: str) -> tuple[str | None, str]:
    """The id under which a command is proposed, and the hash of what is asked for; none if the client gave none."""
    id = request_id(request)
    return (f"{id}/{part}" if part else id, await asked(request)) if id else (None, "")


async def asked(request: web.Request) -> str:
    """A hash of what the request asks for. Not of the command: that has what this node adds, like the time or a new id.
    How the same JSON is spelled, the order of query values, and the request id do not count."""
    content = await whole(request, bytes_max=COMMAND_BODY_BYTES_MAX)
    with contextlib.suppress(*DECODE_ERRORS):
        content = msgspec.json.encode(from_json(content), order="sorted") if content else content
    values = sorted((name.lstrip("?").lower(), value) for name, value in request.query.items())
    where = [request.method, request.path.lower(), [pair for pair in values if pair[0] != REQUEST_ID]]
    return xxhash.xxh3_64_hexdigest(msgspec.json.encode([*where, request.headers.get("If-Match")]) + content)


def _dry_run(request: web.Request, commands: Iterable[Command]) -> None:
    """Refuses the request before any of its commands is proposed, if one would be refused as things stand."""
    services = request.app[SERVICES]
    record = services.replica.record
    try:
        for command in commands:
            record = command.apply(record, Entry(record.index + 1, services.raft.status.term)).record
    except CommandRefused as refused:
        raise of_result(refused.error) from None


async def await_applied(services: Services, result: CommandResult) -> CommandResult:
    """The result after this node has applied its index; a refusal is raised."""
    if result.error is not None:
        raise of_result(result.error)
    try:
        await services.raft.wait_applied(result.index, APPLY_TIMEOUT_MS)
    except TimeoutError:
        log.info(
            "A command was answered before this node has applied it, as this node lags behind.", index=result.index
        )
    return result


async def wait_on_nodes(services: Services, tags: Iterable[str], index: int) -> None:
    """Waits, for a short time, until the other nodes have applied the index too: clients go round all of them."""
    nodes = services.replica.record.nodes
    urls = {tag: nodes[tag].url for tag in tags if tag != services.tag and tag in nodes}
    await asyncio.gather(*(_wait_on_node(services, tag, url, index) for tag, url in urls.items()))


async def _wait_on_node(services: Services, tag: str, url: str, index: int) -> None:
    try:
        await services.http.request("GET", f"{url}/rachis/waitfor?index={index}", timeout_s=MEMBERS_TIMEOUT_S)
    except HttpError as error:
        log.info("A command was answered before every node has applied it.", tag=tag, index=index, reason=str(error))
