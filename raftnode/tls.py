"""Mutual TLS 1.3 for both channels, from the files that the settings name."""

import ssl
from dataclasses import dataclass

from config import Settings


class TlsFailed(Exception):
    """A certificate, key or authority cannot be loaded; the message names the settings."""


@dataclass(frozen=True)
class Tls:
    """The context for those who connect to this node, and the one for connecting to others."""

    server: ssl.SSLContext
    client: ssl.SSLContext


def contexts(settings: Settings) -> Tls | None:
    """Both contexts, or None without certificates. Each side must show a certificate of `security.ca_file`.

    Raises TlsFailed.
    """
    if not settings.secured:
        return None
    security = settings.security
    try:
        server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=security.ca_file)
        client = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=security.ca_file)
        server.verify_mode = ssl.CERT_REQUIRED
        for context in (server, client):
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            context.load_cert_chain(security.certificate_file, security.key_file)
    except (OSError, ssl.SSLError) as error:
        raise TlsFailed(
            "The certificates cannot be loaded "
            f"(security.certificate_file, security.key_file, security.ca_file): {error}."
        ) from error
    return Tls(server=server, client=client)
