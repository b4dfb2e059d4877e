"""Where backups go: RavenDB's settings of each kind of destination, and the target that each leads to."""

import base64
from pathlib import Path
from typing import Any, Protocol

import msgspec

from raftnode.foundation.decoding import DECODE_ERRORS, from_json
from tasks.kinds.registry import ConfigurationError
from tasks.sinks.objects.folder import FolderTarget
from tasks.sinks.objects.target import ObjectTarget, is_address


class BackupDestination(Protocol):
    """Settings that lead to a target. `kind` is RavenDB's name in BackupDestinations."""

    @property
    def kind(self) -> str: ...
    @property
    def disabled(self) -> bool: ...
    def check(self) -> None:
        """Raises ConfigurationError."""

    def place(self) -> list[str | None]:
        """What says where it is, without what only opens the door."""

    def target(self) -> ObjectTarget:
        """The place itself. Imports what it needs. Raises ConfigurationError if that is not installed."""


class UnsupportedSettings(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """A destination that RavenDB has, and this program has not."""

    disabled: bool = False


class LocalSettings(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """A folder of the node that runs the task."""

    disabled: bool = False
    get_backup_configuration_script: Any = None
    folder_path: str | None = None

    @property
    def kind(self) -> str:
        """See `BackupDestination`."""
        return "Local"

    def check(self) -> None:
        """See `BackupDestination`."""
        check_no_script("LocalSettings", self.get_backup_configuration_script)
        _check_given("LocalSettings", FolderPath=self.folder_path)
        if not Path(self.folder_path or "").is_absolute():
            problem = f"'{(self.folder_path or '')[:80]}' is no absolute path; write one like /var/backups/shop"
            raise ConfigurationError("LocalSettings.FolderPath", problem)
        _check_path("LocalSettings.FolderPath", self.folder_path, ())

    def place(self) -> list[str | None]:
        """See `BackupDestination`."""
        return [self.folder_path]

    def target(self) -> ObjectTarget:
        """See `BackupDestination`."""
        return FolderTarget(Path(self.folder_path or ""))


class S3Settings(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """A bucket of Amazon S3, or of a server that speaks its protocol (`custom_server_url`)."""

    disabled: bool = False
    get_backup_configuration_script: Any = None
    aws_access_key: str | None = None
    aws_secret_key: str | None = None
    aws_session_token: str | None = None
    aws_region_name: str | None = None
    remote_folder_name: str | None = None
    bucket_name: str | None = None
    custom_server_url: str | None = None
    force_path_style: bool = False
    disable_checksum_validation: bool = False
    storage_class: str | None = None

    @property
    def kind(self) -> str:
        """See `BackupDestination`."""
        return "AmazonS3"

    def check(self) -> None:
        """See `BackupDestination`."""
        check_no_script("S3Settings", self.get_backup_configuration_script)
        _check_given("S3Settings", BucketName=self.bucket_name)
        if not self.custom_server_url:
            _check_given("S3Settings", AwsRegionName=self.aws_region_name)
        if bool(self.aws_access_key) != bool(self.aws_secret_key):
            raise ConfigurationError("S3Settings.AwsSecretKey", "give AwsAccessKey and AwsSecretKey, or neither")
        if self.storage_class and self.storage_class not in STORAGE_CLASSES:
            known = ", ".join(STORAGE_CLASSES)
            raise ConfigurationError("S3Settings.StorageClass", f"'{self.storage_class[:40]}' is none of: {known}")
        _check_path("S3Settings.RemoteFolderName", self.remote_folder_name)
        _check_url("S3Settings.CustomServerUrl", self.custom_server_url)

    def place(self) -> list[str | None]:
        """See `BackupDestination`."""
        return [self.custom_server_url, self.bucket_name, self.remote_folder_name]

    def target(self) -> ObjectTarget:
        """See `BackupDestination`."""
        from tasks.sinks.objects import remote

        return remote.s3(
            self.bucket_name or "",
            self.remote_folder_name or "",
            region=self.aws_region_name,
            credentials=(self.aws_access_key, self.aws_secret_key, self.aws_session_token),
            url=self.custom_server_url,
            path_style=self.force_path_style,
            storage_class=STORAGE_CLASSES.get(self.storage_class or ""),
        )


STORAGE_CLASSES = {
    "Standard": "STANDARD", "StandardInfrequentAccess": "STANDARD_IA", "OneZoneInfrequentAccess": "ONEZONE_IA",
    "IntelligentTiering": "INTELLIGENT_TIERING", "GlacierInstantRetrieval": "GLACIER_IR",
    "ReducedRedundancy": "REDUCED_REDUNDANCY", "ExpressOneZone": "EXPRESS_ONEZONE",
}  # fmt: skip
"""RavenDB's names, and Amazon's. Not Glacier and DeepArchive: what is there cannot be read at once."""


class AzureSettings(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """A container of Azure's blob storage. `custom_server_url`, ours, leads to another server, such as Azurite."""

    disabled: bool = False
    get_backup_configuration_script: Any = None
    storage_container: str | None = None
    remote_folder_name: str | None = None
    account_name: str | None = None
    account_key: str | None = None
    sas_token: str | None = None
    custom_server_url: str | None = None

    @property
    def kind(self) -> str:
        """See `BackupDestination`."""
        return "Azure"

    def check(self) -> None:
        """See `BackupDestination`."""
        check_no_script("AzureSettings", self.get_backup_configuration_script)
        _check_given("AzureSettings", StorageContainer=self.storage_container, AccountName=self.account_name)
        if bool(self.account_key) == bool(self.sas_token):
            raise ConfigurationError("AzureSettings.AccountKey", "give either AccountKey or SasToken")
        _check_azure_secrets(self.account_key, self.sas_token)
        _check_path("AzureSettings.RemoteFolderName", self.remote_folder_name)
        _check_url("AzureSettings.CustomServerUrl", self.custom_server_url)

    def place(self) -> list[str | None]:
        """See `BackupDestination`."""
        return [self.custom_server_url, self.account_name, self.storage_container, self.remote_folder_name]

    def target(self) -> ObjectTarget:
        """See `BackupDestination`."""
        from tasks.sinks.objects import remote

        return remote.azure(
            self.storage_container or "",
            self.remote_folder_name or "",
            account=self.account_name or "",
            key=self.account_key,
            sas_token=self.sas_token,
            url=self.custom_server_url,
        )


class GoogleCloudSettings(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """A bucket of Google's cloud storage. The five fields of a status are there because the official client's class
    has them and reads each. `custom_server_url`, ours, leads to another server."""

    disabled: bool = False
    get_backup_configuration_script: Any = None
    bucket_name: str | None = None
    remote_folder_name: str | None = None
    google_credentials_json: str | None = None
    custom_server_url: str | None = None
    last_full_backup: str | None = None
    last_incremental_backup: str | None = None
    full_backup_duration_in_ms: int | None = None
    incremental_backup_duration_in_ms: int | None = None
    exception: str | None = None

    @property
    def kind(self) -> str:
        """See `BackupDestination`."""
        return "GoogleCloud"

    def check(self) -> None:
        """See `BackupDestination`."""
        check_no_script("GoogleCloudSettings", self.get_backup_configuration_script)
        _check_given("GoogleCloudSettings", BucketName=self.bucket_name)
        if not self.custom_server_url:
            _check_given("GoogleCloudSettings", GoogleCredentialsJson=self.google_credentials_json)
        _check_google_credentials(self.google_credentials_json)
        _check_path("GoogleCloudSettings.RemoteFolderName", self.remote_folder_name)
        _check_url("GoogleCloudSettings.CustomServerUrl", self.custom_server_url)

    def place(self) -> list[str | None]:
        """See `BackupDestination`."""
        return [self.custom_server_url, self.bucket_name, self.remote_folder_name]

    def target(self) -> ObjectTarget:
        """See `BackupDestination`."""
        from tasks.sinks.objects import remote

        return remote.google(
            self.bucket_name or "",
            self.remote_folder_name or "",
            credentials=self.google_credentials_json,
            url=self.custom_server_url,
        )


def check_no_script(field: str, script: Any) -> None:
    """Refuses RavenDB's program that gives the settings. Raises ConfigurationError."""
    if script is not None:
        problem = "is not supported; give the settings themselves, or for S3 credentials in the node's environment"
        raise ConfigurationError(f"{field}.GetBackupConfigurationScript", problem)


def _check_path(field: str, path: str | None, parts: tuple[str, ...] = ("", ".", "..")) -> None:
    """Refuses a path with control characters, or with one of these parts. Raises ConfigurationError."""
    named = (path or "").strip("/")
    if any(ord(character) < 32 or ord(character) == 127 for character in named):
        raise ConfigurationError(field, f"{named[:80]!r} has a control character; remove it")
    if named and any(part in parts for part in named.split("/")):
        raise ConfigurationError(field, f"'{named[:80]}' has an empty part, '.' or '..'; name the folder itself")


def _check_url(field: str, url: str | None) -> None:
    """Refuses what is no address. Raises ConfigurationError."""
    if url and not is_address(url):
        raise ConfigurationError(field, "is no address of a server; write it like https://objects.example.com:9000")


def _check_azure_secrets(account_key: str | None, sas_token: str | None) -> None:
    """Raises ConfigurationError, which does not show them."""
    try:
        base64.b64decode(account_key or "", validate=True)
    except ValueError:
        raise ConfigurationError("AzureSettings.AccountKey", "is no base64; copy it from Azure as it is") from None
    if sas_token and not all("=" in pair for pair in sas_token.removeprefix("?").split("&")):
        raise ConfigurationError("AzureSettings.SasToken", "has no pairs like sv=...&sig=...; copy it as it is")


def _check_google_credentials(text: str | None) -> None:
    """Raises ConfigurationError, which does not show them."""
    if not text:
        return
    field = "GoogleCloudSettings.GoogleCredentialsJson"
    try:
        given = from_json(text.encode(), dict[str, Any])
    except DECODE_ERRORS:
        raise ConfigurationError(field, "is no JSON object; give the key file of a service account") from None
    for name in ("private_key", "private_key_id", "client_email"):
        if not isinstance(given.get(name), str):
            raise ConfigurationError(field, f"has no text '{name}'; give the key file of a service account")


def _check_given(settings: str, **fields: str | None) -> None:
    for name, value in fields.items():
        if not value:
            raise ConfigurationError(f"{settings}.{name}", "is missing; add it")
