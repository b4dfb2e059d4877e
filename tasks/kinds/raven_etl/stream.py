"""One transform of a running RavenDB ETL: what becomes of a document."""

from collections.abc import Sequence

from raftnode.documents.store.model import Document
from raftnode.foundation.names import fold
from tasks.etl.stream import COLLECTIONS_REMEMBERED_MAX, HILO_COLLECTION, TransformProgress, TransformStream
from tasks.etl.transform import Transform, TransformedDocument, targets
from tasks.kinds.raven_etl.configuration import RavenTransformConfiguration, all_places
from tasks.sinks.documents.commands import DocumentCommands, commands_of, places, put, put_as_is


class RavenTransformStream(TransformStream):
    """Its targets are places, see `commands`."""

    def __init__(
        self, configuration: RavenTransformConfiguration, progress: TransformProgress, database_id: str
    ) -> None:
        transform = Transform(configuration.name, configuration.script, documents=True)
        super().__init__(configuration, transform, all_places(configuration), progress, database_id)
        self.as_is = not configuration.script.strip()
        self._targets = [] if self.as_is else targets(configuration.script)
        self._postfix = configuration.document_id_postfix or ""
        self._places: dict[str, frozenset[str]] = {}

    def takes(self, collection: str) -> bool:
        """See `TransformStream`. Documents that count ids go along only as they are."""
        return super().takes(collection) or (self.as_is and self.collections is None and _is_hilo(collection))

    def commands(
        self,
        document: Document,
        answer: TransformedDocument,
        others: Sequence["RavenTransformStream"],
    ) -> DocumentCommands:
        """What goes to the destination for a document, of which the script has made that.

        One that has left the collections for those of one of the `others` keeps what that one writes.
        """
        if not self.takes(document.collection):
            owners = [o for o in others if o.has(document) and (o.enabled or o.has_seen(document))]
            kept = {place for owner in owners for place in owner.targets}
            return commands_of(document, [], self._possible(document) if answer.deletes else frozenset(), kept)
        if self.as_is:
            puts = [] if document.deleted else [("=" + self._postfix, put_as_is(document, self._postfix))]
        else:
            puts = [put(document, target, bytes(body), self._postfix) for target, body in answer.rows]
        return commands_of(document, puts, self._possible(document) if answer.deletes else frozenset(), frozenset())

    def _possible(self, document: Document) -> frozenset[str]:
        """Where this or an earlier version may have been put by this transform."""
        if not document.formerly:
            return self._places_of(document.collection)
        collections = {document.collection, *(collection for _, collection in document.formerly)}
        return frozenset().union(*map(self._places_of, collections))

    def _places_of(self, collection: str) -> frozenset[str]:
        found = self._places.get(collection)
        if found is None:
            taken = self.takes(collection)
            found = frozenset(places(collection, self._targets, self._postfix)) if taken else frozenset()
            if len(self._places) < COLLECTIONS_REMEMBERED_MAX:
                self._places[collection] = found
        return found


def _is_hilo(collection: str) -> bool:
    return fold(collection) == HILO_COLLECTION
