"""The configuration of an SQL ETL task, RavenDB's, and what is refused at the door."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from raftnode.foundation.decoding import from_json
from raftnode.foundation.names import fold
from raftnode.record.commands.base import CommandRefused, check_labels
from raftnode.record.model import Database
from raftnode.scripting.javascript import ScriptError
from tasks.etl.transform import Transform, targets
from tasks.kinds.registry import ConfigurationError
from tasks.sinks.sql import connection_string as sql_connection
from tasks.sinks.sql import postgres as sql_postgres
from tasks.sinks.sql.tables import SqlTable

TRANSFORMS_MAX = 100
TABLES_MAX = 100


class TransformConfiguration(msgspec.Struct, frozen=True, rename="pascal"):
    """RavenDB's Transformation."""

    name: str = ""
    collections: tuple[str, ...] = ()
    script: str = ""
    apply_to_all_documents: bool = False
    disabled: bool = False


class SqlEtlConfiguration(msgspec.Struct, frozen=True, rename="pascal"):
    """RavenDB's SqlEtlConfiguration, as far as it means something here. `requires` is ours: the labels that a node must
    have to run the task."""

    name: str = ""
    connection_string_name: str = ""
    transforms: tuple[TransformConfiguration, ...] = ()
    sql_tables: tuple[SqlTable, ...] = ()
    mentor_node: str | None = None
    pin_to_mentor_node: bool = False
    disabled: bool = False
    requires: tuple[str, ...] = ()


def parse(configuration: Mapping[str, Any], database: Database) -> SqlEtlConfiguration:
    """The configuration with its names filled in. Raises ConfigurationError."""
    try:
        etl = msgspec.convert(configuration, SqlEtlConfiguration)
    except msgspec.ValidationError as error:
        raise ConfigurationError("Configuration", str(error)) from None
    string = database.connection_strings.get(fold(etl.connection_string_name))
    if string is None or string.type != "Sql":
        known = ", ".join(sorted(s.name for s in database.connection_strings.values() if s.type == "Sql")) or "none"
        problem = f"there is no SQL connection string '{etl.connection_string_name}'; known: {known}"
        raise ConfigurationError("ConnectionStringName", problem)
    _check_tables(etl.sql_tables)
    if sql_connection.parse(from_json(string.configuration)).url.drivername == sql_connection.POSTGRES:
        _check_names(etl.sql_tables)
    _check_transforms(etl)
    _check_requires(etl.requires)
    return replace(etl, name=etl.name.strip() or f"SQL ETL to {string.name}", connection_string_name=string.name)


def _check_tables(tables: tuple[SqlTable, ...]) -> None:
    if not 1 <= len(tables) <= TABLES_MAX:
        raise ConfigurationError("SqlTables", f"has {len(tables)} entries; name 1 to {TABLES_MAX} target tables")
    for table in tables:
        if not table.table_name.strip():
            raise ConfigurationError("SqlTables.TableName", "is empty; name a table of the target")
        if not table.document_id_column.strip():
            problem = f"table '{table.table_name}' has none; name the column that takes the document's id"
            raise ConfigurationError("SqlTables.DocumentIdColumn", problem)
    if twice := _twice(table.table_name for table in tables):
        raise ConfigurationError("SqlTables.TableName", f"'{twice}' is listed twice; name each table once")


def _check_names(tables: tuple[SqlTable, ...]) -> None:
    """Refuses names that no table or column of PostgreSQL can have."""
    for table in tables:
        for name in table.table_name.split("."):
            if problem := sql_postgres.too_long(name):
                raise ConfigurationError("SqlTables.TableName", f"'{name}' {problem}")
        if problem := sql_postgres.too_long(table.document_id_column):
            raise ConfigurationError("SqlTables.DocumentIdColumn", f"'{table.document_id_column}' {problem}")


def _check_transforms(etl: SqlEtlConfiguration) -> None:
    if not 1 <= len(etl.transforms) <= TRANSFORMS_MAX:
        raise ConfigurationError("Transforms", f"has {len(etl.transforms)} entries; give 1 to {TRANSFORMS_MAX}")
    if twice := _twice(transform.name for transform in etl.transforms):
        raise ConfigurationError("Transforms.Name", f"'{twice}' is listed twice; names must be unique")
    known = {fold(table.table_name) for table in etl.sql_tables}
    for transform in etl.transforms:
        which = f"transform '{transform.name}'"
        if not transform.name.strip():
            raise ConfigurationError("Transforms.Name", "is empty; name each transform")
        if not transform.collections and not transform.apply_to_all_documents:
            problem = f"{which} has none; name collections or set ApplyToAllDocuments"
            raise ConfigurationError("Transforms.Collections", problem)
        tables = targets(transform.script)
        if not tables:
            raise ConfigurationError("Transforms.Script", f"{which} loads nothing; call loadTo<Table>({{...}})")
        for table in tables:
            if fold(table) not in known:
                problem = f"{which} loads to '{table}', which is not in SqlTables; add it there"
                raise ConfigurationError("Transforms.Script", problem)
        try:
            Transform(transform.name, transform.script).check()
        except ScriptError as error:
            raise ConfigurationError("Transforms.Script", str(error)) from None


def _check_requires(labels: tuple[str, ...]) -> None:
    try:
        check_labels(labels)
    except CommandRefused as refused:
        raise ConfigurationError("Requires", refused.error.message) from None


def _twice(names: Iterable[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if fold(name) in seen:
            return name
        seen.add(fold(name))
    return None
