"""Where objects are kept: a folder, or a bucket of an object store.

The fence is that an object is made once: `create` refuses a key that is taken, and keys carry the epoch of the run. A
run that was superseded can add objects of its own, and cannot change one of another run.
"""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import msgspec


class ObjectExists(Exception):
    """There is an object of that key."""


class ObjectMissing(Exception):
    """There is no object of that key."""


class ObjectTargetFailed(Exception):
    """The target refused, or is out of reach. The message says which and what to do."""


class StoredObject(msgspec.Struct, frozen=True):
    """An object: its key below the target's place, and its size."""

    key: str
    size_bytes: int


def is_address(url: str) -> bool:
    """Whether that is the address of a server."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


Uploaded = Callable[[int], None]
"""Told of how many bytes have been sent."""


class ObjectTarget(Protocol):
    """A place for objects. Keys are relative to it, with slashes. Every method raises ObjectTargetFailed.

    `destination` is RavenDB's name of the kind of place ("Local", "AmazonS3"), `location` says to people where it is,
    and `folder` is the path of a local one, or the folder within the bucket.
    """

    destination: str
    location: str
    folder: str

    async def prepare(self) -> None:
        """See that objects could be made there."""

    async def create(self, key: str, data: bytes) -> None:
        """Make a small object as a whole. Raises ObjectExists; then there is nothing of it."""

    async def upload(self, key: str, file: Path, sent: Uploaded) -> None:
        """Make an object of a file, which may be large. Its key must be the run's own. A local target may take the
        file itself, by a link."""

    async def objects(self, prefix: str = "") -> list[StoredObject]:
        """The objects whose keys begin so, which is empty or ends with a slash. Of a local place those that are at most
        one folder deep: a folder that was named by mistake may hold a whole disk."""

    async def read(self, key: str, bytes_max: int) -> bytes:
        """A small object. Raises ObjectMissing."""

    def stream(self, key: str) -> AsyncIterator[bytes]:
        """An object in pieces. Raises ObjectMissing."""

    async def delete(self, key: str) -> None:
        """Take an object away; one that is gone is no error."""

    async def close(self) -> None:
        """Let go of connections."""
