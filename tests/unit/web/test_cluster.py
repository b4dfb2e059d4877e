"""The cluster, topologies, the observer's log, status and health."""

import pytest

from tests.unit.web.client import Client


async def test_the_cluster_topology_has_what_official_clients_need(client: Client) -> None:
    topology = (await client.get("/cluster/topology?first-topology-update")).json
    assert topology["Topology"]["Members"] == {"A": client.url}
    assert topology["Topology"]["AllNodes"] == {"A": client.url}
    assert (topology["Leader"], topology["NodeTag"], topology["CurrentState"]) == ("A", "A", "Leader")
    assert topology["Etag"] == topology["Topology"]["Etag"] > 0


async def test_a_databases_topology_lists_its_members(client: Client) -> None:
    await client.database()
    topology = (await client.get("/topology?name=shop&first-topology-update&applicationIdentifier=x")).json
    assert topology["Nodes"] == [{"Url": client.url, "ClusterTag": "A", "Database": "Shop", "ServerRole": "Member"}]


async def test_an_old_topology_is_to_be_refreshed_and_the_newest_is_not(client: Client) -> None:
    await client.database()
    etag = (await client.get("/topology?name=Shop")).json["Etag"]
    for path in ("/databases/Shop/stats", "/databases/Shop/docs?id=missing", "/databases/Shop/docs?id=|"):
        assert (await client.get(path, **{"Topology-Etag": f'"{etag - 1}"'})).headers["Refresh-Topology"] == "true"
        for current in (f'"{etag}"', '"None"', '"x"'):
            assert "Refresh-Topology" not in (await client.get(path, **{"Topology-Etag": current})).headers


async def test_what_does_not_change_the_topology_keeps_its_etag(client: Client) -> None:
    await client.database()
    database = (await client.get("/topology?name=Shop")).json["Etag"]
    cluster = (await client.get("/cluster/topology")).json["Etag"]
    await client.put("/databases/Shop/admin/indexes", {"Indexes": [{"Name": "i", "Maps": ["x"]}]})
    await client.post("/admin/cluster/observer/suspend?value=true")
    assert (await client.get("/topology?name=Shop")).json["Etag"] == database
    assert (await client.get("/cluster/topology")).json["Etag"] == cluster


async def test_the_node_tells_who_it_is(client: Client) -> None:
    info = (await client.get("/cluster/node-info")).json
    assert (info["NodeTag"], info["CurrentState"], info["ServerRole"]) == ("A", "Leader", "Member")
    assert len(info["ServerId"]) == 32
    assert info["TopologyId"]


async def test_the_observer_is_suspended_and_resumed_for_the_whole_cluster(client: Client) -> None:
    path = "/admin/cluster/observer"
    assert (await client.post(f"{path}/suspend?value=true")).json["Suspended"] is True
    shown = (await client.get(f"{path}/decisions")).json
    assert (shown["LeaderNode"], shown["Suspended"]) == ("A", True)
    assert (await client.post(f"{path}/suspend?value=false")).json["Suspended"] is False
    assert (await client.post(f"{path}/suspend")).status == 400


async def test_a_cluster_of_one_has_no_reports_of_others(client: Client) -> None:
    assert (await client.get("/admin/cluster/maintenance-stats")).json == {}


async def test_waiting_for_an_applied_index_answers_at_once_and_for_another_in_time(client: Client) -> None:
    index = (await client.get("/status")).json["Node"]["AppliedIndex"]
    assert (await client.get(f"/rachis/waitfor?index={index}")).json["AppliedIndex"] >= index
    late = await client.get(f"/rachis/waitfor?index={index + 1000}&timeout=0.05")
    assert late.status == 408
    assert str(index + 1000) in late.message


async def test_the_only_voter_neither_leaves_nor_hands_over(client: Client) -> None:
    assert "last voter" in (await client.delete("/admin/cluster/node?nodeTag=A")).message
    assert "last voter" in (await client.post("/admin/cluster/demote?nodeTag=A")).message
    assert "one voter" in (await client.post("/admin/cluster/reelect")).message


