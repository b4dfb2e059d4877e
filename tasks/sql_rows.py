"""The rows of documents in a target: a batch's old rows go, its new ones come, in one transaction of the sink."""

from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any, Protocol

import msgspec
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from tasks import sql_engine
from tasks.sql_tables import Target
from tasks.sql_types import DoesNotFit

DELETE_IDS_MAX = 500


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


class Refusal(msgspec.Struct, frozen=True):
    """A document that the database refused by itself, and why."""

    id: str
    reason: str


class Verdict(Protocol):
    """Whose fault refusals are: raises TaskFailed when they are the task's and not single documents'."""

    def __call__(self, accepted: int, refusals: Sequence[Refusal], *, final: bool) -> None:
        """Called after every refusal, and with `final` at the end of the batch."""


class Writing:
    """One batch in one transaction. What the database refuses is halved until the document stands alone."""

    def __init__(
        self,
        connection: AsyncConnection,
        targets: Mapping[str, Target],
        verdict: Verdict,
        check: Callable[[], None],
    ) -> None:
        self._connection, self._targets, self._verdict, self._check = connection, targets, verdict, check
        self.accepted = 0
        self.refused: list[Refusal] = []

    async def write(self, documents: Sequence[DocumentRows]) -> None:
        fitting = []
        for document in documents:
            try:
                fitting.append((document, self._converted(document)))
            except DoesNotFit as error:
                self._refuse(document.id, str(error))
        if fitting:
            await self._write(fitting)
        self._verdict(self.accepted, self.refused, final=True)

    def _converted(self, document: DocumentRows) -> list[tuple[Target, dict[str, Any]]]:
        return [(t := self._targets[table], t.convert(document.id, row)) for table, row in document.rows]

    def _refuse(self, id: str, reason: str) -> None:
        self.refused.append(Refusal(id, reason))
        self._verdict(self.accepted, self.refused, final=False)

    async def _write(self, documents: list[tuple[DocumentRows, list[tuple[Target, dict[str, Any]]]]]) -> None:
        try:
            async with self._connection.begin_nested():
                await self._delete([document for document, _ in documents])
                await self._insert([row for _, rows in documents for row in rows])
                await self._check_deferred()
        except (SQLAlchemyError, OverflowError) as error:
            if not sql_engine.blames_data(error):
                raise
            if len(documents) == 1:
                self._refuse(documents[0][0].id, sql_engine.said(error))
                return
            middle = len(documents) // 2
            await self._write(documents[:middle])
            await self._write(documents[middle:])
            return
        self.accepted += len(documents)

    async def _delete(self, documents: list[DocumentRows]) -> None:
        ids: dict[str, list[str]] = {}
        for document in documents:
            for table in document.tables:
                present = () if table in document.kept else (document.id,)
                ids.setdefault(table, []).extend((*present, *document.earlier))
        for table in reversed(list(ids)):
            target = self._targets[table]
            if target.insert_only:
                continue
            for start in range(0, len(ids[table]), DELETE_IDS_MAX):
                self._check()
                some = ids[table][start : start + DELETE_IDS_MAX]
                await self._connection.execute(sa.delete(target.table).where(target.id_column.in_(some)))

    async def _insert(self, rows: list[tuple[Target, dict[str, Any]]]) -> None:
        """Rows of the same columns go together; tables in the order in which the script loaded to them first."""
        groups: dict[tuple[str, tuple[str, ...]], list[dict[str, Any]]] = {}
        tables = {}
        for target, row in rows:
            tables[target.name] = target.table
            groups.setdefault((target.name, tuple(row)), []).append(row)
        for name, table in tables.items():
            for (of, _), some in groups.items():
                if of == name:
                    self._check()
                    await self._connection.execute(sa.insert(table), some)

    async def _check_deferred(self) -> None:
        """Have deferred constraints speak now: at commit they would refuse the whole batch."""
        if self._connection.dialect.name == "postgresql":
            await self._connection.execute(sa.text("SET CONSTRAINTS ALL IMMEDIATE"))
            await self._connection.execute(sa.text("SET CONSTRAINTS ALL DEFERRED"))
