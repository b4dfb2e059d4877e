"""Database groups: nodes that join, are promoted, and their order."""

from aiohttp import web

from raftnode.record.commands import (
    AddDatabaseNode,
    Command,
    PromoteDatabaseNode,
    ReorderMembers,
    SetDynamicDistribution,
)
from raftnode.record.fitness import fittest_first
from raftnode.record.model import CommandResult, Database, Record
from raftnode.web.commit import commit, wait_on_nodes
from raftnode.web.errors import ApiError, bad_request
from raftnode.web.requests import Input, Query, answer, body
from raftnode.web.routes.cluster import the_node
from raftnode.web.services import SERVICES
from raftnode.web.views.base import Committed
from raftnode.web.views.databases import DistributionSet, GroupChanged


class OrderInput(Input, frozen=True, kw_only=True):
    """The Members in the wished order."""

    members_order: list[str]
    fixed: bool = False


def routes() -> list[web.RouteDef]:
    """This module's routes."""
    return [
        web.put("/admin/databases/node", add_node),
        web.post("/admin/databases/promote", promote),
        web.post("/admin/databases/reorder", reorder),
        web.post("/admin/databases/dynamic-node-distribution", set_dynamic_distribution),
    ]


async def add_node(request: web.Request) -> web.Response:
    """A node joins the group as a Promotable; without `node`, the one with the fewest databases."""
    query = Query(request)
    name, mentor = query.required("name"), query.text("mentor")

    async def build() -> Command:
        record, database = request.app[SERVICES].replica.record, the_database(request, name)
        tag = query.text("node") or _fittest(record, database)
        the_node(record, tag)
        if mentor is not None:
            the_node(record, mentor)
        return AddDatabaseNode(name=name, tag=tag, mentor=mentor)

    return await group_answer(request, name, await commit(request, build), status=200)


async def promote(request: web.Request) -> web.Response:
    """Makes a node of the group a Member at once."""
    query = Query(request)
    name, tag = query.required("name"), query.required("node")

    async def build() -> Command:
        the_node(request.app[SERVICES].replica.record, tag)
        return PromoteDatabaseNode(name=name, tag=tag)

    return await group_answer(request, name, await commit(request, build), status=200)


async def reorder(request: web.Request) -> web.Response:
    """Changes the order of the Members."""
    name = Query(request).required("name")
    order = await body(request, OrderInput)
    result = await commit(request, ReorderMembers(name=name, members=tuple(order.members_order), fixed=order.fixed))
    return answer(Committed(raft_command_index=result.index))


async def set_dynamic_distribution(request: web.Request) -> web.Response:
    """Whether the observer may replace a node of the group that stays away."""
    query = Query(request)
    enable = query.flag("enable" if query.has("enable") or not query.has("enabled") else "enabled")
    name = query.required("name")
    result = await commit(request, SetDynamicDistribution(name=name, enable=enable))
    return answer(DistributionSet(raft_command_index=result.index, name=name, dynamic_nodes_distribution=enable))


def the_database(request: web.Request, name: str) -> Database:
    """The database of that name; answers 404 if there is none."""
    database = request.app[SERVICES].replica.record.database(name)
    if database is None:
        message = f"Database '{name}' does not exist. Create it first, or correct the name."
        raise ApiError("DatabaseDoesNotExistException", message)
    return database


async def group_answer(request: web.Request, name: str, result: CommandResult, *, status: int = 201) -> web.Response:
    """The answer to a change of a group, once its other nodes know of it too."""
    services = request.app[SERVICES]
    group = [str(tag) for tag in result.value or ()]
    await wait_on_nodes(services, group, result.index)
    record = services.replica.record
    database = record.database(name)
    return answer(
        GroupChanged(
            raft_command_index=result.index,
            name=database.name if database else name,
            topology=database.topology if database else None,
            nodes_added_to=[record.nodes[tag].url for tag in group if tag in record.nodes],
        ),
        status=status,
    )


def _fittest(record: Record, database: Database) -> str:
    group = {*database.topology.all_nodes, *database.deletion_in_progress}
    others = [tag for tag, node in record.nodes.items() if tag not in group and not node.draining]
    if not others:
        raise bad_request("Every node of the cluster holds the database already. Add a node to the cluster first.")
    return fittest_first(record, others)[0]
