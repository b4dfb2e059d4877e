"""The listening socket: a port in use, and TLS."""

import asyncio
import ssl
from pathlib import Path

import aiohttp
import pytest
import trustme
from click.testing import CliRunner

from raftnode.cli.main import cli
from raftnode.node import Node, NodeFailed
from tests.unit.web.client import Client
from tests.unit.web.conftest import running, settings_in


async def test_a_port_in_use_is_named_with_its_setting(client: Client, tmp_path: Path) -> None:
    port = client.url.rsplit(":", 1)[1]
    node = Node(settings_in(tmp_path / "other", http__port=port))
    with pytest.raises(NodeFailed, match=f"port {port}.*http.port"):
        await node.run()


async def test_with_certificates_only_those_who_show_one_are_served(tmp_path: Path) -> None:
    authority = trustme.CA()
    own = authority.issue_cert("localhost", "127.0.0.1", "a", common_name="A")
    files = {"security__certificate_file": "cert.pem", "security__key_file": "key.pem", "security__ca_file": "ca.pem"}
    paths = {key: str(tmp_path / name) for key, name in files.items()}
    own.cert_chain_pems[0].write_to_path(paths["security__certificate_file"])
    own.private_key_pem.write_to_path(paths["security__key_file"])
    authority.cert_pem.write_to_path(paths["security__ca_file"])
    known = ssl.create_default_context(cafile=paths["security__ca_file"])
    own.configure_cert(known)
    async with running(settings_in(tmp_path / "data", **paths), tls=known) as client:
        assert client.url.startswith("https://")
        assert (await client.get("/status")).json["Node"]["Role"] == "Leader"
        stranger = ssl.create_default_context(cafile=paths["security__ca_file"])
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=stranger)) as session:
            with pytest.raises(aiohttp.ClientError):
                await Client(session, client.url).get("/status")
        for url, given, remedy in (
            (client.url, {}, "RAFTNODE_SECURITY_CA_FILE"),
            (
                client.url,
                {"RAFTNODE_SECURITY_CA_FILE": paths["security__ca_file"]},
                "RAFTNODE_SECURITY_CERTIFICATE_FILE",
            ),
            (client.url.replace("https", "http"), {}, "a node with certificates begins with https://"),
        ):
            told = await asyncio.to_thread(CliRunner(env=given).invoke, cli, ["status", "--url", url])
            assert told.exit_code == 3
            assert remedy in told.output
