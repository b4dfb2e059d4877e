"""Objects in buckets of Amazon S3, Azure and Google, or of servers that speak their protocols, through obstore.

A manifest is made on the condition that there is none (`If-None-Match: *`), which all three keep. Needs the extra
`raftnode[objects]`.
"""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from raftnode.foundation.masking import in_text
from raftnode.foundation.threads import in_thread
from tasks.sinks.objects.target import (
    ObjectExists,
    ObjectMissing,
    ObjectTargetFailed,
    StoredObject,
    Uploaded,
    is_address,
)

try:
    import obstore
    from obstore import exceptions
    from obstore.store import AzureStore, GCSStore, S3Store
except ImportError as error:  # pragma: no cover
    raise ObjectTargetFailed(
        "object stores need the package obstore on this node: pip install 'raftnode[objects]', and start it again"
    ) from error

PART_BYTES = 8 << 20
PARTS_AT_ONCE = 4
RETRIES_MAX = 5
RETRY_S = 60
CONNECT_TIMEOUT = "10s"
ERROR_LENGTH_MAX = 400


class BucketTarget:
    """See `ObjectTarget`. `store` is one of obstore's; `prefix` is the folder in it."""

    def __init__(self, store: Any, destination: str, location: str, prefix: str, attributes: dict[str, str]) -> None:
        self.destination, self.location = destination, location
        self._store, self._attributes = store, attributes
        self.folder = self._prefix = prefix.strip("/")

    async def prepare(self) -> None:
        """See `ObjectTarget.prepare`: the bucket answers and lets us in."""
        with self._errors():
            async for _ in obstore.list(self._store, self._prefix or None, chunk_size=1):
                return

    async def create(self, key: str, data: bytes) -> None:
        """See `ObjectTarget.create`."""
        with self._errors():
            await obstore.put_async(self._store, self._path(key), data, mode="create", attributes=self._attributes)

    async def upload(self, key: str, file: Path, sent: Uploaded) -> None:
        """See `ObjectTarget.upload`."""
        with self._errors():
            await obstore.put_async(
                self._store,
                self._path(key),
                file,
                chunk_size=PART_BYTES,
                max_concurrency=PARTS_AT_ONCE,
                attributes=self._attributes,
            )
        sent(await in_thread(lambda: file.stat().st_size))

    async def objects(self, prefix: str = "") -> list[StoredObject]:
        """See `ObjectTarget.objects`."""
        base = f"{self._prefix}/" if self._prefix else ""
        found = []
        with self._errors():
            async for page in obstore.list(self._store, base + prefix):
                found += [StoredObject(str(one["path"]).removeprefix(base), int(one["size"])) for one in page]
        return found

    async def read(self, key: str, bytes_max: int) -> bytes:
        """See `ObjectTarget.read`."""
        with self._errors(reads=True):
            reply = await obstore.get_async(self._store, self._path(key))
            if reply.meta["size"] > bytes_max:
                raise ObjectTargetFailed(
                    f"{self.location}/{key} has {reply.meta['size']} bytes, and may have {bytes_max}"
                )
            return bytes(await reply.bytes_async())

    async def stream(self, key: str) -> AsyncIterator[bytes]:
        """See `ObjectTarget.stream`."""
        with self._errors(reads=True):
            reply = await obstore.get_async(self._store, self._path(key))
            async for piece in reply.stream():
                yield bytes(piece)

    async def delete(self, key: str) -> None:
        """See `ObjectTarget.delete`."""
        with self._errors():
            try:
                await obstore.delete_async(self._store, self._path(key))
            except FileNotFoundError:
                return

    async def close(self) -> None:
        """See `ObjectTarget.close`."""

    def _path(self, key: str) -> str:
        return f"{self._prefix}/{key}" if self._prefix else key

    @contextmanager
    def _errors(self, *, reads: bool = False) -> Iterator[None]:
        try:
            yield
        except exceptions.AlreadyExistsError:
            raise ObjectExists(f"an object of {self.location} is there already") from None
        except FileNotFoundError as error:
            if reads:
                raise ObjectMissing(f"an object of {self.location} is not there") from None
            raise ObjectTargetFailed(f"{self.location}: there is no such bucket: {_line(error)}") from None
        except (exceptions.BaseError, OSError, ValueError) as error:
            raise ObjectTargetFailed(
                f"{self.location}: {_line(error)}; check the bucket, the credentials and the network"
            ) from None


