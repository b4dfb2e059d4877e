"""How parts of the record look in JSON. Every place that shows a placement shows the same one."""

from collections.abc import Mapping
from typing import Any

from raftnode.foundation import masking
from raftnode.foundation.decoding import from_python_json
from raftnode.record.model import ConnectionString, Database, Progress, Record, Task, Topology, claim_key, to_json
from raftnode.record.ownership import Group, Placement
from raftnode.web.slices import Array, Object
from tasks.runtime.status import Status

CONNECTION_STRING_TYPES = ("Raven", "Sql", "Olap", "ElasticSearch", "Queue", "Snowflake")


def topology(value: Topology) -> dict[str, Any]:
    """A database group with the reasons (DemotionReasons, PromotablesStatus)."""
    shown: dict[str, Any] = to_json(value)
    return shown


def node_id(record: Record, tag: str | None) -> dict[str, Any] | None:
    """RavenDB's {NodeTag, NodeUrl}; None for nobody."""
    if tag is None:
        return None
    node = record.nodes.get(tag)
    return {"NodeTag": tag, "NodeUrl": node.url if node else None, "ResponsibleNode": None}


def placement(placed: Placement) -> dict[str, Any]:
    """Who is responsible for a task and why. Scores are text, as they take 64 bits."""
    return {
        "Node": placed.node,
        "Rule": placed.rule,
        "Ranking": [
            {"Node": r.node, "State": r.state, "Score": str(r.score), "RuledOut": r.ruled_out} for r in placed.ranking
        ],
    }


def claim(record: Record, database: Database, task: Task) -> dict[str, Any]:
    """Who holds the task, under which epoch. A held claim's node is the holder; a last holder survives it."""
    held = record.claims.get(claim_key(database.name, task.kind, task.name))
    if held is None:
        return {"Holder": None, "LastHolder": None, "Epoch": None, "ClaimState": None, "Session": None, "Reason": None}
    return {
        "Holder": held.tag if held.state == "Held" else None,
        "LastHolder": held.tag,
        "Epoch": epoch(held.epoch),
        "ClaimState": held.state,
        "Session": held.session,
        "Reason": held.reason or None,
    }


def epoch(value: int) -> str:
    """An epoch, as text: after a recovery it takes more than the 53 bits that JavaScript and jq keep of a number."""
    return str(value)


def run(status: Status | None) -> dict[str, Any] | None:
    """What a node says of a task of its own."""
    if status is None:
        return None
    shown: dict[str, Any] = to_json(status)
    return shown | {
        "Epoch": None if status.epoch is None else epoch(status.epoch),
        "Progress": None if status.progress is None else _progress(status.progress),
    }


def no_such_task(database: Database, what: str) -> str:
    """A sentence that names the tasks there are."""
    known = ", ".join(f"{t.id} ({t.name})" for t in sorted(database.tasks.values(), key=lambda t: t.id)[:10])
    return f"Database '{database.name}' has no {what}. Its tasks: {known or 'none'}."


def progress(database: Database, task: Task) -> dict[str, Any] | None:
    """How far the task has come, as the record knows it."""
    made = database.progress.get(task.id)
    return None if made is None else _progress(made)


def _progress(made: Progress) -> dict[str, Any]:
    shown: dict[str, Any] = to_json(made)
    return shown | {"Epoch": epoch(made.epoch)}


def configuration(task: Task) -> dict[str, Any]:
    """The task's configuration with the fields that the record rules over, and its secrets masked."""
    given: dict[str, Any] = masking.masked(from_python_json(task.configuration))
    return given | {
        "TaskId": task.id,
        "Name": task.name,
        "Disabled": task.disabled,
        "MentorNode": task.mentor,
        "PinToMentorNode": task.pinned,
    }


def task_state(task: Task) -> str:
    """RavenDB's TaskState: a task with some transforms disabled is partially enabled."""
    transforms = from_python_json(task.configuration).get("Transforms") or []
    disabled = [bool(t.get("Disabled")) for t in transforms if isinstance(t, Mapping)]
    if task.disabled or (disabled and all(disabled)):
        return "Disabled"
    return "PartiallyEnabled" if any(disabled) else "Enabled"


def connection_strings(database: Database) -> dict[str, dict[str, Any]]:
    """Connection strings by type, then by name, each type present even when empty."""
    groups: dict[str, dict[str, Any]] = {f"{t}ConnectionStrings": {} for t in CONNECTION_STRING_TYPES}
    for string in sorted(database.connection_strings.values(), key=lambda s: s.name):
        groups.setdefault(f"{string.type}ConnectionStrings", {})[string.name] = connection_string(string)
    return groups


def connection_string(string: ConnectionString) -> dict[str, Any]:
    """A connection string as it was put, its secrets masked. Nobody is shown them; the record has them."""
    given: dict[str, Any] = masking.masked(from_python_json(string.configuration))
    return given | {"Name": string.name, "Type": string.type}


def database_record(database: Database) -> dict[str, Any]:
    """RavenDB's database record, its long lists made as they are asked for. Its Etag is the log index of the last
    change."""
    tasks: dict[str, list[Task]] = {"RavenEtls": [], "SqlEtls": []}
    for task in sorted(database.tasks.values(), key=lambda t: t.id):
        tasks.setdefault(f"{task.kind}s", []).append(task)
    return {
        "DatabaseName": database.name,
        "Disabled": database.disabled,
        "Encrypted": False,
        "EtagForBackup": 0,
        "DeletionInProgress": dict(database.deletion_in_progress) or None,
        "LockMode": database.lock_mode,
        "Topology": topology(database.topology),
        "Settings": masking.masked(dict(database.settings)),
        "Indexes": Object((i.name, from_python_json(i.definition)) for i in database.indexes.values()),
        "AutoIndexes": {},
        "PeriodicBackups": [],
        "ExternalReplications": [],
        **connection_strings(database),
        **{kind: Array(map(configuration, found)) for kind, found in tasks.items()},
        "Etag": database.etag,
    }


def task(record: Record, database: Database, group: Group, task: Task) -> dict[str, Any]:
    """A task as the record knows it: header, placement, claim, progress. `group` is the database's."""
    placed = group.placement(task)
    return {
        "TaskId": task.id,
        "TaskName": task.name,
        "TaskType": task.kind,
        "TaskKey": str(task.key),
        "TaskState": task_state(task),
        "Etag": task.etag,
        "ResponsibleNode": node_id(record, placed.node),
        "Placement": placement(placed),
        "MentorNode": task.mentor,
        "PinToMentorNode": task.pinned,
        "Requires": task.requires,
        **claim(record, database, task),
        "Progress": progress(database, task),
    }
