"""The fence in a target: one row for each task, with the newest epoch that has reached it and the task's progress.

The first statement of every transaction raises the task's epoch there unless a newer one stands; then the runner is
stale and nothing of it reaches the target. A runner does this once, committed, before it reads its progress, so that
what it reads is final. (The scheme is that of fencing tokens: Kleppmann, "How to do distributed locking", 2016.)

A row is named by cluster, database and task id, which never change. Earlier versions named it by the task's name:
`Fence._carry_over` takes such a row over.
"""

import json
import re
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from raftnode.foundation import timestamps
from tasks.kinds.registry import RunSuperseded
from tasks.sinks.sql import connections as sql_engine

FENCE = sa.Table(
    "raftnode_tasks",
    sa.MetaData(),
    sa.Column("task", sa.String(512), primary_key=True),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("generation", sa.BigInteger, nullable=False),
    sa.Column("progress", sa.Text().with_variant(mysql.LONGTEXT(), "mysql"), nullable=False),
    sa.Column("updated_at", sa.String(40), nullable=False),
    mysql_engine="InnoDB",
    mysql_charset="utf8mb4",
    mysql_collate="utf8mb4_bin",
)
CLOSED_EPOCH = 2**63 - 1
"""Of a row that was carried over: no run of a version that knows tasks by their names passes it any more."""
CREATING = 0x7261_6674  # "raft"
"""PostgreSQL's advisory lock under which the table is created."""


_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]+")


class StaleEpoch(RunSuperseded):
    """A newer run of the task has reached the sink: this one must do nothing more."""


class FencedTask(msgspec.Struct, frozen=True, kw_only=True):
    """Whose row it is. `id` is the log index at which the task was created, `generation` the one at which it was
    created or last reset; `database` is folded."""

    cluster: str
    database: str
    kind: str
    id: int
    generation: int

    @property
    def key(self) -> str:
        """The row's name, the same through renames. No name of an earlier version has this form."""
        return f"{self.cluster}/{self.database}/{self.id}"

    @property
    def named(self) -> str:
        """How the names of rows of this kind and database began in earlier versions."""
        return f"{self.cluster}/{self.database}/{self.kind}/"


class Fence:
    """The row of one run. Its methods run in a transaction of the caller."""

    def __init__(self, task: FencedTask, epoch: int) -> None:
        self._task, self._epoch = task, epoch
        self._mine = FENCE.c.task == task.key

    async def make(self, connection: AsyncConnection) -> None:
        """See that the row is there, and the table. Raises StaleEpoch."""
        if not await connection.run_sync(_has_table):
            if connection.dialect.name == "postgresql":  # where two that create it at once fail
                await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(CREATING)))
            await connection.execute(sa.schema.CreateTable(FENCE, if_not_exists=True))
        if (await connection.execute(sa.select(FENCE.c.epoch).where(self._mine))).first() is not None:
            return
        progress = await self._carry_over(connection)
        values = {
            "task": self._task.key,
            "epoch": self._epoch,
            "generation": self._task.generation,
            "progress": progress,
            "updated_at": timestamps.now(),
        }
        if connection.dialect.name == "mysql":
            unless_there = mysql.insert(FENCE).values(values)
            await connection.execute(unless_there.on_duplicate_key_update(task=FENCE.c.task))
            return
        dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
        await connection.execute(dialect.insert(FENCE).values(values).on_conflict_do_nothing())

    async def raise_epoch(self, connection: AsyncConnection) -> None:
        """The first statement of every transaction. Raises StaleEpoch, and nothing of the run may be written then."""
        raised = sa.update(FENCE).where(self._mine, FENCE.c.epoch <= self._epoch).values(epoch=self._epoch)
        if connection.dialect.name == "postgresql":
            raised = raised.returning(sql_engine.lock_timeout_ends())
        result = await connection.execute(raised)
        if result.rowcount != 1:
            row = (await connection.execute(sa.select(FENCE).where(self._mine))).first()
            newer = f": epoch {row.epoch}, which last wrote at {row.updated_at}" if row else ""
            raise StaleEpoch(f"a newer run than epoch {self._epoch} has reached the target{newer}")

    async def progress(self, connection: AsyncConnection) -> bytes:
        """The task's progress, JSON, b"{}" if there is none; what stood before a reset is dropped.

        The epoch is this run's by now, and a run of a later epoch knows of every reset that an earlier one knew of. So
        a row of a later generation is of a time that a forced recovery has cut off; what the target has is the truth.
        """
        row = (await connection.execute(sa.select(FENCE.c.generation, FENCE.c.progress).where(self._mine))).one()
        progress = b"{}" if row.generation < self._task.generation else bytes(row.progress.encode())
        if row.generation != self._task.generation:
            await self.store(connection, progress, generation=self._task.generation)
        return progress

    async def store(self, connection: AsyncConnection, progress: bytes, **more: Any) -> None:
        """Replace the progress."""
        row = sa.update(FENCE).where(self._mine)
        await connection.execute(row.values(progress=_ascii(progress), updated_at=timestamps.now(), **more))

    async def _carry_over(self, connection: AsyncConnection) -> str:
        """Close the row that an earlier version named by the task's name, and return its progress, JSON.

        The generation is a log index, so no other task of the cluster has it, whatever the row or the task is named.
        Only the first to close the row takes its progress: whoever waited for it finds it closed. Rows of generations
        between are of the time before a reset, of this task or of another: their epoch is raised, which ends late runs
        under them and costs a living one no more than a new claim.
        """
        of_kind = FENCE.c.task.startswith(self._task.named, autoescape=True)
        between = FENCE.c.generation.between(self._task.id, self._task.generation - 1)
        late = sa.update(FENCE).where(of_kind, between, FENCE.c.epoch < self._epoch)
        await connection.execute(late.values(epoch=self._epoch))
        mine = sa.and_(of_kind, FENCE.c.generation == self._task.generation, FENCE.c.epoch != CLOSED_EPOCH)
        row = (await connection.execute(sa.select(FENCE).where(mine).with_for_update())).first()
        if row is None:
            return "{}"
        if row.epoch > self._epoch:
            raise StaleEpoch(f"epoch {row.epoch} has replaced {self._epoch} in the target")
        closed = sa.update(FENCE).where(FENCE.c.task == row.task)
        await connection.execute(closed.values(epoch=CLOSED_EPOCH, updated_at=timestamps.now()))
        return str(row.progress)


def _ascii(json_text: bytes) -> str:
    """The same JSON in characters that a database of any encoding has: it may name a document that others cannot."""
    text = json_text.decode()
    return text if text.isascii() else _BEYOND_ASCII.sub(lambda found: json.dumps(found[0])[1:-1], text)


def _has_table(connection: sa.Connection) -> bool:
    return sa.inspect(connection).has_table(FENCE.name)
