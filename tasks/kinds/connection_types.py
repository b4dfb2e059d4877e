"""Which connection strings there are: RavenDB's types, and those that kinds of tasks bring along."""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from raftnode.foundation.masking import in_text
from raftnode.record.commands.base import CommandRefused, check_database_name
from raftnode.record.model import Database
from tasks.kinds.fitting import fitted
from tasks.kinds.registry import ConfigurationError, TakesConnections, kinds, load

TYPES = ("Raven", "Sql", "Olap", "ElasticSearch", "Queue", "Snowflake")
"""RavenDB's own: each has a section of the database record, there even when it is empty."""
URLS_MAX = 100
_BLANK = re.compile(r"[\s\0]")


class UnknownConnectionType(Exception):
    """No kind of this node takes connection strings of that type. The message says which there are."""


class RavenConnectionString(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """Another cluster's database."""

    database: str
    topology_discovery_urls: list[str]


def section(type: str) -> str:
    """The field of the database record that lists the connection strings of that type."""
    return f"{type}ConnectionStrings"


def check(type: str, configuration: Mapping[str, Any], database: Database) -> None:
    """Validate the JSON of a connection string at the door. Imports the kinds that could take it. Raises
    UnknownConnectionType or ConfigurationError."""
    if type == "Raven":
        parse_raven(configuration)
    else:
        _taker(type).parse_connection(configuration, database)


def _taker(type: str) -> TakesConnections:
    """The kind that takes connection strings of that type. One that is named after it is looked at first."""
    known, failed = {"Raven"}, None
    for name in sorted(kinds(), key=lambda name: (not name.startswith(type), name)):
        try:
            kind = load(name)
        except ConfigurationError as error:
            failed = failed or error
            continue
        if isinstance(kind, TakesConnections):
            if kind.connection_type == type:
                return kind
            known.add(kind.connection_type)
    raise failed or UnknownConnectionType(f"This node has {', '.join(sorted(known))}. Use one of them.")


def parse_raven(configuration: Mapping[str, Any]) -> RavenConnectionString:
    """Another cluster's database, from the JSON of a connection string. Raises ConfigurationError."""
    raven = fitted(configuration, RavenConnectionString)
    if not raven.database.strip():
        raise ConfigurationError("Database", "is empty; name the database of the other cluster")
    try:
        check_database_name(raven.database)
    except CommandRefused as refused:
        raise ConfigurationError("Database", refused.error.message) from None
    if not 1 <= len(raven.topology_discovery_urls) <= URLS_MAX:
        problem = f"has {len(raven.topology_discovery_urls)} entries; name 1 to {URLS_MAX} nodes of the other cluster"
        raise ConfigurationError("TopologyDiscoveryUrls", problem)
    for url in raven.topology_discovery_urls:
        if not _is_address(url):
            problem = f"'{in_text(url[:200])}' is no address of a node; write it like http://node:8080"
            raise ConfigurationError("TopologyDiscoveryUrls", problem)
    return raven


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    more = parts.username or parts.query or parts.fragment or parts.path.strip("/") or _BLANK.search(url)
    return parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0 and not more
