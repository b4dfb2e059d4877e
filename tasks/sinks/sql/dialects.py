"""What the databases that can be targets do each in its own way, as far as it concerns the user's tables."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Protocol

import sqlalchemy as sa

from tasks.sinks.sql import mysql, postgres, sqlite
from tasks.sinks.sql.types import Column


class TargetDialect(Protocol):
    """A module for each database. A relation is a table, or a view that can be written, by what identifies it there."""

    PLACEHOLDER: str
    """What stands for the n-th value in a statement, with {} for n."""
    LOWER_CASE: bool
    """Whether names without quotes are read in lower case."""

    def too_long(self, name: str) -> str | None:
        """Why no table or column can have this name; None if one can."""

    def relations(self, connection: sa.Connection, schema: str | None) -> Mapping[str, Hashable]:
        """The relations of a schema, the target's own for None, by name."""

    def columns(self, connection: sa.Connection, relation: Hashable) -> Sequence[Column]:
        """The columns of a relation. Raises NotWritable where it cannot be written in a transaction."""

    def references(self, connection: sa.Connection) -> Sequence[tuple[Hashable, Hashable]]:
        """Which relations refer to which others, by foreign keys that are checked."""

    def has_deferrable(self, connection: sa.Connection) -> bool:
        """Whether anything in the database may be checked as late as at the commit."""

    def row_bytes_max(self, connection: sa.Connection) -> int | None:
        """The longest row that one statement can take; None for no limit worth the name."""


_BY_NAME: Mapping[str, TargetDialect] = {"postgresql": postgres, "sqlite": sqlite, "mysql": mysql}


def dialect(name: str) -> TargetDialect:
    """The one of SQLAlchemy's name for it."""
    return _BY_NAME[name]
