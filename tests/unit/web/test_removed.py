"""Softly deleted databases: found with their files, and restored with every document."""

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from raftnode.cluster.replica import Unavailable
from raftnode.documents.store import removed as files
from tests.unit.web.client import Client

REMOVED = "/admin/databases/removed"


def size_bytes(shown: dict[str, Any]) -> int | None:
    file = Path(shown["Path"])
    return file.stat().st_size if file.exists() else None


async def deleted(client: Client, name: str = "Shop") -> dict[str, Any]:
    """A database with three documents, one of them deleted, that is deleted softly; what is shown of it."""
    await client.database(name)
    for id in ("a", "b", "c"):
        assert (await client.put(f"/databases/{name}/docs?id={id}", {"of": name})).status == 201
    assert (await client.delete(f"/databases/{name}/docs?id=c")).status == 204
    reply = await client.delete("/admin/databases", {"DatabaseNames": [name], "HardDelete": False})
    assert reply.json["PendingDeletes"] == []
    shown: dict[str, Any] = (await client.get(REMOVED)).json["Removed"][-1]
    return shown


async def test_a_softly_deleted_database_is_listed_and_restored(client: Client) -> None:
    shown = await deleted(client)
    assert (shown["Database"], shown["Documents"]) == ("Shop", 2)
    assert size_bytes(shown) == shown["SizeBytes"]
    assert f"/.removed/{shown['Folder']}/" in shown["Path"]
    reply = await client.post(f"/admin/databases/restore?folder={quote(shown['Folder'])}")
    assert (reply.status, reply.json["Name"]) == (201, "Shop"), reply.text
    [document] = (await client.get("/databases/Shop/docs?id=b")).json["Results"]
    assert document["of"] == "Shop"
    assert (await client.put("/databases/Shop/docs?id=d", {})).status == 201
    assert (await client.get("/databases/Shop/stats")).json["CountOfDocuments"] == 3
    assert (await client.get(REMOVED)).json["Removed"] == []
    assert size_bytes(shown) is None
    assert (await client.get("/health/ready")).status == 200


async def test_what_cannot_be_restored_is_refused_and_stays(client: Client) -> None:
    first, second = await deleted(client), await deleted(client)
    assert first["Folder"] != second["Folder"]
    path = f"/admin/databases/restore?folder={quote(first['Folder'])}"
    bad = await client.post(f"{path}&name={quote('a/b')}")
    assert bad.status == 400
    assert "may hold only letters" in bad.message
    assert (await client.post(path)).status == 201
    taken = await client.post(f"/admin/databases/restore?folder={quote(second['Folder'])}")
    assert taken.status == 409
    assert "Restore the copy under another name" in taken.message
    for folder in ("nothing", "../raft", "", "."):
        reply = await client.post(f"/admin/databases/restore?folder={quote(folder)}")
        assert reply.status == (404 if folder else 400)
        assert "'folder'" in reply.message
    assert [one["Folder"] for one in (await client.get(REMOVED)).json["Removed"]] == [second["Folder"]]
    reply = await client.post(f"/admin/databases/restore?folder={quote(second['Folder'])}&name=Other")
    assert reply.status == 201, reply.text
    assert (await client.get("/databases/Other/stats")).json["CountOfDocuments"] == 2


async def test_a_copy_becomes_one_database_though_two_are_asked_for_at_one_moment(client: Client) -> None:
    shown = await deleted(client)
    path = f"/admin/databases/restore?folder={quote(shown['Folder'])}"
    replies = await asyncio.gather(*(client.post(f"{path}&name={name}") for name in ("One", "Two")))
    assert sorted(reply.status for reply in replies) == [201, 404], [reply.text for reply in replies]
    assert len((await client.get("/databases?namesOnly=true")).json["Databases"]) == 1


async def test_a_copy_that_is_a_database_again_is_forgotten_though_a_crash_came_first(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = await deleted(client)
    path = f"/admin/databases/restore?folder={quote(shown['Folder'])}"
    with monkeypatch.context() as crashed:
        crashed.setattr(files, "forget", lambda _: None)
        assert (await client.post(path)).status == 201
    assert size_bytes(shown) is not None
    assert (await client.post(f"{path}&name=Other")).status == 404
    assert size_bytes(shown) is None
    assert (await client.get(REMOVED)).json["Removed"] == []
    assert (await client.get("/databases/Shop/stats")).json["CountOfDocuments"] == 2


async def test_a_copy_whose_restoring_ended_in_an_unknown_way_is_restored_under_that_name_only(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = await deleted(client)
    path = f"/admin/databases/restore?folder={quote(shown['Folder'])}"

    async def unanswered(*_: Any, **__: Any) -> Any:
        raise Unavailable("CreateDatabase was not answered.")

    with monkeypatch.context() as cut:
        cut.setattr(client.node.replica, "propose", unanswered)
        assert (await client.post(path)).status == 503
    refused = await client.post(f"{path}&name=Other")
    assert (refused.status, "Restore it under that name: &name=shop" in refused.message) == (409, True)
    reply = await client.post(f"{path}&name=shop")
    assert reply.status == 201, reply.text
    assert (await client.get("/databases/shop/stats")).json["CountOfDocuments"] == 2
    folder = Path(client.node.settings.node.data_dir) / "databases" / "shop"
    assert len(list(folder.glob("*.sqlite"))) == 1
