"""What would move and what would wait, if nodes were lost, added, drained, weighed or labelled otherwise."""

import asyncio
from collections.abc import Collection
from typing import Annotated

import msgspec
from aiohttp import web

from observer.rules.decide import after_loss
from raftnode.record.commands import CommandRefused
from raftnode.record.model import DATABASES_MAX
from raftnode.record.whatif import Forecast, Scenario, what_if
from raftnode.web.errors import of_result
from raftnode.web.quorum import quorum
from raftnode.web.requests import answer, body
from raftnode.web.services import SERVICES, Services
from raftnode.web.stores import existing_database
from raftnode.web.views.base import view
from raftnode.web.views.cluster import WhatIf


class WhatIfInput(Scenario, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is supposed, and of which databases; of all without a list."""

    databases: Annotated[tuple[str, ...], msgspec.Meta(max_length=DATABASES_MAX)] | None = None


def routes() -> list[web.RouteDef]:
    """This module's routes."""
    return [
        web.post("/cluster/what-if", of_cluster),
        web.post("/databases/{database}/tasks/what-if", of_database),
    ]


async def of_cluster(request: web.Request) -> web.Response:
    """What would become of the tasks of all databases, or of those that the body names."""
    supposed = await body(request, WhatIfInput)
    known, shown = await asyncio.gather(quorum(request), forecast(request.app[SERVICES], supposed, supposed.databases))
    return answer(view(WhatIf, shown, quorum=known))


async def of_database(request: web.Request) -> web.Response:
    """What would become of the tasks of one database."""
    database = existing_database(request)
    supposed = await body(request, Scenario)
    known, shown = await asyncio.gather(quorum(request), forecast(request.app[SERVICES], supposed, [database.name]))
    return answer(view(WhatIf, shown, quorum=known))


async def forecast(services: Services, scenario: Scenario, databases: Collection[str] | None = None) -> Forecast:
    """What would move and wait. Off the loop, as there may be many tasks. Raises ApiError for what cannot be
    supposed."""
    try:
        return await asyncio.to_thread(
            what_if,
            services.replica.record,
            scenario,
            databases,
            after_loss=after_loss,
            cluster_grace_min=services.settings.cluster.move_to_new_responsible_node_grace_period_min,
        )
    except CommandRefused as refused:
        raise of_result(refused.error) from None