def s3(
    bucket: str,
    folder: str,
    *,
    region: str | None,
    credentials: tuple[str | None, str | None, str | None],
    url: str | None,
    path_style: bool,
    storage_class: str | None,
) -> BucketTarget:
    """A bucket of Amazon S3, or of the server at `url`. Without credentials (access key, secret key, session token)
    those of the node's environment are used."""
    names = ("access_key_id", "secret_access_key", "session_token")
    given = {name: value for name, value in zip(names, credentials, strict=True) if value}
    given |= {"endpoint": url} if url else {}
    hosted, location = not (path_style or url), _location("s3", bucket, folder)
    options: dict[str, Any] = given | _client(url)
    with _settings_of(location, url):
        store = S3Store(bucket, region=region or "us-east-1", virtual_hosted_style_request=hosted, **options)
    attributes = {"Storage-Class": storage_class} if storage_class else {}
    return BucketTarget(store, "AmazonS3", location, folder, attributes)


def azure(
    container: str, folder: str, *, account: str, key: str | None, sas_token: str | None, url: str | None
) -> BucketTarget:
    """A container of Azure's blob storage, or of the server at `url`."""
    options: dict[str, Any] = {"account_key": key} if key else {"sas_key": sas_token}
    options |= {"endpoint": url} if url else {}
    location = _location("azure", container, folder)
    with _settings_of(location, url):
        store = AzureStore(container, account_name=account, **options, **_client(url))
    return BucketTarget(store, "Azure", location, folder, {})


def google(bucket: str, folder: str, *, credentials: str | None, url: str | None) -> BucketTarget:
    """A bucket of Google's cloud storage, or of the server at `url`, which is asked without credentials if none are
    given."""
    if url:
        base = {"gcs_base_url": url, "disable_oauth": credentials is None, "client_email": "", "private_key": ""}
        key = credentials or json.dumps(base | {"private_key_id": ""})
    else:
        key = credentials or ""
    location = _location("gs", bucket, folder)
    with _settings_of(location, url):
        store = GCSStore(bucket, service_account_key=key, **_client(url))
    return BucketTarget(store, "GoogleCloud", location, folder, {})


@contextmanager
def _settings_of(location: str, url: str | None) -> Iterator[None]:
    """What the settings of a place are refused for, before anything is sent there."""
    if url and not is_address(url):  # obstore takes it, and then ends in a panic
        raise ObjectTargetFailed(f"{location}: CustomServerUrl is no address of a server; correct it")
    try:
        yield
    except (exceptions.BaseError, ValueError) as error:
        raise ObjectTargetFailed(f"{location}: {_line(error)}; correct the settings of this destination") from None


def _line(error: Exception) -> str:
    """What happened, without what obstore tells its developers of it."""
    return in_text(" ".join(str(error).partition("Debug source:")[0].split()))[:ERROR_LENGTH_MAX]


def _client(url: str | None) -> dict[str, Any]:
    return {
        "client_options": {"allow_http": bool(url and url.startswith("http://")), "connect_timeout": CONNECT_TIMEOUT},
        "retry_config": {"max_retries": RETRIES_MAX, "retry_timeout": timedelta(seconds=RETRY_S)},
    }


def _location(scheme: str, bucket: str, folder: str) -> str:
    return f"{scheme}://{bucket}/{folder.strip('/')}".rstrip("/")
