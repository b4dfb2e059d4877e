"""The form of commands and values in journals and snapshots, and the limits: what nodes of every version must agree on.

A field that an older version has not written is read as the default that stands here. A row may gain a field; none may
go or change, as journals and snapshots hold it.
"""

from typing import Any, get_args

import msgspec
import pytest

from raftnode.record import commands, model, observer_memory, progress
from raftnode.record.commands import AnyCommand, decode
from raftnode.record.definition import TaskDefinition
from raftnode.record.encoding import dec_hook, enc_hook
from raftnode.record.value import RecordValue

TOPOLOGY: dict[str, Any] = {
    "Members": (),
    "Promotables": (),
    "Rehabs": (),
    "PredefinedMentors": {},
    "DemotionReasons": {},
    "PromotablesStatus": {},
    "Stamp": {"Index": 0, "Term": 0, "LeadersTicks": 0},
    "NodesModifiedAt": None,
    "DynamicNodesDistribution": False,
    "ReplicationFactor": 1,
    "PriorityOrder": (),
    "DatabaseTopologyIdBase64": "",
    "ClusterTransactionIdBase64": "",
}
NODE: dict[str, Any] = {
    "Tag": "A",
    "Url": "u",
    "ClusterAddress": "c",
    "NodeId": "",
    "Boot": 0,
    "Nonce": 0,
    "Kind": "Member",
    "Weight": 1,
    "Labels": (),
    "Draining": False,
    "Kinds": None,
    "PlacementIndex": 0,
    "Flags": (),
}
"""A node of the cluster and a topology, as several commands hold them."""

COMMANDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "AddDatabaseNode": ({"name": "n", "tag": "A"}, {"mentor": None}),
    "AddNode": (
        {"node": NODE},
        {},
    ),
    "AdvanceCounter": ({"database": "d", "name": "n"}, {"count": 1, "above": 0}),
    "AnnounceNode": (
        {"tag": "A", "node_id": "n", "boot": 1, "url": "u", "cluster_address": "c", "kinds": ("k",)},
        {"nonce": 0},
    ),
    "BlameTask": ({"key": "k", "epoch": 1, "tag": "A", "reason": "r"}, {}),
    "Checkpoint": (
        {
            "made": (
                {
                    "database": "d",
                    "id": 1,
                    "epoch": 1,
                    "progress": {
                        "Generation": 1,
                        "Epoch": 0,
                        "ChangeVector": "",
                        "LastEtags": {},
                        "Processed": 0,
                        "At": None,
                        "Failed": 0,
                        "Failures": (),
                        "Error": "",
                        "State": b"",
                    },
                },
            )
        },
        {},
    ),
    "ClaimTask": (
        {"database": "d", "kind": "k", "name": "n", "tag": "A", "node_id": "n", "boot": 1, "session": 1},
        {"nonce": 0},
    ),
    "ConfirmDeletion": ({"name": "n", "tag": "A"}, {}),
    "CreateDatabase": (
        {"name": "n"},
        {
            "replication_factor": 1,
            "nodes": (),
            "dynamic_nodes_distribution": False,
            "settings": {},
            "topology_id": "",
            "at": None,
        },
    ),
    "Decide": (
        {"term": 1, "iteration": 1, "at": "a", "at_ms": 1},
        {"topologies": (), "voids": (), "graces": (), "decisions": ()},
    ),
    "DeleteConnectionString": ({"database": "d", "name": "n"}, {}),
    "DeleteDatabase": ({"name": "n"}, {"hard_delete": False, "from_nodes": ()}),
    "DeleteIndex": ({"database": "d", "name": "n"}, {}),
    "DeleteTask": ({"database": "d", "id": 1}, {}),
    "FormCluster": (
        {
            "cluster_id": "c",
            "nodes": (NODE,),
            "timings": {"HeartbeatMs": 1, "LeaseMs": 1, "TaskStopTimeoutMs": 1, "TimeBeforeMovingToRehabMs": 1},
        },
        {},
    ),
    "PromoteDatabaseNode": ({"name": "n", "tag": "A"}, {}),
    "PutConnectionString": ({"database": "d", "name": "n", "type": "t", "configuration": b"{}"}, {}),
    "PutIndex": ({"database": "d", "name": "n", "definition": b"{}"}, {}),
    "PutTask": (
        {"database": "d", "name": "n", "kind": "k", "key": 1},
        {
            "id": 0,
            "mentor": None,
            "pinned": False,
            "disabled": False,
            "traits": {"Sticky": False, "ResourceHeavy": False, "PartitionTolerant": False, "GraceMin": None},
            "requires": (),
            "connection_string": None,
            "configuration": b"{}",
            "etag": None,
            "reset": False,
            "reset_transforms": (),
        },
    ),
    "ReleaseTask": ({"key": "k", "epoch": 1}, {"reason": "", "progress": None, "ran_until": ""}),
    "RemoveNode": ({"tag": "A"}, {}),
    "ReorderMembers": ({"name": "n", "members": ("m",)}, {"fixed": False}),
    "RetryFailed": ({"database": "d", "id": 1}, {}),
    "SetCounter": ({"database": "d", "name": "n", "value": 1}, {"back": False, "given": None}),
    "SetDatabaseState": ({"name": "n", "disabled": True}, {}),
    "SetDraining": ({"tag": "A", "draining": True}, {}),
    "SetDynamicDistribution": ({"name": "n", "enable": True}, {}),
    "SetLicence": ({}, {"highly_available_tasks": None, "dynamic_nodes_distribution": None}),
    "SetLockMode": ({"name": "n", "mode": "PreventDeletesError"}, {}),
    "SetNodeFlags": ({"tag": "A"}, {"flags": ()}),
    "SetNodeKind": ({"tag": "A", "kind": "Member"}, {}),
    "SetNodeTraits": ({"tag": "A"}, {"weight": None, "labels": None}),
    "SetTaskPin": ({"database": "d", "id": 1, "mentor": None}, {"pinned": False}),
    "SetTaskState": ({"database": "d", "id": 1, "disabled": True}, {}),
    "SetUpdateMentor": ({"name": "n", "tag": "A"}, {"mentor": None}),
    "SuspendObserver": ({"suspended": True}, {}),
}
"""By tag: the fields that each command must have, and the others with their defaults."""

