"""One line in the log for each decision, and one for all of a kind when thousands are taken together."""

from collections import defaultdict
from typing import Any

import structlog

log = structlog.get_logger(__name__)

EACH_MAX = 10
NAMES_MAX = 3


class DecisionLog:
    """Gathers what is said of tasks until `flush`. More than EACH_MAX of an event for the same reason share a line."""

    def __init__(self) -> None:
        self._gathered: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)

    def __bool__(self) -> bool:
        return bool(self._gathered)

    def of(self, event: str, *, task: str, reason: str = "", **fields: Any) -> None:
        """Something was decided about a task."""
        self._gathered[event, reason].append({"task": task, **fields})

    def flush(self) -> None:
        """Writes it all."""
        gathered, self._gathered = self._gathered, defaultdict(list)
        for (event, reason), tasks in gathered.items():
            why = {"reason": reason} if reason else {}
            if len(tasks) <= EACH_MAX:
                for fields in tasks:
                    log.info(event, **fields, **why)
                continue
            names = ", ".join(fields["task"] for fields in tasks[:NAMES_MAX])
            log.info(event, task=f"{len(tasks)} tasks: {names} ...", **why)
