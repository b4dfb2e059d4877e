"""RavenDB's operations: what this node does for users that takes its time. Only the node that began one knows it."""

from aiohttp import web

from raftnode.web.errors import ApiError, bad_request
from raftnode.web.requests import Query, answer
from raftnode.web.services import SERVICES
from raftnode.web.stores import existing_database
from raftnode.web.views.backups import operation_state
from tasks.runtime.operations import Operation


def routes() -> list[web.RouteDef]:
    """This module's routes."""
    path = "/databases/{database}/operations"
    return [
        web.get(f"{path}/state", get_state),
        web.get("/operations/state", get_state),
        web.post(f"{path}/kill", kill),
        web.post("/operations/kill", kill),
        web.get("/operations", list_operations),
    ]


async def list_operations(request: web.Request) -> web.Response:
    """The operations of this node, oldest first."""
    found = request.app[SERVICES].supervisor.operations.all()
    return answer({"Results": [operation_state(operation) for operation in found]})


async def get_state(request: web.Request) -> web.Response:
    """How far the operation of that id is, or how it ended."""
    return answer(operation_state(the_operation(request)))


async def kill(request: web.Request) -> web.Response:
    """Ends the operation of that id; one that has ended stays as it is."""
    operation = the_operation(request)
    if operation.running and operation.cancel is None:
        raise bad_request(f"Operation {operation.id} has not begun yet. Try again in a moment.")
    if operation.cancel is not None:
        operation.cancel()
    return web.Response(status=204)


def the_operation(request: web.Request) -> Operation:
    """The one that `id` names; answers 404 if this node has not begun it, or not for the database of the path."""
    services, id = request.app[SERVICES], Query(request).integer("id")
    operation = services.supervisor.operations.get(id)
    database = existing_database(request).name if "database" in request.match_info else None
    if operation is None or database not in (None, operation.database):
        message = (
            f"Node {services.tag} has no operation {id}. Only the node that began one knows it, until it is restarted: "
            "ask the node that was named when it began."
        )
        raise ApiError("OperationDoesNotExistException", message)
    return operation
