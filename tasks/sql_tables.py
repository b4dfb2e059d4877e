"""The user's own tables in a target. Their columns are read from the database; names may differ by case."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from tasks.kinds import TaskFailed
from tasks.sql_types import Converter, DoesNotFit, converter


class SqlTable(msgspec.Struct, frozen=True, rename="pascal"):
    """RavenDB's SqlTables entry. The rows of a document are those with its id in `document_id_column`; in insert-only
    mode they are never deleted."""

    table_name: str
    document_id_column: str
    insert_only_mode: bool = False


class Target:
    """A table as it is in the database."""

    def __init__(self, definition: SqlTable, table: sa.Table, dialect: sa.Dialect) -> None:
        self.name = definition.table_name
        self.table = table
        self.insert_only = definition.insert_only_mode
        self.columns = [column.name for column in table.columns]
        try:
            self.id_column = table.columns[self._column(definition.document_id_column)]
        except DoesNotFit as error:
            raise TaskFailed(str(error)) from None
        self._converters: dict[str, Converter] = {c.name: converter(c.type, dialect) for c in table.columns}
        self._found: dict[str, str] = {}

    def convert(self, id: str, row: Mapping[str, Any]) -> dict[str, Any]:
        """A row as the table takes it; the document's id goes into its column. Raises DoesNotFit."""
        converted = {}
        for given, value in row.items():
            column = self._found.get(given) or self._found.setdefault(given, self._column(given))
            try:
                converted[column] = self._converters[column](value)
            except DoesNotFit as error:
                raise DoesNotFit(f"{self.name}.{column}: {error}") from None
        converted[self.id_column.name] = self._converters[self.id_column.name](id)
        return converted

    def _column(self, name: str) -> str:
        found = _match(name, self.columns)
        if found is None:
            known = ", ".join(self.columns)
            raise DoesNotFit(f"table '{self.name}' has no column '{name}'; add it, or load to one of: {known}")
        return found


def reflect(connection: sa.Connection, tables: Sequence[SqlTable]) -> dict[str, Target]:
    """The targets by folded table name. Raises TaskFailed for a table or id column that is missing."""
    targets = {}
    inspector = sa.inspect(connection)
    for definition in tables:
        schema, _, name = definition.table_name.rpartition(".")
        known = [*inspector.get_table_names(schema or None), *inspector.get_view_names(schema or None)]
        found = _match(name, known)
        if found is None:
            raise TaskFailed(f"the target has no table '{definition.table_name}'; create it in the target")
        table = sa.Table(found, sa.MetaData(), schema=schema or None, autoload_with=connection, resolve_fks=False)
        targets[definition.table_name.lower()] = Target(definition, table, connection.dialect)
    return targets


def _match(name: str, known: Iterable[str]) -> str | None:
    """The name itself, else the only one that differs by case."""
    known = list(known)
    if name in known:
        return name
    alike = [other for other in known if other.lower() == name.lower()]
    return alike[0] if len(alike) == 1 else None
