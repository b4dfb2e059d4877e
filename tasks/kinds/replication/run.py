"""One run of an external replication: finds the destination's nodes, sends to one, and to the next when that fails."""

import asyncio
import random
from typing import cast

import structlog
from immutables import Map
from msgspec.structs import replace

from raftnode.documents.errors import StoreError
from raftnode.documents.replication.delay import DelayedSource
from raftnode.documents.replication.sender import (
    Destination,
    DocumentSender,
    ReceiverState,
    SenderSource,
    group_name,
)
from raftnode.documents.replication.settled import SettledPlaces
from raftnode.foundation import timestamps
from raftnode.foundation.backoff import backoff
from raftnode.foundation.decoding import from_json
from raftnode.foundation.http_client import HttpError
from raftnode.record.model import Progress
from tasks.kinds.connection_types import RavenConnectionString
from tasks.kinds.registry import TaskFailed
from tasks.kinds.replication.configuration import ExternalReplicationConfiguration
from tasks.runtime.context import TaskContext
from tasks.sinks.documents.discovery import DatabaseNode, discover, reasons

log = structlog.get_logger(__name__)

SHOW_S = 0.5
ASK_S_MIN = 0.2
ASK_S_MAX = 10.0


class ReplicationRun:
    """The body of one run."""

    def __init__(self, context: TaskContext) -> None:
        self._context = context
        self._delay_s = from_json(context.run.task.configuration, ExternalReplicationConfiguration).delay_s
        if context.run.connection is None:
            raise TaskFailed(f"connection string '{context.run.task.connection_string}' is gone; create it again")
        self._target = from_json(context.run.connection, RavenConnectionString)
        self._reported = context.run.progress or Progress(generation=context.run.generation)
        self._processed = max(context.info.processed, self._reported.processed)

    async def run(self) -> None:
        """Until cancelled, or until no node of the destination takes anything. Raises TaskFailed with the reasons."""
        context = self._context
        if context.http is None:
            raise TaskFailed("this node has no HTTP client")
        failures: dict[str, str] = {}
        for node in await discover(context.http, self._target.database, self._target.topology_discovery_urls):
            try:
                await self._send_to(node)
            except (HttpError, StoreError) as error:
                failures[node.url] = str(error)
                log.info(
                    "A node of the destination fails; the next one is tried.",
                    task=context.run.claim_key,
                    url=node.url,
                    reason=str(error),
                )
        raise TaskFailed(f"no node of database '{self._target.database}' takes documents: {reasons(failures)}")

    async def _send_to(self, node: DatabaseNode) -> None:
        """Sends to one node until that fails. Raises HttpError or StoreError."""
        context = self._context
        assert context.http is not None, "checked by run"
        # The context's view has what a sender uses of a store, and looks at the lease before each use.
        source = cast(SenderSource, context.documents)
        moved = asyncio.Event()
        session = _Session(node, moved)
        sender = DocumentSender(
            DelayedSource(source, self._delay_s) if self._delay_s else source,
            Destination(node.tag, node.url, node.database, group_name(context.run.cluster_id, context.run.database)),
            context.http,
            heard=context.documents.heard_of,
            told=session.told,
        )
        sender.on_moved = moved.set
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(sender.session())
                group.create_task(session.settle(sender))
                while await moved.wait():
                    moved.clear()
                    self._show(sender, session)
                    await asyncio.sleep(SHOW_S)
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        finally:
            self._processed += sender.status.sent

    def _show(self, sender: DocumentSender, session: "_Session") -> None:
        """Shows how far the run is, here and, by way of the record, on every node."""
        info, documents, status = self._context.info, self._context.documents, sender.status
        if session.receiver is None:
            return
        info.error, info.superseded = None, 0
        info.processed = self._processed + status.sent
        info.seen_etag, info.last_batch_at = status.last_sent_etag, status.at
        info.details = {
            "DestinationUrl": session.node.url,
            "FromToString": f"from {self._context.run.database} on {self._context.run.node} to {session.node.database} "
            f"on {session.node.tag or session.node.url}",
            "LastAcceptedChangeVectorFromDestination": session.receiver.change_vector,
            "SourceDatabaseChangeVector": documents.change_vector,
            "LastSentEtag": status.last_sent_etag,
            "LastDatabaseEtag": documents.last_etag,
            "SettledEtag": session.settled.etag,
        }
        # What the record has frees tombstones here: only what every copy of the destination has.
        progress = Progress(
            generation=self._context.run.generation,
            epoch=self._context.run.epoch,
            change_vector=session.settled.change_vector,
            last_etags=Map({documents.database_id: session.settled.etag}),
            processed=info.processed,
            at=self._reported.at,
        )
        if session.settled.etag and info.told_with(progress) != self._reported:
            self._reported = info.told_with(progress)
            self._context.report(replace(self._reported, at=timestamps.now()))


class _Session:
    """What is known of the one node that is sent to. `moved` is set when that changes."""

    def __init__(self, node: DatabaseNode, moved: asyncio.Event) -> None:
        self.node = node
        self.settled = SettledPlaces()
        self.receiver: ReceiverState | None = None
        self._moved = moved
        self._unsettled = asyncio.Event()

    def told(self, etag: int, receiver: ReceiverState) -> None:
        """See `DocumentSender`."""
        self.settled.told(etag, receiver)
        self._heard(receiver)

    def _heard(self, receiver: ReceiverState) -> None:
        self.receiver = receiver
        self._moved.set()
        if self.settled.pending:
            self._unsettled.set()

    async def settle(self, sender: DocumentSender) -> None:
        """Asks, ever more rarely, until the other copies of the destination have what the one was sent."""
        while await self._unsettled.wait():
            asked = 0
            while self.settled.pending:
                asked += 1
                await asyncio.sleep(backoff(asked, ASK_S_MIN, ASK_S_MAX, random))
                receiver = await sender.ask()
                self.settled.asked(receiver)
                self._heard(receiver)
            self._unsettled.clear()
