"""The bodies of this node by claim key, counted as they come and go: thousands of them must not be counted again for
each that ends."""

from collections.abc import Iterator, Mapping

from tasks.runtime import plan as planning
from tasks.runtime.body import Body


class Bodies(Mapping[str, Body]):
    """The runs that have not been forgotten yet. `epochs` are theirs; `unfinished` of them have not ended, and of
    those `leased` need a lease."""

    def __init__(self) -> None:
        self._by_key: dict[str, Body] = {}
        self.epochs: set[int] = set()
        self.unfinished = self.leased = 0

    def __getitem__(self, key: str) -> Body:
        return self._by_key[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_key)

    def __len__(self) -> int:
        return len(self._by_key)

    def planned(self, key: str) -> planning.OwnRun | None:
        """The run as `plan` sees it."""
        body = self._by_key.get(key)
        if body is None:
            return None
        return planning.OwnRun(
            epoch=body.run.epoch,
            session=body.session,
            fingerprint=body.fingerprint,
            state="Running" if body.state == "Error" else body.state,
            partition_tolerant=body.partition_tolerant,
        )

    def begin(self, key: str, body: Body) -> None:
        """A body is about to run."""
        assert key not in self._by_key, f"{key} has a body already"
        self._by_key[key] = body
        self.epochs.add(body.run.epoch)
        self._count(body, 1)

    def end(self, body: Body) -> None:
        """It has ended; its claim has not been released yet."""
        assert body.state != "Ended", "a body ends once"
        body.state = "Ended"
        self._count(body, -1)

    def forget(self, key: str) -> Body:
        """The record knows that it has ended."""
        body = self._by_key.pop(key)
        self.epochs.discard(body.run.epoch)
        return body

    def _count(self, body: Body, by: int) -> None:
        self.unfinished += by
        self.leased += 0 if body.partition_tolerant else by
