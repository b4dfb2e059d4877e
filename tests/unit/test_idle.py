"""Databases in which nothing happens cost nothing: nobody looks at each of them again and again."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from observer.rules import decide
from raftnode.documents import databases
from raftnode.documents.databases import Databases
from tests.unit.web.conftest import running, settings_in

DATABASES = 30
TURNS = 20


def counted(monkeypatch: pytest.MonkeyPatch, calls: Counter[str], where: Any, name: str) -> None:
    """Counts the calls of that function."""
    function = getattr(where, name)

    def counting(*given: Any) -> Any:
        calls[name] += 1
        return function(*given)

    monkeypatch.setattr(where, name, counting)


async def test_nobody_looks_at_each_idle_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(databases, "TOLD_S", 3600)
    calls: Counter[str] = Counter()
    settings = settings_in(tmp_path / "data", cluster__stabilization_time_sec="1")
    async with running(settings) as client, asyncio.timeout(60):
        for number in range(DATABASES):
            await client.database(f"idle{number}")
        observer = client.node.assembly.observer
        while observer._rest.read is None:  # noqa: ASYNC110 (the observer tells nobody that all is at rest)
            await asyncio.sleep(0.02)
        counted(monkeypatch, calls, decide, "_topology")
        counted(monkeypatch, calls, Databases, "_shown")
        begun = observer.iteration
        while observer.iteration < begun + TURNS:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        assert calls == {}, f"in {TURNS} turns of the observer"
        reply = await client.put("/databases/idle7/docs?id=orders/1", {})
        assert reply.status == 201
        while calls["_topology"] == 0:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        assert calls["_topology"] < DATABASES, "one that is busy wakes no other"
        counted(monkeypatch, calls, Databases, "_aim")
        reply = await client.put("/databases/idle7/indexes", {"Indexes": [{"Name": "i", "Maps": ["from o in docs"]}]})
        assert reply.status == 201
        while calls["_aim"] == 0:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        assert calls["_aim"] < DATABASES, "a change of one concerns no other"
