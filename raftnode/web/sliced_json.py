"""Answers about many things are made in slices: between two of them the loop does whatever else is due.

All such requests of a node take turns, so that many of them hold the loop no longer than one.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from aiohttp import web

from raftnode.web.requests import encoded

Item = TypeVar("Item")

SLICE_S = 0.005
"""How long a request may hold the loop: a fraction of every heartbeat."""
CHUNK_BYTES = 64 * 1024


@dataclass(frozen=True)
class JsonArray:
    """A JSON array whose items are made one by one."""

    items: Iterable[Any]


@dataclass(frozen=True)
class JsonObject:
    """A JSON object whose members are made one by one."""

    members: Iterable[tuple[str, Any]]


class LoopSlices:
    """Whose turn it is to hold the loop."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def all(self, items: Iterable[Item]) -> list[Item]:
        """Every item, made in slices."""
        made: list[Item] = []
        left = iter(items)
        # What the request has done in this turn is not added to the first slice.
        await asyncio.sleep(0)
        while True:
            async with self._turn:
                if _slice(left, made):
                    return made
                await asyncio.sleep(0)

    async def first(self, items: Iterable[Item | None]) -> Item | None:
        """The first item that is not None, looked for in slices; None if there is none."""
        made = await self.all(_until_found(items))
        return made[-1] if made else None

    async def answer(self, value: Any) -> web.Response:
        """The value, which may hold Arrays and Objects within Arrays and Objects, as a JSON response."""
        chunks = await self.all(_chunks(_pieces(value)))
        return web.Response(body=_each(chunks), content_type="application/json", charset="utf-8")


SLICES = web.AppKey("slices", LoopSlices)


def _slice(left: Iterator[Item], made: list[Item]) -> bool:
    """Produces items until the time slice ends. True if none is left."""
    until_s = time.perf_counter() + SLICE_S
    for item in left:
        made.append(item)
        if time.perf_counter() >= until_s:
            return False
    return True


def _until_found(items: Iterable[Item | None]) -> Iterator[Item | None]:
    for item in items:
        yield item
        if item is not None:
            return


def _pieces(value: Any) -> Iterator[bytes]:
    comma = b""
    match value:
        case JsonArray(items):
            yield b"["
            for item in items:
                yield comma
                yield from _pieces(item)
                comma = b","
            yield b"]"
        case JsonObject(members):
            yield b"{"
            for name, member in members:
                yield b"%b%b:" % (comma, encoded(name))
                yield from _pieces(member)
                comma = b","
            yield b"}"
        case _:
            yield encoded(value)


def _chunks(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes in longer pieces, with empty ones between, so that a slice may end at every piece."""
    chunk = bytearray()
    for piece in pieces:
        chunk += piece
        if len(chunk) >= CHUNK_BYTES:
            yield bytes(chunk)
            chunk.clear()
        else:
            yield b""
    yield bytes(chunk)


async def _each(chunks: list[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        if chunk:
            yield chunk
