"""The leader's side of replication: what each follower is sent and when, and the answers that go back."""

from typing import Protocol

from raftnode.consensus.engine import messages
from raftnode.consensus.engine.core import Core
from raftnode.consensus.engine.messages import (
    AnyMessage,
    AppendEntries,
    AppendResponse,
    SnapshotChunkAck,
    SnapshotHeartbeat,
)
from raftnode.consensus.engine.snapshots import Snapshots
from raftnode.consensus.storage.journal import Journal

BATCH_BYTES_MAX = 1024 * 1024
BATCH_ENTRIES_MAX = 4096
BACKLOG_BYTES_MAX = 2 * 1024 * 1024


class Wire(Protocol):
    """Messages to the other nodes: ordered per peer, never waiting, possibly lost."""

    def send(self, tag: str, payload: bytes) -> bool:
        """False: the message is lost."""

    def backlog_bytes(self, tag: str) -> int:
        """What was sent to the peer and has not yet left this process."""


class Replication:
    """Keeps every follower supplied (Raft paper, section 5.3), without running ahead of what its connection takes.

    A leader does not wait for the answer to one append before it sends the next (pipelining; thesis, section 10.2.2):
    next indexes go up as entries are sent. What is lost with a connection is sent again from what the follower is known
    to hold, and a follower that holds less asks for a reset.
    """

    def __init__(self, core: Core, journal: Journal, snapshots: Snapshots, wire: Wire) -> None:
        self._core = core
        self._journal = journal
        self._snapshots = snapshots
        self._wire = wire
        self._streams: dict[str, int] = {}
        self._announced: dict[str, int] = {}
        self._connected: set[str] = set()
        self._answers: list[tuple[str, AnyMessage]] = []

    def send(self, tag: str, message: AnyMessage) -> bool:
        """Sends a message that vouches for nothing on this node's disk."""
        return self._wire.send(tag, messages.encode(message))

    # a follower's answers

    def answer(self, tag: str, message: AnyMessage) -> None:
        """Sends the message once everything received so far is on the disk. Of several successes in a row only the
        last one is sent: it says what the others say."""
        if self._answers and _supersedes(self._answers[-1], (tag, message)):
            self._answers[-1] = (tag, message)
        else:
            self._answers.append((tag, message))

    def flush(self) -> None:
        """Syncs the journal and sends the answers that waited for it."""
        self._journal.sync()
        if not self._answers:
            return
        answers, self._answers = self._answers, []
        for tag, message in answers:
            self.send(tag, message)

    # a leader's appends

    @property
    def connected_tags(self) -> frozenset[str]:
        """The peers there is a connection to."""
        return frozenset(self._connected)

    def connected(self, tag: str, up: bool) -> None:
        """The connection to a peer came up or was lost; what was on its way may be lost too."""
        (self._connected.add if up else self._connected.discard)(tag)
        self._streams[tag] = self._streams.get(tag, 0) + 1
        self._announced.pop(tag, None)
        if self._core.is_leader and tag in self._core.followers:
            if self._core.match_index(tag):
                self._core.set_next_index(tag, self._core.match_index(tag) + 1)
            self._snapshots.resume(tag)

    def moves(self, tag: str) -> bool:
        """Whether the follower's answer may let this leader commit something, or sends it more."""
        core, first = self._core, self._journal.first_index
        next_index = core.next_index(tag)
        return core.match_index(tag) > core.commit_index or not first < next_index > self._journal.last_index

    def account(self, tag: str, answer: AppendResponse | SnapshotChunkAck, now_s: float) -> None:
        """Takes a follower's answer into account, which the filter has found to be of this leadership. A follower whose
        log differs asks to go on from its commit index, which all logs share, and not from one entry before the last
        attempt as in the paper: one answer is enough."""
        self._core.answered(tag, now_s)
        if isinstance(answer, SnapshotChunkAck):
            self._snapshots.taken(tag, answer)
        elif answer.success:
            self._core.matched(tag, answer.next_index - 1)
        elif answer.reset and answer.stream == self._streams.get(tag, 0):
            # Once per stream: messages that were already on their way ask for the same again.
            self._streams[tag] = answer.stream + 1
            self._core.set_next_index(tag, max(2, min(answer.next_index, self._journal.last_index + 1)))

    def won(self) -> None:
        """A new leadership begins: nobody has been told anything in it."""
        self._announced.clear()

    def supply(self, *, heartbeat: bool = False) -> None:
        """Sends every connected follower the entries and the commit index it has not been sent; with `heartbeat`, an
        empty append if there is nothing else."""
        core, announced = self._core, self._announced
        commit_index, last_index = core.commit_index, self._journal.last_index
        for tag in core.followers:
            due = heartbeat or core.next_index(tag) <= last_index or announced.get(tag, -1) < commit_index
            if due and tag in self._connected and self._wire.backlog_bytes(tag) < BACKLOG_BYTES_MAX:
                self._supply_one(tag, heartbeat)

    def _supply_one(self, tag: str, heartbeat: bool) -> None:
        core, commit_index = self._core, self._core.commit_index
        if core.next_index(tag) <= self._journal.first_index:
            self._snapshots.feed(tag, core.term, lambda message: self.send(tag, message), heartbeat=heartbeat)
            if heartbeat:
                self.send(tag, SnapshotHeartbeat(core.term))
            return
        self._snapshots.finish(tag)
        due = heartbeat or self._announced.get(tag, -1) < commit_index
        while core.next_index(tag) <= self._journal.last_index or due:
            append = self._append_for(tag)
            if not self.send(tag, append):
                return
            due = False
            self._announced[tag] = commit_index
            core.set_next_index(tag, append.prev_index + len(append.entries) + 1)
            if self._wire.backlog_bytes(tag) >= BACKLOG_BYTES_MAX:
                return

    def _append_for(self, tag: str) -> AppendEntries:
        entries, first = self._journal.entries, self._journal.first_index
        begin = self._core.next_index(tag) - first
        _, prev_index, prev_term = entries[begin - 1]
        end, budget = begin, BATCH_BYTES_MAX
        while end < len(entries) and end - begin < BATCH_ENTRIES_MAX:
            budget -= len(entries[end][0])
            if budget < 0 and end > begin:
                break
            end += 1
        stream = self._streams.get(tag, 0)
        return AppendEntries(
            self._core.term, prev_index, prev_term, tuple(entries[begin:end]), self._core.commit_index, stream
        )


def _supersedes(old: tuple[str, AnyMessage], new: tuple[str, AnyMessage]) -> bool:
    (old_tag, before), (new_tag, after) = old, new
    return (
        old_tag == new_tag
        and isinstance(before, AppendResponse)
        and isinstance(after, AppendResponse)
        and before.success
        and after.success
        and before.term == after.term
        and before.next_index <= after.next_index
    )
