"""HiLo: ranges of numbers that clients make ids of by themselves (`users/1-A`).

A range is given by the cluster, so no two clients get the same one, whichever nodes they ask and whatever becomes of a
copy. The document `Raven/Hilo/<tag>` shows how far the ranges go, for those who read it, and counts if somebody has
written it. The sizes follow RavenDB: a client that is soon back gets a range of twice the size.
"""

from collections.abc import Callable

import msgspec
from aiohttp import web

from raftnode.documents.errors import ConcurrencyViolation
from raftnode.documents.store.model import Document
from raftnode.documents.store.store import DocumentStore
from raftnode.foundation import timestamps
from raftnode.foundation.decoding import DECODE_ERRORS, JsonDecoder
from raftnode.record.commands import AdvanceCounter, SetCounter
from raftnode.record.model import COUNTER_MAX
from raftnode.web.commit import commit
from raftnode.web.errors import bad_request
from raftnode.web.requests import Query, answer
from raftnode.web.services import SERVICES
from raftnode.web.stores import existing_database, store_to_write
from raftnode.web.views.numbering import HiloRange

COLLECTION = "@hilo"
SIZE_MIN, SIZE_MAX = 32, 1024
SOON_S, LATE_S = 30.0, 60.0
TAG_LENGTH_MAX = 100
TRIES_MAX = 8


class _HiloDocument(msgspec.Struct, frozen=True, rename="pascal"):
    max: int = 0


_decoder: JsonDecoder[_HiloDocument] = JsonDecoder(_HiloDocument)


def routes() -> list[web.RouteDef]:
    """This module's routes."""
    path = "/databases/{database}/hilo"
    return [web.get(f"{path}/next", next_range), web.put(f"{path}/return", return_range)]


async def next_range(request: web.Request) -> web.Response:
    """A range of numbers for `tag` that nobody else has or gets."""
    database, query = existing_database(request), Query(request)
    tag = _tag(query)
    size = _size(query)
    store = await store_to_write(request)
    shown = await _shown(store, tag)
    above = max(query.integer("lastMax", 0), shown[0])
    advance = AdvanceCounter(database=database.name, name=_counter(tag), count=size, above=above)
    last = int((await commit(request, advance)).value)
    await _show(store, tag, last, lambda now: now < last)
    return answer(
        HiloRange(
            prefix=tag + (query.text("identityPartsSeparator") or "/"),
            low=last - size + 1,
            high=last,
            last_size=size,
            server_tag=request.app[SERVICES].tag,
            last_range_at=timestamps.now(),
        ),
        status=201,
    )


async def return_range(request: web.Request) -> web.Response:
    """Gives back what a client has not used of its range: the numbers after `last`, if `end` was the last number that
    was given to anybody."""
    query = Query(request)
    tag, end, last = _tag(query), query.integer("end", high=COUNTER_MAX), query.integer("last", high=COUNTER_MAX)
    if last > end:
        raise bad_request(f"'last' is {last}, which is after 'end', {end}. Give the last number that was used.")

    async def build() -> SetCounter:
        name = existing_database(request).name
        return SetCounter(database=name, name=_counter(tag), value=last, back=True, given=end)

    given_back = await commit(request, build)
    if given_back.value == last and request.app[SERVICES].replica.record.database(request.match_info["database"]):
        await _show(await store_to_write(request), tag, last, lambda now: now == end)
    return web.Response(status=204)


def _tag(query: Query) -> str:
    tag = query.required("tag")
    if len(tag) > TAG_LENGTH_MAX or any(ord(character) < 32 for character in tag):
        raise bad_request(f"'tag' is {tag[:40]!r}; it must be a name of at most {TAG_LENGTH_MAX} characters.")
    return tag


def _counter(tag: str) -> str:
    return f"Raven/Hilo/{tag}"


def _size(query: Query) -> int:
    """RavenDB's rule: twice the size for who is back within half a minute, half for who comes later than a minute."""
    size, at = query.integer("lastBatchSize", 0), query.text("lastRangeAt")
    if at:
        # Clients send back the time without the Z that it came with.
        at = at.removesuffix("Z") + "Z"
        try:
            since_s = (timestamps.to_ticks(timestamps.now()) - timestamps.to_ticks(at)) / timestamps.TICKS_PER_SECOND
        except ValueError as error:
            raise bad_request(f"'lastRangeAt': {error}.") from None
        size = size * 2 if since_s < SOON_S else size // 2 if since_s > LATE_S else size
    return min(max(size, SIZE_MIN), SIZE_MAX)


async def _shown(store: DocumentStore, tag: str) -> tuple[int, Document | None]:
    """How far the document says that the ranges go, and the document. One that says nothing counts as none."""
    [document] = await store.get([_counter(tag)])
    try:
        shown = _decoder.decode(document.body).max if document else 0
    except DECODE_ERRORS:
        shown = 0
    return min(max(shown, 0), COUNTER_MAX), document


async def _show(store: DocumentStore, tag: str, last: int, due: Callable[[int], bool]) -> None:
    """Write the document, if by what it says now that is due. It may be written by others meanwhile; if that does not
    end, it is left to them: no range depends on it."""
    for _ in range(TRIES_MAX):
        shown, document = await _shown(store, tag)
        if not due(shown):
            return
        expected = document.change_vector if document else ""
        try:
            await store.put(_counter(tag), {"Max": last}, collection=COLLECTION, expected=expected)
        except ConcurrencyViolation:
            continue
        return
