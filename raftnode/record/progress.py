"""What progress may tell beside how far a task is: bounded, so that the record stays small whatever fails."""

from msgspec.structs import replace

from raftnode.record.model import Progress

FAILURES_SHOWN_MAX = 10
FAILURE_LENGTH_MAX = 300
DOCUMENT_ID_LENGTH_MAX = 512
ERROR_LENGTH_MAX = 500
STATE_BYTES_MAX = 64 * 1024


def bounded(progress: Progress) -> Progress:
    """The same progress with what is for display only cut to its limits."""
    newest = [
        replace(one, document_id=one.document_id[:DOCUMENT_ID_LENGTH_MAX], error=one.error[:FAILURE_LENGTH_MAX])
        for one in progress.failures[-FAILURES_SHOWN_MAX:]
    ]
    return replace(progress, failures=tuple(newest), error=progress.error[:ERROR_LENGTH_MAX])
