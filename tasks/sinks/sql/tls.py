"""TLS towards SQL targets: the modes of connection strings, and the context that a mode asks for."""

import asyncio
import ssl

from tasks.kinds.registry import ConfigurationError
from tasks.sinks.sql.connection_string import SqlConnection

VERIFYING = ("verify-ca", "verify-full")


async def context(target: SqlConnection) -> ssl.SSLContext:
    """The context of a connection that is to be encrypted. Reads files, in a thread. Raises OSError for one that is
    missing or is no certificate."""
    # As libpq does it: a root certificate that is named is there to be compared with.
    if target.ssl in VERIFYING or target.ssl_root or target.ssl_certificate:
        return await asyncio.to_thread(_with_files, target)
    return _unverified()


def _unverified() -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    return made


def _with_files(target: SqlConnection) -> ssl.SSLContext:
    if target.ssl in VERIFYING or target.ssl_root:
        made = ssl.create_default_context(cafile=target.ssl_root or None)
        made.check_hostname = target.ssl == "verify-full"
    else:
        made = _unverified()
    if target.ssl_certificate:
        made.load_cert_chain(target.ssl_certificate, target.ssl_key or None)
    return made


def check_files(target: SqlConnection) -> None:
    """Refuses paths of certificates that every node would look for in another place, and a key without its
    certificate. Raises ConfigurationError."""
    for what, file in (
        ("root certificate", target.ssl_root),
        ("certificate", target.ssl_certificate),
        ("key", target.ssl_key),
    ):
        if file and not file.startswith("/"):
            raise ConfigurationError(
                "ConnectionString", f"names the {what} '{file}'; write an absolute path, the same on every node"
            )
    if target.ssl_key and not target.ssl_certificate:
        raise ConfigurationError("ConnectionString", "has a TLS key without its certificate; name both")
    if (target.ssl_root or target.ssl_certificate) and target.ssl in (None, "disable", "allow", "prefer"):
        raise ConfigurationError(
            "ConnectionString",
            "names TLS certificates, and its SSL mode does without encryption where the server offers none; write "
            "Require, VerifyCA or VerifyFull",
        )
