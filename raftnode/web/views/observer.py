"""The cluster observer, and what it reads."""

from raftnode.web.views.base import Committed, Json, View


class ObserverDecision(View, frozen=True, kw_only=True):
    """One sentence of the observer, when it was said, and the log entry that it stands in."""

    database: str
    iteration: int
    date: str
    message: str
    term: int
    index: int


class Decisions(View, frozen=True, kw_only=True):
    """What the observer decided, oldest first."""

    leader_node: str | None
    term: int
    suspended: bool
    iteration: int
    observer_log: list[ObserverDecision]


class Suspended(Committed, frozen=True, kw_only=True):
    """Whether the observer is suspended."""

    suspended: bool


class LastReport(View, frozen=True, kw_only=True):
    """A node's last report; nulls where this leader has heard nothing of the node yet."""

    boot: int | None = None
    has_lease: bool | None = None
    applied_index: int | None = None
    silent: bool
    report: Json | None = None
