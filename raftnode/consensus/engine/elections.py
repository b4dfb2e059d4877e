"""When this node stands for election: never before a majority said that it would vote for it, and never because the
process itself was asleep."""

from collections.abc import Callable

from raftnode.consensus.engine.core import Core
from raftnode.consensus.engine.messages import AnyMessage, PreVote
from raftnode.consensus.model import RaftConfig
from raftnode.foundation.ports import Clock, Random

LONG_AGO = float("-inf")


class Elections:
    """The pre-vote (Ongaro's thesis, section 9.6), the guard against stalls, and who voted for this node.

    Elections themselves are the package's (Raft paper, section 5.2), with random timeouts between the shortest and the
    longest. It may only hold one once a majority has said here that it would vote.
    """

    def __init__(self, tag: str, core: Core, config: RaftConfig, clock: Clock, random: Random) -> None:
        self._tag = tag
        self._core = core
        self._shortest_s = config.election_min_ms / 1000
        self._clock = clock
        self._random = random
        self._last_tick_s: float | None = None
        self._leader_heard_s = LONG_AGO
        self._passed = False
        self._granted: set[str] = set()
        self._requested_ns: dict[str, int] = {}
        self._votes_term = 0
        self._votes: dict[str, int] = {}
        self.nonce: int | None = None
        self.elected_ns: int | None = None

    # time

    def before_tick(
        self, now_s: float, eligible: bool, voters: frozenset[str], send: Callable[[str, AnyMessage], bool]
    ) -> None:
        """Puts the election off after a stall, or asks around first once it is due."""
        stalled = self._last_tick_s is not None and now_s - self._last_tick_s > self._shortest_s / 2
        self._last_tick_s = now_s
        core = self._core
        if core.is_leader:
            return
        if (stalled and not core.handover) or not eligible:
            # The leader's heartbeats of the lost time are still unread, unless it is the leader who asked this node to
            # stand; and a watcher never stands.
            core.postpone(now_s)
            return
        others = voters - {self._tag} if now_s > core.deadline else frozenset()
        if not others or core.handover:
            return
        if self._passed:
            self._passed = False
            return
        core.postpone(now_s)
        core.forget_leader()
        self._ask(others, send)

    def _ask(self, others: frozenset[str], send: Callable[[str, AnyMessage], bool]) -> None:
        journal = self._core.journal
        self.nonce = int(self._random.random() * 2**53)
        self._granted = {self._tag}
        for tag in sorted(others):
            send(tag, PreVote(self._core.term, self.nonce, journal.last_index, journal.last_term))

    def count_prevote(self, voter: str, voters: frozenset[str], now_s: float) -> None:
        """A voter would vote for this node. With a majority the election is held in the next tick. The term is raised
        only then, so that a node which cannot win never makes a leader step down."""
        self._granted.add(voter)
        if 2 * len(self._granted & voters) > len(voters):
            self.nonce, self._passed = None, True
            self._core.deadline = now_s - 1

    # contact with a leader

    def heard_leader(self, now_s: float) -> None:
        """A valid message of the current leader arrived."""
        self._leader_heard_s = now_s
        self.nonce, self._passed = None, False

    def lost_leader(self, now_s: float) -> None:
        """The connection to the leader was closed: its process may be dead, so asking around need not wait long. If
        only the connection died, the others still hear the leader and refuse."""
        self._leader_heard_s = LONG_AGO
        self._core.deadline = min(self._core.deadline, now_s + self._shortest_s / 2 * self._random.random())

    def leader_recent(self, now_s: float, voters: frozenset[str]) -> bool:
        """Whether a leader was heard within the shortest election timeout; a leader counts its own quorum. Whoever has
        one grants no pre-vote: a node that was cut off or removed deposes nobody (thesis, section 4.2.3)."""
        if not self._core.is_leader:
            return now_s - self._leader_heard_s < self._shortest_s
        heard = sum(now_s - self._core.response_s(tag) < self._shortest_s for tag in voters - {self._tag})
        return 2 * (heard + 1) > len(voters)

    # votes

    def term_begun(self, term: int, voted_for: str | None) -> None:
        """The vote was stored; a vote for itself begins this node's own election."""
        if voted_for == self._tag:
            self._votes_term, self._requested_ns = term, {}
            self._votes = {self._tag: self._clock.elapsed_upper_ns()}

    def requested(self, tag: str) -> None:
        """The request for a vote is about to be sent."""
        self._requested_ns[tag] = self._clock.elapsed_upper_ns()

    def count_vote(self, tag: str, term: int) -> bool:
        """Takes note of a vote. False for one that was counted before or never asked for: the package counts votes
        without asking whose they are, so one that the network repeats would count twice."""
        if term != self._votes_term or tag in self._votes or tag not in self._requested_ns:
            return False
        self._votes[tag] = self._requested_ns[tag]
        return True

    def won(self) -> None:
        """This node just became leader."""
        self.elected_ns = self._clock.elapsed_upper_ns()

    def votes_granted(self, term: int) -> dict[str, int]:
        """Who voted for this node in `term`, with `Clock.elapsed_upper_ns` as it was when the vote was asked for."""
        return dict(self._votes) if term == self._votes_term else {}
