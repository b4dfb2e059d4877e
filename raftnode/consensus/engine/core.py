"""PySyncObj's Raft core, with the parts replaced that are unsafe or slow, and typed names for its private state."""

from collections.abc import Iterable
from typing import Any, Protocol

from pysyncobj import SyncObj, SyncObjConf
from pysyncobj.node import Node
from pysyncobj.transport import Transport as PackageTransport

from raftnode.consensus.engine import patches
from raftnode.consensus.engine.messages import AnyMessage, RequestVote, TimeoutNow, VoteGranted
from raftnode.consensus.engine.package_log import PackageLog
from raftnode.consensus.model import RaftConfig
from raftnode.consensus.storage.journal import Journal
from raftnode.consensus.storage.segment import Entry
from raftnode.foundation.ports import Random

FOLLOWER, CANDIDATE, LEADER = 0, 1, 2
APPLY_BATCH_ENTRIES = 2_000


class CoreOwner(Protocol):
    """What the core asks of the engine around it."""

    def apply_entry(self, entry: Entry) -> None:
        """Applies one committed entry. What it raises ends the engine."""

    def send(self, tag: str, message: AnyMessage) -> None:
        """Sends what the package still writes itself: a request for a vote, a vote, or a TimeoutNow."""

    def leadership_won(self) -> None:
        """Called inside the transition: only takes notes."""

    def applying_paused(self) -> bool: ...
    def send_appends(self) -> None:
        """The package wants a heartbeat sent to everyone, with whatever entries are due."""


class _Member(str, Node):  # type: ignore[misc]
    """The package's object for a node, which equals its tag: the package asks its sets and dictionaries for nodes all
    the time, and a text is compared without running any of Python's own code."""

    def __init__(self, tag: str) -> None:
        Node.__init__(self, str(tag))

    __eq__, __ne__, __hash__ = str.__eq__, str.__ne__, str.__hash__


class _Outlet(PackageTransport):  # type: ignore[misc]
    """Takes the few kinds of message that the package still writes itself."""

    def __init__(self, owner: CoreOwner) -> None:
        super().__init__(None, None, ())
        self._owner = owner

    def send(self, node: Node, message: dict[str, Any]) -> bool:
        term = message.get("term", 0)
        match message["type"]:
            case "request_vote":
                self._owner.send(node.id, RequestVote(term, message["last_log_index"], message["last_log_term"]))
            case "response_vote":
                self._owner.send(node.id, VoteGranted(term))
            case "timeout_now":
                self._owner.send(node.id, TimeoutNow(term))
            case "next_node_idx":
                pass  # the filter answers, with a term and only for what it verified
            case kind:
                raise AssertionError(f"the package sends {kind}, which nothing here should make it do")
        return True


class _NoPoller:
    """The package has no sockets of its own here."""

    def poll(self, _timeout: float) -> None: ...


def _configuration(config: RaftConfig) -> SyncObjConf:
    period_s = config.append_period_ms / 1000
    return SyncObjConf(
        autoTick=False,
        appendEntriesUseBatch=True,
        commandsWaitLeader=False,
        dynamicMembershipChange=False,
        raftMinTimeout=config.election_min_ms / 1000,
        raftMaxTimeout=config.election_max_ms / 1000,
        appendEntriesPeriod=period_s,
        leaderFallbackTimeout=max(config.election_min_ms / 1000, 2 * period_s),
        connectionTimeout=config.election_max_ms / 1000,
    )


