"""The example of docs/tasks/raven_etl.md, as it is written there, on a real node."""

import json
import re
import shlex
from pathlib import Path
from urllib.parse import urlsplit

from tests.unit.web.conftest import running, settings_in
from tests.unit.web.test_two_nodes import eventually

PAGE = Path(__file__).parents[3] / "docs" / "tasks" / "raven_etl.md"


async def test_the_example_copies_orders_and_makes_people(tmp_path: Path) -> None:
    example, trial = re.findall(r"(?ms)^```\n(curl.*?)^```", PAGE.read_text(encoding="utf-8"))
    async with running(settings_in(tmp_path / "data")) as node:
        for name in ("Shop", "Reports"):
            await node.put(f"/admin/databases?name={name}", {})
        for id, collection, body in (
            ("orders/1", "Orders", {"Company": "x"}),
            ("employees/1-A", "Employees", {"LastName": "Davolio", "ReportsTo": "employees/2-A"}),
            ("employees/2-A", "Employees", {"LastName": "Fuller"}),
        ):
            document = body | {"@metadata": {"@collection": collection}}
            await node.put(f"/databases/Shop/docs?id={id}", document)
        for command in re.split(r"(?m)^(?=curl)", example)[1:]:
            _, _, method, url, *data = shlex.split(re.sub(r"http://[acd]:8080", node.url, command))
            path = urlsplit(url)._replace(scheme="", netloc="").geturl()
            reply = await node.send(method, path, json.loads(data[1]) if data else None)
            assert reply.status < 300, reply.message

        async def arrived() -> bool:
            stats = (await node.get("/databases/Reports/collections/stats")).json
            return bool(stats["Collections"] == {"Orders": 1, "People": 2})

        await eventually("the documents are there", arrived)
        people = (await node.get("/databases/Reports/docs?startsWith=employees/")).json["Results"]
        assert [(p["Name"], p["Boss"]) for p in people] == [("Davolio", "Fuller"), ("Fuller", None)]
        info = (await node.get("/databases/Shop/task?taskName=shop%20to%20reports&type=RavenEtl")).json
        assert info["Run"]["Info"]["Fenced"] is True
        assert (info["DestinationUrl"], info["DestinationDatabase"]) == (node.url, "Reports")
        assert info["TopologyDiscoveryUrls"] == [node.url, node.url]
        command, told = trial.split("\n{", 1)
        _, _, method, url, _, given = shlex.split(command)
        reply = await node.send(method, urlsplit(url).path, json.loads(given))
        assert reply.json == json.loads("{" + told)
