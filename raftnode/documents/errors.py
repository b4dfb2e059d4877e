"""What can go wrong with a document store, each with a sentence that says what to do."""


class StoreError(Exception):
    """Base of everything a document store raises."""


class StoreDamaged(StoreError):
    """The database file is not one of ours, or its content is corrupt."""


class StoreFailed(StoreError):
    """The disk refused (full, I/O error). Nothing of the operation was kept; later operations may succeed."""


class StoreBusy(StoreError):
    """More writes wait than the limit allows. Try again shortly."""


class StoreClosed(StoreError):
    """The store was closed."""


class DocumentInvalid(StoreError, ValueError):
    """A document or its id breaks a rule or exceeds a limit; in a batch it is the operation at `place`."""

    place = 0


class ConcurrencyViolation(StoreError):
    """The document is not at the change vector that the writer expected. Empty means: does not exist."""

    def __init__(self, id: str, expected: str, actual: str) -> None:
        self.id, self.expected, self.actual = id, expected, actual
        wanted = f"at change vector {expected!r}" if expected else "not to exist"
        found = f"it is at {actual!r}" if actual else "it does not exist"
        super().__init__(f"document {id!r} was expected {wanted}, but {found}: load it again and repeat the change")


class FenceStale(StoreError):
    """A newer request of an ETL task, most often of a newer run, has been heard of here: this one changes nothing."""

    def __init__(self, source: str, task: int, given: tuple[int, int], heard: tuple[int, int]) -> None:
        self.heard = heard
        run = "a newer run" if heard[0] > given[0] else "a later request of the run"
        super().__init__(
            f"{run} of ETL task {task} of {source} has been heard of here (epoch {heard[0]}, sequence {heard[1]}); "
            f"epoch {given[0]}, sequence {given[1]} writes nothing any more"
        )


class ReplicationRefused(StoreError):
    """Incoming replication that cannot be taken; the message says why and what to do."""
