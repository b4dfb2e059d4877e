"""The record on this node: applies what Raft commits, proposes commands, and tells whoever listens what changed."""

import asyncio
import uuid
from collections.abc import Callable, Iterable
from typing import Protocol

import structlog

from raftnode.consensus.raft import Add, NotCommitted, OutcomeUnknown, Proposed, Raft, Remove, StorageDamaged
from raftnode.consensus.transport.handshake import AnnouncedProcess
from raftnode.foundation.backoff import backoff
from raftnode.foundation.broadcast import Broadcast
from raftnode.foundation.decoding import DECODE_ERRORS
from raftnode.record import snapshot
from raftnode.record.commands import Changes, Command, Decide, Entry, decode, encode
from raftnode.record.machine import apply, first_result
from raftnode.record.model import COMMAND_BYTES_MAX, CommandResult, Record

log = structlog.get_logger(__name__)

RETRY_MIN_MS = 20
RETRY_MAX_MS = 400


class Unavailable(Exception):
    """The command was not answered in time. It may still be applied; under its request id it is safe to repeat."""


class CommandTooLarge(Exception):
    """The command is larger than the log takes."""


class RecordListener(Protocol):
    """Called once per tick in which something was applied, with all that changed since the last call."""

    def __call__(self, record: Record, changes: Changes) -> None: ...


