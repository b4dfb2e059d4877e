"""The door for documents: ids and JSON are checked here, once, before they reach the disk."""

import re
import uuid
from typing import Any

import msgspec

from raftnode.documents.errors import DocumentInvalid
from raftnode.documents.store.model import EMPTY_COLLECTION, Document
from raftnode.foundation.decoding import DECODE_ERRORS, JsonDecoder, TooDeep

ID_BYTES_MAX = 512
COLLECTION_BYTES_MAX = 256
DOCUMENT_BYTES_MAX = 64 * 1024 * 1024
DEPTH_MAX = 100

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_METADATA = "@metadata"
_SYSTEM_KEYS = frozenset(
    {"@id", "@collection", "@change-vector", "@last-modified", "@etag", "@flags", "@index-score", "@projection"}
)
_fields: JsonDecoder[dict[str, msgspec.Raw]] = JsonDecoder(dict[str, msgspec.Raw], depth_max=DEPTH_MAX)
_any: JsonDecoder[Any] = JsonDecoder()


class Prepared(msgspec.Struct, frozen=True):
    """A document that passed the door: its JSON object without system metadata, and its collection."""

    body: bytes
    collection: str


def prepare(id: str, document: dict[str, Any] | bytes, collection: str | None) -> Prepared:
    """Check a document and take the system's keys out of its metadata.

    A collection passed in wins over `@metadata.@collection`. Raises DocumentInvalid. Values keep their text,
    so that numbers lose no digit.
    """
    text = _encode(id, document) if isinstance(document, dict) else bytes(document)
    if len(text) > DOCUMENT_BYTES_MAX:
        raise DocumentInvalid(f"document {id!r} has {len(text)} bytes, the limit is {DOCUMENT_BYTES_MAX}")
    fields = _parse(id, text)
    metadata = _metadata(id, fields)
    named = collection if collection is not None else _named(id, metadata.get("@collection"))
    kept = {key: value for key, value in metadata.items() if key not in _SYSTEM_KEYS}
    body: dict[str, Any] = {key: value for key, value in fields.items() if key != _METADATA}
    if kept:
        body[_METADATA] = kept
    return Prepared(msgspec.json.encode(body), _collection(id, named))


def check_id(id: str) -> str:
    """The id itself, or a GUID for the empty one. Raises DocumentInvalid."""
    if not isinstance(id, str):
        raise DocumentInvalid(f"a document id must be text, not {type(id).__name__}")
    if not id:
        return str(uuid.uuid4())
    _check_name(f"document id {id[:80]!r}", id, ID_BYTES_MAX)
    if id.endswith("|"):
        raise DocumentInvalid(f"document id {id!r} asks for a cluster-wide identity: ask the cluster for one first")
    return id


def may_be_id(id: str) -> bool:
    """Whether there could be a document of that id, or documents below it."""
    try:
        _check_name("id", id, ID_BYTES_MAX)
    except DocumentInvalid:
        return False
    return bool(id)


def with_metadata(document: Document) -> bytes:
    """The document as clients see it: its JSON with the system's metadata beside the user's."""
    fields: dict[str, Any] = dict(_fields.decode(document.body or b"{}"))
    metadata: dict[str, Any] = dict(_fields.decode(fields[_METADATA])) if _METADATA in fields else {}
    metadata |= {
        "@collection": document.collection,
        "@change-vector": document.change_vector,
        "@id": document.id,
        "@last-modified": document.last_modified,
    }
    if document.flags:
        metadata["@flags"] = document.flags
    fields[_METADATA] = metadata
    return msgspec.json.encode(fields)


def _encode(id: str, document: dict[str, Any]) -> bytes:
    _check_depth(id, document)
    try:
        return msgspec.json.encode(document)
    except (TypeError, ValueError, msgspec.MsgspecError) as error:
        raise DocumentInvalid(f"document {id!r} cannot be written as JSON: {error}") from error


def _parse(id: str, text: bytes) -> dict[str, msgspec.Raw]:
    """Its fields. The text is looked through, and no values are made of it: those of a large document would hold the
    interpreter for seconds. The encoding is checked beside it, as nobody looks into texts otherwise."""
    try:
        text.decode()
        return _fields.decode(text)
    except TooDeep as error:
        raise DocumentInvalid(f"document {id!r} is nested deeper than {DEPTH_MAX} levels") from error
    except msgspec.ValidationError as error:
        raise DocumentInvalid(f"document {id!r} must be a JSON object: {error}") from error
    except DECODE_ERRORS as error:
        raise DocumentInvalid(f"document {id!r} is not valid JSON: {error}") from error


def _check_depth(id: str, value: Any) -> None:
    if _depth(value) > DEPTH_MAX:
        raise DocumentInvalid(f"document {id!r} is nested deeper than {DEPTH_MAX} levels")


def _depth(value: Any) -> int:
    """How deeply containers nest, 1 for a flat object; it stops behind the limit. Level by level, so that it cannot
    overflow the stack."""
    depth, level = 0, [value]
    while level and depth <= DEPTH_MAX:
        depth += 1
        nested: list[Any] = []
        for item in level:
            nested += (v for v in (item.values() if isinstance(item, dict) else item) if isinstance(v, dict | list))
        level = nested
    return depth


def _metadata(id: str, fields: dict[str, msgspec.Raw]) -> dict[str, msgspec.Raw]:
    raw = fields.get(_METADATA)
    if raw is None:
        return {}
    try:
        return _fields.decode(raw)
    except msgspec.ValidationError as error:
        raise DocumentInvalid(f"@metadata of document {id!r} must be a JSON object: {error}") from error


def _named(id: str, collection: msgspec.Raw | None) -> str | None:
    if collection is None or bytes(collection) == b"null":
        return None
    if not bytes(collection).startswith(b'"'):
        raise DocumentInvalid(f"@collection of document {id!r} must be a non-empty text")
    return str(_any.decode(collection))


def _collection(id: str, name: Any) -> str:
    if name is None:
        return EMPTY_COLLECTION
    if not isinstance(name, str) or not name:
        raise DocumentInvalid(f"@collection of document {id!r} must be a non-empty text")
    _check_name(f"@collection of document {id!r}", name, COLLECTION_BYTES_MAX)
    return name


def _check_name(what: str, name: str, bytes_max: int) -> None:
    try:
        size = len(name.encode())
    except UnicodeEncodeError as error:
        raise DocumentInvalid(f"{what} is not valid Unicode: {error.reason}") from error
    if size > bytes_max:
        raise DocumentInvalid(f"{what} has {size} bytes, the limit is {bytes_max}")
    if _CONTROL.search(name):
        raise DocumentInvalid(f"{what} has a control character: remove it")
