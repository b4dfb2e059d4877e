"""Snapshots while the node runs: written off the loop, sent in pieces under flow control, received and installed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from raftnode.consensus.engine.members import Members
from raftnode.consensus.engine.messages import SNAPSHOT_CHUNK_BYTES_MAX, AnyMessage, SnapshotChunk, SnapshotChunkAck
from raftnode.consensus.model import RaftConfig, StateMachine
from raftnode.consensus.storage.disk import File
from raftnode.consensus.storage.journal import Journal
from raftnode.consensus.storage.snapshot import SnapshotDescription, SnapshotStore

log = structlog.get_logger(__name__)

WINDOW_BYTES = 4 * SNAPSHOT_CHUNK_BYTES_MAX


class Offload(Protocol):
    """Runs `work` in another thread and then, on the loop, `done` with its result or its exception."""

    def __call__(self, work: Callable[[], Any], done: Callable[[Any], None], /) -> None: ...


@dataclass
class OutgoingSnapshot:
    """A snapshot on its way to one follower. `restarted`: the follower has started over and waits for a heartbeat."""

    file: File
    description: SnapshotDescription
    size_bytes: int
    next_offset: int = 0
    taken_offset: int = 0
    restarted: bool = False


@dataclass
class IncomingSnapshot:
    """A snapshot on its way from the leader."""

    leader: str
    chunk: SnapshotChunk
    file: File
    held: int = 0

    def continues(self, leader: str, chunk: SnapshotChunk) -> bool:
        """Whether the piece belongs to this snapshot."""
        mine = (self.leader, self.chunk.index, self.chunk.index_term, self.chunk.size_bytes)
        return mine == (leader, chunk.index, chunk.index_term, chunk.size_bytes)


class Snapshots:
    """The snapshots of one engine (Raft paper, section 7). `installed(description, leader)` is called on the loop once
    the state machine stands where the leader's snapshot ends."""

    def __init__(
        self,
        store: SnapshotStore,
        description: SnapshotDescription | None,
        journal: Journal,
        machine: StateMachine,
        config: RaftConfig,
        offload: Offload,
        installed: Callable[[SnapshotDescription, str], None],
    ) -> None:
        self._store = store
        self._description = description
        self._journal = journal
        self._machine = machine
        self._config = config
        self._offload = offload
        self._installed = installed
        self._size_bytes = store.size_bytes()
        base = description.index if description else 0
        self._mark = journal.appended_bytes - (journal.bytes_after(base) if len(journal) else 0)
        self._sending: dict[str, OutgoingSnapshot] = {}
        self._receiving: IncomingSnapshot | None = None
        self._times_forgotten = 0
        self.writing = False
        self.installing = False

    @property
    def index(self) -> int:
        """The last entry the snapshot contains, 0 without one."""
        return self._description.index if self._description else 0

    # making

    def due(self) -> bool:
        """Whether enough was appended since the last snapshot, measured in bytes."""
        threshold = max(self._config.snapshot_bytes_min, 2 * self._size_bytes)
        return self._journal.appended_bytes - self._mark > threshold

    def write(self, applied_index: int, members: Members) -> None:
        """Starts writing a snapshot of all that is applied, unless one is being written or installed."""
        term = self._journal.term_at(applied_index)
        if self.writing or self.installing or applied_index <= self.index or term is None:
            return
        peers_index, peers = members.at(applied_index)
        description = SnapshotDescription(applied_index, term, peers, peers_index)
        mark = self._journal.appended_bytes - self._journal.bytes_after(applied_index)
        chunks = self._machine.dump()
        times_forgotten = self._times_forgotten
        self.writing = True

        def done(outcome: Any) -> None:
            self.writing = False
            if times_forgotten != self._times_forgotten:
                log.info("The snapshot is not kept, as its state was thrown away meanwhile.", index=applied_index)
            elif isinstance(outcome, BaseException):
                log.error("The snapshot could not be written; it is tried again later.", reason=repr(outcome))
                self._mark = self._journal.appended_bytes - self._config.snapshot_bytes_min // 2
            elif applied_index > self.index:
                self._store.adopt_written()
                self._description, self._size_bytes, self._mark = description, outcome, mark
                members.rebase(applied_index)
                self._journal.compact(self._keep_from(applied_index))
                log.info("A snapshot was written and the journal was cut.", index=applied_index, bytes=outcome)

        self._offload(lambda: self._store.write(description, chunks()), done)

    def _keep_from(self, index: int) -> int:
        """The oldest entry worth keeping: some behind the snapshot for followers that are a little behind, and all
        that a follower will need that is being sent an older snapshot."""
        budget, keep = self._config.snapshot_bytes_min // 2, index
        entries, first = self._journal.entries, self._journal.first_index
        while keep > max(first, index - self._config.trailing_entries) and budget > 0:
            keep -= 1
            budget -= len(entries[keep - first][0])
        return min([keep, *(sending.description.index for sending in self._sending.values())])

    # sending

    def feed(self, tag: str, term: int, send: Callable[[AnyMessage], bool], *, heartbeat: bool) -> None:
        """Sends the follower what its window has room for. One that started over gets the first piece with the next
        heartbeat: it may do so for ever."""
        sending = self._sending.get(tag)
        if sending is None:
            assert self._description is not None, "a log that does not begin at 1 has a snapshot before it"
            file = self._store.open()
            sending = self._sending[tag] = OutgoingSnapshot(file, self._description, file.size_bytes())
            log.info("A follower is sent the snapshot, as the log it needs is gone.", tag=tag, index=self.index)
        sending.restarted = sending.restarted and not heartbeat
        while not sending.restarted and sending.next_offset < min(
            sending.size_bytes, sending.taken_offset + WINDOW_BYTES
        ):
            data = sending.file.read(sending.next_offset, SNAPSHOT_CHUNK_BYTES_MAX)
            about = sending.description
            if not send(SnapshotChunk(term, about.index, about.term, sending.size_bytes, sending.next_offset, data)):
                return
            sending.next_offset += len(data)

    def taken(self, tag: str, answer: SnapshotChunkAck) -> None:
        """The follower says how much it holds. Less than before means that it started over."""
        sending = self._sending.get(tag)
        if sending is not None and sending.description.index == answer.index:
            if answer.offset < sending.taken_offset:
                sending.next_offset, sending.restarted = answer.offset, True
            sending.taken_offset = answer.offset

    def resume(self, tag: str) -> None:
        """There is a new connection: whatever was not taken is sent again, and the last byte in any case. A follower
        that has died meanwhile says by its answer that it has started over, or that it has installed all."""
        sending = self._sending.get(tag)
        if sending is not None:
            sending.next_offset, sending.restarted = min(sending.taken_offset, sending.size_bytes - 1), False

    def finish(self, tag: str) -> None:
        """The follower needs no snapshot (any more)."""
        sending = self._sending.pop(tag, None)
        if sending is not None:
            sending.file.close()

    def finish_all(self) -> None:
        """This node is no leader (any more)."""
        for tag in list(self._sending):
            self.finish(tag)

    # receiving

    def take(self, leader: str, chunk: SnapshotChunk, term: int, reply: Callable[[AnyMessage], None]) -> None:
        """Stores a piece; the last one starts the installation."""
        if self._receiving is None or not self._receiving.continues(leader, chunk):
            self._drop_receiving()
            self._receiving = IncomingSnapshot(leader, chunk, self._store.start_incoming())
        receiving = self._receiving
        if chunk.offset == receiving.held:
            receiving.file.write(chunk.data)
            receiving.held += len(chunk.data)
        reply(SnapshotChunkAck(term, chunk.index, receiving.held))
        if receiving.held == chunk.size_bytes:
            self._install(receiving, lambda: reply(SnapshotChunkAck(term, chunk.index, 0)))

    def _install(self, receiving: IncomingSnapshot, ask_again: Callable[[], None]) -> None:
        self.installing = True
        store, machine = self._store, self._machine

        def work() -> SnapshotDescription:
            receiving.file.sync()
            description = store.describe(incoming=True)
            if (description.index, description.term) != (receiving.chunk.index, receiving.chunk.index_term):
                raise ValueError("the snapshot is not the one that was announced")
            machine.restore(store.chunks(incoming=True))
            return description

        def done(outcome: Any) -> None:
            self.installing = False
            self._drop_receiving()
            if isinstance(outcome, BaseException):
                log.error("The leader's snapshot cannot be installed; it is asked for again.", reason=repr(outcome))
                ask_again()
                return
            store.adopt_incoming()
            self._description, self._size_bytes = outcome, receiving.chunk.size_bytes
            self._installed(outcome, receiving.leader)
            self._mark = self._journal.appended_bytes
            log.info("The leader's snapshot is installed.", index=outcome.index, leader=receiving.leader)

        self._offload(work, done)

    def _drop_receiving(self) -> None:
        if self._receiving is not None:
            self._receiving.file.close()
            self._receiving = None

    def forget(self) -> None:
        """Throws this node's snapshot away, and the one that is being written."""
        self._times_forgotten += 1
        self._drop_receiving()
        self.finish_all()
        self._store.remove()
        self._description, self._size_bytes, self._mark = None, 0, self._journal.appended_bytes

    def close(self) -> None:
        """Closes what is open."""
        self._drop_receiving()
        self.finish_all()
