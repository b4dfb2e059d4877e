"""The licence: what it permits, as RavenDB's clients ask for it, and setting that."""

from aiohttp import web

from raftnode.record.commands import SetLicence
from raftnode.web.commit import commit
from raftnode.web.errors import bad_request
from raftnode.web.requests import Query, answer
from raftnode.web.services import SERVICES
from raftnode.web.sliced_json import SLICES, JsonObject
from raftnode.web.views.base import members, view
from raftnode.web.views.licence import LicenceChanged, LicenceStatus, features, permitted


def routes() -> list[web.RouteDef]:
    """This module's routes."""
    return [web.get("/license/status", status), web.post("/admin/license/features", set_features)]


async def status(request: web.Request) -> web.Response:
    """The licence in RavenDB's shape."""
    record = request.app[SERVICES].replica.record
    has = permitted(record)
    shown = LicenceStatus(attributes={f"{name[0].lower()}{name[1:]}": value for name, value in has.items()})
    fields = [*members(shown), *((f"Has{name}", value) for name, value in has.items())]
    return await request.app[SLICES].answer(JsonObject(fields))


async def set_features(request: web.Request) -> web.Response:
    """Permits highly available tasks and dynamic nodes distribution, or not; what is not named stays."""
    query = Query(request)
    names = ("highlyAvailableTasks", "dynamicNodesDistribution")
    tasks, nodes = (query.flag(name) if query.has(name) else None for name in names)
    if tasks is None and nodes is None:
        raise bad_request(f"Nothing is to be set. Give {' or '.join(names)}, true or false.")
    result = await commit(request, SetLicence(highly_available_tasks=tasks, dynamic_nodes_distribution=nodes))
    now = features(request.app[SERVICES].replica.record)
    return answer(view(LicenceChanged, now, raft_command_index=result.index))
