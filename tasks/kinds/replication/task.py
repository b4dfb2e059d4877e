"""External replication: all documents of this database go to one of another group, with their change vectors.

The sender is the group's own. The destination knows how far it has this node's order, and takes what is repeated once:
a new run, on whatever node, goes on from there, and what arrives late changes nothing.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from raftnode.foundation.decoding import from_json
from raftnode.foundation.names import fold
from raftnode.record.model import Database, Task
from raftnode.record.ownership import task_key
from tasks.kinds.connection_types import RavenConnectionString
from tasks.kinds.registry import TaskDefinition
from tasks.kinds.replication import configuration as replication_configuration
from tasks.kinds.replication.configuration import ExternalReplicationConfiguration
from tasks.kinds.replication.run import ReplicationRun
from tasks.runtime.context import TaskContext

NAME = "Replication"


class ReplicationKind:
    """The kind "Replication"."""

    name = NAME

    def parse(self, configuration: Mapping[str, Any], database: Database) -> TaskDefinition:
        """See `TaskKind.parse`. The task moves when its name or its connection string's name changes."""
        given = replication_configuration.parse(configuration, database)
        name, string = given.name or "", given.connection_string_name or ""
        return TaskDefinition(
            name=name,
            kind=NAME,
            key=task_key(NAME, name, fold(string)),
            configuration=msgspec.json.encode(given),
            mentor=given.mentor_node or None,
            pinned=given.pin_to_mentor_node,
            disabled=given.disabled,
            requires=given.requires,
            connection_string=string,
        )

    async def run(self, context: TaskContext) -> None:
        """See `TaskKind.run`."""
        await ReplicationRun(context).run()

    def shown(self, task: Task, connection: bytes | None, details: Mapping[str, Any]) -> Mapping[str, Any]:
        """See `ShowsMore.shown`. RavenDB's OngoingTaskReplication."""
        given = from_json(task.configuration, ExternalReplicationConfiguration)
        string = None if connection is None else from_json(connection, RavenConnectionString)
        return {
            "DestinationUrl": details.get("DestinationUrl"),
            "TopologyDiscoveryUrls": string.topology_discovery_urls if string else [],
            "DestinationDatabase": string.database if string else given.database,
            "ConnectionStringName": given.connection_string_name,
            "DelayReplicationFor": given.delay_replication_for,
            "FromToString": details.get("FromToString"),
            "LastAcceptedChangeVectorFromDestination": details.get("LastAcceptedChangeVectorFromDestination"),
            "SourceDatabaseChangeVector": details.get("SourceDatabaseChangeVector"),
            "LastSentEtag": details.get("LastSentEtag", 0),
            "LastDatabaseEtag": details.get("LastDatabaseEtag", 0),
        }


KIND = ReplicationKind()
