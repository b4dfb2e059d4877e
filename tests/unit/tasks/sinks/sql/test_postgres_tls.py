"""TLS towards PostgreSQL, as connection strings say."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from sqlalchemy.engine import make_url

from tasks.kinds.registry import TaskFailed
from tasks.runtime.context import SqlLimits
from tasks.sinks.sql import connection_string as sql_connection
from tasks.sinks.sql.pool import SqlPool
from tests import postgres

pytestmark = pytest.mark.postgres
TLS = """SELECT coalesce(version, '') AS version, coalesce(client_dn, '') AS client
FROM pg_stat_ssl WHERE pid = pg_backend_pid()"""


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def secure(authority: trustme.CA) -> Iterator[int]:
    """The port of a server that offers TLS."""
    issued = authority.issue_cert("localhost")
    files = {
        "ca.pem": authority.cert_pem.bytes(),
        "server.pem": issued.cert_chain_pems[0].bytes(),
        "server.key": issued.private_key_pem.bytes(),
    }
    paths = {"ssl_ca_file": "../ca.pem", "ssl_cert_file": "../server.pem", "ssl_key_file": "../server.key"}
    with postgres.private_server(files, ssl="on", **paths) as url:
        yield int(make_url(url).port or 0)


async def usable(text: str) -> tuple[str, str]:
    """The version of TLS, and whom the server takes the client for by its certificate; both empty without."""
    given = {"Name": "x", "Type": "Sql", "FactoryName": "Npgsql", "ConnectionString": text}
    pool = SqlPool(sql_connection.parse(given), SqlLimits())
    try:
        async with pool.connection("test") as held:
            row = (await held.connection.exec_driver_sql(TLS)).mappings().one()
            return str(row["version"]), str(row["client"])
    finally:
        await pool.close()


async def test_tls_as_the_mode_says(secure: int, authority: trustme.CA, tmp_path: Path, postgres_url: str) -> None:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
    at, root = f"Host=localhost;Port={secure};Database=postgres;Username=postgres", "Root Certificate"
    ca, other = f"{root}={tmp_path / 'ca.pem'}", f"{root}={tmp_path / 'other.pem'}"
    by_address = at.replace("localhost", "127.0.0.1")
    for text in (
        f"{at};SSL Mode=Prefer", f"{at};SSL Mode=Require", f"{at};SSL Mode=VerifyFull;{ca}",
        f"{by_address};SSL Mode=VerifyCA;{ca}",
        f"postgresql://postgres@localhost:{secure}/postgres?sslmode=verify-full&sslrootcert={tmp_path / 'ca.pem'}",
    ):  # fmt: skip
        assert (await usable(text))[0].startswith("TLS"), text
    assert await usable(f"{at};SSL Mode=Disable") == ("", "")
    with pytest.raises(TaskFailed, match=r"(?i)IP address mismatch"):
        await usable(f"{by_address};SSL Mode=VerifyFull;{ca}")
    for text in (f"{at};SSL Mode=VerifyFull;{other}", f"{at};SSL Mode=VerifyFull", f"{at};SSL Mode=VerifyCA"):
        with pytest.raises(TaskFailed, match=r"(?i)certificate verify failed"):
            await usable(text)
    with pytest.raises(TaskFailed, match="No such file"):
        await usable(f"{at};SSL Mode=VerifyFull;{root}=/nowhere.pem")
    assert (await usable(f"{postgres_url}?sslmode=prefer"))[0] == ""
    with pytest.raises(TaskFailed, match=r"(?i)rejected SSL upgrade"):
        await usable(f"{postgres_url}?sslmode=require")


async def test_the_server_sees_the_clients_certificate(secure: int, authority: trustme.CA, tmp_path: Path) -> None:
    issued = authority.issue_cert(common_name="raftnode")
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "client.pem"))
    issued.private_key_pem.write_to_path(str(tmp_path / "client.key"))
    files = f"SSL Certificate={tmp_path / 'client.pem'};SSL Key={tmp_path / 'client.key'}"
    at = f"Host=localhost;Port={secure};Database=postgres;Username=postgres;SSL Mode=Require"
    assert "CN=raftnode" in (await usable(f"{at};{files}"))[1]
    assert (await usable(at))[1] == ""
