"""Softly deleted databases: where their files are on this node, and making a database of them again."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import structlog
from aiohttp import web

from raftnode.documents.store import removed as files
from raftnode.documents.store.folders import file
from raftnode.foundation import timestamps
from raftnode.record.commands import Command, CreateDatabase
from raftnode.record.model import CommandResult
from raftnode.web.commit import commit, unless_repeated
from raftnode.web.errors import ApiError
from raftnode.web.requests import Query, answer
from raftnode.web.routes.groups import group_answer
from raftnode.web.services import SERVICES, Services
from raftnode.web.views.databases import RemovedCopies

log = structlog.get_logger(__name__)

RESTORING = web.AppKey("restoring", asyncio.Lock)
"""Held while the copies are looked at or put back: one copy must never become two databases."""


def routes() -> list[web.RouteDef]:
    """This module's routes."""
    return [web.get("/admin/databases/removed", list_removed), web.post("/admin/databases/restore", restore)]


async def list_removed(request: web.Request) -> web.Response:
    """The copies of softly deleted databases on this node, oldest first."""
    services = request.app[SERVICES]
    async with request.app[RESTORING]:
        found = await _copies(services)
    return answer(RemovedCopies(node_tag=services.tag, removed=found))


async def restore(request: web.Request) -> web.Response:
    """A database with the documents of the copy in `folder`, on this node; `name` gives it another name. Its tasks,
    connection strings and indexes were deleted with it."""
    services, query = request.app[SERVICES], Query(request)
    wanted, given = query.required("folder"), query.text("name")

    async def build() -> files.RemovedCopy:
        found = await _copies(services)
        which = next((one for one in found if one.folder == wanted), None)
        if which is None:
            known = ", ".join(one.folder for one in found[-10:]) or "none"
            message = f"'folder' is {wanted[:80]!r}, which node {services.tag} does not have. It has: {known}."
            raise ApiError("CopyDoesNotExistException", message)
        await _check_free(services, which, given or which.database)
        return which

    async with request.app[RESTORING]:
        which = await unless_repeated(request, build)
        if isinstance(which, CommandResult):
            return await group_answer(request, given or wanted.rpartition("-")[0], which)
        name = given or which.database
        result = await made_of(services, which, name, partial(commit, request))
    log.info("A softly deleted database was restored, as an operator asked.", database=name, folder=which.folder)
    return await group_answer(request, name, result)


async def made_of(
    services: Services, which: files.RemovedCopy, name: str, propose: Callable[[Command], Awaitable[CommandResult]]
) -> CommandResult:
    """A database of that name on this node, with the file of the copy. Hold RESTORING."""
    id = files.topology_id(services.tag, which.folder, name)
    at = timestamps.now()
    path = file(services.databases.directory, name, id)
    await asyncio.to_thread(files.put_back, which, path)
    try:
        result = await propose(CreateDatabase(name=name, nodes=(services.tag,), topology_id=id, at=at))
    except ApiError:
        # It was refused. Where it is not known whether it was, something else is raised and the file stays.
        await asyncio.to_thread(files.take_back, path)
        raise
    await asyncio.to_thread(files.forget, Path(which.path))
    return result


async def _check_free(services: Services, which: files.RemovedCopy, name: str) -> None:
    """Refuses a name that is taken, and a copy that may yet become a database of another name."""
    link = await asyncio.to_thread(files.link_of, services.databases.directory, Path(which.path))
    if services.replica.record.database(name) is not None:
        if link is not None and link.parent == file(services.databases.directory, name, "").parent:
            await asyncio.to_thread(files.take_back, link)
        # Said before a file is touched; the command would refuse it, too.
        message = f"Database '{name}' exists already. Restore the copy under another name: &name=... (--name)."
        raise ApiError("ConcurrencyException", message)
    if link is not None and link.parent != file(services.databases.directory, name, "").parent:
        begun = link.parent.name
        message = (
            f"The copy was to be restored as '{begun}', and how that ended is not known. Restore it under that name: "
            f"&name={begun} (--name {begun})."
        )
        raise ApiError("ConcurrencyException", message)


async def _copies(services: Services) -> list[files.RemovedCopy]:
    directory, databases = services.databases.directory, services.replica.record.databases.values()
    live = {file(directory, one.name, one.topology.database_topology_id_base64) for one in databases}
    return await asyncio.to_thread(files.removed, directory, live)
