"""Which tasks the supervisor must look at again. One that ends must not make it look at thousands of others."""

from collections.abc import Iterable, Mapping
from itertools import islice

from tasks.runtime.plan import Assignment


class DueTasks:
    """Claim keys, each once, in the order in which they came up.

    `session` and `assigned` are those that the keys were last compared with.
    """

    def __init__(self) -> None:
        self._due: dict[str, None] = {}
        self.session: int | None = None
        self.assigned: Mapping[str, Assignment] = {}

    def __bool__(self) -> bool:
        return bool(self._due)

    def add(self, keys: Iterable[str]) -> None:
        """Something about these tasks has changed."""
        self._due.update(dict.fromkeys(keys))

    def add_first(self, keys: Iterable[str]) -> None:
        """Something about these tasks has changed that makes them more urgent than all others."""
        self._due = dict.fromkeys(keys) | self._due

    def compare(self, assigned: Mapping[str, Assignment]) -> list[str]:
        """Marks the tasks whose assignment has changed as due. Returns those that are no longer assigned."""
        before, self.assigned = self.assigned, assigned
        if assigned is before:
            return []
        gone = [key for key in before if key not in assigned]
        self.add_first(gone)
        self.add(key for key, assignment in assigned.items() if before.get(key) is not assignment)
        return gone

    def take(self, most: int) -> list[str]:
        """The next ones, at most so many."""
        taken = list(islice(self._due, most))
        for key in taken:
            del self._due[key]
        return taken
