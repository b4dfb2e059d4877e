"""RavenDB's SQL connection strings: a factory name and a string in ADO style, or an SQLAlchemy URL."""

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from tasks.kinds.registry import ConfigurationError
from tasks.sinks.sql.postgres import too_long

SQLITE = "sqlite+aiosqlite"
POSTGRES = "postgresql+asyncpg"
MYSQL = "mysql+aiomysql"
FACTORIES = {
    "system.data.sqlite": SQLITE,
    "microsoft.data.sqlite": SQLITE,
    "npgsql": POSTGRES,
    "mysqlconnector.mysqlconnectorfactory": MYSQL,
    "mysqlconnector": MYSQL,
    "mysql.data.mysqlclient": MYSQL,
}
REDACTED_WITHIN_WORDS = 8
"""Passwords of so many characters are taken out of messages wherever they stand."""
_NAMES = "System.Data.SQLite, Microsoft.Data.Sqlite, Npgsql, MySqlConnector.MySqlConnectorFactory"

_FILE_KEYS = {"data source", "datasource", "filename"}
_PG_KEYS = {
    "host": "host", "server": "host", "port": "port", "database": "database", "db": "database",
    "username": "username", "user name": "username", "user id": "username", "userid": "username", "user": "username",
    "uid": "username", "password": "password", "pwd": "password", "psw": "password",
    "ssl mode": "ssl", "sslmode": "ssl",
    "target session attributes": "session", "targetsessionattributes": "session",
    "search path": "search_path", "searchpath": "search_path",
    "root certificate": "ssl_root", "rootcertificate": "ssl_root",
    "ssl certificate": "ssl_certificate", "sslcertificate": "ssl_certificate",
    "ssl key": "ssl_key", "sslkey": "ssl_key",
}  # fmt: skip
_MYSQL_KEYS = {
    "host": "host", "server": "host", "datasource": "host", "address": "host", "addr": "host", "networkaddress": "host",
    "port": "port", "database": "database", "initialcatalog": "database",
    "username": "username", "userid": "username", "user": "username", "uid": "username",
    "password": "password", "pwd": "password", "sslmode": "ssl",
    "sslca": "ssl_root", "cacertificatefile": "ssl_root",
    "sslcert": "ssl_certificate", "sslkey": "ssl_key",
}  # fmt: skip
"""Without spaces."""
_MYSQL_IGNORED = {
    "pooling", "minimumpoolsize", "maximumpoolsize", "minpoolsize", "maxpoolsize", "connectiontimeout",
    "connectionidletimeout", "connectionlifetime", "connectionreset", "defaultcommandtimeout", "commandtimeout",
    "charset", "characterset", "allowuservariables", "allowpublickeyretrieval", "convertzerodatetime",
    "allowzerodatetime", "treattinyasboolean", "usecompression", "useaffectedrows", "loadbalance", "keepalive",
    "applicationname", "guidformat", "datetimekind", "persistsecurityinfo", "ignorepreparestatements",
}  # fmt: skip
_URL_PARAMETERS = {
    POSTGRES: {
        "ssl": "ssl", "sslmode": "ssl", "target_session_attrs": "session", "search_path": "search_path",
        "sslrootcert": "ssl_root", "sslcert": "ssl_certificate", "sslkey": "ssl_key",
    },
    MYSQL: {
        "ssl_mode": "ssl", "ssl-mode": "ssl", "sslmode": "ssl", "ssl_ca": "ssl_root", "ssl-ca": "ssl_root",
        "ssl_cert": "ssl_certificate", "ssl-cert": "ssl_certificate", "ssl_key": "ssl_key", "ssl-key": "ssl_key",
    },
    SQLITE: {},
}  # fmt: skip
_PG_KEYS_SHOWN = (
    "Host, Port, Database, Username, Password, SSL Mode, Root Certificate, SSL Certificate, SSL Key, "
    "Target Session Attributes, Search Path"
)
_IGNORED = {
    "pooling", "minimum pool size", "maximum pool size", "connection idle lifetime", "timeout", "command timeout",
    "application name", "keepalive", "include error detail", "version", "cache", "mode", "foreign keys",
    "default timeout", "journal mode", "persist security info", "trust server certificate",
    "load balance hosts", "host recheck seconds", "max auto prepare", "no reset on close",
}  # fmt: skip
_SSL_MODES = {
    "disable": "disable", "allow": "allow", "prefer": "prefer", "require": "require",
    "verifyca": "verify-ca", "verify-ca": "verify-ca", "verifyfull": "verify-full", "verify-full": "verify-full",
}  # fmt: skip
_MYSQL_SSL_MODES = {
    "none": "disable", "disabled": "disable", "preferred": "prefer", "required": "require",
    "verifyca": "verify-ca", "verify_ca": "verify-ca", "verifyfull": "verify-full", "verify_identity": "verify-full",
}  # fmt: skip


