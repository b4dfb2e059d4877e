"""The user's own tables in a target, as they are there. Names may differ by case."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from raftnode.foundation.names import fold
from tasks.kinds.registry import TaskFailed
from tasks.sinks.sql import postgres as sql_postgres
from tasks.sinks.sql import sqlite as sql_sqlite
from tasks.sinks.sql.types import Column, DoesNotFit

COLUMNS_SHOWN_MAX = 20
"""So many of a table's columns are named in an error."""


class SqlTable(msgspec.Struct, frozen=True, rename="pascal"):
    """RavenDB's SqlTables entry. The rows of a document are those with its id in `document_id_column`; in insert-only
    mode they are never deleted."""

    table_name: str
    document_id_column: str
    insert_only_mode: bool = False


class NotWritable(TaskFailed):
    """What a transform writes cannot be written as its tables are now, whatever the document: a table or a column is
    missing, or the target refuses the statement. Transforms that write other tables can go on."""


class TargetTable:
    """A table as it is in the database. `rank` is 0 for a table that refers to no other of the task's, above that of
    all it refers to otherwise."""

    def __init__(self, definition: SqlTable, name: str, columns: Sequence[Column], dialect: sa.Dialect) -> None:
        self.name = definition.table_name
        self.insert_only = definition.insert_only_mode
        self.columns = {column.name: column for column in columns}
        self.rank = 0
        self._quote = dialect.identifier_preparer.quote_identifier
        self._place = "${}" if dialect.name == "postgresql" else "?"
        schema = definition.table_name.rpartition(".")[0]
        self.table = ".".join(self._quote(part) for part in (schema, name) if part)
        self.id_column = self.columns[self._column(definition.document_id_column)]
        self._found: dict[str, str] = {}

    def convert(self, id: str, row: Mapping[str, Any]) -> dict[str, Any]:
        """A row as the driver takes it; the document's id goes into its column. Raises DoesNotFit, NotWritable."""
        converted = {}
        for given, value in row.items():
            column = self._found.get(given) or self._found.setdefault(given, self._column(given))
            if column in converted:
                raise DoesNotFit(f"{self.name}.{column}: the row has two values for it, as letter case may differ")
            converted[column] = self._taken(self.columns[column], value)
        converted[self.id_column.name] = self._taken(self.id_column, id)
        return converted

    def convert_ids(self, ids: Iterable[str]) -> list[Any]:
        """Document ids as the id column has them, without those that it cannot have."""
        taken = []
        for id in ids:
            try:
                taken.append(self.id_column.take(id))
            except DoesNotFit:
                continue  # no row can have this id
        return taken

    def insert(self, columns: Sequence[str]) -> str:
        """The statement that inserts a row of these columns."""
        names = ", ".join(self._quote(column) for column in columns)
        return f"INSERT INTO {self.table} ({names}) VALUES ({self._parameters(self.columns[c] for c in columns)})"

    def delete(self, count: int) -> str:
        """The statement that deletes the rows of so many document ids."""
        ids = self._parameters([self.id_column] * count)
        # By itself, the quoted name of a column that is gone would be a text to SQLite, and nothing would be deleted.
        return f"DELETE FROM {self.table} WHERE {self.table}.{self._quote(self.id_column.name)} IN ({ids})"

    def _parameters(self, columns: Iterable[Column]) -> str:
        return ", ".join(c.parameter.format(self._place.format(n)) for n, c in enumerate(columns, 1))

    def _taken(self, column: Column, value: Any) -> Any:
        try:
            return column.take(value)
        except DoesNotFit as error:
            raise DoesNotFit(f"{self.name}.{column.name}: {error}") from None

    def _column(self, name: str) -> str:
        found = _match(name, self.columns)
        if found is None:
            known = ", ".join(list(self.columns)[:COLUMNS_SHOWN_MAX])
            if len(self.columns) > COLUMNS_SHOWN_MAX:
                known += f" and {len(self.columns) - COLUMNS_SHOWN_MAX:,} more"
            long = sql_postgres.too_long(name) if self._place == "${}" else None
            remedy = f"the name {long}; it has" if long else "add it, or load to one of"
            raise NotWritable(f"table '{self.name}' has no column '{name}'; {remedy}: {known}")
        return found


class TargetSchema(msgspec.Struct, frozen=True):
    """The targets by folded table name, and the reasons why others cannot be any. `deferrable`: some constraints may
    be checked as late as at the commit."""

    targets: Mapping[str, TargetTable] = {}
    missing: Mapping[str, str] = {}
    deferrable: bool = False

    def check(self, tables: Iterable[str]) -> None:
        """Raises NotWritable when one of these tables, by folded name, is missing."""
        for table in tables:
            if table in self.missing:
                raise NotWritable(self.missing[table])


def reflect(connection: sa.Connection, tables: Sequence[SqlTable]) -> TargetSchema:
    """The tables as they are now."""
    postgres = connection.dialect.name == "postgresql"
    targets, missing, oids = dict[str, TargetTable](), dict[str, str](), dict[str, Any]()
    for definition in tables:
        schema, _, name = definition.table_name.rpartition(".")
        known: Mapping[str, Any] = (
            sql_postgres.relations(connection, schema or None)
            if postgres
            else sql_sqlite.relations(connection, schema or None)
        )
        folded, found = fold(definition.table_name), _match(name, known)
        same = next((other for other, oid in oids.items() if found is not None and oid == known[found]), None)
        if same is not None:
            missing[folded] = f"'{definition.table_name}' is the same table as '{same}'; name it once in SqlTables"
            continue
        if found is None:
            long = sql_postgres.too_long(name) if postgres else None
            remedy = f"the name {long}" if long else "create it in the target"
            missing[folded] = f"the target has no table '{definition.table_name}'; {remedy}"
            continue
        columns = (
            sql_postgres.columns(connection, known[found])
            if postgres
            else sql_sqlite.columns(connection, schema or None, found)
        )
        try:
            targets[folded] = TargetTable(definition, found, columns, connection.dialect)
        except NotWritable as error:
            missing[folded] = str(error)
        oids[folded] = known[found]
    if postgres:
        _rank(targets, oids, sql_postgres.references(connection))
    return TargetSchema(targets, missing, postgres and sql_postgres.has_deferrable(connection))


def _rank(targets: Mapping[str, TargetTable], oids: Mapping[str, int], references: Iterable[tuple[int, int]]) -> None:
    """Tables that refer to others come after them; in a circle they stay as they are."""
    by_oid = {oids[name]: target for name, target in targets.items()}
    edges = [(by_oid[a], by_oid[b]) for a, b in references if a in by_oid and b in by_oid]
    for _ in targets:
        for target, parent in edges:
            target.rank = min(max(target.rank, parent.rank + 1), len(targets))


def _match(name: str, known: Iterable[str]) -> str | None:
    """The name itself, else the only one that differs by case."""
    known = list(known)
    if name in known:
        return name
    alike = [other for other in known if fold(other) == fold(name)]
    return alike[0] if len(alike) == 1 else None
