"""What the cluster observer has said of a database, and what the record shows of its group."""

import re
from collections.abc import Callable
from typing import Any

from tests.scenarios.conftest import Group


async def messages(group: Group) -> list[str]:
    """The observer's sentences about the database, oldest first."""
    answer = await group.cluster.call("GET", f"/admin/cluster/observer/decisions?database={group.name}")
    return [entry["Message"] for entry in answer["ObserverLog"]]


async def decided(group: Group, pattern: str, *, times: int = 1) -> list[re.Match[str]]:
    """Waits until the observer has said so that often; the sentences, which must match as a whole."""

    async def said() -> list[re.Match[str]]:
        found = [match for message in await messages(group) if (match := re.fullmatch(pattern, message))]
        return found if len(found) >= times else []

    matches: list[re.Match[str]] = await group.cluster.wait_until(said, f"{times} decision(s) like: {pattern}")
    return matches


async def becomes(group: Group, what: str, fits: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Waits until the database's group fits; the group."""

    async def fitting() -> dict[str, Any]:
        topology = await group.cluster.topology(group.name)
        return topology if fits(topology) else {}

    topology: dict[str, Any] = await group.cluster.wait_until(fitting, f"{group.name} to have {what}")
    return topology


async def has_members(group: Group, members: str) -> dict[str, Any]:
    """Waits until these, in whatever order, are the Members and all there is; the group."""
    return await becomes(
        group,
        f"the Members {members} and nobody else",
        lambda t: sorted(t["Members"]) == sorted(members) and not t["Rehabs"] and not t["Promotables"],
    )
