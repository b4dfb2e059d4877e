"""What changed between two looks at `GET /status`, one sentence a change."""

from collections.abc import Iterator
from typing import Any

from raftnode.cli.tables import epoch


def events(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """The sentences; none for the first look."""
    if not before:
        return []
    found = list(_leader(before["Node"], after["Node"]))
    for name, database in after["Databases"].items():
        earlier = before["Databases"].get(name)
        if earlier is None:
            continue
        found += _topology(name, earlier["Topology"], database["Topology"])
        claims = {task["TaskId"]: task for task in earlier["Tasks"] if task["TaskId"]}
        for task in database["Tasks"]:
            if task["TaskId"] in claims:
                found += _task(claims[task["TaskId"]], task)
    return found


def _leader(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    if after["Leader"] != before["Leader"]:
        yield f"{after['Leader']} leads now, in term {after['Term']}"


def _topology(name: str, before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    for state in ("Members", "Rehabs", "Promotables"):
        for tag in after[state]:
            if tag not in before[state]:
                reason = after["DemotionReasons"].get(tag)
                yield f"{tag} is now {state.removesuffix('s')} of {name}" + (f": {reason}" if reason else "")


def _task(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    name = after["TaskName"]
    was, now = before["Placement"], after["Placement"]
    if was["Node"] != now["Node"]:
        here = now["Node"] or "nobody"
        instead = f", instead of {was['Node']}" if was["Node"] else ""
        yield f"responsible for {name}: {here}, by rule {now['Rule']}{instead}"
    if after["Epoch"] != before["Epoch"]:
        was_under = f", after {epoch(before['Epoch'])}" if before["Epoch"] else ""
        yield f"{after['LastHolder']} claimed {name}: epoch {epoch(after['Epoch'])}{was_under}"
    elif after["ClaimState"] != before["ClaimState"] and after["ClaimState"] != "Held":
        reason = f": {after['Reason']}" if after["Reason"] else ""
        yield f"epoch {epoch(after['Epoch'])} of {name} is {after['ClaimState'].lower()}{reason}"
