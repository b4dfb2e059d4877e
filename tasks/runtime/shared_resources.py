"""What the bodies of a node use together, such as connections to targets: made at first use, closed with the node."""

from collections.abc import Callable
from typing import Protocol, TypeVar, cast

T = TypeVar("T", bound="Closable")


class Closable(Protocol):
    """Something that holds threads, processes or connections."""

    async def close(self) -> None: ...


class SharedResources:
    """One thing of each type. Kinds of plug-ins may keep theirs here too."""

    def __init__(self) -> None:
        self._things: dict[type, Closable] = {}

    def get(self, of: type[T], make: Callable[[], T]) -> T:
        """The node's only thing of that type."""
        if of not in self._things:
            self._things[of] = make()
        return cast(T, self._things[of])

    async def close(self) -> None:
        """Close everything, once no body is left that uses it."""
        while self._things:
            await self._things.popitem()[1].close()
