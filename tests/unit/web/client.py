"""A client for tests: sends what it is told and keeps the whole answer."""

import json
from dataclasses import dataclass
from typing import Any

import aiohttp
from multidict import CIMultiDictProxy

from raftnode.documents.replication.sender import GROUP_HEADER, NODE_HEADER
from raftnode.node import Node


@dataclass(frozen=True)
class HttpReply:
    """An answer."""

    status: int
    headers: CIMultiDictProxy[str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def message(self) -> str:
        """The message of an error, whose shape is checked."""
        assert set(self.json) >= {"Url", "Type", "Message", "Error"}, self.text
        assert "Traceback" not in self.text
        message: str = self.json["Message"]
        return message


class Client:
    """Talks to one node; `node` is that node, when it runs in this process."""

    node: Node

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self.url = url

    async def send(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> HttpReply:
        """One request, in the name of the node itself and of another group, as routes between nodes ask who it is."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        node = {NODE_HEADER: self.node.http.node_id} if hasattr(self, "node") else {}
        sent = {GROUP_HEADER: "other/shop"} | node | (headers or {})
        async with self._session.request(method, self.url + path, data=data, headers=sent) as response:
            return HttpReply(response.status, response.headers, await response.text(errors="replace"))

    async def get(self, path: str, **headers: str) -> HttpReply:
        return await self.send("GET", path, headers=headers)

    async def put(self, path: str, body: Any = None, **headers: str) -> HttpReply:
        return await self.send("PUT", path, body, headers)

    async def post(self, path: str, body: Any = None, **headers: str) -> HttpReply:
        return await self.send("POST", path, body, headers)

    async def delete(self, path: str, body: Any = None, **headers: str) -> HttpReply:
        return await self.send("DELETE", path, body, headers)

    async def database(self, name: str = "Shop") -> None:
        """Creates a database."""
        reply = await self.put(f"/admin/databases?name={name}", {})
        assert reply.status == 201, reply.text
