"""RavenDB's SQL connection strings."""

from typing import Any
from urllib.parse import unquote

import pytest

from tasks.kinds.registry import ConfigurationError
from tasks.sinks.sql.connection_string import parse


def configuration(text: str, factory: str = "Npgsql", **more: Any) -> dict[str, Any]:
    return {"Name": "target", "Type": "Sql", "FactoryName": factory, "ConnectionString": text} | more


@pytest.mark.parametrize(
    ("factory", "text", "url"),
    [
        ("System.Data.SQLite", "Data Source=/tmp/x.db;Version=3", "sqlite+aiosqlite:////tmp/x.db"),
        ("Microsoft.Data.Sqlite", "datasource = rel.db", "sqlite+aiosqlite:///rel.db"),
        ("system.data.sqlite", "sqlite:////tmp/x.db", "sqlite+aiosqlite:////tmp/x.db"),
        (
            "Npgsql",
            "Host=db;Port=5433;Database=shop;Username=me;Password=a b",
            "postgresql+asyncpg://me:a b@db:5433/shop",
        ),
        ("Npgsql", "server=db;DB=shop;User Id=me;PWD='x;''y'", "postgresql+asyncpg://me:x;'y@db:5432/shop"),
        ("npgsql", "postgresql://me:pw@db:1/shop", "postgresql+asyncpg://me:pw@db:1/shop"),
        (
            "MySqlConnector.MySqlConnectorFactory",
            "Server=db;User ID=me;Password=a b;Database=shop;SslMode=None;AllowUserVariables=true",
            "mysql+aiomysql://me:a b@db:3306/shop",
        ),
        ("MySql.Data.MySqlClient", "mariadb+mariadbconnector://me@db:1/shop", "mysql+aiomysql://me@db:1/shop"),
        ("Npgsql", "postgresql+psycopg://me@db/shop", "postgresql+asyncpg://me@db/shop"),
    ],
)
def test_ado_style_and_urls_lead_to_the_same_drivers(factory: str, text: str, url: str) -> None:
    assert unquote(parse(configuration(text, factory)).url.render_as_string(hide_password=False)) == url


@pytest.mark.parametrize(
    ("text", "ssl"),
    [
        ("Host=db;Database=shop;SSL Mode=VerifyFull", "verify-full"),
        ("Host=db;Database=shop;SslMode=require", "require"),
        ("postgresql://db/shop?sslmode=verify-ca", "verify-ca"),
        ("Host=db;Database=shop", None),
    ],
)
def test_the_ssl_mode_reaches_the_driver(text: str, ssl: str | None) -> None:
    assert parse(configuration(text)).ssl == ssl


@pytest.mark.parametrize(
    "text",
    [
        "Server=a,b:1;Database=d;Uid=u;SslMode=VerifyFull;SslCa=/ca;SslCert=/cert;SslKey=/key",
        "Host=a,b:1;Database=d;User=u;Ssl Mode=VerifyFull;CA Certificate File=/ca;SSL Cert=/cert;SSL Key=/key",
        "mysql://u@a,b:1/d?ssl-mode=VERIFY_IDENTITY&ssl_ca=/ca&ssl_cert=/cert&ssl_key=/key",
    ],
)
def test_hosts_and_certificates_of_mysql(text: str) -> None:
    found = parse(configuration(text, "MySqlConnector.MySqlConnectorFactory"))
    assert found.hosts == (("a", 3306), ("b", 1))
    assert (found.ssl, found.ssl_root, found.ssl_certificate, found.ssl_key) == ("verify-full", "/ca", "/cert", "/key")


@pytest.mark.parametrize(
    "text",
    [
        "Host=db;Database=d;SSL Mode=VerifyCA;Root Certificate=/ca;SSL Certificate=/cert;SSL Key=/key",
        "postgresql://db/d?sslmode=verify-ca&sslrootcert=/ca&sslcert=/cert&sslkey=/key",
    ],
)
def test_certificates_of_postgresql(text: str) -> None:
    found = parse(configuration(text))
    assert (found.ssl, found.ssl_root, found.ssl_certificate, found.ssl_key) == ("verify-ca", "/ca", "/cert", "/key")
    assert found.address != parse(configuration(text.replace("/ca", "/other"))).address


