"""The configuration of an SQL ETL task, RavenDB's, and what is refused at the door."""

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import msgspec
from msgspec.structs import replace

from raftnode.foundation.decoding import from_json
from raftnode.foundation.names import fold
from raftnode.record.model import Database
from tasks.etl.configuration import TransformConfiguration, check_requires, check_script, check_transforms, twice
from tasks.etl.transform import Transform, targets
from tasks.kinds.fitting import fitted
from tasks.kinds.registry import ConfigurationError
from tasks.sinks.sql import connection_string as sql_connection
from tasks.sinks.sql import names as sql_names
from tasks.sinks.sql.dialects import dialect
from tasks.sinks.sql.tables import SqlTable

TABLES_MAX = 100
COMMAND_TIMEOUT_MAX_S = 86_400
_NOT_OF_ROWS = re.compile(
    r"\b(addCounter|addTimeSeries|load(?:Counters|TimeSeries)Of\w+Behavior|deleteDocuments(?:Of\w+)?Behavior)\s*\("
)
"""What scripts of RavenDB ETL may call or declare, and rows have no use for."""


class SqlEtlConfiguration(msgspec.Struct, frozen=True, rename="pascal"):
    """RavenDB's SqlEtlConfiguration. `command_timeout` is in s, None for the node's own limit. `parameterize_deletes`
    and `force_query_recompile` are about plans of SQL Server and change nothing here: values always go as parameters.
    `requires` is ours: the labels that a node must have to run the task."""

    name: str = ""
    connection_string_name: str = ""
    transforms: tuple[TransformConfiguration, ...] = ()
    sql_tables: tuple[SqlTable, ...] = ()
    quote_tables: bool = True
    parameterize_deletes: bool = True
    force_query_recompile: bool = False
    command_timeout: int | None = None
    mentor_node: str | None = None
    pin_to_mentor_node: bool = False
    disabled: bool = False
    requires: tuple[str, ...] = ()


def parse(configuration: Mapping[str, Any], database: Database) -> SqlEtlConfiguration:
    """The configuration with its names filled in. Raises ConfigurationError."""
    etl = fitted(configuration, SqlEtlConfiguration)
    string = database.connection_strings.get(fold(etl.connection_string_name))
    if string is None or string.type != "Sql":
        known = ", ".join(sorted(s.name for s in database.connection_strings.values() if s.type == "Sql")) or "none"
        problem = f"there is no SQL connection string '{etl.connection_string_name}'; known: {known}"
        raise ConfigurationError("ConnectionStringName", problem)
    _check_tables(etl.sql_tables)
    _check_names(etl, sql_connection.parse(from_json(string.configuration)).url.get_backend_name())
    _check_transforms(etl)
    if etl.command_timeout is not None and not 1 <= etl.command_timeout <= COMMAND_TIMEOUT_MAX_S:
        problem = f"is {etl.command_timeout}; give 1 to {COMMAND_TIMEOUT_MAX_S} s, or null for the node's own limit"
        raise ConfigurationError("CommandTimeout", problem)
    check_requires(etl.requires)
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
    if name := twice(table.table_name for table in tables):
        raise ConfigurationError("SqlTables.TableName", f"'{name}' is listed twice; name each table once")


def _check_names(etl: SqlEtlConfiguration, backend: str) -> None:
    """Refuses names that no table or column of the target can have."""
    target = dialect(backend)
    for table in etl.sql_tables:
        try:
            parts = sql_names.split(table.table_name, quoted=etl.quote_tables, lower=target.LOWER_CASE)
        except ValueError as error:
            problem = f"{error}; write name or schema.name, with quotes around parts that need them"
            raise ConfigurationError("SqlTables.TableName", problem) from None
        for name in parts:
            if problem := target.too_long(name) or "":
                raise ConfigurationError("SqlTables.TableName", f"'{name}' {problem}")
        if problem := target.too_long(table.document_id_column) or "":
            raise ConfigurationError("SqlTables.DocumentIdColumn", f"'{table.document_id_column}' {problem}")


def _check_transforms(etl: SqlEtlConfiguration) -> None:
    check_transforms(etl.transforms)
    known = {fold(table.table_name) for table in etl.sql_tables}
    for transform in etl.transforms:
        which = f"transform '{transform.name}'"
        if found := _NOT_OF_ROWS.search(transform.script):
            problem = f"{which} has {found[1]}, which is of RavenDB ETL; leave it out: old rows always go"
            raise ConfigurationError("Transforms.Script", problem)
        tables = targets(transform.script)
        if not tables:
            raise ConfigurationError("Transforms.Script", f"{which} loads nothing; call loadTo<Table>({{...}})")
        for table in tables:
            if fold(table) not in known:
                problem = f"{which} loads to '{table}', which is not in SqlTables; add it there"
                raise ConfigurationError("Transforms.Script", problem)
        check_script(partial(Transform, transform.name, transform.script))
