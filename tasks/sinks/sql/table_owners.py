"""Who writes a table: two writers of the rows of one document would delete each other's, as a new version of a document
replaces all rows with its id.

Within a task, transforms may share a table if no document is both's: each leaves to the other what has moved there.
Two tasks know nothing of each other, so a table that is not only inserted into belongs to one of them.
"""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import msgspec

from raftnode.foundation.decoding import DECODE_ERRORS, from_json
from raftnode.foundation.names import fold
from raftnode.record.model import Database, Task
from tasks.etl.configuration import TransformConfiguration
from tasks.etl.transform import targets
from tasks.kinds.registry import ConfigurationError
from tasks.kinds.sql_etl.configuration import SqlEtlConfiguration
from tasks.sinks.sql import connection_string as sql_connection
from tasks.sinks.sql import names as sql_names
from tasks.sinks.sql.connection_string import SqlConnection
from tasks.sinks.sql.dialects import dialect
from tasks.sinks.sql.tables import SqlTable

KIND = "SqlEtl"
Qualified = tuple[str, str]
"""A table's schema and name, folded."""
_REMEDY = "set InsertOnlyMode for it"


def check_transforms(etl: SqlEtlConfiguration) -> None:
    """Refuses transforms that write a table for the same documents. Raises ConfigurationError."""
    deleting = {fold(table.table_name) for table in etl.sql_tables if not table.insert_only_mode}
    for one, other in combinations([t for t in etl.transforms if not t.disabled], 2):
        shared = sorted(_tables(one) & _tables(other) & deleting)
        if shared and (both := _documents_of_both(one, other)):
            raise ConfigurationError(
                "Transforms",
                f"'{one.name}' and '{other.name}' both write table '{shared[0]}' for {both}, so each would delete the "
                f"rows of the other; load to it from one script, give them collections of their own, or {_REMEDY}",
            )


def check_tables(etl: SqlEtlConfiguration, database: Database) -> None:
    """Refuses a table that is named in two ways. Raises ConfigurationError."""
    target, found = _target(database, etl), dict[Qualified, str]()
    for table in etl.sql_tables:
        first = found.setdefault(_qualified(table.table_name, etl, target), table.table_name)
        if first != table.table_name:
            raise ConfigurationError(
                "SqlTables.TableName", f"'{table.table_name}' is the same table as '{first}'; name it once"
            )


def check_tasks(etl: SqlEtlConfiguration, id: int, database: Database) -> None:
    """Refuses a table that another task of the database writes in the same target. `id` is the task's own, 0 for a new
    one. Raises ConfigurationError."""
    address = _address(database, etl.connection_string_name)
    alike = {name for name in database.connection_strings if _address(database, name) == address is not None}
    for task in sorted(database.tasks.values(), key=lambda task: task.id):
        own = task.id == id or fold(task.name) == fold(etl.name)
        if task.kind == KIND and not own and fold(task.connection_string or "") in alike:
            other = _configuration(task)
            if other is not None:
                _check_pair(_written(etl, database), etl.name, _written(other, database), other.name)


def check_connection(given: Mapping[str, Any], database: Database) -> None:
    """Refuses a connection string that leads tasks which use it to a table that others write. Raises
    ConfigurationError."""
    name = fold(str(given.get("Name", "")))
    strings = {key: from_json(string.configuration) for key, string in database.connection_strings.items()}
    strings[name] = dict(given)
    address = _parsed(strings[name])
    led = {key for key, string in strings.items() if address is not None and _parsed(string) == address}
    tasks = [t for t in database.tasks.values() if t.kind == KIND and fold(t.connection_string or "") in led]
    known = [other for task in sorted(tasks, key=lambda task: task.id) if (other := _configuration(task))]
    for one in known:
        for other in known:
            if fold(one.connection_string_name) == name != fold(other.connection_string_name):
                mine = _written(one, database, given)
                _check_pair(mine, one.name, _written(other, database), other.name)


def _check_pair(mine: Mapping[Qualified, SqlTable], etl: str, theirs: Mapping[Qualified, SqlTable], other: str) -> None:
    for name in sorted(mine.keys() & theirs.keys()):
        one, two = mine[name], theirs[name]
        same_ids = fold(one.document_id_column) == fold(two.document_id_column)
        if same_ids and not (one.insert_only_mode and two.insert_only_mode):
            raise ConfigurationError(
                "SqlTables.TableName",
                f"'{one.table_name}' is written by task '{other}' in the same target as by '{etl}', so each "
                f"would delete rows of the other; make both one task with several transforms, give each a table or a "
                f"DocumentIdColumn of its own, or {_REMEDY} in both",
            )


def _written(
    etl: SqlEtlConfiguration, database: Database, connection: Mapping[str, Any] | None = None
) -> dict[Qualified, SqlTable]:
    """The tables that a task writes, by a name that is the same for all spellings; over that connection, if it is not
    the database's."""
    names = {name for transform in etl.transforms if not transform.disabled for name in _tables(transform)}
    target = _target(database, etl, connection)
    written = [table for table in etl.sql_tables if fold(table.table_name) in names]
    return {_qualified(table.table_name, etl, target): table for table in written}


def _qualified(name: str, etl: SqlEtlConfiguration, target: SqlConnection) -> Qualified:
    lower = dialect(target.url.get_backend_name()).LOWER_CASE
    schema, table = sql_names.split(name, quoted=etl.quote_tables, lower=lower).folded
    return schema or _schema(target), table


def _target(database: Database, etl: SqlEtlConfiguration, connection: Mapping[str, Any] | None = None) -> SqlConnection:
    if connection is None:
        connection = from_json(database.connection_strings[fold(etl.connection_string_name)].configuration)
    return sql_connection.parse(connection)


def _schema(target: SqlConnection) -> str:
    """Where tables without a schema stand, folded."""
    if target.url.drivername == sql_connection.SQLITE:
        return "main"
    if target.url.drivername == sql_connection.MYSQL:
        return fold(str(target.url.database))
    return target.search_path.partition(",")[0].strip().strip('"').lower() or "public"


def _tables(transform: TransformConfiguration) -> set[str]:
    return {fold(table) for table in targets(transform.script)}


def _documents_of_both(one: TransformConfiguration, other: TransformConfiguration) -> str | None:
    if one.apply_to_all_documents or other.apply_to_all_documents:
        return "the same documents"
    folded = {fold(name) for name in other.collections}
    shared = [name for name in one.collections if fold(name) in folded]
    return f"documents of '{shared[0]}'" if shared else None


def _configuration(task: Task) -> SqlEtlConfiguration | None:
    try:
        return from_json(task.configuration, SqlEtlConfiguration)
    except (msgspec.ValidationError, *DECODE_ERRORS):
        return None  # an older version has stored it: its body says what is wrong with it, and it writes to no table


def _address(database: Database, name: str) -> object:
    string = database.connection_strings.get(fold(name))
    return None if string is None else _parsed(from_json(string.configuration))


def _parsed(configuration: Mapping[str, Any] | None) -> object:
    """Where a connection string leads, whoever logs in; None for one that leads nowhere."""
    try:
        target = sql_connection.parse(configuration or {})
    except ConfigurationError:
        return None
    url = target.url
    hosts = target.hosts or ((str(url.host).lower(), url.port),)
    return url.get_backend_name(), sorted(map(str, hosts)), url.database
