"""What a JSON patch makes of a document."""

from raftnode.documents.errors import DocumentInvalid
from raftnode.documents.json_patch import PatchFailed, modifies, patched
from raftnode.documents.store.body import Prepared, prepare
from raftnode.documents.store.model import Document, PatchDocument


def patched_body(live: Document | None, patch: PatchDocument) -> Prepared | None:
    """The document's body after the patch, None if that only tests. Its collection stays. Raises DocumentInvalid, also
    if there is no document."""
    if live is None:
        raise DocumentInvalid(f"there is no document {patch.id[:80]!r} to be patched: put it first")
    try:
        text = patched(live.body, patch.operations)
    except PatchFailed as error:
        raise DocumentInvalid(f"the patch of document {live.id[:80]!r} does not fit: {error}") from None
    if not modifies(patch.operations):
        return None
    if len(text) > patch.bytes_max:
        raise DocumentInvalid(
            f"document {live.id[:80]!r} would have {len(text)} bytes after the patch; the limit is {patch.bytes_max}"
        )
    return prepare(live.id, text, live.collection)
