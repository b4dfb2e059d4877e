"""The fence in a target: one row for each task, with the newest epoch that has reached it and the task's progress.

The first statement of every transaction raises the task's epoch there unless a newer one stands; then the runner is
stale and nothing of it reaches the target. A runner does this once, committed, before it reads its progress, so that
what it reads is final. (The scheme is that of fencing tokens: Kleppmann, "How to do distributed locking", 2016.)
"""

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from tasks.kinds import Superseded

FENCE = sa.Table(
    "raftnode_tasks",
    sa.MetaData(),
    sa.Column("task", sa.String(512), primary_key=True),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("generation", sa.BigInteger, nullable=False),
    sa.Column("progress", sa.Text, nullable=False),
    sa.Column("updated_at", sa.String(40), nullable=False),
)


class StaleEpoch(Superseded):
    """A newer run of the task has reached the sink: this one must do nothing more."""


class Fence:
    """One run's row: `key` names the task in all clusters. Its methods run in a transaction of the caller."""

    def __init__(self, key: str, epoch: int, generation: int) -> None:
        self._key, self._epoch, self._generation = key, epoch, generation

    async def make(self, connection: AsyncConnection) -> None:
        """See that the row is there, and the table. Raises StaleEpoch."""
        if not await connection.run_sync(lambda c: sa.inspect(c).has_table(FENCE.name)):
            await connection.run_sync(FENCE.create, checkfirst=True)
        await self._follow_rename(connection)
        dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
        row = dialect.insert(FENCE).values(
            task=self._key, epoch=self._epoch, generation=self._generation, progress="{}", updated_at=_now()
        )
        await connection.execute(row.on_conflict_do_nothing())

    async def raise_epoch(self, connection: AsyncConnection) -> None:
        """The first statement of every transaction. Raises StaleEpoch, and nothing of the run may be written then."""
        mine = sa.update(FENCE).where(FENCE.c.task == self._key, FENCE.c.epoch <= self._epoch)
        result = await connection.execute(mine.values(epoch=self._epoch))
        if result.rowcount != 1:
            raise StaleEpoch(f"a newer run than epoch {self._epoch} has reached the target")

    async def progress(self, connection: AsyncConnection) -> bytes:
        """The progress of this run's generation, JSON, b"{}" if there is none; that of an older one is dropped."""
        row = (
            await connection.execute(sa.select(FENCE.c.generation, FENCE.c.progress).where(FENCE.c.task == self._key))
        ).one()
        if row.generation > self._generation:
            raise StaleEpoch(f"the task was reset: generation {row.generation} has replaced {self._generation}")
        if row.generation == self._generation:
            return bytes(row.progress.encode())
        await self.store(connection, b"{}", generation=self._generation)
        return b"{}"

    async def store(self, connection: AsyncConnection, progress: bytes, **more: Any) -> None:
        """Replace the progress."""
        row = sa.update(FENCE).where(FENCE.c.task == self._key)
        await connection.execute(row.values(progress=progress.decode(), updated_at=_now(), **more))

    async def _follow_rename(self, connection: AsyncConnection) -> None:
        """A renamed task takes its row along, so that it goes on from its progress and fences runs under its old name.

        The generation, the log index of a task's creation, tells which row was its own. A row under the new name was
        another task's, which is gone: this run's epoch is above all of its.
        """
        cluster, database, kind, _ = self._key.split("/", 3)
        former = sa.and_(
            FENCE.c.task.startswith(f"{cluster}/{database}/{kind}/", autoescape=True),
            FENCE.c.task != self._key,
            FENCE.c.generation == self._generation,
        )
        row = (await connection.execute(sa.select(FENCE.c.epoch).where(former))).first()
        if row is None:
            return
        if row.epoch > self._epoch:
            raise StaleEpoch(f"the task was renamed: epoch {row.epoch} has replaced {self._epoch}")
        await connection.execute(sa.delete(FENCE).where(FENCE.c.task == self._key))
        await connection.execute(sa.update(FENCE).where(former).values(task=self._key))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