class Core(SyncObj):  # type: ignore[misc]
    """One node's Raft state machine. Only the engine drives it."""

    _SyncObj__raftState: int
    _SyncObj__raftCurrentTerm: int
    _SyncObj__raftLeader: _Member | None
    _SyncObj__raftCommitIndex: int
    _SyncObj__raftLastApplied: int
    _SyncObj__raftElectionDeadline: float
    _SyncObj__raftNextIndex: dict[str, int]
    _SyncObj__raftMatchIndex: dict[str, int]
    _SyncObj__lastResponseTime: dict[str, float]

    def __init__(self, tag: str, log: PackageLog, owner: CoreOwner, config: RaftConfig, random: Random) -> None:
        self._owner = owner
        self._random = random
        self._nodes = {tag: _Member(tag)}
        self.followers: tuple[str, ...] = ()
        """All other nodes, in order; a leader's followers, watchers too."""
        self._log = log
        with patches.journal_of(log):
            super().__init__(self.node(tag), [], _configuration(config), nodeClass=_Member, transport=_Outlet(owner))
        self._poller = _NoPoller()

    def node(self, tag: str) -> _Member:
        """The package's object for a node."""
        known = self._nodes.get(tag)
        return self._nodes.setdefault(tag, _Member(tag)) if known is None else known

    # typed names

    @property
    def journal(self) -> Journal:
        return self._log.journal

    @property
    def state(self) -> int:
        return self._SyncObj__raftState

    @property
    def is_leader(self) -> bool:
        return self._SyncObj__raftState == LEADER

    @property
    def term(self) -> int:
        return self._SyncObj__raftCurrentTerm

    @property
    def leader(self) -> str | None:
        node = self._SyncObj__raftLeader
        return None if node is None else str(node._id)

    @property
    def commit_index(self) -> int:
        return self._SyncObj__raftCommitIndex

    @property
    def applied_index(self) -> int:
        return self._SyncObj__raftLastApplied

    @property
    def no_op_index(self) -> int:
        """The index of this leadership's no-op: once it is applied, so is all that any earlier leader committed (Raft
        paper, section 8)."""
        return int(self._SyncObj__noopIDx or 0)

    @property
    def deadline(self) -> float:
        """When this node stands for election, in the package's seconds."""
        return self._SyncObj__raftElectionDeadline

    @deadline.setter
    def deadline(self, seconds: float) -> None:
        self._SyncObj__raftElectionDeadline = seconds

    @property
    def handover(self) -> bool:
        """Whether the leader told this node to take over."""
        return bool(self._SyncObj__transferInProgress)

    def next_index(self, tag: str) -> int:
        return self._SyncObj__raftNextIndex[tag]

    def set_next_index(self, tag: str, index: int) -> None:
        self._SyncObj__raftNextIndex[self.node(tag)] = index

    def match_index(self, tag: str) -> int:
        return self._SyncObj__raftMatchIndex.get(tag, 0)

    def response_s(self, tag: str) -> float:
        """When the follower last answered, in the package's seconds."""
        return self._SyncObj__lastResponseTime.get(tag, 0.0)

    # events

    def tick(self) -> None:
        """One turn: election if due, commit, apply, heartbeat if due."""
        self._onTick(0.0)

    def postpone(self, seconds_now: float) -> None:
        """Puts the next election off by a fresh random timeout."""
        self.deadline = seconds_now + self._SyncObj__generateRaftTimeout()

    def follow(self, leader: str, term: int, commit_index: int) -> None:
        """A leader's heartbeat whose commit index is verified."""
        self._SyncObj__onMessageReceived(
            self.node(leader), {"type": "append_entries", "term": term, "commit_index": commit_index}
        )

    def extend(
        self, leader: str, term: int, prev: tuple[int, int], entries: Iterable[Entry], commit_index: int
    ) -> None:
        """A leader's append, every entry of which is new."""
        message = {
            "type": "append_entries",
            "term": term,
            "commit_index": commit_index,
            "entries": list(entries),
            "prevLogIdx": prev[0],
            "prevLogTerm": prev[1],
        }
        self._SyncObj__onMessageReceived(self.node(leader), message)

    def receive_vote_request(self, candidate: str, term: int, last_index: int, last_term: int) -> None:
        message = {"type": "request_vote", "term": term, "last_log_index": last_index, "last_log_term": last_term}
        self._SyncObj__onMessageReceived(self.node(candidate), message)

    def receive_vote(self, voter: str) -> None:
        self._SyncObj__onMessageReceived(self.node(voter), {"type": "response_vote", "term": self.term})

    def receive_timeout_now(self, leader: str, term: int) -> None:
        self._SyncObj__onMessageReceived(self.node(leader), {"type": "timeout_now", "term": term})

    def answered(self, tag: str, seconds_now: float) -> None:
        """A follower gave a sign of life in this term."""
        self._SyncObj__lastResponseTime[self.node(tag)] = seconds_now

    def matched(self, tag: str, index: int) -> None:
        """A follower holds everything up to `index`. The next index never goes back for that."""
        node = self.node(tag)
        self._SyncObj__raftMatchIndex[node] = max(self.match_index(tag), index)
        self._SyncObj__raftNextIndex[node] = max(self.next_index(tag), index + 1)

    def connected(self, tag: str, up: bool) -> None:
        (self._SyncObj__connectedNodes.add if up else self._SyncObj__connectedNodes.discard)(self.node(tag))

    def step_down(self, term: int, seconds_now: float) -> None:
        """Becomes a follower without a leader, in `term` or the present one if that is newer (Raft paper, section 5.1:
        whoever hears of a newer term is no leader any more)."""
        if term > self.term:
            self._SyncObj__setCurrentTerm(term, None)
        self.forget_leader()
        self._SyncObj__setState(FOLLOWER)
        self.postpone(seconds_now)

    def forget_leader(self) -> None:
        self._SyncObj__raftLeader = None

    def transfer_leadership(self, tag: str) -> bool:
        """Tells a follower that has the whole log to stand for election. False: it has not."""
        outcome: list[int] = []
        self.transferLeadership(self.node(tag), lambda _result, error: outcome.append(error))
        return outcome == [0]

    def set_members(self, voters: Iterable[str], watchers: Iterable[str], seconds_now: float) -> None:
        """Makes these the other nodes. Watchers are the package's read-only nodes."""
        others = {self.node(tag) for tag in voters}
        read_only = {self.node(tag) for tag in watchers}
        self._SyncObj__otherNodes = others
        self._SyncObj__readonlyNodes = read_only
        self.followers = tuple(sorted(str(node._id) for node in others | read_only))
        for known in (self._SyncObj__raftNextIndex, self._SyncObj__raftMatchIndex, self._SyncObj__lastResponseTime):
            for node in set(known) - others - read_only:
                del known[node]
        for node in others | read_only:
            self._SyncObj__raftNextIndex.setdefault(node, self._log.journal.last_index + 1)
            self._SyncObj__raftMatchIndex.setdefault(node, 0)
            self._SyncObj__lastResponseTime.setdefault(node, seconds_now)

    def rewind(self, applied_index: int, commit_index: int) -> None:
        """The state machine now stands at `applied_index`."""
        self._SyncObj__raftLastApplied = applied_index
        self._SyncObj__raftCommitIndex = commit_index
        self._log.setRaftCommitIndex(commit_index)

    # replaced parts of the package

    def _SyncObj__generateRaftTimeout(self) -> float:
        shortest, longest = float(self.conf.raftMinTimeout), float(self.conf.raftMaxTimeout)
        return shortest + (longest - shortest) * self._random.random()

    def _SyncObj__onBecomeLeader(self) -> None:
        SyncObj._SyncObj__onBecomeLeader(self)
        self._log.journal.sync()
        self._owner.leadership_won()

    def _SyncObj__sendAppendEntries(self) -> None:
        self._SyncObj__newAppendEntriesTime = patches.seconds() + float(self.conf.appendEntriesPeriod)
        self._owner.send_appends()

    def _SyncObj__applyLogEntries(self) -> bool:
        if self._owner.applying_paused():
            return False
        journal = self._log.journal
        last = min(self.commit_index, self.applied_index + APPLY_BATCH_ENTRIES)
        while self.applied_index < last:
            self._owner.apply_entry(journal.entries[self.applied_index + 1 - journal.first_index])
            self._SyncObj__raftLastApplied += 1
        return False

    def _checkCommandsToApply(self) -> None:
        """Commands come by `Engine.propose`, never through the package's queue."""

    def _SyncObj__tryLogCompaction(self) -> None:
        """The engine compacts, by bytes and off the loop."""

    def _SyncObj__doApplyCommand(self, _command: bytes) -> None:
        raise AssertionError("entries are applied by apply_entry alone")
