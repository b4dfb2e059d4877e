"""The commands of a batch: what each asks of the store, and its answer."""

import msgspec

from raftnode.documents.json_patch import PatchOperation, modifies
from raftnode.documents.store.body import with_metadata
from raftnode.documents.store.model import (
    CheckDocument,
    DeleteDocument,
    Document,
    PatchDocument,
    PutDocument,
    StoreOperation,
)
from raftnode.web.errors import bad_request
from raftnode.web.requests import Input, not_supported
from raftnode.web.services import Services
from raftnode.web.stores import check_size
from raftnode.web.views.base import view
from raftnode.web.views.documents import BatchChecked, BatchDelete, BatchPatch, BatchPut, BatchResult

KNOWN = "PUT, DELETE, JsonPatch or BatchTrackChanges"


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
    tracked_entities: dict[str, str] = msgspec.field(default_factory=dict)


def operations_of(services: Services, index: int, command: BatchCommandInput) -> list[StoreOperation]:
    """What the store is to do for the command at that place of the batch. Refuses one that is incomplete or unknown."""
    if command.type != "BatchTrackChanges":
        return [_operation(services, index, command)]
    limit = services.settings.documents.batch_operations_max
    if len(command.tracked_entities) > limit:
        raise bad_request(
            f"Commands[{index}] tracks {len(command.tracked_entities)} documents; documents.batch_operations_max is "
            f"{limit}. Track fewer."
        )
    return [CheckDocument(id=id, expected=vector) for id, vector in command.tracked_entities.items()]


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
    raise not_supported(
        f"{where}: the command type {command.type[:40]!r}", "Use PUT, DELETE, JsonPatch or BatchTrackChanges."
    )


def patch_status(patch: JsonPatchInput) -> str:
    """What the patch has done to a document that it fits."""
    return "Patched" if modifies(patch.operations) else "NotModified"


def result_of(command: BatchCommandInput, documents: list[Document | None]) -> BatchResult:
    """The answer to a command, of what the store gave for its operations."""
    if command.type == "BatchTrackChanges":
        return BatchChecked()
    [document] = documents
    if command.type == "DELETE":
        vector = document.change_vector if document else None
        return BatchDelete(id=command.id or "", deleted=document is not None, change_vector=vector)
    assert document is not None
    if command.json_patch is not None and command.type == "JsonPatch":
        return BatchPatch(
            id=document.id,
            change_vector=document.change_vector,
            last_modified=document.last_modified,
            patch_status=patch_status(command.json_patch),
            modified_document=msgspec.Raw(with_metadata(document)) if command.return_document else None,
        )
    return view(BatchPut, document)
