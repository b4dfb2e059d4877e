"""What follows from a backup task's state: when it is due next, and what the state is after a backup was tried."""

import hashlib
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from raftnode.foundation import timestamps
from raftnode.foundation.backoff import backoff
from tasks.kinds.backup import state as states
from tasks.kinds.backup.configuration import BackupTaskConfiguration
from tasks.kinds.backup.schedule import Due
from tasks.kinds.backup.state import BackupState, Chain, DestinationState, NodeBackups, moment
from tasks.kinds.backup.writing import BackupCounts, Made
from tasks.runtime.context import Run

MS = timedelta(milliseconds=1)
EPOCH_BEGAN = "1970-01-01T00:00:00.0000000Z"


class Attempt(NamedTuple):
    """A backup that is tried: when it began, and whether a user has asked for it."""

    at: datetime
    full: bool
    on_demand: bool = False


def next_due(backup: BackupTaskConfiguration, state: BackupState) -> Due:
    """The next backup. One that has failed is tried again sooner than on schedule; one that is delayed waits."""
    created = moment(backup.created_at or EPOCH_BEGAN)
    assert created is not None
    due = backup.schedule.next(created, moment(state.tried_full), moment(state.tried_incremental))
    again = moment(state.retry_at)
    if again is not None and again < due.at:
        due = Due(again, state.retry_full)
    delay = moment(state.delay_until)
    return due if delay is None or delay <= due.at else Due(delay, due.full)


def where(backup: BackupTaskConfiguration) -> str:
    """A hash of the destinations and the key: with others, no backup goes on from an earlier one. Secrets that only
    open the door may change."""
    places = [(one.kind, *one.place()) for one in backup.destinations()]
    key = hashlib.sha256(b"raftnode backup key" + (backup.key or b"")).hexdigest()[:16] if backup.key else ""
    return hashlib.sha256(msgspec.json.encode([places, key])).hexdigest()[:16]


def after(
    state: BackupState,
    attempt: Attempt,
    made: Made | None,
    *,
    run: Run,
    database_id: str,
    where: str,
    ended: datetime,
    operation: int,
    error: str,
    retained: tuple[int, str] | None,
) -> BackupState:
    """The state after an attempt has ended. `made` is None if nothing had changed, or it failed before anything was
    made."""
    at = timestamps.of(attempt.at)
    failures = 0 if not error else state.failures if attempt.on_demand else state.failures + 1
    retry_s = backoff(failures, states.RETRY_MIN_S, states.RETRY_MAX_S) if error and not attempt.on_demand else None
    tried = {"tried_full" if attempt.full else "tried_incremental": at}
    if not error:
        tried |= {"last_full" if attempt.full else "last_incremental": at}
    changed = replace(
        state,
        version=state.version + 1,
        node=run.node,
        full=attempt.full,
        duration_ms=int((ended - attempt.at) / MS),
        operation=operation,
        error=error[:1000],
        error_at=timestamps.of(ended) if error else None,
        failures=failures,
        retry_at=None if retry_s is None else timestamps.of(ended + timedelta(seconds=retry_s)),
        retry_full=attempt.full,
        delay_until=state.delay_until if attempt.on_demand else None,
        original_time=state.original_time if attempt.on_demand else None,
        nodes=state.nodes | {run.node: _node(state.nodes.get(run.node), attempt, made, error)},
        **tried,
    )
    if retained is not None:
        changed = replace(changed, retention_ms=retained[0], retention_error=retained[1])
    return changed if made is None else _with_made(changed, attempt, made, run, database_id, where, ended, error)


def _with_made(
    state: BackupState,
    attempt: Attempt,
    made: Made,
    run: Run,
    database_id: str,
    where: str,
    ended: datetime,
    error: str,
) -> BackupState:
    manifest = made.manifest
    state = replace(state, destinations=_destinations(state, attempt, made))
    if error:
        return state
    chain = Chain(
        node=run.node,
        folder=made.folder,
        checksum=manifest.checksum,
        etag=manifest.last_etag,
        change_vector=manifest.change_vector,
        where=where,
        at=timestamps.of(attempt.at),
    )
    state = replace(
        state,
        folder=made.folder,
        file=manifest.file,
        last_etag=manifest.last_etag,
        change_vector=manifest.change_vector,
        size_bytes=manifest.size_bytes,
        documents=manifest.documents,
        encrypted=manifest.encrypted,
    )
    return states.with_chain(state, database_id, chain, ended)


def _destinations(state: BackupState, attempt: Attempt, made: Made) -> dict[str, DestinationState]:
    found = dict(state.destinations)
    at, duration_ms = timestamps.of(attempt.at), state.duration_ms
    for name in made.destinations:
        before = found.get(name, DestinationState())
        if name in made.failures:
            found[name] = replace(before, exception=made.failures[name][:500])
        elif attempt.full:
            size = made.manifest.size_bytes
            found[name] = replace(before, last_full=at, full_ms=duration_ms, bytes=size, exception=None)
        else:
            size = made.manifest.size_bytes
            found[name] = replace(before, last_incremental=at, incremental_ms=duration_ms, bytes=size, exception=None)
    return found


def _node(before: NodeBackups | None, attempt: Attempt, made: Made | None, error: str) -> NodeBackups:
    node = before or NodeBackups()
    if error:
        return replace(node, error=error[:300])
    at = timestamps.of(attempt.at)
    node = replace(node, error="", **{"last_full" if attempt.full else "last_incremental": at})
    if made is None:
        return node
    return replace(
        node,
        backups=node.backups + 1,
        size_bytes=node.size_bytes + made.manifest.size_bytes,
        documents=node.documents + made.manifest.documents,
    )


def progress(counts: BackupCounts) -> dict[str, Any]:
    """An operation's progress, as RavenDB's clients read it."""
    shown: dict[str, Any] = msgspec.to_builtins(counts)
    return {
        "Message": f"{counts.documents} of {counts.documents_total} documents are written",
        "Documents": {"ReadCount": counts.documents, "ErroredCount": 0, "Processed": False},
        "Tombstones": {"ReadCount": counts.tombstones, "ErroredCount": 0, "Processed": False},
    } | {"Counts": shown}


def result(made: Made | None, attempt: Attempt) -> dict[str, Any]:
    """What an operation that has ended well tells."""
    if made is None:
        return {"Message": "Nothing has changed since the last backup", "IsFull": attempt.full}
    manifest = made.manifest
    return {
        "Message": f"{made.folder}/{manifest.file} is made; documents: {manifest.documents:,}",
        "IsFull": attempt.full,
        "Folder": made.folder,
        "File": manifest.file,
        "SizeInBytes": manifest.size_bytes,
        "DocumentBytes": manifest.document_bytes,
        "LastEtag": manifest.last_etag,
        "Documents": {"ReadCount": manifest.documents, "ErroredCount": 0, "Processed": True},
        "Tombstones": {"ReadCount": manifest.tombstones, "ErroredCount": 0, "Processed": True},
    }