class Replica:
    """Raft's state machine over the record. `record` is always the newest applied one; it is never changed in place."""

    def __init__(self) -> None:
        self.record = Record()
        self._raft: Raft | None = None
        self._listeners: list[RecordListener] = []
        self._pending: list[Changes] = []
        self._changed = Broadcast()

    def attach(self, raft: Raft) -> None:
        """Names the Raft that commands are proposed to."""
        self._raft = raft

    def subscribe(self, listener: RecordListener) -> None:
        """Calls the listener after every tick that applied something."""
        self._listeners.append(listener)

    def apply(self, index: int, term: int, command: bytes) -> CommandResult:
        """Applies one committed entry; the answer goes to whoever proposed it."""
        applied = apply(self.record, Entry(index, term), command)
        self.record = applied.record
        self._pending.append(applied.changes)
        return applied.result

    def refuses(self, command: bytes) -> str | None:
        """Why the record would refuse the command now. A repeat changes the record no more, so that what goes with the
        command must not happen again either."""
        try:
            repeated = decode(command).request_id in self.record.requests
        except DECODE_ERRORS:
            repeated = False  # the record refuses it, with the reason
        if repeated:
            return "a request of this id took effect already"
        error = self._dry_run(command).error
        return error.message if error else None

    def node_id_of(self, tag: str) -> str:
        """Which node has the tag, by this node's log to its end, as Raft counts members too: after a loss of power the
        record may be as it was long ago. Empty: not known."""
        peer = next((peer for peer in self._the_raft().status.peers if peer.tag == tag), None)
        node = self.record.nodes.get(tag)
        return (peer.node_id if peer else "") or (node.node_id if node else "")

    def announced(self, tag: str) -> AnnouncedProcess | None:
        """The process of a node that has announced itself, by the record; None: none has."""
        node = self.record.nodes.get(tag)
        return AnnouncedProcess(node.node_id, node.boot, node.nonce) if node and node.node_id else None

    def dump(self) -> Callable[[], Iterable[bytes]]:
        """Captures the record as it is now; encoding happens when the returned function is called."""
        record = self.record
        return lambda: snapshot.frames(record)

    def restore(self, chunks: Iterable[bytes]) -> None:
        """Replaces the record by a snapshot's. Everything counts as changed. Raises StorageDamaged."""
        before = self.record
        try:
            self.record = snapshot.read(chunks)
        except snapshot.SnapshotUnreadable as error:
            raise StorageDamaged(str(error)) from error
        everything = frozenset(before.databases) | frozenset(self.record.databases)
        claims = frozenset(before.claims) | frozenset(self.record.claims)
        self._pending = [Changes(cluster=True, databases=everything, claims=claims)]

    def after_tick(self) -> None:
        """Tells the listeners and wakes who waits for a change."""
        changes, self._pending = _merged(self._pending), []
        for listener in self._listeners:
            listener(self.record, changes)
        self._changed.notify_all()

    async def propose(
        self, command: Command, *, timeout_ms: int = 5000, request_id: str | None = None, asked: str = ""
    ) -> CommandResult:
        """The command's answer, from any node of the cluster.

        Proposes again under one request id until it is answered, so that it takes effect at most once. `asked` is the
        hash of what a client asked for, if it is the client that gave the id: see `Envelope`. Raises
        Unavailable after `timeout_ms`, TooLarge at once.
        """
        data = self._encoded(command, request_id, asked)
        reason, failures = "no leader is known", 0
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                while True:
                    try:
                        proposed = await self._the_raft().propose(data, timeout_ms=timeout_ms)
                        return self._answer(proposed)
                    except (NotCommitted, OutcomeUnknown) as failure:
                        reason = str(failure)
                    failures += 1
                    await asyncio.sleep(backoff(failures, RETRY_MIN_MS, RETRY_MAX_MS) / 1000)
        except TimeoutError:
            raise Unavailable(
                f"{type(command).__name__} was not answered within {timeout_ms} ms: {reason.rstrip('.')}."
            ) from None

    async def decide(self, command: Decide) -> CommandResult:
        """The observer's decision, appended by this node as leader of the decision's term or not at all.

        Raises NotCommitted or OutcomeUnknown; it is never proposed again.
        """
        proposed = await self._the_raft().propose_here(encode(command), term=command.term)
        return self._answer(proposed)

    def first_result(self, request_id: str, asked: str) -> CommandResult | None:
        """What the request of that id was answered with when it took effect, as far as this node has applied the log;
        None if none did. See `Envelope` for `asked`."""
        return first_result(self.record, request_id, asked, index=self.record.index)

    async def change_membership(
        self,
        change: Add | Remove,
        command: Command,
        *,
        timeout_ms: int = 10000,
        request_id: str | None = None,
        asked: str = "",
    ) -> CommandResult:
        """One log entry that changes both Raft's membership and the record, under a request id like `propose`. Raises
        Unavailable after `timeout_ms`.

        A command the record would refuse is answered here, as soon as this node knows, and so is a repeat; the leader
        appends neither: the membership must not change without the record.
        """
        id = request_id or uuid.uuid4().hex
        data = self._encoded(command, id, asked)
        reason = "no leader is known"
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                while True:
                    tried = self._dry_run(data)
                    if tried.error is not None or id in self.record.requests:
                        return tried
                    try:
                        return self._answer(await self._the_raft().change_membership(change, data))
                    except (NotCommitted, OutcomeUnknown) as failure:
                        reason = str(failure)
                    await asyncio.sleep(RETRY_MAX_MS / 1000)
        except TimeoutError:
            raise Unavailable(f"The change was not answered within {timeout_ms} ms: {reason.rstrip('.')}.") from None

    async def until(self, condition: Callable[[Record], bool]) -> Record:
        """Waits until the applied record meets the condition, and gives that record."""
        while not condition(self.record):
            await self._changed.wait()
        return self.record

    def _dry_run(self, command: bytes) -> CommandResult:
        return apply(self.record, Entry(self.record.index + 1, 0), command).result

    def _the_raft(self) -> Raft:
        assert self._raft is not None, "attach() comes before propose()"
        return self._raft

    @staticmethod
    def _encoded(command: Command, request_id: str | None, asked: str = "") -> bytes:
        data = encode(command, request_id or uuid.uuid4().hex, asked if request_id else "")
        if len(data) > COMMAND_BYTES_MAX:
            raise CommandTooLarge(
                f"{type(command).__name__} takes {len(data)} bytes; the limit is {COMMAND_BYTES_MAX}."
            )
        return data

    @staticmethod
    def _answer(proposed: Proposed) -> CommandResult:
        answer = proposed.answer
        assert isinstance(answer, CommandResult)
        return answer


def _merged(changes: list[Changes]) -> Changes:
    if len(changes) == 1:
        return changes[0]
    return Changes(
        cluster=any(one.cluster for one in changes),
        databases=frozenset().union(*(one.databases for one in changes)),
        claims=frozenset().union(*(one.claims for one in changes)),
    )
