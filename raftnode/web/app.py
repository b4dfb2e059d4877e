"""The application: every route, and what each request passes through on its way."""

import asyncio
from urllib.parse import unquote_to_bytes

from aiohttp import web

from config.access import admits
from raftnode.web.errors import ApiError, Handler, allowed, bad_request, errors
from raftnode.web.routes import (
    backups,
    bulk,
    cluster,
    connection_strings,
    databases,
    documents,
    etl,
    etl_progress,
    etl_test,
    external_replication,
    failed,
    fences,
    groups,
    hilo,
    identities,
    imports,
    indexes,
    licence,
    multi_get,
    observer,
    operations,
    removed,
    replication,
    restore,
    runs,
    silent_nodes,
    snapshots,
    status,
    task_definitions,
    tasks,
    topology,
    traits,
    whatif,
    why,
)
from raftnode.web.services import SERVICES, Services
from raftnode.web.sliced_json import SLICES, LoopSlices

AREAS = (
    backups, bulk, cluster, connection_strings, databases, documents, etl, etl_progress, etl_test, external_replication,
    failed, fences, groups, hilo, identities, imports, indexes, licence, multi_get, observer, operations, removed,
    replication, restore, runs, silent_nodes, snapshots, status, task_definitions, tasks, topology, traits, whatif, why,
)  # fmt: skip
WITHOUT_DEADLINE = ("/bulk_insert",)


def application(services: Services) -> web.Application:
    """The routes over these parts."""
    app = web.Application(
        client_max_size=services.settings.http.body_bytes_max,
        middlewares=[topology.announce, errors, admission, readable, options, deadline],
    )
    app[SERVICES] = services
    app[runs.SILENT] = runs.SilentUntil()
    etag = topology.ClusterEtag(services.replica.record)
    services.replica.subscribe(etag)
    app[SLICES] = LoopSlices()
    app[removed.RESTORING] = asyncio.Lock()
    app[restore.RESTORES] = set()
    app[restore.TURNS] = asyncio.Semaphore(restore.AT_ONCE)
    app.on_startup.append(restore.remove_unfinished_restores)
    app.on_shutdown.append(restore.end_restores)
    app[topology.CLUSTER_ETAG] = etag
    app.on_response_prepare.append(topology.versioned)
    for area in AREAS:
        routes = area.routes()
        app.add_routes(routes)
        app.add_routes(web.RouteDef(r.method, f"{r.path}/", r.handler, r.kwargs) for r in routes)
    return app


@web.middleware
async def admission(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Without certificates, only whom security.unsecured_access_allowed names is served."""
    settings = request.app[SERVICES].settings
    if not admits(settings, request.remote or ""):
        allowed = settings.security.unsecured_access_allowed
        raise ApiError(
            "AuthorizationException",
            f"{request.remote} is not served, as security.unsecured_access_allowed is {allowed}. Use certificates, "
            "or, in a network you trust, allow more.",
        )
    return await handler(request)


@web.middleware
async def readable(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuses addresses that are not UTF-8: decoded loosely, two different ids would become the same one."""
    try:
        unquote_to_bytes(request.raw_path.encode(errors="surrogateescape")).decode()
    except UnicodeDecodeError as error:
        raise bad_request(f"The address is not valid UTF-8 ({error.reason}). Encode names as UTF-8.") from None
    return await handler(request)


@web.middleware
async def options(request: web.Request, handler: Handler) -> web.StreamResponse:
    """OPTIONS tells the methods of every path that there is."""
    if request.method != "OPTIONS":
        return await handler(request)
    try:
        return await handler(request)
    except web.HTTPMethodNotAllowed as known:
        return web.Response(status=204, headers={"Allow": allowed(known)})


@web.middleware
async def deadline(request: web.Request, handler: Handler) -> web.StreamResponse:
    """No request but an import takes longer than http.request_timeout_ms."""
    if request.path.rstrip("/").endswith(WITHOUT_DEADLINE):
        return await handler(request)
    async with asyncio.timeout(request.app[SERVICES].settings.http.request_timeout_ms / 1000):
        return await handler(request)
