"""Only so many backups of a node are made at a time: RavenDB's Backup.MaxNumberOfConcurrentBackups."""

import asyncio
import os


class BackupTurns(asyncio.Semaphore):
    """Half as many as there are processors, and at least one."""

    def __init__(self) -> None:
        super().__init__(max(1, (os.cpu_count() or 1) // 2))

    async def close(self) -> None:
        """Nothing is held."""
