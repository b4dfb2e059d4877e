"""One transform of a running SQL ETL: what becomes of a document's rows."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from raftnode.documents.store.model import Document
from raftnode.foundation.names import fold
from tasks.etl.configuration import TransformConfiguration
from tasks.etl.stream import TransformProgress, TransformStream
from tasks.etl.transform import Transform, targets
from tasks.sinks.sql.rows import DocumentRows


class SqlTransformStream(TransformStream):
    """Its targets are the folded names of tables."""

    def __init__(
        self,
        configuration: TransformConfiguration,
        progress: TransformProgress,
        database_id: str,
        insert_only: AbstractSet[str] = frozenset(),
    ) -> None:
        transform = Transform(configuration.name, configuration.script)
        tables = [fold(table) for table in targets(configuration.script)]
        super().__init__(configuration, transform, tables, progress, database_id, insert_only)

    def written(
        self, document: Document, rows: Sequence[tuple[str, Any]], others: Sequence["TransformStream"]
    ) -> DocumentRows:
        """What goes to the sink for a document: these rows, in the place of all that earlier versions of it may have.

        A document that has left the collections for those of one of the `others` keeps the rows that this one writes.
        One that is disabled writes none now: its rows are those of this version only if it has had it.
        """
        spellings = self.earlier(document)
        earlier = [id for id in spellings if id != document.id]
        if self.takes(document.collection):
            kept = []
        elif document.id in spellings:
            owners = [o for o in others if o.has(document) and (o.enabled or o.has_seen(document))]
            kept = [table for owner in owners for table in owner.targets]
        else:
            kept = self.targets
        return DocumentRows(document.id, self.targets, rows, earlier=earlier, kept=frozenset(kept))
