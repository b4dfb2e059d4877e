"""How long a task of a kind that stays with its last holder waits for it, once that is in Rehab."""

from raftnode.record.model import Database, Task

GRACE_SETTING = "Backup.MoveToNewResponsibleNodeGracePeriodInMin"
"""The database's own grace in minutes, among its settings; RavenDB's name."""
GRACE_MIN_MAX = 10_080


def grace_min(database: Database, task: Task, cluster_min: int) -> int:
    """In minutes: what the task's kind says, else the database's setting, else `cluster_min`, the cluster's. A setting
    that is no number of minutes counts as none."""
    if task.traits.grace_min is not None:
        return task.traits.grace_min
    own_min = minutes(database.settings.get(GRACE_SETTING, ""))
    return cluster_min if own_min is None else own_min


def minutes(given: str) -> int | None:
    """The minutes that a setting means, None if it means none."""
    if not (given.isascii() and given.isdigit() and len(given) <= len(str(GRACE_MIN_MAX))):
        return None
    return int(given) if int(given) <= GRACE_MIN_MAX else None
