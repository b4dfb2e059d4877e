"""A run on a node, as that tells."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import UNSET, Raw, UnsetType

from raftnode.record.model import FailedDocument
from raftnode.web.views.base import View, view
from raftnode.web.views.base import epoch as as_text
from raftnode.web.views.progress import ProgressView, progress

if TYPE_CHECKING:
    from tasks.runtime.status import LocalTaskStatus


class RunInfo(View, frozen=True, kw_only=True):
    """What a run shows of itself, see `tasks.runtime.context.RunFigures`. `errors`, which may be many, are there only
    where one run is asked for."""

    processed: int = 0
    failed: int = 0
    rows: int = 0
    batches: int = 0
    error: str | None = None
    last_batch_at: str | None = None
    errors: Sequence[FailedDocument] | UnsetType = UNSET
    seen_etag: int | None = None
    superseded: int = 0
    last_error: str | None = None
    last_error_at: str | None = None
    next_run: str | None = None
    details: Mapping[str, Any] = {}
    fenced: bool | None = None


class RunView(View, frozen=True, kw_only=True):
    """What a node says of a task of its own, see `tasks.runtime.status.LocalTaskStatus`."""

    database: str
    name: str
    kind: str
    task_id: int
    node: str
    state: str
    reason: str = ""
    epoch: str | None = None
    session: int | None = None
    since: str | None = None
    error: str | None = None
    behind: int | None = None
    rate_per_s: float = 0.0
    progress: ProgressView | None = None
    info: RunInfo | None = None


class RunsPage(View, frozen=True, kw_only=True):
    """Runs of a node by claim key, and where the following page begins; null on the last one. They are read when they
    are asked for."""

    runs: Mapping[str, Raw]
    next: str | None = None


def run(status: "LocalTaskStatus | None", *, details: bool) -> RunView | None:
    """What a node says of a task of its own. The documents that were skipped, which may be many, are details."""
    if status is None:
        return None
    info = status.info
    return view(
        RunView,
        status,
        epoch=None if status.epoch is None else as_text(status.epoch),
        progress=None if status.progress is None else progress(status.progress),
        info=None if info is None else view(RunInfo, info, errors=tuple(info.errors) if details else UNSET),
    )