async def test_an_unknown_node_is_404_and_the_known_ones_are_named(client: Client) -> None:
    for method, path in (("DELETE", "node"), ("POST", "promote"), ("POST", "demote"), ("POST", "drain")):
        reply = await client.send(method, f"/admin/cluster/{path}?nodeTag=Z")
        assert reply.status == 404
        assert "Known nodes: A" in reply.message


async def test_a_joining_node_must_say_where_it_is(client: Client) -> None:
    assert "ClusterAddress" in (await client.put("/admin/cluster/node?url=http://127.0.0.1:1")).message
    both = {"Url": "https://127.0.0.1:1", "ClusterAddress": "127.0.0.1:2"}
    assert "http://" in (await client.put("/admin/cluster/node", both)).message
    bad = {"Tag": "b1", "Url": "http://127.0.0.1:1", "ClusterAddress": "127.0.0.1:2", "NodeId": "x"}
    assert "'b1'" in (await client.put("/admin/cluster/node", bad)).message
    taken = bad | {"Tag": "A"}
    assert "taken" in (await client.put("/admin/cluster/node", taken)).message
    assert list((await client.get("/cluster/topology")).json["Topology"]["AllNodes"]) == ["A"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("Url", "ftp://127.0.0.1:1"),
        ("Url", "http://127.0.0.1"),
        ("Url", "http://127.0.0.1:70000"),
        ("ClusterAddress", "127.0.0.1"),
        ("ClusterAddress", "127.0.0.1:x"),
        ("ClusterAddress", f"{'x' * 300}:1"),
        ("ClusterAddress", f"{'x' * 64}.example:1"),
        ("ClusterAddress", f"{'ü' * 62}.example:1"),
        ("ClusterAddress", "a..b:1"),
        ("Url", f"http://{'x' * 64}:1"),
        ("NodeId", "../x"),
        ("NodeId", "f" * 300),
        ("Tag", ""),
    ],
)
async def test_a_node_that_nobody_could_reach_does_not_join(client: Client, field: str, value: str) -> None:
    node = {"Tag": "B", "Url": "http://127.0.0.1:1", "ClusterAddress": "127.0.0.1:2", "NodeId": "f" * 32}
    reply = await client.put("/admin/cluster/node", node | {field: value})
    assert reply.status == 400
    assert field.lower() in reply.message.lower()
    assert list((await client.get("/cluster/topology")).json["Topology"]["AllNodes"]) == ["A"]


async def test_a_watcher_joins_and_may_repeat_its_request(client: Client) -> None:
    node = {"Url": "http://127.0.0.1:1", "ClusterAddress": "127.0.0.1:2", "NodeId": "f" * 32, "Watcher": True}
    first = await client.put("/admin/cluster/node", node)
    assert first.status == 200, first.text
    assert first.json["NodeTag"] == "B"
    assert first.json["ClusterId"]
    assert [n["Tag"] for n in first.json["Nodes"]] == ["A", "B"]
    assert first.json["Topology"]["Watchers"] == {"B": "http://127.0.0.1:1"}
    again = await client.put("/admin/cluster/node", node | {"Tag": "B"})
    assert again.status == 200
    other = await client.put("/admin/cluster/node", node | {"Tag": "B", "NodeId": "e" * 32})
    assert other.status == 400
    removed = await client.delete("/admin/cluster/node?nodeTag=B")
    assert removed.status == 200, removed.text
    assert removed.json["Topology"]["Watchers"] == {}


async def test_a_node_that_was_announced_joins_under_its_tag_from_its_addresses(client: Client) -> None:
    node = {"Tag": "B", "Url": "http://127.0.0.1:1", "ClusterAddress": "127.0.0.1:2", "Watcher": True}
    announced = await client.put("/admin/cluster/node", node)
    assert announced.status == 200, announced.text
    for another in (
        {"ClusterAddress": "127.0.0.1:3"},
        {"Url": "http://127.0.0.1:3"},
        {"Watcher": False},
        {"NodeId": ""},
    ):
        refused = await client.put("/admin/cluster/node", node | {"NodeId": "f" * 32} | another)
        assert (refused.status, "Node tag 'B' is taken" in refused.message) == (400, True), another
    joined = await client.put("/admin/cluster/node", node | {"NodeId": "f" * 32})
    assert (joined.status, joined.json["NodeTag"]) == (200, "B")
    assert [n["Tag"] for n in joined.json["Nodes"]] == ["A", "B"]