@pytest.mark.parametrize(
    ("wrong", "field", "remedy"),
    [
        (configuration("Host=db;Database=d", "Oracle"), "FactoryName", "use one of: System.Data.SQLite"),
        (configuration("Host=db;Database=d", Name=" "), "Name", "give a non-empty text"),
        (configuration(""), "ConnectionString", "give a non-empty text"),
        (configuration("Host=db", Type="Raven"), "Type", "must be Sql"),
        (configuration("Host=db"), "ConnectionString", "name the database"),
        (configuration("Database=d"), "ConnectionString", "name the host"),
        (configuration("Host=db;Database=d;Port=x"), "ConnectionString", "not a port number"),
        (configuration("Host=db;Database=d;SSL Mode=maybe"), "ConnectionString", "is not one of"),
        (configuration("Host=a,,b;Database=d"), "ConnectionString", "names an empty host"),
        (configuration("Host=a:0,b;Database=d"), "ConnectionString", "Port=0 is not a port number"),
        (configuration("Host=a,b;Database=d;Target Session Attributes=standby"), "ConnectionString", "read-write"),
        (configuration("Host=db;Database=d;Hots=x"), "ConnectionString", "key 'hots' is not known; it takes Host"),
        (
            configuration("Host=db;Database=d;Hots=x"),
            "ConnectionString",
            "SSL Key, Target Session Attributes, Search Pa",
        ),
        (
            configuration(f"Host=db;Database=d;Search Path=a,{'b' * 64}"),
            "ConnectionString",
            "Search Path: 'b+' has 64 b",
        ),
        (
            configuration(f'postgresql://db/d?search_path="{"b" * 64}"'),
            "ConnectionString",
            "Search Path: 'b+' has 64 b",
        ),
        (configuration("Host"), "ConnectionString", "has a part without '='"),
        (configuration("Password=a;s3cret"), "ConnectionString", "a part without '=', after 'password'"),
        (configuration("Host=db;Database='d"), "ConnectionString", "has no closing"),
        (configuration("postgresql://db/d?hots=1"), "ConnectionString", "unknown parameters: hots"),
        (configuration("postgresql://db"), "ConnectionString", "names no database"),
        (configuration("mysql://db/d"), "ConnectionString", "is a mysql URL"),
        (configuration("Server=db;Database=d;Hots=x", "MySqlConnector"), "ConnectionString", "it takes Server"),
        (configuration("Server=db;Database=d;SslMode=maybe", "MySqlConnector"), "ConnectionString", "preferred"),
        (configuration("://"), "ConnectionString", "is not a valid URL"),
        (configuration("Version=3", "System.Data.SQLite"), "ConnectionString", "names no file"),
        (configuration("Data Source=:memory:", "System.Data.SQLite"), "ConnectionString", "names no file"),
    ],
)
def test_what_is_wrong_is_named_with_the_remedy(wrong: dict[str, Any], field: str, remedy: str) -> None:
    with pytest.raises(ConfigurationError, match=remedy) as caught:
        parse(wrong)
    assert caught.value.field == field


def test_the_password_is_in_no_text_of_the_connection() -> None:
    connection = parse(configuration("Host=db;Database=d;Username=me;Password=s3cret"))
    assert "s3cret" not in f"{connection} {connection!r}"
    assert connection.redacted("tried s3cret") == "tried ***"
    assert parse(configuration("Host=db;Database=d")).redacted("as it was") == "as it was"


def test_a_short_password_is_taken_out_where_it_stands_by_itself_and_not_out_of_other_words() -> None:
    short = parse(configuration("Host=db;Database=shop;Username=u;Password=p"))
    assert short.redacted("the target at u:p@db/shop: p is wrong") == "the target at u:***@db/shop: *** is wrong"
    long = parse(configuration("Host=db;Database=shop;Username=u;Password=longenough"))
    assert long.redacted("xlongenoughx") == "x***x"


@pytest.mark.parametrize(
    ("text", "hosts", "session"),
    [
        ("Host=a,b;Database=d", (("a", 5432), ("b", 5432)), "read-write"),
        (
            "Host=a:1, b ,[::1]:2,[::2];Port=6432;Database=d",
            (("a", 1), ("b", 6432), ("::1", 2), ("::2", 6432)),
            "read-write",
        ),
        ("Host=a,b:2;Database=d;Target Session Attributes=Primary", (("a", 5432), ("b", 2)), "primary"),
        ("postgresql://me:pw@a:1,b,[::1]:2/d?target_session_attrs=any", (("a", 1), ("b", 5432), ("::1", 2)), "any"),
        ("Host=::1;Database=d", (), "read-write"),
        ("Host=/run/postgresql;Database=d", (), "read-write"),
    ],
)
def test_several_hosts_each_with_a_port_of_its_own(text: str, hosts: object, session: str) -> None:
    connection = parse(configuration(text))
    assert (connection.hosts, connection.session) == (hosts, session)
    if connection.hosts:
        assert (connection.url.host, connection.url.port) == connection.hosts[0]
        assert ",".join(f"{host}:{port}" for host, port in connection.hosts) in str(connection)
        assert "pw" not in str(connection)


def test_a_single_host_may_have_its_port_beside_it() -> None:
    url = parse(configuration("Host=db:6432;Database=d")).url
    assert (url.host, url.port) == ("db", 6432)
