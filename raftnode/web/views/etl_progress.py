"""RavenDB's progress of ETL tasks, a process for each script."""

from collections.abc import Mapping, Sequence
from typing import Any

from raftnode.foundation.names import fold
from raftnode.record.model import Task
from raftnode.web.views.base import View
from raftnode.web.views.figures import TaskFigures
from raftnode.web.views.runs import RunView
from raftnode.web.views.tasks import transforms

TRANSFORMS = "Transforms"
"""In the details of a run: how far each of its scripts is, as [{"Name", "SeenEtag"}]."""


class EtlProcessProgress(View, frozen=True, kw_only=True):
    """RavenDB's EtlProcessProgress. Documents and tombstones are counted together, as changes: there are no counters,
    time series or other items here."""

    transformation_name: str
    completed: bool
    disabled: bool
    average_processed_per_second: float
    number_of_documents_to_process: int
    total_number_of_documents: int
    number_of_document_tombstones_to_process: int = 0
    total_number_of_document_tombstones: int = 0
    number_of_counter_groups_to_process: int = 0
    total_number_of_counter_groups: int = 0
    number_of_time_series_segments_to_process: int = 0
    total_number_of_time_series_segments: int = 0
    number_of_time_series_deleted_ranges_to_process: int = 0
    total_number_of_time_series_deleted_ranges: int = 0


class EtlTaskProgress(View, frozen=True, kw_only=True):
    """RavenDB's EtlTaskProgress, with the figures of the task as a whole."""

    task_name: str
    etl_type: str
    processes_progress: Sequence[EtlProcessProgress]
    figures: TaskFigures


class EtlProgress(View, frozen=True, kw_only=True):
    """The answer."""

    results: Sequence[EtlTaskProgress]


def etl_task_progress(task: Task, run: RunView | None, figures: TaskFigures) -> EtlTaskProgress:
    """Of one task; `run` is None while its holder does not tell, and `run.behind` before a run has looked."""
    seen = _seen(run)
    last_etag = (run.info.seen_etag or 0) + (run.behind or 0) if run and run.info else 0
    known = run is not None and run.behind is not None
    processes = []
    for transform in transforms(task.configuration):
        name = str(transform.get("Name"))
        left = max(0, last_etag - seen.get(fold(name), last_etag - (figures.left or 0)))
        disabled = task.disabled or bool(transform.get("Disabled"))
        processes.append(
            EtlProcessProgress(
                transformation_name=name,
                completed=known and not disabled and left == 0,
                disabled=disabled,
                average_processed_per_second=figures.rate_per_sec or 0.0,
                number_of_documents_to_process=left,
                total_number_of_documents=last_etag,
            )
        )
    kind = task.kind.removesuffix("Etl")
    return EtlTaskProgress(task_name=task.name, etl_type=kind, processes_progress=processes, figures=figures)


def _seen(run: RunView | None) -> dict[str, int]:
    told: Any = run.info.details.get(TRANSFORMS) if run and run.info else None
    found = [one for one in told if isinstance(one, Mapping)] if isinstance(told, list) else []
    return {fold(str(one.get("Name"))): int(one.get("SeenEtag") or 0) for one in found}