async def test_draining_can_be_taken_back(client: Client) -> None:
    for undo in ("drain?nodeTag=A&value=false", "undrain?nodeTag=A"):
        reply = await client.post("/admin/cluster/drain?nodeTag=A")
        assert (reply.json["Node"]["Draining"], reply.json["Moves"], reply.json["Waits"]) == (True, [], [])
        assert (await client.get("/status")).json["Node"]["Draining"] is True
        assert (await client.post(f"/admin/cluster/{undo}")).json["Node"]["Draining"] is False
        assert (await client.get("/status")).json["Node"]["Draining"] is False


async def test_weight_and_labels_are_set_one_by_one_or_together(client: Client) -> None:
    path = "/admin/cluster/node/traits?nodeTag=A"
    both = (await client.post(f"{path}&weight=3&labels=ssd,eu")).json["Node"]
    assert (both["Weight"], both["Labels"]) == (3, ["ssd", "eu"])
    heavier = (await client.post(f"{path}&weight=4")).json["Node"]
    assert (heavier["Weight"], heavier["Labels"]) == (4, ["ssd", "eu"])
    plain = (await client.post(f"{path}&labels=")).json["Node"]
    assert (plain["Weight"], plain["Labels"]) == (4, [])


@pytest.mark.parametrize(
    ("query", "say"),
    [
        ("nodeTag=A", "Nothing is to be set"),
        ("nodeTag=A&weight=0", "'weight' is '0'; it must be a whole number, 1 to 100"),
        ("nodeTag=A&weight=heavy", "'weight'"),
        ("nodeTag=Z&weight=1", "Node 'Z' is not in the cluster"),
        ("weight=1", "'nodeTag' is missing"),
        (f"nodeTag=A&labels={'x' * 200}", "A label is longer than 128 characters"),
        (f"nodeTag=A&labels={','.join(map(str, range(40)))}", "at most 32 are allowed"),
    ],
)
async def test_traits_that_do_not_fit_are_refused(client: Client, query: str, say: str) -> None:
    reply = await client.post(f"/admin/cluster/node/traits?{query}")
    assert reply.status in (400, 404)
    assert say in reply.message
    assert (await client.get("/status")).json["Cluster"]["Nodes"]["A"]["Weight"] == 1


async def test_status_shows_the_node_the_cluster_and_the_databases(client: Client) -> None:
    await client.database()
    status = (await client.get("/status")).json
    node = status["Node"]
    assert (node["Tag"], node["Role"], node["Leader"], node["HasLease"]) == ("A", "Leader", "A", True)
    assert node["AppliedIndex"] == node["CommitIndex"] > 0
    assert (node["LeaseLeftMs"], node["NotReady"]) == (None, [])
    assert status["Cluster"]["Timings"]["LeaseMs"] > 0
    assert status["Cluster"]["Nodes"]["A"]["Silent"] is False
    shop = status["Databases"]["Shop"]
    assert (shop["Topology"]["Members"], shop["StateHere"], shop["Tasks"]) == (["A"], "Member", [])
    assert list((await client.get("/status?database=nope")).json["Databases"]) == []


async def test_a_healthy_node_is_live_and_ready(client: Client) -> None:
    assert (await client.get("/health/live")).status == 200
    assert (await client.get("/setup/alive")).status == 200
    ready = await client.get("/health/ready")
    assert (ready.status, ready.json["Reasons"]) == (200, [])


async def test_the_build_version_is_the_protocols_and_ours(client: Client) -> None:
    version = (await client.get("/build/version")).json
    assert version["ProductVersion"] == "7.2"
    assert version["RaftnodeVersion"]


async def test_a_kind_that_a_node_has_already_is_answered_at_once(client: Client) -> None:
    before = client.node.replica.record.nodes["A"]
    reply = await client.post("/admin/cluster/promote?nodeTag=A", {})
    assert reply.status == 200, reply.message
    assert reply.json["RaftCommandIndex"] > 0
    assert client.node.replica.record.nodes["A"] == before
