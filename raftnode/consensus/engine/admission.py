"""What a leader takes into its log, and what it refuses with a reason."""

from raftnode.consensus.engine import members as membership
from raftnode.consensus.engine.core import Core
from raftnode.consensus.engine.members import Members, RequestRefused
from raftnode.consensus.engine.replication import Replication
from raftnode.consensus.model import Change, Peer, RaftConfig, Remove
from raftnode.consensus.storage.journal import Journal

CAUGHT_UP_ENTRIES = 1_000


class Admission:
    """The checks before an append. Every method raises RequestRefused."""

    def __init__(self, tag: str, core: Core, journal: Journal, replication: Replication, config: RaftConfig) -> None:
        self.handing_over = False
        """Whether the leadership is on its way to another node, which must come to hold the whole log."""
        self._tag = tag
        self._core = core
        self._journal = journal
        self._replication = replication
        self._config = config

    def check(self, command_bytes: int) -> None:
        """Whether this node leads and has room for a command of that size."""
        config = self._config
        if self.handing_over:
            raise RequestRefused("the leadership is being transferred")
        self._check_leading()
        if command_bytes > config.command_bytes_max:
            raise RequestRefused(
                f"the command of {command_bytes} bytes is above the limit of {config.command_bytes_max}"
            )
        if self._journal.last_index - self._core.commit_index >= config.uncommitted_entries_max:
            raise RequestRefused(f"{config.uncommitted_entries_max} entries wait to be committed, which is the limit")
        if self._journal.size_bytes > config.journal_bytes_max:
            limit = config.journal_bytes_max
            raise RequestRefused(f"the journal is above its limit of {limit} bytes: snapshots must be failing")

    def peers_after(self, change: Change, members: Members) -> tuple[Peer, ...]:
        """The peers once the change is made.

        One change at a time, as any majority of before must meet any majority of after (thesis, section 4.1). Only by a
        leader that has applied an entry of its own term: else two leaders could change different memberships, each by a
        majority of its own (Ongaro's correction of 2015 to that section). And a leader stays a voter: it would count
        majorities that it is no part of (section 4.2.2); it can transfer the leadership first.
        """
        core = self._core
        if core.applied_index < core.no_op_index:
            raise RequestRefused("the leadership is not confirmed yet")
        if members.index > core.applied_index:
            raise RequestRefused("one membership change at a time: an earlier one is not applied yet")
        peers = membership.after(members.current, change)
        if not any(peer.tag == self._tag and peer.voter for peer in peers):
            verb = "remove" if isinstance(change, Remove) else "demote"
            raise RequestRefused(f"the leader {self._tag} cannot {verb} itself: transfer the leadership first")
        voter = membership.makes_voter(members.current, change)
        if voter is not None:
            self._check_caught_up(voter)
        return peers

    def transfer_target(self, tag: str | None, voters: frozenset[str], now_s: float) -> str:
        """Who is to take the leadership (thesis, section 3.10): the named voter, or the most advanced one of those that
        are heard."""
        self._check_leading()
        candidates = voters & self._replication.connected_tags - {self._tag}
        if not candidates:
            raise RequestRefused("no other voter is connected")
        if tag is None:
            heard = {one for one in candidates if self._silent_ms(one, now_s) <= self._config.election_min_ms}
            return max(heard or candidates, key=lambda one: (self._core.match_index(one), one))
        if tag not in candidates:
            raise RequestRefused(f"{tag} is not another connected voter")
        return tag

    def check_transfer_target(self, tag: str | None, voters: frozenset[str], now_s: float) -> None:
        """Refuses a hand-over to nobody, and to a voter that is not heard: the cluster takes no command meanwhile."""
        target = self.transfer_target(tag, voters, now_s)
        silent_ms = self._silent_ms(target, now_s)
        if silent_ms > self._config.election_min_ms:
            raise RequestRefused(f"{target} has not answered for {silent_ms} ms: it cannot take the leadership")

    def _silent_ms(self, tag: str, now_s: float) -> int:
        return round((now_s - self._core.response_s(tag)) * 1000)

    def _check_leading(self) -> None:
        if not self._core.is_leader:
            raise RequestRefused(f"{self._tag} is not the leader")

    def _check_caught_up(self, tag: str) -> None:
        """A new voter counts for every majority at once, so it must not be far behind (thesis, section 4.2.1)."""
        if tag not in self._replication.connected_tags:
            raise RequestRefused(f"{tag} is not connected: a vote must never wait for a node that is not there")
        lag = self._journal.last_index - self._core.match_index(tag)
        if lag > CAUGHT_UP_ENTRIES or not self._core.match_index(tag):
            raise RequestRefused(
                f"{tag} is {lag} entries behind: add it as a watcher first, and make it a voter once it has caught up"
            )
