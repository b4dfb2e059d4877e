"""Mutual TLS 1.3 between nodes. A node's certificate names its tag as a DNS name in the subjectAltName."""

import ssl
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Tls:
    """The two sides' contexts. Both must require the other's certificate and speak TLS 1.3."""

    server: ssl.SSLContext
    client: ssl.SSLContext

    def __post_init__(self) -> None:
        for name, context in (("server", self.server), ("client", self.client)):
            if context.verify_mode != ssl.CERT_REQUIRED:
                raise ValueError(f"The {name} TLS context must require the other side's certificate (CERT_REQUIRED).")
            if context.minimum_version < ssl.TLSVersion.TLSv1_3:
                raise ValueError(f"The {name} TLS context must allow nothing older than TLS 1.3.")


def load_tls(certificate_file: Path, key_file: Path, ca_file: Path) -> Tls:
    """Contexts of a node's certificate, its key, and the authority that signed every node's. Raises OSError or
    ssl.SSLError when a file cannot be used."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False  # the certificate must name the tag, not the host: `handshake.judge` checks it
    for context in (server, client):
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(certificate_file, key_file)
        context.load_verify_locations(ca_file)
    return Tls(server, client)
