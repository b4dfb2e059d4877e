"""Backups as RavenDB's clients read them: a task's status, its part of the task info, restore points, operations."""

from collections.abc import Sequence
from typing import Any

from raftnode.foundation import timestamps
from raftnode.record.model import Progress, Task
from raftnode.web.views.base import Json, View
from raftnode.web.views.runs import RunView
from tasks.kinds.backup import state
from tasks.kinds.backup.catalog import BackupFolder
from tasks.kinds.backup.info import ONGOING
from tasks.kinds.backup.state import BackupState, DestinationState
from tasks.runtime.operations import Operation

UPLOADS = {
    "AmazonS3": "UploadToS3",
    "Azure": "UploadToAzure",
    "GoogleCloud": "UploadToGoogleCloud",
    "AmazonGlacier": "UploadToGlacier",
    "FTP": "UploadToFtp",
}
"""RavenDB's field of the status for each destination that is no folder."""


class BackupStarted(View, frozen=True, kw_only=True):
    """A backup that a user has asked for."""

    responsible_node: str
    operation_id: int


class BackupDelayed(View, frozen=True, kw_only=True):
    """A backup is made later."""

    task_id: int
    delay_until: str
    responsible_node: str


class OperationStarted(View, frozen=True, kw_only=True):
    """Something that takes its time has begun on that node."""

    operation_id: int
    operation_node_tag: str


class RestorePoint(View, frozen=True, kw_only=True):
    """A backup that was begun: RavenDB's fields, then whether it is whole, and what it holds; null without a
    manifest."""

    date_time: str
    location: str
    file_name: str
    is_snapshot_restore: bool = False
    is_encrypted: bool
    is_incremental: bool
    node_tag: str
    database_name: str
    last_file_name_to_restore: str
    is_whole: bool
    problem: str | None
    epoch: str
    size_in_bytes: int
    documents: int | None
    tombstones: int | None
    last_etag: int | None


class RestoreFolder(View, frozen=True, kw_only=True):
    """A full backup and the incremental ones that go on from it."""

    database_name: str
    folder: str
    files: Sequence[RestorePoint]


class RestorePoints(View, frozen=True, kw_only=True):
    """What can be restored from a place, oldest first."""

    list: Sequence[RestoreFolder]


def status(task: Task, progress: Progress | None) -> Json:
    """RavenDB's PeriodicBackupStatus, and what each node has made."""
    known = state.read(progress.state if progress else b"")
    local = known.destinations.get("Local")
    shown: Json = {
        "TaskId": task.id,
        "BackupType": "Backup",
        "IsFull": known.full,
        "NodeTag": known.node,
        "DelayUntil": known.delay_until,
        "OriginalBackupTime": known.original_time,
        "LastFullBackup": known.last_full,
        "LastIncrementalBackup": known.last_incremental,
        "LastFullBackupInternal": known.tried_full,
        "LastIncrementalBackupInternal": known.tried_incremental,
        "LocalBackup": None if local is None else _destination(local) | _local(known),
        "LastEtag": known.last_etag,
        "LastDatabaseChangeVector": known.change_vector or None,
        "LastRaftIndex": {"LastEtag": task.etag},
        "FolderName": known.folder,
        "DurationInMs": known.duration_ms,
        "LocalRetentionDurationInMs": known.retention_ms,
        "Version": known.version,
        "Error": {"Exception": known.error, "At": known.error_at} if known.error else None,
        "LastOperationId": known.operation,
        "IsEncrypted": known.encrypted,
    }
    for kind, field in UPLOADS.items():
        at = known.destinations.get(kind)
        shown[field] = {"Skipped": True} if at is None else _destination(at) | _upload(at)
    more = {"FileName": known.file, "SizeInBytes": known.size_bytes, "Documents": known.documents}
    nodes = {tag: _node(tag, known) for tag in sorted(known.nodes)}
    return shown | more | {"RetentionError": known.retention_error or None, "Nodes": nodes}


def ongoing_operation(run: RunView | None) -> int | None:
    """The operation of the backup that the run makes."""
    going = run.info.details.get(ONGOING) if run is not None and run.info is not None else None
    return None if going is None else int(going["RunningBackupTaskId"])


def restore_points(folders: Sequence[BackupFolder], place: str) -> RestorePoints:
    """What a target has. `place` is its folder: each Location is a folder that a restore takes."""
    return RestorePoints(list=[_folder(folder, place) for folder in folders])


def operation_state(operation: Operation) -> Json:
    """RavenDB's OperationState."""
    failed = operation.error or None
    result: Any = operation.result
    if failed is not None:
        result = {"Type": "RavenException", "Message": failed, "Error": failed, "StatusCode": 500}
    return {
        "Id": operation.id,
        "Description": operation.description,
        "Type": operation.type,
        "Database": operation.database,
        "Status": operation.status,
        "Progress": operation.progress or None,
        "Result": result,
        "StartTime": operation.began_at,
        "EndTime": operation.ended_at,
        "Killable": operation.cancel is not None,
    }


def _folder(folder: BackupFolder, above: str) -> RestoreFolder:
    place = "/".join(part for part in (above, folder.name) if part)
    points = []
    for point in folder.points:
        made = point.manifest
        points.append(
            RestorePoint(
                date_time=timestamps.of(point.named.at),
                location=place,
                file_name=point.file,
                is_encrypted=point.named.encrypted,
                is_incremental=point.named.part == "Incremental",
                node_tag=made.node if made else folder.named.node if folder.named else "",
                database_name=made.database if made else folder.named.database if folder.named else "",
                last_file_name_to_restore=point.file,
                is_whole=not point.problem,
                problem=point.problem or None,
                epoch=str(point.named.epoch),
                size_in_bytes=point.size_bytes,
                documents=made.documents if made else None,
                tombstones=made.tombstones if made else None,
                last_etag=made.last_etag if made else None,
            )
        )
    name = next((point.database_name for point in points if point.database_name), "")
    return RestoreFolder(database_name=name, folder=place, files=points)


def _destination(at: DestinationState) -> Json:
    return {
        "LastFullBackup": at.last_full,
        "LastIncrementalBackup": at.last_incremental,
        "FullBackupDurationInMs": at.full_ms,
        "IncrementalBackupDurationInMs": at.incremental_ms,
        "Exception": at.exception,
    }


def _local(known: BackupState) -> Json:
    return {"BackupDirectory": known.folder, "FileName": known.file, "TempFolderUsed": False}


def _upload(at: DestinationState) -> Json:
    progress = {
        "UploadType": "Regular",
        "UploadState": "PendingUpload" if at.exception else "Done",
        "UploadedInBytes": 0 if at.exception else at.bytes,
        "TotalInBytes": at.bytes,
    }
    return {"Skipped": False, "UploadProgress": progress}


def _node(tag: str, known: BackupState) -> Json:
    node = known.nodes[tag]
    return {
        "LastFullBackup": node.last_full,
        "LastIncrementalBackup": node.last_incremental,
        "Backups": node.backups,
        "SizeInBytes": node.size_bytes,
        "Documents": node.documents,
        "Error": node.error or None,
    }
