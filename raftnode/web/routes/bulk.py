"""A batch of commands: one transaction, and a wait for replicas if one is asked for."""

import asyncio

import msgspec
from aiohttp import web
from msgspec.structs import replace

from raftnode.documents.json_patch import PatchOperation, modifies
from raftnode.documents.store.body import with_metadata
from raftnode.documents.store.model import DeleteDocument, Document, PatchDocument, PutDocument, StoreOperation
from raftnode.documents.store.store import DocumentStore
from raftnode.foundation.names import fold
from raftnode.web.errors import ApiError, bad_request
from raftnode.web.requests import Input, Query, answer, body_of_documents, etag_of, not_supported
from raftnode.web.routes.fences import FencedBatchInput
from raftnode.web.routes.identities import SIGN, numbered
from raftnode.web.services import SERVICES, Services
from raftnode.web.stores import check_size, existing_database, store_to_write
from raftnode.web.views.base import view
from raftnode.web.views.documents import BatchDelete, BatchDone, BatchPatch, BatchPut, JsonPatched

WAIT_FOR_REPLICAS_S = 15.0
WAIT_FOR_REPLICAS_S_MAX = 50.0
REPLICAS_POLL_S = 0.01


class JsonPatchInput(Input, frozen=True, kw_only=True):
    """A JSON patch, as RavenDB's clients wrap it."""

    operations: list[PatchOperation]


class BatchCommandInput(Input, frozen=True, kw_only=True):
    """One command of a batch."""

    type: str
    id: str | None = None
    change_vector: str | None = None
    document: msgspec.Raw = msgspec.Raw()
    id_prefixed: bool = False
    json_patch: JsonPatchInput | None = None
    return_document: bool = False


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
    operations = [_operation(services, index, command) for index, command in enumerate(commands)]
    if batch.fence is not None:
        batch.fence.check_copy(store)
    done = await store.batch(operations, None if batch.fence is None else batch.fence.request())
    if replicas:
        await _wait_for_replicas(request, store, replicas)
    results = [_result(command, document) for command, document in zip(commands, done, strict=True)]
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
    return answer(JsonPatched(status=_patch_status(given), modified_document=msgspec.Raw(with_metadata(document))))


async def _numbered(request: web.Request, commands: list[BatchCommandInput]) -> list[BatchCommandInput]:
    """The commands, with identities in the ids of puts."""
    if not any(command.type == "PUT" and (command.id or "").endswith(SIGN) for command in commands):
        return commands
    ids = await numbered(request, [command.id or "" if command.type == "PUT" else "" for command in commands])
    return [replace(command, id=id or command.id) for command, id in zip(commands, ids, strict=True)]


def _operation(services: Services, index: int, command: BatchCommandInput) -> StoreOperation:
    where = f"Commands[{index}]"
    if command.type == "PUT":
        if not bytes(command.document):
            raise bad_request(f"{where} is a PUT without a Document. Add it.")
        check_size(services, bytes(command.document))
        return PutDocument(id=command.id or "", document=bytes(command.document), expected=command.change_vector)
    if command.type == "DELETE":
        if not command.id:
            raise bad_request(f"{where} is a DELETE without an Id. Add it.")
        return DeleteDocument(id=command.id, expected=command.change_vector, prefixed=command.id_prefixed)
    if command.type == "JsonPatch":
        if not command.id or command.json_patch is None:
            raise bad_request(f"{where} is a JsonPatch without an Id or a JsonPatch. Add both.")
        return PatchDocument(
            id=command.id,
            operations=tuple(command.json_patch.operations),
            bytes_max=services.settings.documents.document_bytes_max,
            expected=command.change_vector,
        )
    raise not_supported(f"{where}: the command type {command.type[:40]!r}", "Use PUT, DELETE or JsonPatch.")


def _patch_status(patch: JsonPatchInput) -> str:
    return "Patched" if modifies(patch.operations) else "NotModified"


def _result(command: BatchCommandInput, document: Document | None) -> BatchPut | BatchPatch | BatchDelete:
    if command.type == "DELETE":
        vector = document.change_vector if document else None
        return BatchDelete(id=command.id or "", deleted=document is not None, change_vector=vector)
    assert document is not None
    if command.json_patch is not None and command.type == "JsonPatch":
        return BatchPatch(
            id=document.id,
            change_vector=document.change_vector,
            last_modified=document.last_modified,
            patch_status=_patch_status(command.json_patch),
            modified_document=msgspec.Raw(with_metadata(document)) if command.return_document else None,
        )
    return view(BatchPut, document)


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
