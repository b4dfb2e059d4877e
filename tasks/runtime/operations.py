"""What users have asked this node to do, or it does for them, that takes its time: RavenDB's operations.

They are known on this node alone, as long as it runs, and the newest OPERATIONS_MAX of them.
"""

import time
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from raftnode.foundation import timestamps

OPERATIONS_MAX = 1_000

OperationStatus = Literal["InProgress", "Completed", "Canceled", "Faulted"]


class Operation(msgspec.Struct, kw_only=True):
    """One of them. `progress` and `result` are JSON objects. `cancel`, if there is one, asks for its end. `request` is
    the id of the client's request that began it, and `asked` a hash of what that asked for: a repeat gets this one."""

    id: int
    description: str
    type: str
    database: str | None = None
    request: str | None = None
    asked: str = ""
    status: OperationStatus = "InProgress"
    progress: dict[str, Any] = {}
    result: dict[str, Any] | None = None
    error: str = ""
    began_at: str = msgspec.field(default_factory=timestamps.now)
    ended_at: str | None = None
    cancel: Callable[[], None] | None = None

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.status == "InProgress"

    def completed(self, result: dict[str, Any]) -> None:
        """It is done."""
        self._ended("Completed")
        self.result = result

    def failed(self, error: str) -> None:
        """It ended without what it was for."""
        self._ended("Faulted")
        self.error = error

    def canceled(self) -> None:
        """It was ended on the way."""
        self._ended("Canceled")

    def _ended(self, status: OperationStatus) -> None:
        assert self.running, "an operation ends once"
        self.status, self.ended_at, self.cancel = status, timestamps.now(), None


class Operations:
    """The node's, by id. An id is unique in the cluster for long enough: it comes from the clock."""

    def __init__(self) -> None:
        self._by_id: dict[int, Operation] = {}
        self._last = 0

    def begin(self, description: str, *, type: str, database: str | None = None) -> Operation:
        """A new one, in progress. The oldest that has ended is forgotten beyond the limit."""
        self._last = max(self._last + 1, time.time_ns() // 1_000)
        operation = Operation(id=self._last, description=description, type=type, database=database)
        self._by_id[operation.id] = operation
        if len(self._by_id) > OPERATIONS_MAX:
            oldest = next((id for id, one in self._by_id.items() if not one.running), None)
            if oldest is not None:
                del self._by_id[oldest]
        return operation

    def get(self, id: int) -> Operation | None:
        """The one of that id."""
        return self._by_id.get(id)

    def of_request(self, request: str) -> Operation | None:
        """The one that the client's request of that id began."""
        return next((one for one in self._by_id.values() if one.request == request), None)

    def going(self, type: str, description: str) -> Operation | None:
        """The one of that type and description that has not ended."""
        alike = (one for one in self._by_id.values() if (one.type, one.description) == (type, description))
        return next((one for one in alike if one.running), None)

    def all(self) -> list[Operation]:
        """Oldest first."""
        return list(self._by_id.values())
