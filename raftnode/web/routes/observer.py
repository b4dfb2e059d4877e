"""The cluster observer: its decisions, suspending it, and what the nodes report."""

import msgspec
from aiohttp import web

from raftnode.foundation.names import fold
from raftnode.liveness.report import ReceivedReport
from raftnode.record.commands import SuspendObserver
from raftnode.record.observer_memory import DECISIONS_MAX
from raftnode.web.commit import commit
from raftnode.web.forwarding import by_leader
from raftnode.web.requests import Query, answer
from raftnode.web.services import SERVICES
from raftnode.web.sliced_json import SLICES, JsonObject
from raftnode.web.views.base import view
from raftnode.web.views.observer import Decisions, LastReport, ObserverDecision, Suspended


def routes() -> list[web.RouteDef]:
    """This module's routes."""
    return [
        web.get("/admin/cluster/observer/decisions", decisions),
        web.post("/admin/cluster/observer/suspend", suspend),
        web.get("/admin/cluster/maintenance-stats", maintenance_stats),
    ]


async def decisions(request: web.Request) -> web.Response:
    """The observer's last decisions, oldest first. They stand in the record, so any node answers."""
    services = request.app[SERVICES]
    observer = services.replica.record.observer
    query = Query(request)
    wanted = query.text("database")
    shown = [d for d in observer.decisions if wanted is None or fold(d.database) == fold(wanted)]
    take = query.integer("take", DECISIONS_MAX, low=1, high=DECISIONS_MAX)
    return answer(
        Decisions(
            leader_node=services.heartbeat.leader,
            term=services.raft.status.term,
            suspended=observer.suspended,
            iteration=observer.decisions[-1].iteration if observer.decisions else 0,
            observer_log=[view(ObserverDecision, decision, date=decision.at) for decision in shown[-take:]],
        )
    )


async def suspend(request: web.Request) -> web.Response:
    """Suspends the observer (`value=true`) or resumes it, whoever leads."""
    result = await commit(request, SuspendObserver(suspended=Query(request).flag("value")))
    suspended = request.app[SERVICES].replica.record.observer.suspended
    return answer(Suspended(raft_command_index=result.index, suspended=suspended))


async def maintenance_stats(request: web.Request) -> web.Response:
    """The last report of each other node, by tag; Nones where this leader has heard nothing of the node yet. Only the
    leader gets reports, so it answers."""
    elsewhere = await by_leader(request)
    if elsewhere is not None:
        return elsewhere
    services = request.app[SERVICES]
    silent = services.heartbeat.silent_tags()
    reports = services.heartbeat.reports
    others = sorted({*services.replica.record.nodes, *reports} - {services.tag})
    shown = JsonObject((tag, _report(reports.get(tag), tag in silent)) for tag in others)
    return await request.app[SLICES].answer(shown)


def _report(heard: ReceivedReport | None, silent: bool) -> LastReport:
    if heard is None:
        return LastReport(silent=silent)
    return LastReport(
        boot=heard.last.stamp.boot,
        has_lease=heard.last.has_lease,
        applied_index=heard.last.applied_index,
        silent=silent,
        report=msgspec.to_builtins(heard.node) if heard.node else {},
    )
