"""Why a task is where it is."""

from raftnode.record.model import Cause
from raftnode.record.observer_memory import Decision
from raftnode.web.views.base import View
from raftnode.web.views.cluster import Quorum
from raftnode.web.views.tasks import TaskShown


class Grant(View, frozen=True, kw_only=True):
    """The log entry that granted the present claim."""

    index: int
    generation: int
    node: str
    rule: str | None


class CauseView(Cause, frozen=True, kw_only=True):
    """The log entry that put the task where it is, and a sentence that says so."""

    sentence: str


class RunEnd(View, frozen=True, kw_only=True):
    """A run, and how it ended; "Held" for one that goes on."""

    epoch: str
    node: str
    state: str
    reason: str | None


class Why(TaskShown, frozen=True, kw_only=True):
    """The task with all that says why. `because` is one sentence; `decisions` are what the observer said in the entry
    of the cause; the runs are the newest first."""

    database: str
    because: str
    quorum: Quorum
    grant: Grant | None
    cause: CauseView
    decisions: list[Decision]
    runs: list[RunEnd]
