"""Documents that fail by themselves while the others of their batch do not."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from tasks.kinds.registry import TaskFailed

REASON_LENGTH_MAX = 1_000
"""Scripts write some of it, at any length, and it is logged and shown."""


class TransformFailed(TaskFailed):
    """One transform cannot go on for now; the others of its task can."""


class DocumentRefusal(msgspec.Struct, frozen=True):
    """A document that the script or the target refused by itself, and why, of which REASON_LENGTH_MAX is kept."""

    id: str
    reason: str

    def __post_init__(self) -> None:
        if len(self.reason) > REASON_LENGTH_MAX:
            msgspec.structs.force_setattr(self, "reason", f"{self.reason[:REASON_LENGTH_MAX]}…")


class RefusalCheck(Protocol):
    """Whose fault refusals are: raises TaskFailed when they are the task's and not single documents'."""

    def __call__(self, accepted: int, refusals: Sequence[DocumentRefusal], *, final: bool) -> None:
        """Called when documents have been refused, and with `final` at the end of the batch."""


def accept_refusals(accepted: int, refusals: Sequence[DocumentRefusal], *, final: bool) -> None:
    """For writes in which nothing can be refused, or whoever is refused is listed."""
