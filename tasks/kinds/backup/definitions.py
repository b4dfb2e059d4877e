"""What a backup holds beside documents: the database's settings, indexes, connection strings and tasks, as they were
put, and the last values of its identities. Its tasks are put again by their kinds when it is restored, so nothing here
depends on how the record looks inside.

The key of a backup task is left out where the backup itself is not encrypted: whoever has one backup must not be able
to read others. Other secrets are there, as the restored tasks need them.
"""

from typing import Any

import msgspec

from raftnode.foundation.decoding import DECODE_ERRORS, JsonDecoder, from_json
from raftnode.record.model import Database
from tasks.kinds.backup.protection import BackupDamaged

BACKUP = "Backup"


class KeptTask(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """A task: its kind, and its configuration as its kind takes it."""

    task_type: str
    name: str
    configuration: dict[str, Any]


class KeptString(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """A connection string."""

    name: str
    type: str
    configuration: dict[str, Any]


class KeptIndex(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """An index definition."""

    name: str
    definition: dict[str, Any]


class Definitions(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """See the module."""

    settings: dict[str, str] = {}
    indexes: tuple[KeptIndex, ...] = ()
    connection_strings: tuple[KeptString, ...] = ()
    tasks: tuple[KeptTask, ...] = ()
    identities: dict[str, int] = {}


_decoder: JsonDecoder[Definitions] = JsonDecoder(Definitions)


def of(database: Database, *, encrypted: bool) -> bytes:
    """The definitions of a database."""
    tasks = [
        KeptTask(
            task_type=task.kind,
            name=task.name,
            configuration=_configuration(task.kind, from_json(task.configuration), encrypted=encrypted)
            | {
                "Name": task.name,
                "Disabled": task.disabled,
                "MentorNode": task.mentor,
                "PinToMentorNode": task.pinned,
            },
        )
        for task in sorted(database.tasks.values(), key=lambda task: task.id)
    ]
    strings = sorted(database.connection_strings.values(), key=lambda string: string.name)
    return msgspec.json.encode(
        Definitions(
            settings=dict(database.settings),
            indexes=tuple(
                KeptIndex(name=index.name, definition=from_json(index.definition))
                for index in sorted(database.indexes.values(), key=lambda index: index.name)
            ),
            connection_strings=tuple(
                KeptString(name=one.name, type=one.type, configuration=from_json(one.configuration)) for one in strings
            ),
            tasks=tuple(tasks),
            identities={name: value for name, value in sorted(database.counters.items()) if name.endswith("|")},
        )
    )


def read(data: bytes) -> Definitions:
    """The definitions of a backup. Raises BackupDamaged."""
    try:
        return _decoder.decode(data)
    except (*DECODE_ERRORS, msgspec.ValidationError) as error:
        raise BackupDamaged(f"its definitions cannot be read: {error}") from None


def _configuration(kind: str, configuration: dict[str, Any], *, encrypted: bool) -> dict[str, Any]:
    settings = configuration.get("BackupEncryptionSettings")
    if kind == BACKUP and not encrypted and isinstance(settings, dict):
        return configuration | {"BackupEncryptionSettings": settings | {"Key": None}}
    return configuration
