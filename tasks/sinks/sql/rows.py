"""The rows of documents in a target: a batch's old rows go, its new ones come, in one transaction of the sink.

A batch goes in as a whole. If the database refuses it, the documents are found that fail by themselves: all old rows
go, then what can be inserted is, and what failed is tried again until nothing changes, as rows may need other rows of
the batch (a parent) or their absence (a unique value that moves on). Those that still fail are refused, and the rest
starts over with their old rows in place.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from typing import Any

import msgspec
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from tasks.etl.refusals import DocumentRefusal, RefusalCheck
from tasks.sinks.sql import connections as sql_engine
from tasks.sinks.sql.tables import TargetSchema, TargetTable
from tasks.sinks.sql.types import DoesNotFit, NotWritable

DELETE_IDS_MAX = 500
INSERT_ROWS_MAX = 5_000
PIECE_ROWS = 512
"""So many rows are worked on between two turns of the loop."""
PIECE_DOCUMENTS = 32
"""A batch that is refused is tried in pieces of this size, a piece that is refused in single documents."""


class DocumentRows(msgspec.Struct, frozen=True):
    """What one document becomes: `tables` are those from which its old rows go; none of `rows` for a deletion.

    `earlier` are other spellings of the id, whose rows go as well. In the tables that are `kept` only those go: under
    its present id the document is another transform's there.
    """

    id: str
    tables: Sequence[str]
    rows: Sequence[tuple[str, Mapping[str, Any]]] = ()
    earlier: Sequence[str] = ()
    kept: Set[str] = frozenset()

    @property
    def count(self) -> int:
        """How many rows."""
        return len(self.rows)


class _Document(msgspec.Struct, frozen=True, eq=False):
    """A document with its rows as its tables take them."""

    of: DocumentRows
    rows: Sequence[tuple[TargetTable, dict[str, Any]]]


_Step = Callable[[Sequence[_Document]], Awaitable[None]]
_Failed = tuple[_Document, str]
"""A document and the reason."""


class BatchWrite:
    """One batch in one transaction. `read_schema` reads the tables again: nothing is refused by what they once were."""

    def __init__(
        self,
        connection: AsyncConnection,
        schema: TargetSchema,
        read_schema: Callable[[], Awaitable[TargetSchema]],
        check_refusals: RefusalCheck,
        check: Callable[[], None],
    ) -> None:
        self._connection, self._check_refusals, self._check = connection, check_refusals, check
        self._read_schema = read_schema
        self.schema = schema
        self._rows_in_turn = 0
        self.accepted = 0
        self.refused: list[DocumentRefusal] = []

    async def write(self, documents: Sequence[DocumentRows]) -> None:
        """Raises NotWritable, faults of the target as SQLAlchemyError, and what `check_refusals` raises."""
        if self.schema.deferrable:
            await self._connection.exec_driver_sql("SET CONSTRAINTS ALL DEFERRED")
        if not await self._written(documents):
            self.schema = await self._read_schema()
            await self._isolated(documents)
        self._check_refusals(self.accepted, self.refused, final=True)

    async def _written(self, documents: Sequence[DocumentRows]) -> bool:
        """The batch as a whole, if nothing at all is wrong with it."""
        try:
            converted = [await self._converted(document) for document in documents]
        except (DoesNotFit, NotWritable):
            return False
        if await self._tried(self._replace, converted, probed=False) is not None:
            return False
        self.accepted = len(documents)
        return True

    async def _isolated(self, documents: Sequence[DocumentRows]) -> None:
        left: list[_Document] = []
        for document in documents:
            try:
                left.append(await self._converted(document))
            except DoesNotFit as error:
                self.refused.append(DocumentRefusal(document.id, str(error)))
        refused: list[_Failed] = []
        while left:
            failed, done = await self._applied(left)
            left = _without(left, failed)
            refused += failed
            if done:
                break
            # The rest counts as accepted: the check at the end knows.
            self._check_refusals(len(left), [*self.refused, *_refusals(refused)], final=False)
        reasons = {refusal.id: refusal for refusal in (*self.refused, *_refusals(await self._again(refused)))}
        self.refused = [reasons[document.id] for document in documents if document.id in reasons]
        self.accepted = len(documents) - len(self.refused)

    async def _converted(self, document: DocumentRows) -> _Document:
        """A document of the batch as its tables take it."""
        targets = self.schema.targets
        self.schema.check(document.tables)
        rows: list[tuple[TargetTable, dict[str, Any]]] = []
        for start in range(0, max(1, len(document.rows)), PIECE_ROWS):
            piece = document.rows[start : start + PIECE_ROWS]
            await self._turn(1 + len(piece))
            rows += [(t := targets[name], t.convert(document.id, row)) for name, row in piece]
        return _Document(document, rows)

    async def _turn(self, rows: int) -> None:
        """So many rows are worked on next. Now and then others have their turn on the loop."""
        self._rows_in_turn += rows
        if self._rows_in_turn > PIECE_ROWS:
            self._rows_in_turn = rows
            await asyncio.sleep(0)
            self._check()

    async def _applied(self, documents: Sequence[_Document]) -> tuple[list[_Failed], bool]:
        """The documents that fail by themselves, and whether all the others have been written."""
        if await self._tried(self._replace, documents) is None:
            return [], True
        savepoint = await self._connection.begin_nested()
        failed, checked = await self._inserted_without_old_rows(documents)
        if not failed and (checked or await self._tried(_nothing, documents) is None):
            await savepoint.commit()
            return [], True
        await savepoint.rollback()
        if checked:
            return failed, False
        # What is checked late cannot be checked while the old rows of all are gone: the documents go in one by one.
        return await self._again(await self._each(self._replace, documents)), True

    async def _inserted_without_old_rows(self, documents: Sequence[_Document]) -> tuple[list[_Failed], bool]:
        """The documents that fail when the old rows of all have gone, and whether what is checked late was asked: it
        cannot be when rows of other documents refer to some of those."""
        stuck = await self._each(self._delete, documents, deferred=False)
        checked = await self._tried(_nothing, documents) is None
        failed = [*stuck, *await self._each(self._insert, _without(documents, stuck), deferred=checked)]
        if len(failed) < len(documents):
            failed = await self._again(failed, deferred=checked)
        return failed, checked

    async def _each(self, step: _Step, documents: Sequence[_Document], *, deferred: bool = True) -> list[_Failed]:
        """The documents for which the step fails; for the others it is done, for as many at a time as can be."""
        if not documents:
            return []
        reason = await self._tried(step, documents, deferred=deferred)
        if reason is None:
            return []
        if len(documents) == 1:
            return [(documents[0], reason)]
        size = PIECE_DOCUMENTS if len(documents) > PIECE_DOCUMENTS else 1
        failed = []
        for start in range(0, len(documents), size):
            failed += await self._each(step, documents[start : start + size], deferred=deferred)
        return failed

    async def _again(self, failed: list[_Failed], *, deferred: bool = True) -> list[_Failed]:
        """What still fails alone when all that can be written is. Every pass goes the other way than the last, so that
        a chain of references takes two passes whatever its order is."""
        while failed:
            left = []
            for document, _ in reversed(failed):
                reason = await self._tried(self._replace, [document], deferred=deferred)
                if reason is not None:
                    left.append((document, reason))
            if len(left) == len(failed):
                return left
            failed = left
        return failed

    async def _tried(
        self, step: _Step, documents: Sequence[_Document], *, deferred: bool = True, probed: bool = True
    ) -> str | None:
        """Why the database refuses the step for these documents, None when it is done. Raises faults of the target,
        also those of a statement, unless it is not to be `probed`."""
        try:
            async with self._connection.begin_nested():
                await step(documents)
                if deferred and self.schema.deferrable:
                    await self._check_deferred()
        except SQLAlchemyError as error:
            blame = sql_engine.blame(error)
            if blame == "target":
                raise
            if blame == "either" and probed and len(documents) == 1:
                await self._check_statements(documents[0])
            return sql_engine.said(error)
        return None

    async def _check_statements(self, document: _Document) -> None:
        """Raises what is wrong with the statements when they have no values and are not run: if they stand, the values
        are at fault."""
        statements = [(target.name, target.insert(list(row)), (None,) * len(row)) for target, row in document.rows]
        targets = [self.schema.targets[name] for name in document.of.tables]
        statements += [(target.name, *target.delete([None])) for target in targets if not target.insert_only]
        for table, statement, nulls in statements:
            try:
                await self._connection.exec_driver_sql(f"EXPLAIN {statement}", nulls)
            except SQLAlchemyError as error:
                if sql_engine.blame(error) == "target":
                    raise
                raise NotWritable(f"the target refuses to write table '{table}': {sql_engine.said(error)}") from error

    async def _replace(self, documents: Sequence[_Document]) -> None:
        await self._delete(documents)
        await self._insert(documents)

    async def _delete(self, documents: Sequence[_Document]) -> None:
        """Rows that refer to others go before these."""
        ids: dict[str, list[str]] = {}
        for document in documents:
            for table in document.of.tables:
                present = () if table in document.of.kept else (document.of.id,)
                ids.setdefault(table, []).extend((*present, *document.of.earlier))
        for table in sorted(ids, key=lambda name: self.schema.targets[name].rank)[::-1]:
            target = self.schema.targets[table]
            if target.insert_only:
                continue
            taken = target.convert_ids(ids[table])
            for start in range(0, len(taken), DELETE_IDS_MAX):
                self._check()
                await self._connection.exec_driver_sql(*target.delete(taken[start : start + DELETE_IDS_MAX]))

    async def _insert(self, documents: Sequence[_Document]) -> None:
        """Rows of the same columns go together; tables before those that refer to them, else in the order in which the
        script loaded to them first."""
        groups: dict[tuple[str, tuple[str, ...]], list[tuple[Any, ...]]] = {}
        targets = {}
        for document in documents:
            await self._turn(len(document.rows))
            for target, row in document.rows:
                targets[target.name] = target
                groups.setdefault((target.name, tuple(row)), []).append(tuple(row.values()))
        for target in sorted(targets.values(), key=lambda one: one.rank):
            for (of, columns), rows in groups.items():
                if of == target.name:
                    await self._insert_rows(target.insert(columns), rows)

    async def _insert_rows(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        for start in range(0, len(rows), INSERT_ROWS_MAX):
            self._check()
            await self._connection.exec_driver_sql(statement, list(rows[start : start + INSERT_ROWS_MAX]))

    async def _check_deferred(self) -> None:
        """Have deferred constraints speak now: at commit they would refuse the whole batch."""
        await self._connection.exec_driver_sql("SET CONSTRAINTS ALL IMMEDIATE")
        await self._connection.exec_driver_sql("SET CONSTRAINTS ALL DEFERRED")


async def _nothing(documents: Sequence[_Document]) -> None:
    """A step that leaves only what is checked after it."""


def _without(documents: Sequence[_Document], failed: Sequence[_Failed]) -> list[_Document]:
    gone = {id(document) for document, _ in failed}
    return [document for document in documents if id(document) not in gone]


def _refusals(failed: Sequence[_Failed]) -> list[DocumentRefusal]:
    return [DocumentRefusal(document.of.id, reason) for document, reason in failed]
