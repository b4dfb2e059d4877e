"""What the info of a backup task has besides what every task's has, as RavenDB's clients read it."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from raftnode.foundation import timestamps
from raftnode.foundation.decoding import from_json
from raftnode.record.model import Progress, Task
from tasks.kinds.backup import outcome, state
from tasks.kinds.backup.configuration import BackupTaskConfiguration
from tasks.kinds.backup.state import BackupState

ONGOING = "OnGoingBackup"


def task_info(task: Task, progress: Progress | None, details: Mapping[str, Any]) -> dict[str, Any]:
    """These fields. `details` is what the run shows."""
    backup = from_json(task.configuration, BackupTaskConfiguration)
    known = state.read(progress.state if progress else b"")
    policy = backup.retention_policy
    kept = None if policy is None else policy.minimum_backup_age_to_keep
    return {
        "BackupType": backup.backup_type,
        "BackupDestinations": [one.kind for one in backup.destinations()],
        "LastFullBackup": known.last_full,
        "LastIncrementalBackup": known.last_incremental,
        ONGOING: details.get(ONGOING),
        "NextBackup": None if task.disabled else next_backup(backup, known),
        "RetentionPolicy": None if policy is None else {"Disabled": policy.disabled, "MinimumBackupAgeToKeep": kept},
        "IsEncrypted": backup.key is not None,
        "LastExecutingNodeTag": known.node,
    }


def next_backup(backup: BackupTaskConfiguration, known: BackupState) -> dict[str, Any]:
    """RavenDB's NextBackup."""
    due = outcome.next_due(backup, known)
    left_s = max(0.0, (due.at - datetime.now(UTC)).total_seconds())
    return {
        "TimeSpan": timestamps.span_of(left_s),
        "DateTime": timestamps.of(due.at),
        "IsFull": due.full,
        "OriginalBackupTime": known.original_time,
    }
