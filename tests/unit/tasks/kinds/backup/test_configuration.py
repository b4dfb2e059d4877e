"""What is refused at the door, with the field and the remedy."""

import base64
from typing import Any

import msgspec
import pytest

from raftnode.foundation.decoding import from_json
from raftnode.foundation.masking import MASK, masked, unmasked
from raftnode.record.model import Database, Task, Topology
from tasks.kinds.backup.configuration import BackupTaskConfiguration
from tasks.kinds.backup.outcome import next_due
from tasks.kinds.backup.state import BackupState
from tasks.kinds.backup.task import KIND
from tasks.kinds.registry import ConfigurationError

KEY = base64.b64encode(bytes(range(32))).decode()
GOOD: dict[str, Any] = {"FullBackupFrequency": "0 2 * * *", "LocalSettings": {"FolderPath": "/backups"}}
GOOGLE = '{"private_key": "pk", "private_key_id": "1", "client_email": "x"}'
AZURE = {"AccountName": "a", "StorageContainer": "c"}
SHOP = Database(name="Shop", etag=1, topology=Topology(members=("A",)))


def parsed(**more: Any) -> dict[str, Any]:
    definition = KIND.parse(GOOD | more, SHOP)
    return dict(msgspec.json.decode(definition.configuration))


@pytest.mark.parametrize(
    ("field", "more"),
    [
        ("FullBackupFrequency", {"FullBackupFrequency": None}),
        ("Name", {"Name": "Server Wide Backup x"}),
        ("Name", {"Name": "server wide backup, nightly"}),
        ("RetentionPolicy.MinimumBackupAgeToKeep", {"RetentionPolicy": {"MinimumBackupAgeToKeep": "12:00:00"}}),
    ],
)
def test_check_31_no_frequency_a_reserved_name_or_too_short_a_retention_is_refused(
    field: str, more: dict[str, Any]
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parsed(**more)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("field", "more"),
    [
        ("FullBackupFrequency", {"FullBackupFrequency": "0 2 * *"}),
        ("IncrementalBackupFrequency", {"IncrementalBackupFrequency": "0 0 30 2 *"}),
        ("TimeZone", {"TimeZone": "Berlin"}),
        ("TimeZone", {"TimeZone": "../etc/passwd"}),
        ("BackupType", {"BackupType": "Snapshot"}),
        ("RetentionPolicy.MinimumBackupAgeToKeep", {"RetentionPolicy": {"MinimumBackupAgeToKeep": "-3.00:00:00"}}),
        ("RetentionPolicy.MinimumBackupAgeToKeep", {"RetentionPolicy": {"MinimumBackupAgeToKeep": "a week"}}),
        ("LocalSettings", {"LocalSettings": None}),
        ("LocalSettings", {"LocalSettings": {"Disabled": True, "FolderPath": "/x"}}),
        ("LocalSettings.FolderPath", {"LocalSettings": {"FolderPath": "backups"}}),
        ("LocalSettings.FolderPath", {"LocalSettings": {}}),
        (
            "LocalSettings.GetBackupConfigurationScript",
            {"LocalSettings": {"FolderPath": "/x", "GetBackupConfigurationScript": {"Exec": "sh"}}},
        ),
        ("GlacierSettings", {"GlacierSettings": {"VaultName": "v"}}),
        ("FtpSettings", {"FtpSettings": {"Url": "ftp://x"}}),
        ("S3Settings.BucketName", {"S3Settings": {"AwsRegionName": "eu-central-1"}}),
        ("S3Settings.AwsRegionName", {"S3Settings": {"BucketName": "b"}}),
        ("S3Settings.AwsSecretKey", {"S3Settings": {"BucketName": "b", "AwsRegionName": "r", "AwsAccessKey": "k"}}),
        (
            "S3Settings.StorageClass",
            {"S3Settings": {"BucketName": "b", "AwsRegionName": "r", "StorageClass": "Glacier"}},
        ),
        ("AzureSettings.StorageContainer", {"AzureSettings": {"AccountName": "a", "AccountKey": "k"}}),
        ("AzureSettings.AccountKey", {"AzureSettings": {"AccountName": "a", "StorageContainer": "c"}}),
        ("GoogleCloudSettings.GoogleCredentialsJson", {"GoogleCloudSettings": {"BucketName": "b"}}),
        (
            "BackupEncryptionSettings.EncryptionMode",
            {"BackupEncryptionSettings": {"EncryptionMode": "UseDatabaseKey"}},
        ),
        ("BackupEncryptionSettings.Key", {"BackupEncryptionSettings": {"EncryptionMode": "UseProvidedKey"}}),
        (
            "BackupEncryptionSettings.Key",
            {"BackupEncryptionSettings": {"EncryptionMode": "UseProvidedKey", "Key": "c2hvcnQ="}},
        ),
        ("Requires", {"Requires": ["a,b"]}),
        ("CreatedAt", {"CreatedAt": "yesterday"}),
        ("BackupType", {"BackupType": " - at `$.Name`" * 1000}),
        ("CreatedAt", {"CreatedAt": "9999-12-31T23:59:59.0000000Z"}),
        ("MaxReadOpsPerSecond", {"MaxReadOpsPerSecond": -5}),
        ("LocalSettings.FolderPath", {"LocalSettings": {"FolderPath": "/back\0ups"}}),
        (
            "S3Settings.RemoteFolderName",
            {"S3Settings": {"BucketName": "b", "AwsRegionName": "r", "RemoteFolderName": "a//b"}},
        ),
        ("AzureSettings.RemoteFolderName", {"AzureSettings": AZURE | {"SasToken": "a=b", "RemoteFolderName": "../b"}}),
        ("AzureSettings.AccountKey", {"AzureSettings": AZURE | {"AccountKey": "c2hvcnQ=!"}}),
        ("S3Settings.CustomServerUrl", {"S3Settings": {"BucketName": "b", "CustomServerUrl": "c2hvcnQ="}}),
        ("AzureSettings.SasToken", {"AzureSettings": AZURE | {"SasToken": "c2hvcnQ"}}),
        (
            "GoogleCloudSettings.GoogleCredentialsJson",
            {"GoogleCloudSettings": {"BucketName": "b", "GoogleCredentialsJson": "c2hvcnQ="}},
        ),
        (
            "GoogleCloudSettings.GoogleCredentialsJson",
            {"GoogleCloudSettings": {"BucketName": "b", "GoogleCredentialsJson": '{"private_key": "c2hvcnQ="}'}},
        ),
        ("FullBackupFrequency", {"FullBackupFrequency": 5}),
        ("BackupType", {"BackupType": "Copy"}),
        ("MaxReadOpsPerSecond", {"MaxReadOpsPerSecond": 0}),
        ("BackupEncryptionSettings.EncryptionMode", {"BackupEncryptionSettings": {"Key": "c2hvcnQ="}}),
    ],
)
def test_what_cannot_work_is_refused_by_name(field: str, more: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parsed(**more)
    assert refused.value.field == field
    assert "c2hvcnQ=" not in str(refused.value)


def test_a_value_that_is_none_of_the_known_ones_is_told() -> None:
    with pytest.raises(
        ConfigurationError, match=r"^BackupType: 'Copy' is none of the values that it takes; correct it$"
    ):
        parsed(BackupType="Copy")


def test_a_key_without_its_mode_never_means_backups_that_are_not_encrypted() -> None:
    with pytest.raises(ConfigurationError, match="is None, and a Key is given; use UseProvidedKey") as refused:
        parsed(BackupEncryptionSettings={"Key": KEY})
    assert KEY not in str(refused.value)
    assert KIND.parse(GOOD | {"BackupEncryptionSettings": {"Key": None, "EncryptionMode": "None"}}, SHOP)


def test_every_field_that_the_official_client_reads_is_there() -> None:
    fields = parsed(GoogleCloudSettings={"BucketName": "b", "CustomServerUrl": "http://x"})
    assert {"BackupType", "SnapshotSettings", "BackupEncryptionSettings", "LocalSettings", "S3Settings"} <= set(fields)
    assert {"GlacierSettings", "AzureSettings", "FtpSettings", "RetentionPolicy", "TaskId"} <= set(fields)
    assert {"LastFullBackup", "Exception", "GoogleCredentialsJson"} <= set(fields["GoogleCloudSettings"])
    assert fields["Name"] == "Backup to Local, GoogleCloud"


def test_an_edit_keeps_when_the_task_was_made() -> None:
    first = KIND.parse(GOOD | {"Name": "n"}, SHOP)
    task = Task(id=7, name="n", kind="Backup", key=first.key, configuration=first.configuration)
    edited = KIND.parse(GOOD | {"Name": "n", "TaskId": 7, "FullBackupFrequency": "0 3 * * *"}, SHOP.with_task(task))
    created = msgspec.json.decode(first.configuration)["CreatedAt"]
    assert msgspec.json.decode(edited.configuration)["CreatedAt"] == created
    assert edited.key == first.key, "the schedule decides nothing about where it runs"


def test_a_task_that_was_made_before_all_time_is_due_in_every_time_zone() -> None:
    made = from_json(
        KIND.parse(
            GOOD | {"CreatedAt": "0001-01-01T00:00:00.0000000Z", "TimeZone": "America/New_York"}, SHOP
        ).configuration,
        BackupTaskConfiguration,
    )
    assert next_due(made, BackupState()).at.year == 1970


def test_the_kind_says_what_placement_must_know() -> None:
    traits = KIND.parse(GOOD, SHOP).traits
    assert (traits.sticky, traits.resource_heavy, traits.partition_tolerant) == (True, True, True)
    assert traits.grace_min is None, "as the database or the cluster is set"


def test_secrets_are_masked_and_an_edit_with_the_mask_keeps_them() -> None:
    stored = parsed(
        BackupEncryptionSettings={"EncryptionMode": "UseProvidedKey", "Key": KEY},
        S3Settings={"BucketName": "b", "AwsRegionName": "r", "AwsAccessKey": "access", "AwsSecretKey": "s3cret"},
        AzureSettings={"StorageContainer": "c", "AccountName": "a", "SasToken": "sig=sas"},
        GoogleCloudSettings={"BucketName": "b", "GoogleCredentialsJson": GOOGLE},
    )
    shown = masked(stored)
    assert shown["BackupEncryptionSettings"] == {"EncryptionMode": "UseProvidedKey", "Key": MASK}
    assert all(secret not in str(shown) for secret in (KEY, "access", "s3cret", "=sas", "pk"))
    assert unmasked(shown, stored) == stored
