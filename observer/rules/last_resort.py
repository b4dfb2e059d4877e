"""No Member is alive: the most up-to-date of the others takes over, so that the database serves again."""

from collections.abc import Mapping

from observer.rules.database_view import Alert, DatabaseView, TopologyChange
from observer.rules.facts import DatabaseReport
from observer.rules.promote import with_member


def last_resort(view: DatabaseView) -> TopologyChange | Alert | None:
    """The most up-to-date healthy Rehab, or Promotable if there are no Members at all, becomes a Member at once.

    The dead Members stay Members until the next iteration finds one alive beside them. Writes that only they hold are
    merged when they come back.
    """
    members = view.topology.members
    if any(view.lost(tag) is None for tag in members):
        return None
    candidates = _healthy(view, view.topology.rehabs if members else view.topology.rehabs + view.topology.promotables)
    dead = ", ".join(members) or "none"
    if not candidates:
        return Alert(
            key=f"unreachable {dead}",
            why=f"The database is unreachable: no Member is alive ({dead}), and nobody healthy can take over.",
        )
    best = most_up_to_date(candidates)
    return TopologyChange(
        topology=with_member(view.topology, best),
        why=f"{best} was promoted to Member as a last resort: no Member is alive ({dead}), and of "
        f"{', '.join(sorted(candidates))} it is the most up-to-date.",
    )


def most_up_to_date(candidates: Mapping[str, DatabaseReport]) -> str:
    """The candidate whose change vector no other's has overtaken; among several the one with the most documents, then
    the first tag."""
    foremost = {
        tag: report
        for tag, report in candidates.items()
        if not any(_overtakes(other.vector, report.vector) for other in candidates.values())
    }
    return min(foremost, key=lambda tag: (-foremost[tag].documents, tag))


def _healthy(view: DatabaseView, tags: tuple[str, ...]) -> dict[str, DatabaseReport]:
    healthy = {}
    for tag in tags:
        if view.leaving(tag):
            # Its copy may be gone at any moment.
            continue
        facts, report = view.facts_of(tag), view.report(tag)
        if facts is not None and facts.fresh and not facts.silent and report is not None and report.well:
            healthy[tag] = report
    return healthy


def _overtakes(vector: Mapping[str, int], other: Mapping[str, int]) -> bool:
    """Whether `vector` counts in all that `other` does, and more."""
    behind = any(vector.get(id, 0) < etag for id, etag in other.items())
    return not behind and any(etag > other.get(id, 0) for id, etag in vector.items())