VALUES: dict[type[RecordValue], tuple[dict[str, Any], dict[str, Any]]] = {
    model.Timings: ({"HeartbeatMs": 1, "LeaseMs": 1, "TaskStopTimeoutMs": 1, "TimeBeforeMovingToRehabMs": 1}, {}),
    model.ClusterNode: (
        {"Tag": "A", "Url": "u", "ClusterAddress": "c"},
        {
            "NodeId": "",
            "Boot": 0,
            "Nonce": 0,
            "Kind": "Member",
            "Weight": 1,
            "Labels": (),
            "Draining": False,
            "Kinds": None,
            "PlacementIndex": 0,
            "Flags": (),
        },
    ),
    model.TopologyStamp: ({}, {"Index": 0, "Term": 0, "LeadersTicks": 0}),
    model.Topology: (
        {},
        TOPOLOGY,
    ),
    model.ConnectionString: ({"Name": "n", "Type": "t", "Configuration": b"{}"}, {"Etag": 0}),
    model.IndexDefinition: ({"Name": "n", "Definition": b"{}"}, {"Etag": 0}),
    model.KindTraits: ({}, {"Sticky": False, "ResourceHeavy": False, "PartitionTolerant": False, "GraceMin": None}),
    model.Task: (
        {"Id": 1, "Name": "n", "Kind": "k", "Key": 1},
        {
            "Mentor": None,
            "Pinned": False,
            "Disabled": False,
            "Traits": {"Sticky": False, "ResourceHeavy": False, "PartitionTolerant": False, "GraceMin": None},
            "Requires": (),
            "ConnectionString": None,
            "Configuration": b"{}",
            "Etag": 0,
            "PlacementIndex": 0,
            "Retry": 0,
            "Resets": {},
            "Endings": (),
        },
    ),
    model.FailedDocument: ({"DocumentId": "d", "Error": "e", "At": "a"}, {"Transform": ""}),
    model.Progress: (
        {"Generation": 1},
        {
            "Epoch": 0,
            "ChangeVector": "",
            "LastEtags": {},
            "Processed": 0,
            "At": None,
            "Failed": 0,
            "Failures": (),
            "Error": "",
            "State": b"",
        },
    ),
    model.EndedRun: ({"Epoch": 1, "Tag": "A", "State": "ClaimedAgain"}, {"Reason": ""}),
    model.Cause: ({"Index": 1, "What": "Group"}, {"Tag": None}),
    model.Claim: (
        {"Tag": "A", "NodeId": "n", "Boot": 1, "Session": 1, "Epoch": 1},
        {
            "Nonce": 0,
            "State": "Held",
            "GraceEnded": False,
            "GraceIndex": 0,
            "GraceSinceMs": 0,
            "Reason": "",
            "Rule": "",
            "Cause": None,
            "Runs": (),
        },
    ),
    model.Database: (
        {
            "Name": "n",
            "Etag": 1,
            "Topology": TOPOLOGY,
        },
        {
            "ConnectionStrings": {},
            "Tasks": {},
            "Indexes": {},
            "Settings": {},
            "LockMode": "Unlock",
            "Disabled": False,
            "DeletionInProgress": {},
            "Progress": {},
            "TaskIds": {},
            "Counters": {},
        },
    ),
    observer_memory.Decision: ({"Index": 1, "Iteration": 1, "At": "a", "Database": "d", "Message": "m"}, {"Term": 0}),
    observer_memory.ObserverMemory: (
        {},
        {"Suspended": False, "Decisions": (), "Demotions": {}, "RehabSince": {}, "LostSince": {}},
    ),
    model.CommandError: ({"Type": "t", "Message": "m"}, {}),
    model.CommandResult: ({"Index": 1}, {"Error": None, "Value": None, "Asked": ""}),
    model.Record: (
        {},
        {
            "SchemaVersion": 2,
            "Index": 0,
            "ClusterId": "",
            "Generation": 0,
            "Timings": None,
            "Nodes": {},
            "Databases": {},
            "Claims": {},
            "Held": {},
            "Identities": {},
            "Observer": {"Suspended": False, "Decisions": (), "Demotions": {}, "RehabSince": {}, "LostSince": {}},
            "HighlyAvailableTasks": True,
            "DynamicNodesDistribution": True,
            "LicenceIndex": 0,
            "Requests": {},
            "RequestOrder": {},
            "RequestFirst": 0,
            "RequestNext": 0,
        },
    ),
}
"""The same of every value of the record."""

