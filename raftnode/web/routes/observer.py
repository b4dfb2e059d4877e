"""The cluster observer: its decisions, suspending it, and what the nodes report."""

from typing import Any

from aiohttp import web

from raftnode.foundation.names import fold
from raftnode.liveness.report import Heard
from raftnode.record.commands import SuspendObserver
from raftnode.record.model import DECISIONS_MAX
from raftnode.web.parts import PARTS
from raftnode.web.requests import Query, answer
from raftnode.web.routes.commit import at_leader, commit
from raftnode.web.slices import SLICES, Object


def routes() -> list[web.RouteDef]:
    """This module's routes."""
    return [
        web.get("/admin/cluster/observer/decisions", decisions),
        web.post("/admin/cluster/observer/suspend", suspend),
        web.get("/admin/cluster/maintenance-stats", maintenance_stats),
    ]


async def decisions(request: web.Request) -> web.Response:
    """The observer's last decisions, oldest first. They stand in the record, so any node answers."""
    parts = request.app[PARTS]
    observer = parts.replica.record.observer
    query = Query(request)
    wanted = query.text("database")
    shown = [d for d in observer.decisions if wanted is None or fold(d.database) == fold(wanted)]
    take = query.integer("take", DECISIONS_MAX, low=1, high=DECISIONS_MAX)
    return answer(
        {
            "LeaderNode": parts.heartbeat.leader,
            "Term": parts.raft.status.term,
            "Suspended": observer.suspended,
            "Iteration": observer.decisions[-1].iteration if observer.decisions else 0,
            "ObserverLog": [
                {
                    "Database": decision.database,
                    "Iteration": decision.iteration,
                    "Date": decision.at,
                    "Message": decision.message,
                    "Term": decision.term,
                    "Index": decision.index,
                }
                for decision in shown[-take:]
            ],
        }
    )


async def suspend(request: web.Request) -> web.Response:
    """Suspends the observer (`value=true`) or resumes it, whoever leads."""
    result = await commit(request, SuspendObserver(suspended=Query(request).flag("value")))
    return answer({"RaftCommandIndex": result.index, "Suspended": request.app[PARTS].replica.record.observer.suspended})


async def maintenance_stats(request: web.Request) -> web.Response:
    """The last report of each other node, by tag; Nones where this leader has heard nothing of the node yet. Only the
    leader gets reports, so it answers."""
    elsewhere = await at_leader(request)
    if elsewhere is not None:
        return elsewhere
    parts = request.app[PARTS]
    silent = parts.heartbeat.silent_tags()
    reports = parts.heartbeat.reports
    others = sorted({*parts.replica.record.nodes, *reports} - {parts.tag})
    shown = Object((tag, _report(reports.get(tag), tag in silent)) for tag in others)
    return await request.app[SLICES].answer(shown)


def _report(heard: Heard | None, silent: bool) -> dict[str, Any]:
    return {
        "Boot": heard.last.stamp.boot if heard else None,
        "HasLease": heard.last.has_lease if heard else None,
        "AppliedIndex": heard.last.applied_index if heard else None,
        "Silent": silent,
        "Report": (heard.node or {}) if heard else None,
    }
