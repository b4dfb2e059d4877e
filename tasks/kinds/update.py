"""The mentor's update of a Promotable or Rehab, as a task with a claim of its own.

Exactly one node fills a Promotable: the body is the group's own sender, and what that repeats is taken in once, so that
even a body that wakes late does no harm. A Rehab receives from all Members anyway, whether they have a lease or not:
its mentor is the one against which its promotion is measured, and the body tells how far that is.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, cast

from raftnode.documents.replication.sender import Destination, DocumentSender, SenderStatus
from raftnode.documents.store.store import DocumentStore
from raftnode.record.model import Database
from raftnode.record.ownership import OF_REHAB, UPDATE_KIND
from tasks.kinds.registry import ConfigurationError, TaskDefinition, TaskFailed
from tasks.runtime.context import TaskContext

SHOW_S = 1.0


class UpdateKind:
    """The kind "Update". Its tasks come from the topology; nobody defines them."""

    name = UPDATE_KIND

    def parse(self, configuration: Mapping[str, Any], database: Database) -> TaskDefinition:
        """See `TaskKind.parse`. Always refused."""
        raise ConfigurationError("TaskType", "an update follows from a Promotable; add a node to the database instead")

    async def run(self, context: TaskContext) -> None:
        """See `TaskKind.run`."""
        tag = context.run.task.name
        url = context.node_url(tag)
        if url is None or context.http is None:
            raise TaskFailed(f"node {tag} is not in the cluster, so it cannot be filled")
        if context.run.task.configuration == OF_REHAB:
            await _tell(context, tag)
        # The context's view has what a sender uses of a store, and looks at the lease before each use.
        source = cast(DocumentStore, context.documents)
        sender = DocumentSender(source, Destination(tag, url, context.run.database), context.http)
        context.sending(tag, sender)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(sender.run())
                while True:
                    _show(context, sender.status)
                    await asyncio.sleep(SHOW_S)
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        finally:
            context.sending(tag, None)


async def _tell(context: TaskContext, tag: str) -> None:
    """How far this node's own sender to the Rehab is, until cancelled."""
    while True:
        status = context.sent_to(tag)
        if status is not None:
            _show(context, status)
        await context.sleep(SHOW_S)


def _show(context: TaskContext, status: SenderStatus) -> None:
    context.info.processed = status.sent
    context.info.seen_etag = status.last_sent_etag
    context.info.error = status.error or None
    context.info.last_batch_at = status.at


KIND = UpdateKind()
