"""The manifest of a backup: what it is, what its file must be, and which backup it goes on from.

A backup stands once its manifest does. It is made last and once; its checksum tells one that was cut off or changed.
"""

import hashlib
import re

import msgspec

from raftnode.foundation.decoding import DECODE_ERRORS, JsonDecoder
from tasks.kinds.backup.names import BackupPart

BYTES_MAX = 64 * 1024
FORMAT = 1
_EPOCH = re.compile(r"\d{1,20}\Z", re.ASCII)


class ManifestInvalid(Exception):
    """The bytes are no manifest, or were changed; the message says which."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """See the module. `last_etag` and `change_vector` are the moment's that the backup holds; an incremental one holds
    what is beyond `after_etag`, and goes on from the backup whose manifest has the checksum `previous`. Epochs are
    text, as they take 64 bits."""

    format: int = FORMAT
    part: BackupPart
    database: str
    database_id: str
    cluster_id: str
    node: str
    task: str
    epoch: str
    started_at: str
    finished_at: str
    file: str
    size_bytes: int
    sha256: str
    encrypted: bool
    after_etag: int
    last_etag: int
    change_vector: str
    documents: int
    tombstones: int
    document_bytes: int
    previous: str = ""
    checksum: str = ""

    @property
    def epoch_number(self) -> int:
        """The epoch of the run that made it."""
        return int(self.epoch)


_decoder: JsonDecoder[Manifest] = JsonDecoder(Manifest)


def sealed(manifest: Manifest) -> tuple[Manifest, bytes]:
    """The manifest with its checksum, and its bytes."""
    with_checksum = msgspec.structs.replace(manifest, checksum=_checksum(manifest))
    return with_checksum, msgspec.json.format(msgspec.json.encode(with_checksum), indent=2) + b"\n"


def read(data: bytes) -> Manifest:
    """The manifest of these bytes. Raises ManifestInvalid."""
    try:
        manifest = _decoder.decode(data)
    except (*DECODE_ERRORS, msgspec.ValidationError) as error:
        raise ManifestInvalid(f"it cannot be read: {error}") from None
    if manifest.format > FORMAT:
        raise ManifestInvalid(f"it has format {manifest.format}, and this version reads up to {FORMAT}: upgrade")
    if manifest.checksum != _checksum(manifest) or not _EPOCH.match(manifest.epoch):
        raise ManifestInvalid("its checksum is wrong: it was changed or damaged")
    return manifest


def _checksum(manifest: Manifest) -> str:
    plain = msgspec.structs.replace(manifest, checksum="")
    return hashlib.sha256(msgspec.json.encode(plain)).hexdigest()
