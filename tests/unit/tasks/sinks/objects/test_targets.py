"""What every place for objects promises: a folder, a bucket of S3 (moto's server), a container of Azure (Azurite)."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from raftnode.cli.local_cluster import free_ports
from tasks.kinds.backup.destinations import AzureSettings, GoogleCloudSettings, S3Settings
from tasks.sinks.objects import remote
from tasks.sinks.objects.folder import FolderTarget
from tasks.sinks.objects.target import ObjectExists, ObjectMissing, ObjectTarget, ObjectTargetFailed
from tests import objects


@pytest.fixture(scope="module")
def s3_settings() -> Iterator[dict[str, Any]]:
    with objects.s3() as settings:
        yield settings


@pytest.fixture(scope="module")
def azure_settings() -> Iterator[dict[str, Any]]:
    with objects.azure() as settings:
        yield settings


@pytest.fixture(params=["folder", "s3", "azure"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectTarget:
    """An empty place."""
    if request.param == "folder":
        return FolderTarget(tmp_path / "backups")
    settings = request.getfixturevalue(f"{request.param}_settings") | {"RemoteFolderName": f"x/{os.urandom(8).hex()}"}
    if request.param == "s3":
        return msgspec.convert(settings, S3Settings).target()
    return msgspec.convert(settings, AzureSettings).target()


async def streamed(target: ObjectTarget, key: str) -> bytes:
    return b"".join([piece async for piece in target.stream(key)])


async def test_an_object_is_made_once(target: ObjectTarget) -> None:
    await target.prepare()
    await target.create("f/x.manifest", b"first")
    with pytest.raises(ObjectExists):
        await target.create("f/x.manifest", b"second")
    assert await target.read("f/x.manifest", 100) == b"first"


async def test_of_many_that_make_one_at_once_one_has_made_it(target: ObjectTarget) -> None:
    await target.prepare()
    made = await asyncio.gather(*(target.create("f/x", b"%d" % number) for number in range(8)), return_exceptions=True)
    [winner] = [number for number, outcome in enumerate(made) if outcome is None]
    assert [outcome for outcome in made if not isinstance(outcome, ObjectExists | None)] == []
    assert await target.read("f/x", 100) == b"%d" % winner


async def test_a_large_file_is_there_as_it_was(target: ObjectTarget, tmp_path: Path) -> None:
    await target.prepare()
    content, file, sent = os.urandom(10 << 20), tmp_path / "file", list[int]()
    file.write_bytes(content)
    await target.upload("f/large", file, sent.append)
    assert sum(sent) == len(content)
    assert await streamed(target, "f/large") == content
    assert [(one.key, one.size_bytes) for one in await target.objects()] == [("f/large", len(content))]


async def test_objects_are_listed_below_a_prefix_and_can_be_deleted(target: ObjectTarget) -> None:
    await target.prepare()
    for key in ("f/a", "f/b", "g/c"):
        await target.create(key, key.encode())
    assert sorted(one.key for one in await target.objects()) == ["f/a", "f/b", "g/c"]
    assert sorted(one.key for one in await target.objects("f/")) == ["f/a", "f/b"]
    await target.delete("f/a")
    await target.delete("f/a")
    assert [one.key for one in await target.objects("f/")] == ["f/b"]


async def test_what_is_not_there_is_missing(target: ObjectTarget) -> None:
    await target.prepare()
    for read in (target.read("f/x", 100), streamed(target, "f/x")):
        with pytest.raises(ObjectMissing):
            await read
    assert await target.objects() == []


async def test_a_folder_on_another_file_system_gets_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.link", refuse)
    file = tmp_path / "file"
    file.write_bytes(b"content")
    target = FolderTarget(tmp_path / "backups")
    await target.upload("f/x", file, lambda _: None)
    assert [(one.key, one.size_bytes) for one in await target.objects()] == [("f/x", 7)]
    with pytest.raises(ObjectTargetFailed, match="is there already"):
        await target.upload("f/x", file, lambda _: None)
    await target.create("f/x.manifest", b"first")
    with pytest.raises(ObjectExists):
        await target.create("f/x.manifest", b"second")
    assert await target.read("f/x.manifest", 100) == b"first"


async def test_a_folder_that_was_named_by_mistake_is_not_walked_through(tmp_path: Path) -> None:
    for name in ("file", "a/b", "a/deep/deeper/c"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"content")
    target = FolderTarget(tmp_path)
    assert [one.key for one in await target.objects()] == ["a/b", "file"]
    assert [one.key for one in await target.objects("a/")] == ["a/b"]
    for wrong in (tmp_path / "none", tmp_path / "file"):
        with pytest.raises(ObjectTargetFailed, match=f"there is no folder {wrong} on this node: correct its name"):
            await FolderTarget(wrong).objects()
        assert await FolderTarget(wrong).objects("a/") == [], "a folder that is made with the first backup"


async def test_a_store_that_is_out_of_reach_is_told_of_in_a_line() -> None:
    [port] = free_ports(1)
    given = {"BucketName": "b", "AwsRegionName": "r", "AwsAccessKey": "k", "AwsSecretKey": "hush"}
    target = msgspec.convert(given | {"CustomServerUrl": f"http://127.0.0.1:{port}"}, S3Settings).target()
    with pytest.raises(ObjectTargetFailed) as failed:
        await target.objects()
    told = str(failed.value)
    assert told.startswith("s3://b: ")
    assert f"http://127.0.0.1:{port}" in told
    assert not any(dump in told for dump in ("Debug source", "{", "hush"))


async def test_a_key_never_leads_out_of_the_folder(tmp_path: Path) -> None:
    with pytest.raises(ObjectTargetFailed, match="leads out"):
        await FolderTarget(tmp_path / "backups").create("../x", b"")


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"BucketName": "nope", "AwsAccessKey": "k", "AwsSecretKey": "s3cret"}, S3Settings),
        ({"StorageContainer": "c", "AccountName": "a", "AccountKey": "czNjcmV0"}, AzureSettings),
        ({"BucketName": "nope"}, GoogleCloudSettings),
    ],
)
async def test_a_place_that_does_not_answer_is_named_and_no_secret_is(
    settings: dict[str, Any], kind: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "RETRIES_MAX", 0)
    target = msgspec.convert(settings | {"CustomServerUrl": f"http://127.0.0.1:{free_ports(1)[0]}"}, kind).target()
    with pytest.raises(ObjectTargetFailed) as refused:
        await target.prepare()
    assert settings.get("BucketName", "c") in str(refused.value)
    assert "s3cret" not in str(refused.value)
    assert "czNjcmV0" not in str(refused.value)


async def test_a_folder_is_not_looked_through(tmp_path: Path) -> None:
    """Somebody may name the root of a disk: only the folders in it can hold backups."""
    for path in ("top", "f/backup", "f/deep/er"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b"12")
    (tmp_path / "round").symlink_to(tmp_path)
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    found = await FolderTarget(tmp_path).objects()
    assert {(one.key, one.size_bytes) for one in found} == {("top", 2), ("f/backup", 2), ("round/top", 2)}
    assert [one.key for one in await FolderTarget(tmp_path).objects("f/")] == ["f/backup"]


@pytest.mark.parametrize(
    "settings",
    [
        AzureSettings(storage_container="c", account_name="a", account_key="SECRET!!"),
        AzureSettings(storage_container="c", account_name="a", sas_token="SECRET"),
        GoogleCloudSettings(bucket_name="b", google_credentials_json='{"private_key": "SECRET"'),
        GoogleCloudSettings(
            bucket_name="b",
            google_credentials_json='{"private_key": "SECRET", "private_key_id": "1", "client_email": "x"}',
        ),
    ],
    ids=["key", "sas", "json", "pem"],
)
def test_settings_that_a_library_refuses_are_an_error_of_the_target(
    settings: AzureSettings | GoogleCloudSettings,
) -> None:
    """As of a task that an earlier version has taken."""
    with pytest.raises(ObjectTargetFailed, match="correct the settings of this destination") as refused:
        settings.target()
    assert "SECRET" not in str(refused.value)
    assert "Debug" not in str(refused.value)


@pytest.mark.parametrize("url", ["not a url", "http://", "http://x:0", "ftp://x", "http://[x"])
def test_an_address_that_is_none_is_an_error_of_the_target(url: str) -> None:
    with pytest.raises(ObjectTargetFailed, match="CustomServerUrl is no address"):
        S3Settings(bucket_name="b", custom_server_url=url).target()


async def test_a_path_that_is_too_long_is_an_error_of_the_target(tmp_path: Path) -> None:
    with pytest.raises(ObjectTargetFailed, match="File name too long"):
        await FolderTarget(tmp_path / ("x" * 5000)).objects()


async def test_a_folder_of_a_bucket_that_cannot_be_is_an_error_of_the_target() -> None:
    target = S3Settings(bucket_name="b", custom_server_url="http://127.0.0.1:1", remote_folder_name="a//b").target()
    with pytest.raises(ObjectTargetFailed, match="Could not parse path"):
        await target.objects()
