"""Our journal and vote behind the names by which PySyncObj calls a journal."""

from collections.abc import Callable

import structlog
from pysyncobj.journal import Journal as PackageJournal

from raftnode.consensus.model import JournalFailed
from raftnode.consensus.storage.hard_state import HardState, HardStateFiles
from raftnode.consensus.storage.journal import Journal
from raftnode.consensus.storage.segment import Entry

log = structlog.get_logger(__name__)


class PackageLog(PackageJournal):  # type: ignore[misc]
    """The adapter. It holds two promises that the package does not: nothing counts as committed before it is synced
    here, and term and vote are on the disk before `setCurrentTerm` returns."""

    def __init__(self, journal: Journal, files: HardStateFiles, vote: HardState, commit_index: int) -> None:
        self.journal = journal
        self.vote = vote
        self.on_vote: Callable[[int, str | None], None] = lambda _term, _tag: None
        self._files = files
        self._commit_index = commit_index
        self._commit_stored = commit_index

    def add(self, command: bytes, idx: int, term: int) -> None:
        self.journal.append((command, idx, term))

    def deleteEntriesFrom(self, entryFrom: int) -> None:
        self.journal.truncate(self.journal.first_index + entryFrom)

    def __getitem__(self, item: int | slice) -> Entry | list[Entry]:
        return self.journal.entries[item]

    def __len__(self) -> int:
        return len(self.journal)

    def _destroy(self) -> None:
        self.onOneSecondTimer()
        self.journal.close()

    def setRaftCommitIndex(self, raftCommitIndex: int) -> None:
        if raftCommitIndex != self._commit_index:
            # A leader counts itself as one of the majority: what it counts must be on its disk.
            self.journal.sync()
            self._commit_index = raftCommitIndex

    def getRaftCommitIndex(self) -> int:
        return self._commit_index

    # Raft paper, figure 2: both are on stable storage before any message rests on them.
    def setCurrentTerm(self, term: int, votedForNodeId: str | None) -> None:
        self.store_vote(HardState(term, votedForNodeId, self.vote.recover_to))
        self.on_vote(term, votedForNodeId)

    def getCurrentTerm(self) -> int:
        return self.vote.term

    def getVotedForNodeId(self) -> str | None:
        return self.vote.voted_for

    def onOneSecondTimer(self) -> None:
        if self._commit_stored != self._commit_index:
            self._commit_stored = self._commit_index
            try:
                self._files.store_commit(self._commit_index)
            except JournalFailed as error:
                log.warning(
                    "The hint of what is committed could not be written; nothing depends on it.", reason=str(error)
                )

    def store_vote(self, vote: HardState) -> None:
        """Stores the vote if it is another."""
        if vote != self.vote:
            self._files.store_vote(vote)
            self.vote = vote
