"""Fencing tokens: which write of another database's ETL task a version rests on. Pure.

An ETL task that was moved may have left a request behind. It must not leave an old version standing on any node of the
destination, whenever and wherever it arrives. So every version that a task writes carries its token, and so does
whatever is written over it; two versions are compared by their tokens before their times. `writes` has the rules.
"""

from collections.abc import Iterable

import msgspec

TOKENS_PER_DOCUMENT_MAX = 16

TaskName = tuple[str, int]
"""A task among all that write here: `FenceToken.source` and `FenceToken.task`."""
Place = tuple[int, int]
"""A place in the order of a task's requests: epoch and sequence."""


class FenceToken(msgspec.Struct, frozen=True, array_like=True, order=True):
    """One request of an ETL task. `source` is the cluster's id and the folded name of the database there, `task` the
    task's id, `epoch` that of the run, `sequence` orders the requests of the run."""

    source: str
    task: int
    epoch: int
    sequence: int

    @property
    def name(self) -> TaskName:
        """Whose token it is."""
        return self.source, self.task

    @property
    def place(self) -> Place:
        """Which request of the task."""
        return self.epoch, self.sequence


Tokens = tuple[FenceToken, ...]
"""At most one a task, in descending order: so compared, the tokens of the task that is first in that order decide, then
those of the next, and a task without one comes last. A token that is raised or added makes them greater."""


class FencedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a request of an ETL task brings along. `progress` is opaque; None leaves what is stored."""

    token: FenceToken
    progress: bytes | None = None


class FenceState(msgspec.Struct, frozen=True, array_like=True):
    """What a store knows of an ETL task: the highest place that it has heard of, and the newest progress, with the
    place of its request. Everything that this progress counts is held in the store, itself or a successor."""

    source: str
    task: int
    epoch: int
    sequence: int
    progress: bytes = b""
    progress_epoch: int = 0
    progress_sequence: int = 0

    @property
    def name(self) -> TaskName:
        """Whose it is."""
        return self.source, self.task

    @property
    def place(self) -> Place:
        """The highest place heard of."""
        return self.epoch, self.sequence

    @property
    def progress_place(self) -> Place:
        """Whose progress it is."""
        return self.progress_epoch, self.progress_sequence

    def heard(self, place: Place) -> "FenceState":
        """After a token of that place, which may be lower."""
        epoch, sequence = max(self.place, place)
        return msgspec.structs.replace(self, epoch=epoch, sequence=sequence)

    def joined(self, other: "FenceState") -> "FenceState":
        """What both know."""
        newest = max((self, other), key=lambda one: one.progress_place)
        epoch, sequence = max(self.place, other.place)
        return msgspec.structs.replace(newest, epoch=epoch, sequence=sequence)


def raised(tokens: Tokens, token: FenceToken) -> Tokens:
    """These with that token in the place of its task's, which is lower or missing."""
    return tuple(sorted((*(one for one in tokens if one.name != token.name), token), reverse=True))


def place_of(tokens: Tokens, name: TaskName) -> Place | None:
    """The place of a task among these; None if it has none."""
    return next((one.place for one in tokens if one.name == name), None)


def outdone(tokens: Tokens, by: Iterable[FenceToken]) -> Tokens:
    """Those of `by` whose task has a lower token among these."""
    places = {one.name: one.place for one in tokens}
    return tuple(one for one in by if one.name in places and places[one.name] < one.place)


def prefixes(key: str) -> list[str]:
    """The prefixes of a folded id under which it may have been deleted: all that end with a slash."""
    return [key[: place + 1] for place, character in enumerate(key[:-1]) if character == "/"]
