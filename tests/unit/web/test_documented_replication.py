"""The example of docs/tasks/external_replication.md, as it is written there, on a real node."""

import json
import re
import shlex
from pathlib import Path
from urllib.parse import urlsplit

from tests.unit.web.conftest import running, settings_in
from tests.unit.web.test_two_nodes import eventually

PAGE = Path(__file__).parents[3] / "docs" / "tasks" / "external_replication.md"


async def test_the_example_copies_documents_and_shows_its_fields(tmp_path: Path) -> None:
    [example] = re.findall(r"(?ms)^```\n(curl.*?)^```", PAGE.read_text(encoding="utf-8"))
    async with running(settings_in(tmp_path / "data")) as node:
        for name in ("Shop", "Copy"):
            await node.put(f"/admin/databases?name={name}", {})
        await node.put("/databases/Shop/docs?id=orders/1", {"Company": "x"})
        for command in re.split(r"(?m)^(?=curl)", example)[1:]:
            _, _, method, url, *data = shlex.split(re.sub(r"http://[acd]:8080", node.url, command))
            path = urlsplit(url)._replace(scheme="", netloc="").geturl()
            reply = await node.send(method, path, json.loads(data[1]) if data else None)
            assert reply.status < 300, reply.message

        async def arrived() -> bool:
            return (await node.get("/databases/Copy/docs?id=orders/1")).status == 200

        await eventually("the document is there", arrived)
        shown = (await node.get("/databases/Shop/task?taskName=shop%20to%20copy&type=Replication")).json
        fields = re.findall(r"`(\w+)`", PAGE.read_text(encoding="utf-8").split("RavenDB's fields:")[1].split(".")[0])
        assert len(fields) == 10
        assert shown.keys() >= set(fields)
        assert shown["DestinationUrl"] == node.url
