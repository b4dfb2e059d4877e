"""A batch of commands: one transaction, and a wait for replicas if one is asked for."""

import asyncio
from itertools import chain

import msgspec
from aiohttp import web
from msgspec.structs import replace

from raftnode.documents.store.body import with_metadata
from raftnode.documents.store.model import PatchDocument
from raftnode.documents.store.store import DocumentStore
from raftnode.foundation.names import fold
from raftnode.web.batch_commands import BatchCommandInput, JsonPatchInput, operations_of, patch_status, result_of
from raftnode.web.errors import ApiError, bad_request
from raftnode.web.requests import Input, Query, answer, body_of_documents, etag_of, not_supported
from raftnode.web.routes.fences import FencedBatchInput
from raftnode.web.routes.identities import SIGN, numbered
from raftnode.web.services import SERVICES, Services
from raftnode.web.stores import existing_database, store_to_write
from raftnode.web.views.documents import BatchDone, JsonPatched

WAIT_FOR_REPLICAS_S = 15.0
WAIT_FOR_REPLICAS_S_MAX = 50.0
REPLICAS_POLL_S = 0.01


class BatchInput(Input, frozen=True, kw_only=True):
    """A batch: all or nothing. With a fence it is a request of another database's ETL task."""

    commands: list[BatchCommandInput]
    transaction_mode: str | None = None
    fence: FencedBatchInput | None = None


def routes() -> list[web.RouteDef]:
    """This module's routes."""
    path = "/databases/{database}"
    return [web.post(f"{path}/bulk_docs", bulk_docs), web.patch(f"{path}/json-patch", json_patch)]


async def bulk_docs(request: web.Request) -> web.Response:
    """Puts and deletes in one transaction; answers after the sync, and after as many replicas as were asked for."""
    store = await store_to_write(request)
    batch = await body_of_documents(request, BatchInput)
    if batch.transaction_mode not in (None, "SingleNode"):
        raise not_supported(f"TransactionMode {batch.transaction_mode!r}", "Use a single-node transaction.")
    services = request.app[SERVICES]
    limit = services.settings.documents.batch_operations_max
    if len(batch.commands) > limit:
        raise bad_request(f"{len(batch.commands)} commands; documents.batch_operations_max is {limit}. Send fewer.")
    replicas = _replicas_wanted(request)
    commands = await _numbered(request, batch.commands)
    operations = [operations_of(services, index, command) for index, command in enumerate(commands)]
    if batch.fence is not None:
        batch.fence.check_copy(store)
    done = await store.batch(
        list(chain.from_iterable(operations)), None if batch.fence is None else batch.fence.request()
    )
    if replicas:
        await _wait_for_replicas(request, store, replicas)
    left = iter(done)
    made = [[next(left) for _ in some] for some in operations]
    results = [result_of(command, documents) for command, documents in zip(commands, made, strict=True)]
    return answer(BatchDone(results=results), status=201)


async def json_patch(request: web.Request) -> web.Response:
    """Changes one document by a JSON patch; with If-Match only at that change vector."""
    store = await store_to_write(request)
    given = await body_of_documents(request, JsonPatchInput)
    patch = PatchDocument(
        id=Query(request).required("id"),
        operations=tuple(given.operations),
        bytes_max=request.app[SERVICES].settings.documents.document_bytes_max,
        expected=etag_of(request.headers.get("If-Match")),
    )
    [document] = await store.batch([patch])
    assert document is not None
    return answer(JsonPatched(status=patch_status(given), modified_document=msgspec.Raw(with_metadata(document))))


async def _numbered(request: web.Request, commands: list[BatchCommandInput]) -> list[BatchCommandInput]:
    """The commands, with identities in the ids of puts."""
    if not any(command.type == "PUT" and (command.id or "").endswith(SIGN) for command in commands):
        return commands
    ids = await numbered(request, [command.id or "" if command.type == "PUT" else "" for command in commands])
    return [replace(command, id=id or command.id) for command, id in zip(commands, ids, strict=True)]


def _replicas_wanted(request: web.Request) -> int:
    """How many other nodes must have the batch before it is answered."""
    query = Query(request)
    if not query.has("numberOfReplicasToWaitFor"):
        return 0
    services = request.app[SERVICES]
    topology = existing_database(request).topology
    others = len([tag for tag in (*topology.members, *topology.rehabs) if tag != services.tag])
    if (query.text("numberOfReplicasToWaitFor") or "").lower() == "majority":
        return (others + 1) // 2
    wanted = query.integer("numberOfReplicasToWaitFor", low=0, high=100)
    if wanted > others:
        raise bad_request(
            f"numberOfReplicasToWaitFor is {wanted}, but the group has {others} other nodes to replicate to. "
            "Ask for fewer, or add nodes to the group."
        )
    return wanted


async def _wait_for_replicas(request: web.Request, store: DocumentStore, wanted: int) -> None:
    services = request.app[SERVICES]
    query = Query(request)
    timeout_s = min(query.timespan_s("waitForReplicasTimeout", WAIT_FOR_REPLICAS_S), WAIT_FOR_REPLICAS_S_MAX)
    etag, folded = store.last_etag, fold(store.database)
    # The senders show their places and raise no event, so they are looked at again and again.
    try:
        async with asyncio.timeout(timeout_s):
            while len(_replicated(services, folded, etag)) < wanted:  # noqa: ASYNC110
                await asyncio.sleep(REPLICAS_POLL_S)
    except TimeoutError:
        reached = _replicated(services, folded, etag)
        if len(reached) >= wanted or not query.flag("throwOnTimeoutInWaitForReplicas", True):
            return
        raise ApiError(
            "TimeoutException",
            f"The documents are written on node {services.tag}, but within {timeout_s:g} s only {len(reached)} of "
            f"{wanted} wanted replicas have them ({', '.join(reached) or 'none'}). They go on being replicated.",
            status=500,
        ) from None


def _replicated(services: Services, folded: str, etag: int) -> list[str]:
    """The nodes that have taken in this copy's order up to the etag."""
    copy = services.databases.status().get(folded)
    return sorted(tag for tag, sent in copy.sent.items() if sent >= etag) if copy else []
