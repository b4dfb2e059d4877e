"""What every command has in common: a frozen struct with a pure `apply`, and a way to refuse.

A command that is refused changes nothing: `apply` raises `CommandRefused` and the machine answers with its error.
"""

from typing import Any, NoReturn

import msgspec

from raftnode.foundation.names import fold
from raftnode.record.model import LABELS_MAX, NAME_LENGTH_MAX, ClusterNode, CommandError, Database, Record


class Entry(msgspec.Struct, frozen=True):
    """The log entry that carries a command."""

    index: int
    term: int


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """What a command changed, so that nobody else needs to look: the cluster's nodes, or databases by folded name,
    or claims by key."""

    cluster: bool = False
    databases: frozenset[str] = frozenset()
    claims: frozenset[str] = frozenset()


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The record after a command, the value of its answer, and what it changed."""

    record: Record
    value: Any = None
    changes: Changes = Changes()


class CommandRefused(Exception):
    """Raised by `apply` when a command does not hold; `error` is the answer."""

    def __init__(self, error: CommandError) -> None:
        super().__init__(error.message)
        self.error = error


class Command(msgspec.Struct, frozen=True, kw_only=True, tag_field="command"):
    """Base of all commands; the tag is the class name and part of the journal's format."""

    def apply(self, record: Record, entry: Entry) -> Outcome:
        """The record with this command applied. Pure. Raises CommandRefused when it does not hold."""
        raise NotImplementedError


def refuse(kind: str, message: str) -> NoReturn:
    """Refuse the command with a RavenDB exception name and a sentence that holds the remedy."""
    raise CommandRefused(CommandError(type=kind, message=message))


def the_database(record: Record, name: str) -> Database:
    """The database of that name; refuses if there is none."""
    database = record.database(name)
    if database is None:
        refuse("DatabaseDoesNotExistException", f"Database '{name}' does not exist. Create it first.")
    return database


def the_node(record: Record, tag: str) -> ClusterNode:
    """The cluster node of that tag; refuses if there is none."""
    node = record.nodes.get(tag)
    if node is None:
        known = ", ".join(sorted(record.nodes)) or "none"
        refuse("NodeDoesNotExistException", f"Node '{tag}' is not in the cluster. Known nodes: {known}.")
    return node


def check_name(what: str, name: str) -> None:
    """Refuses a name that is empty, too long, or would not survive as part of a path or a claim's key."""
    if not name or name != name.strip():
        refuse("BadRequestException", f"{what} must not be empty or start or end with blanks.")
    if len(name) > NAME_LENGTH_MAX:
        refuse("BadRequestException", f"{what} is longer than {NAME_LENGTH_MAX} characters.")
    if any(ord(c) < 32 or c == "\x7f" for c in name):
        refuse("BadRequestException", f"{what} must not hold control characters.")


def check_labels(labels: tuple[str, ...]) -> None:
    """Refuses more labels than a node may have, one that is no name, and one with a comma, as lists are written."""
    if len(labels) > LABELS_MAX:
        refuse("LimitExceededException", f"{len(labels)} labels; at most {LABELS_MAX} are allowed. Give fewer.")
    for label in labels:
        check_name("A label", label)
        if "," in label:
            refuse("BadRequestException", f"A label must not hold a comma: '{label}'. Give two labels instead.")


def check_database_name(name: str) -> None:
    """Refuses a database name that is no safe file name: letters, digits, '_', '-' and '.' only."""
    check_name("Database name", name)
    if not all(c.isalnum() or c in "_-." for c in name) or name.startswith("."):
        refuse(
            "BadRequestException",
            f"Database name '{name}' may hold only letters, digits, '_', '-' and '.', and not start with '.'.",
        )


def with_database(record: Record, database: Database, entry: Entry, value: Any = None) -> Outcome:
    """The outcome of a command that changed one database: its etag becomes the entry's index."""
    stamped = msgspec.structs.replace(database, etag=entry.index)
    folded = fold(database.name)
    return Outcome(
        record=msgspec.structs.replace(record, databases=record.databases.set(folded, stamped)),
        value=value,
        changes=Changes(databases=frozenset({folded})),
    )
