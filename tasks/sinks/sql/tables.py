"""The user's own tables in a target, as they are there. Names may differ by case."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from raftnode.foundation.names import fold
from tasks.sinks.sql import names as sql_names
from tasks.sinks.sql.dialects import TargetDialect, dialect
from tasks.sinks.sql.types import Column, DoesNotFit, NotWritable

COLUMNS_SHOWN_MAX = 20
"""So many of a table's columns are named in an error."""


class SqlTable(msgspec.Struct, frozen=True, rename="pascal"):
    """RavenDB's SqlTables entry. The rows of a document are those with its id in `document_id_column`; in insert-only
    mode they are never deleted."""

    table_name: str
    document_id_column: str
    insert_only_mode: bool = False


class TargetTable:
    """A table as it is in the database. `rank` is 0 for a table that refers to no other of the task's, above that of
    all it refers to otherwise."""

    def __init__(
        self,
        definition: SqlTable,
        name: Sequence[str],
        columns: Sequence[Column],
        quote: Callable[[str], str],
        dialect: TargetDialect,
        row_bytes_max: int | None,
    ) -> None:
        self.name = definition.table_name
        self.insert_only = definition.insert_only_mode
        self.columns = {column.name: column for column in columns}
        self.rank = 0
        self._quote, self._dialect, self._row_bytes_max = quote, dialect, row_bytes_max
        self.table = ".".join(quote(part) for part in name if part)
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
        self._check_length(converted)
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

    def delete(self, ids: Sequence[Any]) -> tuple[str, tuple[Any, ...]]:
        """The statement that deletes the rows of these document ids, and its parameters."""
        parameters = self._parameters([self.id_column] * len(ids))
        # By itself, the quoted name of a column that is gone would be a text to SQLite, and nothing would be deleted.
        column = f"{self.table}.{self._quote(self.id_column.name)}"
        statement = f"DELETE FROM {self.table} WHERE {column} IN ({parameters})"
        if not self.id_column.exact_text:
            return statement, tuple(ids)
        # The index finds what compares equal; of that, what is the same goes.
        same = ", ".join(f"CAST({self._dialect.PLACEHOLDER} AS BINARY)" for _ in ids)
        return f"{statement} AND CAST(CONVERT({column} USING utf8mb4) AS BINARY) IN ({same})", (*ids, *ids)

    def _parameters(self, columns: Iterable[Column]) -> str:
        return ", ".join(c.parameter.format(self._dialect.PLACEHOLDER.format(n)) for n, c in enumerate(columns, 1))

    def _check_length(self, row: Mapping[str, Any]) -> None:
        if self._row_bytes_max is None:
            return
        texts = [value for value in row.values() if isinstance(value, str)]
        if sum(map(len, texts)) * 4 <= self._row_bytes_max:
            return
        count = sum(len(text.encode(errors="surrogatepass")) for text in texts)
        if count > self._row_bytes_max:
            raise DoesNotFit(
                f"{self.name}: the row has {count:,} bytes, and the server's max_allowed_packet is for rows of up to "
                f"{self._row_bytes_max:,}; raise it there"
            )

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
            long = self._dialect.too_long(name)
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


def reflect(connection: sa.Connection, tables: Sequence[SqlTable], *, quoted: bool = True) -> TargetSchema:
    """The tables as they are now. `quoted` as in `names.split`."""
    target = dialect(connection.dialect.name)
    quote, bytes_max = connection.dialect.identifier_preparer.quote_identifier, target.row_bytes_max(connection)
    targets, missing, relations = dict[str, TargetTable](), dict[str, str](), dict[str, Hashable]()
    for definition in tables:
        folded = fold(definition.table_name)
        schema, name = sql_names.split(definition.table_name, quoted=quoted, lower=target.LOWER_CASE)
        known = target.relations(connection, schema or None)
        found = _match(name, known)
        if found is None:
            missing[folded] = f"the target has no table '{definition.table_name}'; " + (
                f"the name {long}" if (long := target.too_long(name)) else "create it in the target"
            )
            continue
        same = next((other for other, relation in relations.items() if relation == known[found]), None)
        if same is not None:
            missing[folded] = f"'{definition.table_name}' is the same table as '{same}'; name it once in SqlTables"
            continue
        try:
            columns = target.columns(connection, known[found])
            targets[folded] = TargetTable(definition, (schema, found), columns, quote, target, bytes_max)
        except NotWritable as error:
            missing[folded] = str(error)
        relations[folded] = known[found]
    _rank(targets, relations, target.references(connection))
    return TargetSchema(targets, missing, target.has_deferrable(connection))


def _rank(
    targets: Mapping[str, TargetTable],
    relations: Mapping[str, Hashable],
    references: Iterable[tuple[Hashable, Hashable]],
) -> None:
    """Tables that refer to others come after them; in a circle they stay as they are."""
    known = {relations[name]: target for name, target in targets.items()}
    edges = [(known[a], known[b]) for a, b in references if a in known and b in known]
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
