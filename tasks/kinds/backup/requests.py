"""What a user asks of the run of a backup task. It is handed to the node that holds it, see `Supervisor.ask`."""

from datetime import datetime
from typing import NamedTuple

from tasks.runtime.operations import Operation

OPERATION_TYPE = "DatabaseBackup"


class BackupNow(NamedTuple):
    """Make a backup at once. An incremental one that has nothing to go on from becomes a full one."""

    full: bool
    operation: Operation


class BackupDelay(NamedTuple):
    """Nothing that is due is made before that time."""

    until: datetime
