"""Softly deleted databases: where their files are on this node, and making a database of them again."""

import asyncio
import base64
import uuid
from datetime import UTC, datetime

import structlog
from aiohttp import web

from raftnode.documents import removed as files
from raftnode.record.commands import CreateDatabase
from raftnode.record.model import to_json
from raftnode.web.commit import commit
from raftnode.web.errors import ApiError
from raftnode.web.groups import group_answer
from raftnode.web.parts import PARTS
from raftnode.web.requests import Query, answer

log = structlog.get_logger(__name__)


def routes() -> list[web.RouteDef]:
    """This module's routes."""
    return [web.get("/admin/databases/removed", list_removed), web.post("/admin/databases/restore", restore)]


async def list_removed(request: web.Request) -> web.Response:
    """The copies of softly deleted databases on this node, oldest first."""
    parts = request.app[PARTS]
    found = await asyncio.to_thread(files.removed, parts.databases.directory)
    return answer({"NodeTag": parts.tag, "Removed": [to_json(one) for one in found]})


async def restore(request: web.Request) -> web.Response:
    """A database with the documents of the copy in `folder`, on this node; `name` gives it another name. Its tasks,
    connection strings and indexes were deleted with it."""
    parts = request.app[PARTS]
    query = Query(request)
    wanted, name = query.required("folder"), query.text("name")
    found = await asyncio.to_thread(files.removed, parts.databases.directory)
    which = next((one for one in found if one.folder == wanted), None)
    if which is None:
        known = ", ".join(one.folder for one in found[-10:]) or "none"
        message = f"'folder' is {wanted[:80]!r}, which node {parts.tag} does not have. It has: {known}."
        raise ApiError("CopyDoesNotExistException", message)
    name = name or which.database
    id = base64.b64encode(uuid.uuid4().bytes)[:22].decode()
    command = CreateDatabase(
        name=name, nodes=(parts.tag,), topology_id=id, at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f0Z")
    )
    if parts.replica.record.database(name) is not None:
        # Said before a file is touched; the command would refuse it, too.
        message = f"Database '{name}' exists. Give another name: &name=..."
        raise ApiError("ConcurrencyException", message)
    path = await asyncio.to_thread(files.put_back, parts.databases.directory, which, name, id)
    try:
        result = await commit(request, command)
    except ApiError:
        # It was refused. Where it is not known whether it was, something else is raised and the file stays.
        await asyncio.to_thread(files.take_back, path)
        raise
    await asyncio.to_thread(files.forget, which)
    log.info("A softly deleted database was restored, as an operator asked.", database=name, folder=which.folder)
    return await group_answer(request, name, result)
