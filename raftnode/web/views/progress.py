"""How far a task has come."""

from collections.abc import Mapping, Sequence

from raftnode.record.model import FailedDocument, Progress
from raftnode.web.views.base import View, view
from raftnode.web.views.base import epoch as as_text


class ProgressView(View, frozen=True, kw_only=True):
    """See `record.model.Progress`."""

    generation: int
    epoch: str
    change_vector: str = ""
    last_etags: Mapping[str, int] = {}
    processed: int = 0
    at: str | None = None
    failed: int = 0
    failures: Sequence[FailedDocument] = ()
    error: str = ""


def progress(made: Progress) -> ProgressView:
    """The progress, its epoch as text."""
    return view(ProgressView, made, epoch=as_text(made.epoch))
