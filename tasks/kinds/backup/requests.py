"""What a user asks of the run of a backup task. It is handed to the node that holds it, see `Supervisor.ask`."""

from datetime import datetime
from typing import NamedTuple

from tasks.runtime.operations import Operation

OPERATION_TYPE = "DatabaseBackup"


def describe(database: str, task: str) -> str:
    """The description of the operations of a task: at most one of them goes on."""
    return f"Backup of {database} by task {task}"


class BackupNow(NamedTuple):
    """Make a backup at once. An incremental one that has nothing to go on from becomes a full one."""

    full: bool
    operation: Operation

    def unanswered(self) -> None:
        """See `RunRequest`."""
        if self.operation.running:
            self.operation.failed("the task's run on this node has ended; ask again")


class BackupDelay(NamedTuple):
    """Nothing that is due is made before that time."""

    until: datetime

    def unanswered(self) -> None:
        """See `RunRequest`."""