LIMITS = {
    "DATABASES_MAX": 1000,
    "TASKS_PER_DATABASE_MAX": 10000,
    "CONNECTION_STRINGS_MAX": 1000,
    "INDEXES_MAX": 1000,
    "COUNTERS_MAX": 10_000,
    "COUNTER_MAX": 2**63 - 1,
    "NODES_MAX": 100,
    "NAME_LENGTH_MAX": 128,
    "COMMAND_BYTES_MAX": 512 * 1024,
    "DECISIONS_MAX": 1000,
    "REQUESTS_MAX": 10000,
    "REQUEST_ID_LENGTH_MAX": 256,
    "ASKED_LENGTH_MAX": 32,
    "WEIGHT_MAX": 100,
    "LABELS_MAX": 32,
    "RUNS_KEPT_MAX": 16,
    "RESETS_KEPT_MAX": 200,
    "KEY_MAX": 2**64 - 1,
    "GENERATION_STRIDE": 2**40,
    "FAILURES_SHOWN_MAX": 10,
    "FAILURE_LENGTH_MAX": 300,
    "DOCUMENT_ID_LENGTH_MAX": 512,
    "ERROR_LENGTH_MAX": 500,
    "STATE_BYTES_MAX": 65536,
    "DEMOTIONS_KEPT_MAX": 16,
    "REASON_LENGTH_MAX": 2000,
}
"""What is refused or cut must be so on every node alike, also while nodes of two versions run side by side."""


def plain(value: Any) -> Any:
    return msgspec.to_builtins(value, enc_hook=enc_hook, builtin_types=(bytes,))


@pytest.mark.parametrize("tag", COMMANDS)
def test_a_command_keeps_its_tag_its_fields_and_their_defaults(tag: str) -> None:
    required, defaults = COMMANDS[tag]
    envelope = decode(msgspec.msgpack.encode({"command": {"command": tag, **required}}))
    assert plain(envelope.command) == {"command": tag, **required, **defaults}
    assert (envelope.request_id, envelope.asked, envelope.version) == ("", "", 2)
    for name in required:
        short = {key: value for key, value in required.items() if key != name}
        with pytest.raises(msgspec.ValidationError, match=name):
            decode(msgspec.msgpack.encode({"command": {"command": tag, **short}}))


def test_every_command_and_every_value_has_its_row() -> None:
    assert {kind.__struct_config__.tag for kind in get_args(AnyCommand)} == set(COMMANDS)
    assert {
        kind for kind in RecordValue.__subclasses__() if kind.__module__ in (model.__name__, observer_memory.__name__)
    } == set(VALUES)


@pytest.mark.parametrize("kind", VALUES, ids=lambda kind: kind.__name__)
def test_a_value_keeps_its_fields_and_their_defaults(kind: type[RecordValue]) -> None:
    required, defaults = VALUES[kind]
    value = msgspec.msgpack.decode(msgspec.msgpack.encode(required), type=kind, dec_hook=dec_hook)
    assert plain(value) == required | defaults


def test_a_task_has_every_field_of_its_definition() -> None:
    had = {field.name: field for field in msgspec.structs.fields(model.Task)}
    for field in msgspec.structs.fields(TaskDefinition):
        assert (had[field.name].type, had[field.name].default) == (field.type, field.default), field.name


def test_limits_are_the_same_in_every_version() -> None:
    found: dict[str, int] = {}
    for module in (model, progress, commands.observer, commands.tasks):
        found |= {name: value for name, value in vars(module).items() if name.endswith(("_MAX", "_STRIDE"))}
    assert found == LIMITS
