"""The configuration of an external replication, RavenDB's, and what is refused at the door."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from raftnode.foundation.decoding import from_json
from raftnode.foundation.names import fold
from raftnode.foundation.timestamps import time_span
from raftnode.record.commands.base import CommandRefused, check_labels
from raftnode.record.model import ConnectionString, Database
from tasks.kinds.connection_types import parse_raven
from tasks.kinds.fitting import fitted
from tasks.kinds.registry import ConfigurationError

TYPE = "External"
DELAY_DAYS_MAX = 1_000


class ExternalReplicationConfiguration(msgspec.Struct, frozen=True, rename="pascal"):
    """RavenDB's ExternalReplication. `database` is the destination's, as the connection string names it; `url` is
    RavenDB's to tell where a task sends to, and stays empty here. `requires` is ours: the labels that a node must have
    to run the task."""

    name: str | None = None
    connection_string_name: str | None = None
    database: str | None = None
    url: str | None = None
    type: str = TYPE
    delay_replication_for: str | None = None
    mentor_node: str | None = None
    pin_to_mentor_node: bool = False
    disabled: bool = False
    requires: tuple[str, ...] = ()

    @property
    def delay_s(self) -> float:
        """How old a version must be to be sent, in seconds."""
        span = time_span(self.delay_replication_for or "")
        return span.total_s if span is not None else 0.0


def parse(configuration: Mapping[str, Any], database: Database) -> ExternalReplicationConfiguration:
    """The configuration with its names filled in. Raises ConfigurationError."""
    given = fitted(configuration, ExternalReplicationConfiguration)
    if given.type != TYPE:
        raise ConfigurationError("Type", f"is '{given.type[:40]}'; an external replication has '{TYPE}'")
    string = _connection_string(given, database)
    destination = parse_raven(from_json(string.configuration)).database
    if given.database and fold(given.database) != fold(destination):
        problem = f"is '{given.database}', but connection string '{string.name}' names '{destination}'; correct one"
        raise ConfigurationError("Database", problem)
    _check_delay(given.delay_replication_for)
    try:
        check_labels(given.requires)
    except CommandRefused as refused:
        raise ConfigurationError("Requires", refused.error.message) from None
    name = (given.name or "").strip() or f"External Replication to {string.name}"
    return replace(given, name=name, connection_string_name=string.name, database=destination)


def _connection_string(given: ExternalReplicationConfiguration, database: Database) -> ConnectionString:
    name = given.connection_string_name or ""
    string = database.connection_strings.get(fold(name))
    if string is None or string.type != "Raven":
        known = ", ".join(sorted(s.name for s in database.connection_strings.values() if s.type == "Raven")) or "none"
        raise ConfigurationError(
            "ConnectionStringName", f"there is no Raven connection string '{name}'; known: {known}"
        )
    return string


def _check_delay(delay: str | None) -> None:
    if delay is None:
        return
    span = time_span(delay)
    in_range = span is not None and not span.sign and span.hours < 24 and span.minutes < 60 and span.seconds < 60
    if span is None or not in_range or span.days > DELAY_DAYS_MAX:
        problem = f"is '{delay[:40]}'; write a time span of at most {DELAY_DAYS_MAX} days like 01:30:00 or 2.00:00:00"
        raise ConfigurationError("DelayReplicationFor", problem)