_SESSIONS = ("read-write", "primary", "any")
_SEVERAL_HOSTS = re.compile(r"^(?P<before>[^:/?#]+://(?:[^@/?#]*@)?)(?P<hosts>[^/?#]*,[^/?#]*)(?P<after>.*)$")
PORTS = {POSTGRES: "5432", MYSQL: "3306", SQLITE: ""}


class SqlConnection(msgspec.Struct, frozen=True):
    """Where an SQL target is. `url` holds the password; show `str(connection)`, which does not.

    `hosts` are all (host, port) when there are several, tried in order; `url` names the first. `session` is what the
    one that is taken must allow: "read-write", "primary" or "any". `search_path` are the schemas, as PostgreSQL writes
    them, in the first of which tables without a schema stand, those of the fence too; empty for the user's own. `ssl`
    is the mode by libpq's names, None for the driver's default; `ssl_root`, `ssl_certificate` and `ssl_key` are paths
    of PEM files, empty for none.
    """

    name: str
    url: URL
    ssl: str | None = None
    hosts: tuple[tuple[str, int], ...] = ()
    session: str = "read-write"
    search_path: str = ""
    ssl_root: str = ""
    ssl_certificate: str = ""
    ssl_key: str = ""

    def __str__(self) -> str:
        text = self.url.render_as_string(hide_password=True)
        if not self.hosts:
            return text
        assert self.url.host is not None
        first = URL.create("x", host=self.url.host, port=self.url.port).render_as_string()[len("x://") :]
        return text.replace(first, ",".join(f"{host}:{port}" for host, port in self.hosts), 1)

    @property
    def address(self) -> tuple[object, ...]:
        """What tells one target from another: the same for connection strings that lead to the same place."""
        files = (self.ssl_root, self.ssl_certificate, self.ssl_key)
        return (self.url, self.ssl, self.hosts, self.session, self.search_path, files)

    def __repr__(self) -> str:
        return f"SqlConnection({self.name!r}, {self})"

    def redacted(self, text: str) -> str:
        """The text without the password, should a driver have put it there. A short one is replaced where it stands by
        itself: within other words it stands by chance, and taking it out there would show what it is."""
        password = str(self.url.password or "")
        if not password:
            return text
        pattern = re.escape(password)
        if len(password) < REDACTED_WITHIN_WORDS:
            pattern = rf"(?<!\w){pattern}(?!\w)"
        return re.sub(pattern, "***", text)


def parse(configuration: Mapping[str, Any]) -> SqlConnection:
    """The target of a connection string {Name, ConnectionString, FactoryName, Type: "Sql"}.

    Raises ConfigurationError.
    """
    name = _text(configuration, "Name")
    text = _text(configuration, "ConnectionString")
    factory = _text(configuration, "FactoryName")
    if configuration.get("Type", "Sql") != "Sql":
        raise ConfigurationError("Type", f"must be Sql, not {configuration['Type']}")
    driver = FACTORIES.get(factory.lower())
    if driver is None:
        raise ConfigurationError("FactoryName", f"'{factory}' is not known; use one of: {_NAMES}")
    if "://" in text:
        return _from_url(name, text, driver)
    pairs = _pairs(text)
    if driver == SQLITE:
        return _sqlite(name, pairs)
    return _postgres(name, pairs) if driver == POSTGRES else _mysql(name, pairs)


