"""What placement reads of a node: draining, weight and labels. Each answer says which tasks move for it."""

from typing import get_args

import structlog
from aiohttp import web

from raftnode.record.commands import Command, SetDraining, SetNodeFlags, SetNodeTraits
from raftnode.record.model import NAME_LENGTH_MAX, WEIGHT_MAX, ResourceFlag
from raftnode.record.whatif import Forecast, Scenario
from raftnode.web.commit import commit
from raftnode.web.errors import bad_request
from raftnode.web.requests import Query, answer
from raftnode.web.routes.cluster import the_node
from raftnode.web.routes.whatif import forecast
from raftnode.web.services import SERVICES
from raftnode.web.views.base import view
from raftnode.web.views.cluster import NodeChanged, NodeTraits

FLAGS: tuple[ResourceFlag, ...] = get_args(ResourceFlag)

log = structlog.get_logger(__name__)


def routes() -> list[web.RouteDef]:
    """This module's routes."""
    return [
        web.post("/admin/cluster/drain", drain),
        web.post("/admin/cluster/undrain", undrain),
        web.post("/admin/cluster/node/traits", set_traits),
        web.post("/admin/cluster/node/flags", set_flags),
    ]


async def drain(request: web.Request) -> web.Response:
    """A node hands its tasks over; `value=false` lets it take part again. Lists the tasks that move and those that
    wait."""
    return await _set_draining(request, draining=Query(request).flag("value", True))


async def undrain(request: web.Request) -> web.Response:
    """A drained node takes part again. Lists the tasks that move to it."""
    return await _set_draining(request, draining=False)


async def set_traits(request: web.Request) -> web.Response:
    """A node's `weight`, its `labels` (with commas between them; empty for none), or both. Lists the tasks that move
    for it and those that wait."""
    query = Query(request)
    tag = query.required("nodeTag")
    weight = query.integer("weight", low=1, high=WEIGHT_MAX) if query.has("weight") else None
    given = [label.strip() for value in query.all("labels") for label in value.split(",")]
    labels = tuple(dict.fromkeys(label for label in given if label)) if query.has("labels") else None
    if weight is None and labels is None:
        raise bad_request("Nothing is to be set. Add &weight=2, &labels=ssd,eu, or both.")
    scenario = Scenario(
        weights={} if weight is None else {tag: weight},
        labels={} if labels is None else {tag: labels},
    )
    return await _changed(request, tag, SetNodeTraits(tag=tag, weight=weight, labels=labels), scenario)


async def set_flags(request: web.Request) -> web.Response:
    """The resources a node is short of: `flags`, with commas between them; empty when it is well again. The cluster
    observer then moves it to Rehab wherever another Member is well."""
    query = Query(request)
    tag = query.required("nodeTag")

    async def build() -> Command:
        the_node(request.app[SERVICES].replica.record, tag)
        return SetNodeFlags(tag=tag, flags=_flags(query))

    result = await commit(request, build)
    log.info("The resources that a node is short of were set, as an operator asked.", tag=tag, flags=_flags(query))
    node = request.app[SERVICES].replica.record.nodes.get(tag)
    return answer(NodeChanged(raft_command_index=result.index, node_tag=tag, node=node))


def _flags(query: Query) -> tuple[ResourceFlag, ...]:
    if not query.has("flags"):
        raise bad_request(f"'flags' is missing. Add &flags= with some of {', '.join(FLAGS)}, or nothing to clear them.")
    given = [flag.strip() for value in query.all("flags") for flag in value.split(",")]
    flags: list[ResourceFlag] = []
    for flag in filter(None, given):
        known = next((name for name in FLAGS if name == flag), None)
        if known is None:
            raise bad_request(f"'flags' names {flag[:NAME_LENGTH_MAX]!r}; it may name {', '.join(FLAGS)}.")
        flags.append(known)
    return tuple(flags)


async def _set_draining(request: web.Request, *, draining: bool) -> web.Response:
    tag = Query(request).required("nodeTag")
    scenario = Scenario(drained=(tag,)) if draining else Scenario(undrained=(tag,))
    return await _changed(request, tag, SetDraining(tag=tag, draining=draining), scenario)


async def _changed(request: web.Request, tag: str, command: Command, scenario: Scenario) -> web.Response:
    services = request.app[SERVICES]
    expected = Forecast(tasks=0, moves=(), waits=())  # of a repeat: what was to move has moved

    async def build() -> Command:
        nonlocal expected
        the_node(services.replica.record, tag)
        expected = await forecast(services, scenario)
        return command

    result = await commit(request, build)
    log.info(
        "The traits of a node were changed, as an operator asked.",
        tag=tag,
        command=type(command).__name__,
        moves=len(expected.moves),
        waits=len(expected.waits),
    )
    node = services.replica.record.nodes.get(tag)
    return answer(view(NodeTraits, expected, raft_command_index=result.index, node_tag=tag, node=node))
