"""What a document becomes at the destination of a RavenDB ETL: commands of a batch, as JSON.

A document that is loaded to its own collection keeps its id. Loaded to another one, it gets an id from the destination
under the prefix `<id>/<collection>/`; so all that it was loaded to before is deleted by that prefix.
"""

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet

import msgspec

from raftnode.documents.store.model import Document
from raftnode.foundation.decoding import from_json
from raftnode.foundation.names import fold

SAME_ID = "="
"""The place of documents that keep their ids, with the postfix behind it; other places are the ends of prefixes."""
_DROPPED = ("@attachments", "@counters", "@timeseries")


class DocumentCommands(msgspec.Struct, frozen=True):
    """What one document becomes: its commands, each a JSON object. `count` counts the documents that are put."""

    id: str
    commands: Sequence[bytes]
    count: int = 0

    @property
    def size(self) -> int:
        """In bytes."""
        return sum(map(len, self.commands))


def places(collection: str, targets: Sequence[str], postfix: str) -> list[str]:
    """Where a document of that collection may be put by a script with these targets; by an empty one it keeps its
    id."""
    if not targets:
        return [SAME_ID + postfix]
    return [SAME_ID + postfix if fold(t) == fold(collection) else _prefix(t, postfix) for t in targets]


def _prefix(target: str, postfix: str) -> str:
    # As clients make ids: a name with several capitals keeps them.
    name = target.lower() if sum(map(str.isupper, target)) <= 1 else target
    return f"/{name}/{postfix}/" if postfix else f"/{name}/"


def put(document: Document, target: str, body: bytes, postfix: str) -> tuple[str, bytes]:
    """The command that loads a document to a target, and its place."""
    [place] = places(document.collection, [target], postfix)
    id = document.id + (place[1:] if place.startswith(SAME_ID) else place)
    return place, b'{"Id":' + msgspec.json.encode(id) + b',"ChangeVector":null,"Document":' + body + b',"Type":"PUT"}'


def put_as_is(document: Document, postfix: str) -> bytes:
    """The command that sends a document as it is."""
    return put(document, document.collection, _as_is(document), postfix)[1]


def deletes(id: str, places: Iterable[str]) -> list[bytes]:
    """The commands that delete what a document was loaded to in these places."""
    return [_delete(id, place) for place in dict.fromkeys(places)]


def _delete(id: str, place: str) -> bytes:
    if place.startswith(SAME_ID):
        return b'{"Id":' + msgspec.json.encode(id + place[1:]) + b',"ChangeVector":null,"Type":"DELETE"}'
    prefix = msgspec.json.encode(id + place)
    return b'{"Id":' + prefix + b',"ChangeVector":null,"Type":"DELETE","IdPrefixed":true}'


def _as_is(document: Document) -> bytes:
    collection = b'{"@metadata":{"@collection":' + msgspec.json.encode(document.collection)
    if b'"@metadata"' not in document.body:
        rest = document.body[1:]
        return collection + (b"}" if rest == b"}" else b"},") + rest
    fields = from_json(document.body, dict[str, msgspec.Raw])
    metadata = from_json(fields.pop("@metadata", msgspec.Raw(b"{}")), dict[str, msgspec.Raw])
    kept = {key: value for key, value in metadata.items() if key not in _DROPPED}
    return msgspec.json.encode({"@metadata": {"@collection": document.collection, **kept}, **fields})


def commands_of(
    document: Document, puts: Sequence[tuple[str, bytes]], possible: AbstractSet[str], kept: AbstractSet[str]
) -> DocumentCommands:
    """Deletes what the document may have been loaded to before, in all `possible` places but those that are `kept`, and
    puts what it is loaded to now. What keeps its id is overwritten."""
    written = {place for place, _ in puts if place.startswith(SAME_ID)}
    gone = deletes(document.id, sorted(possible - kept - written)) if possible != written else []
    return DocumentCommands(document.id, [*gone, *(command for _, command in puts)], len(puts))
