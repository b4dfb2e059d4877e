"""RavenDB's database record, which has the connection strings and tasks of each type in a section of their own."""

from collections.abc import Iterator
from typing import Any

from raftnode.foundation import masking
from raftnode.foundation.decoding import from_python_json
from raftnode.record.model import ConnectionString, Database, Task
from raftnode.web.sliced_json import JsonArray, JsonObject
from raftnode.web.views.base import Json
from raftnode.web.views.tasks import configuration
from tasks.kinds import connection_types, registry


def database_record(database: Database) -> Iterator[tuple[str, Any]]:
    """Its members, the long lists made as they are asked for. Its Etag is the log index of the last change."""
    fields = list(_fields(database))
    yield from fields
    taken = {name for name, _ in fields}
    tasks: dict[str, list[Task]] = {name: [] for name in registry.SECTIONS.values()}
    for task in sorted(database.tasks.values(), key=lambda t: t.id):
        section = registry.section(task.kind)
        # Two members of one name are no JSON that clients read alike: RavenDB's field keeps its name.
        tasks.setdefault(f"{task.kind}Tasks" if section in taken else section, []).append(task)
    for section, found in tasks.items():
        yield section, JsonArray(map(configuration, found))
    yield "Etag", database.etag


def _fields(database: Database) -> Iterator[tuple[str, Any]]:
    """All but the sections of tasks."""
    yield "DatabaseName", database.name
    yield "Disabled", database.disabled
    yield "Encrypted", False
    yield "EtagForBackup", 0
    yield "DeletionInProgress", dict(database.deletion_in_progress) or None
    yield "LockMode", database.lock_mode
    yield "Topology", database.topology
    yield "Settings", masking.masked(dict(database.settings))
    yield "Indexes", JsonObject((i.name, from_python_json(i.definition)) for i in database.indexes.values())
    yield "AutoIndexes", {}
    yield from connection_strings(database).items()


def connection_strings(database: Database) -> dict[str, dict[str, Json]]:
    """Connection strings by type, then by name, each type present even when empty."""
    groups: dict[str, dict[str, Json]] = {connection_types.section(type): {} for type in connection_types.TYPES}
    for string in sorted(database.connection_strings.values(), key=lambda s: s.name):
        groups.setdefault(connection_types.section(string.type), {})[string.name] = connection_string(string)
    return groups


def connection_string(string: ConnectionString) -> Json:
    """A connection string as it was put, its secrets masked. Nobody is shown them; the record has them."""
    given: Json = masking.masked(from_python_json(string.configuration))
    return given | {"Name": string.name, "Type": string.type}