def check_path(target: SqlConnection) -> None:
    """Refuses a file that every node would look for in another place. Asked of new connection strings only. Raises
    ConfigurationError."""
    file = target.url.database or ""
    if target.url.drivername == SQLITE and not file.startswith("/"):
        raise ConfigurationError(
            "ConnectionString",
            f"names the file '{file}', which depends on where a node was started; write an absolute path, as in "
            "Data Source=/var/lib/shop/target.db. Every node has a file of its own there: it does not follow a task "
            "that moves to another machine",
        )


def _text(configuration: Mapping[str, Any], field: str) -> str:
    value = configuration.get(field)
    if not isinstance(value, str) or not value.strip():
        raise ConfigurationError(field, "is missing; give a non-empty text")
    return value.strip()


def _from_url(name: str, text: str, driver: str) -> SqlConnection:
    several = _SEVERAL_HOSTS.match(text)
    hosts = _hosts(several["hosts"], PORTS[driver]) if several else ()
    if several:
        text = f"{several['before']}{several['hosts'].partition(',')[0]}{several['after']}"
    try:
        url = make_url(re.sub(r"\Apostgres(?=://)", "postgresql", re.sub(r"\Amariadb(?=[:+])", "mysql", text)))
    except (ArgumentError, ValueError):
        raise ConfigurationError("ConnectionString", "is not a valid URL") from None
    dialect = driver.split("+")[0]
    if url.get_backend_name() != dialect:
        raise ConfigurationError("ConnectionString", f"is a {url.get_backend_name()} URL, FactoryName says {dialect}")
    if not url.database:
        raise ConfigurationError("ConnectionString", f"names no database, as in {dialect}://.../target")
    parameters = _URL_PARAMETERS[driver]
    if unknown := set(url.query) - set(parameters):
        raise ConfigurationError("ConnectionString", f"has unknown parameters: {', '.join(sorted(unknown))}")
    given = {parameters[key]: str(value) for key, value in url.query.items()}
    return _of_server(name, url.set(drivername=driver, query={}), hosts, given)


def _of_server(name: str, url: URL, hosts: tuple[tuple[str, int], ...], given: Mapping[str, str]) -> SqlConnection:
    modes = _MYSQL_SSL_MODES if url.drivername == MYSQL else _SSL_MODES
    return SqlConnection(
        name,
        url,
        _ssl(given["ssl"], modes) if given.get("ssl") else None,
        hosts if len(hosts) > 1 else (),
        _session(given.get("session", "")),
        _search_path(given.get("search_path", "")),
        given.get("ssl_root", ""),
        given.get("ssl_certificate", ""),
        given.get("ssl_key", ""),
    )


def _pairs(text: str) -> dict[str, str]:
    """The pairs of `Key=Value;Key="a;b"`, keys folded. A quoted value holds its quote doubled."""
    pairs: dict[str, str] = {}
    rest = text.strip().rstrip(";")
    while rest:
        key, equals, rest = rest.partition("=")
        if not equals:
            # It is not shown: it may be the rest of a password.
            after = f", after '{list(pairs)[-1]}'" if pairs else ""
            raise ConfigurationError("ConnectionString", f"has a part without '='{after}; write Key=Value;Key=\"a;b\"")
        rest = rest.lstrip()
        if rest[:1] in ("'", '"'):
            value, rest = _quoted(rest)
        else:
            value, _, rest = rest.partition(";")
        pairs[" ".join(key.lower().split())] = value.strip()
    return pairs


def _quoted(text: str) -> tuple[str, str]:
    quote, value, place = text[0], "", 1
    while place < len(text):
        if text[place] != quote:
            value += text[place]
        elif text[place + 1 : place + 2] == quote:
            value += quote
            place += 1
        else:
            return value, text[place + 1 :].lstrip().removeprefix(";")
        place += 1
    raise ConfigurationError("ConnectionString", f"a value begins with {quote} and has no closing {quote}")


