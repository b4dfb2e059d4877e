"""Identities: numbers that the cluster counts for a name. A document that is put as `users|` becomes `users/1`."""

from collections.abc import Sequence

from aiohttp import web

from raftnode.foundation.names import fold
from raftnode.record.commands import AdvanceCounter, SetCounter
from raftnode.record.model import COUNTER_MAX
from raftnode.web.commit import commit
from raftnode.web.requests import Query, answer
from raftnode.web.sliced_json import SLICES, JsonObject
from raftnode.web.stores import existing_database
from raftnode.web.views.numbering import IdentitySeeded, NextIdentity

SIGN = "|"
"""Ends the name of an identity, and an id that asks for its next value."""
SEPARATOR = "/"


def routes() -> list[web.RouteDef]:
    """This module's routes."""
    path = "/databases/{database}"
    return [
        web.post(f"{path}/identity/next", next_value),
        web.post(f"{path}/identity/seed", seed),
        web.get(f"{path}/debug/identities", show),
    ]


async def next_value(request: web.Request) -> web.Response:
    """The next value of the identity `name`."""
    name = _name(Query(request))

    async def build() -> AdvanceCounter:
        return AdvanceCounter(database=existing_database(request).name, name=name)

    return answer(NextIdentity(new_identity_value=int((await commit(request, build)).value)))


async def seed(request: web.Request) -> web.Response:
    """Sets the last value of the identity `name`; to a lower one only with `force`. The answer has what it is then."""
    query = Query(request)
    name, value, back = _name(query), query.integer("value", high=COUNTER_MAX), query.flag("force", False)

    async def build() -> SetCounter:
        return SetCounter(database=existing_database(request).name, name=name, value=value, back=back)

    return answer(IdentitySeeded(new_seed_value=int((await commit(request, build)).value)))


async def show(request: web.Request) -> web.Response:
    """The last value of every identity."""
    counters = existing_database(request).counters
    return await request.app[SLICES].answer(
        JsonObject((name, value) for name, value in sorted(counters.items()) if name.endswith(SIGN))
    )


async def numbered(request: web.Request, ids: Sequence[str]) -> list[str]:
    """The ids with the next values of their identities in the place of the sign at the end; the others as they are."""
    made, wanted = list(ids), dict[str, list[int]]()
    for place, id in enumerate(ids):
        if id.endswith(SIGN) and id != SIGN:
            wanted.setdefault(fold(id), []).append(place)
    for name, places in wanted.items():
        advance = AdvanceCounter(database=existing_database(request).name, name=name, count=len(places))
        last = int((await commit(request, advance, part=name)).value)
        for number, place in enumerate(places, start=last - len(places) + 1):
            made[place] = f"{ids[place].removesuffix(SIGN)}{SEPARATOR}{number}"
    return made


def _name(query: Query) -> str:
    return query.required("name").removesuffix(SIGN) + SIGN
