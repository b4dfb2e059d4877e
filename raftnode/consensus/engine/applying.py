"""From the log to the state machine: each committed entry once, in order, and its listeners once a tick."""

from typing import Any

import structlog

from raftnode.consensus.engine import members as membership
from raftnode.consensus.engine.environment import EngineEvents
from raftnode.consensus.engine.members import MEMBERSHIP
from raftnode.consensus.model import ApplyFailed, StateMachine
from raftnode.consensus.storage.segment import Entry

log = structlog.get_logger(__name__)


class Applier:
    """Applies what is committed (Raft paper, section 5.3). `restored`: the state machine stands where a snapshot ends,
    which its listeners have not been told."""

    def __init__(self, machine: StateMachine, events: EngineEvents, *, restored: bool) -> None:
        self.applied_term = 0
        """The term of the entry that was applied last."""
        self._machine = machine
        self._events = events
        self._untold = restored
        self._membership_untold = False

    def apply(self, entry: Entry) -> None:
        """Applies one committed entry. What the state machine raises ends this node before anybody is answered: other
        nodes may apply the entry."""
        command, index, term = entry
        answer: Any = None
        body = membership.application_part(command)
        if body is not None:
            try:
                answer = self._machine.apply(index, term, body)
            except Exception as error:
                raise ApplyFailed(index, error) from error
        self._untold, self.applied_term = True, term
        self._events.applied(index, term, answer)
        self._membership_untold = self._membership_untold or command[:1] == MEMBERSHIP

    def restored(self, term: int) -> None:
        """The state machine was restored from elsewhere, to where an entry of `term` left it."""
        self._untold, self.applied_term = True, term

    def tell(self, *, installing: bool) -> None:
        """Tells of what was applied since the last time, all at once: a listener sees no state in between. While a
        snapshot is being installed the state is not this thread's to show."""
        if self._membership_untold:
            self._membership_untold = False
            self._events.members_changed()
        if self._untold and not installing:
            self._untold = False
            try:
                self._machine.after_tick()
            except Exception:
                log.exception("The state machine's after_tick raised.")