def _sqlite(name: str, pairs: Mapping[str, str]) -> SqlConnection:
    _refuse_unknown(pairs, _FILE_KEYS, "Data Source")
    file = next((value for key, value in pairs.items() if key in _FILE_KEYS), "")
    if not file or file == ":memory:":
        raise ConfigurationError("ConnectionString", "names no file; write Data Source=/path/to/target.db")
    return SqlConnection(name, URL.create(SQLITE, database=file))


def _postgres(name: str, pairs: Mapping[str, str]) -> SqlConnection:
    _refuse_unknown(pairs, set(_PG_KEYS), _PG_KEYS_SHOWN)
    return _server(name, POSTGRES, {_PG_KEYS[key]: value for key, value in pairs.items() if key in _PG_KEYS})


def _mysql(name: str, pairs: Mapping[str, str]) -> SqlConnection:
    given = {key.replace(" ", ""): value for key, value in pairs.items()}
    for key in given:
        if key not in _MYSQL_KEYS and key not in _MYSQL_IGNORED:
            wanted = "Server, Port, Database, User ID, Password, SslMode, SslCa, SslCert, SslKey"
            raise ConfigurationError("ConnectionString", f"key '{key}' is not known; it takes {wanted}")
    return _server(name, MYSQL, {_MYSQL_KEYS[key]: value for key, value in given.items() if key in _MYSQL_KEYS})


def _server(name: str, driver: str, given: Mapping[str, str]) -> SqlConnection:
    for field in ("host", "database"):
        if not given.get(field):
            raise ConfigurationError("ConnectionString", f"has no {field.title()}=; name the {field}")
    hosts = _hosts(given["host"], given.get("port", PORTS[driver]))
    url = URL.create(
        driver,
        username=given.get("username"),
        password=given.get("password"),
        host=hosts[0][0],
        port=hosts[0][1],
        database=given["database"],
    )
    return _of_server(name, url, hosts, given)


def _hosts(text: str, port: str) -> tuple[tuple[str, int], ...]:
    """(host, port) of each in `a,b:5433,[::1]:5434`; `port` is that of those that name none."""
    hosts = []
    for part in text.split(","):
        host, colon, own = part.strip().rpartition(":")
        if not colon or part.strip().endswith("]") or "/" in part or (":" in host and not host.endswith("]")):
            host, own = part.strip(), port
        host = host.removeprefix("[").removesuffix("]")
        if not host:
            raise ConfigurationError("ConnectionString", f"Host={text} names an empty host; write Host=a,b:5433")
        hosts.append((host, _port(own)))
    return tuple(hosts)


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 65536:
        raise ConfigurationError("ConnectionString", f"Port={text} is not a port number")
    return int(text)


def _session(text: str) -> str:
    """What the chosen one of several hosts must allow; one that takes no rows is of no use."""
    folded = text.lower() or _SESSIONS[0]
    if folded not in _SESSIONS:
        known = ", ".join(_SESSIONS)
        raise ConfigurationError("ConnectionString", f"Target Session Attributes={text} is not one of {known}")
    return folded


def _search_path(text: str) -> str:
    for schema in text.split(","):
        name = schema.strip().strip('"')
        if problem := too_long(name):
            raise ConfigurationError("ConnectionString", f"Search Path: '{name}' {problem}")
    return text


def _ssl(mode: str, modes: Mapping[str, str]) -> str:
    if mode.lower() not in modes:
        raise ConfigurationError("ConnectionString", f"SSL Mode={mode} is not one of {', '.join(modes)}")
    return modes[mode.lower()]


def _refuse_unknown(pairs: Mapping[str, str], known: set[str], wanted: str) -> None:
    for key in pairs:
        if key not in known and key not in _IGNORED:
            raise ConfigurationError("ConnectionString", f"key '{key}' is not known; it takes {wanted}")
