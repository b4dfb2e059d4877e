"""The configuration of a backup task, RavenDB's PeriodicBackupConfiguration, and what is refused at the door.

Every field is there when it is shown, null where it was not given: the official client reads each of them.
"""

import base64
import binascii
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec.structs import replace

from raftnode.foundation import timestamps
from raftnode.foundation.decoding import from_json
from raftnode.foundation.names import fold
from raftnode.record.commands.base import CommandRefused, check_labels
from raftnode.record.model import Database
from tasks.kinds.backup.destinations import (
    AzureSettings,
    BackupDestination,
    GoogleCloudSettings,
    LocalSettings,
    S3Settings,
    UnsupportedSettings,
)
from tasks.kinds.backup.schedule import CronInvalid, Schedule
from tasks.kinds.fitting import fitted
from tasks.kinds.registry import ConfigurationError

KEY_BYTES = 32
KEPT_MIN = timedelta(days=1)
SERVER_WIDE = "server wide backup"
CREATED_BEFORE = timestamps.of(datetime(3000, 1, 1, tzinfo=UTC))


class BackupEncryptionSettings(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """RavenDB's. `key` is base64 of 32 bytes."""

    key: str | None = None
    encryption_mode: Literal["None", "UseDatabaseKey", "UseProvidedKey"] = "None"


class RetentionPolicy(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """RavenDB's: backups that are younger than the time span "d.hh:mm:ss" are kept."""

    disabled: bool = False
    minimum_backup_age_to_keep: str | None = None


class DestinationSettings(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """Where backups are kept: RavenDB's settings of each destination."""

    local_settings: LocalSettings | None = None
    s3_settings: S3Settings | None = msgspec.field(name="S3Settings", default=None)
    azure_settings: AzureSettings | None = None
    google_cloud_settings: GoogleCloudSettings | None = None
    glacier_settings: UnsupportedSettings | None = None
    ftp_settings: UnsupportedSettings | None = None

    def destinations(self) -> list[BackupDestination]:
        """Those that are given and not disabled."""
        given = (self.local_settings, self.s3_settings, self.azure_settings, self.google_cloud_settings)
        return [one for one in given if one is not None and not one.disabled]


class BackupTaskConfiguration(DestinationSettings, frozen=True, kw_only=True, rename="pascal"):
    """RavenDB's PeriodicBackupConfiguration. `time_zone` (an IANA name, in which the frequencies are read) and
    `requires` (labels that a node must have) are ours."""

    name: str = ""
    task_id: int = 0
    disabled: bool = False
    mentor_node: str | None = None
    pin_to_mentor_node: bool = False
    backup_type: Literal["Backup", "Snapshot"] = "Backup"
    full_backup_frequency: str | None = None
    incremental_backup_frequency: str | None = None
    time_zone: str = "UTC"
    retention_policy: RetentionPolicy | None = None
    backup_encryption_settings: BackupEncryptionSettings | None = None
    snapshot_settings: dict[str, Any] | None = None
    max_read_ops_per_second: int | None = None
    created_at: str | None = None
    requires: tuple[str, ...] = ()

    @property
    def schedule(self) -> Schedule:
        """When it is due."""
        return Schedule(self.full_backup_frequency, self.incremental_backup_frequency, self.time_zone)

    @property
    def key(self) -> bytes | None:
        """The key that backups are encrypted with."""
        return key_of(self.backup_encryption_settings)

    @property
    def kept_for(self) -> timedelta | None:
        """How long backups are kept at least; None: for ever."""
        policy = self.retention_policy
        if policy is None or policy.disabled or policy.minimum_backup_age_to_keep is None:
            return None
        return _age(policy.minimum_backup_age_to_keep)


def parse(configuration: Mapping[str, Any], database: Database) -> BackupTaskConfiguration:
    """The configuration with what was left out filled in. Raises ConfigurationError."""
    backup = fitted(configuration, BackupTaskConfiguration)
    if fold(backup.name.strip()).startswith(SERVER_WIDE):
        raise ConfigurationError("Name", f"'{backup.name}' begins with 'Server Wide Backup', which is reserved")
    if backup.backup_type == "Snapshot":
        raise ConfigurationError("BackupType", "is Snapshot, which is not supported; use Backup")
    _check_schedule(backup)
    _check_retention(backup.retention_policy)
    check_destinations(backup)
    if backup.max_read_ops_per_second is not None and backup.max_read_ops_per_second < 1:
        problem = f"is {backup.max_read_ops_per_second}; give documents per second, 1 or more, or null for no limit"
        raise ConfigurationError("MaxReadOpsPerSecond", problem)
    key_of(backup.backup_encryption_settings)
    try:
        check_labels(backup.requires)
    except CommandRefused as refused:
        raise ConfigurationError("Requires", refused.error.message) from None
    kinds = [one.kind for one in backup.destinations()]
    return replace(
        backup,
        name=backup.name.strip() or f"Backup to {', '.join(kinds)}",
        created_at=_created(backup, database),
    )


def check_destinations(settings: DestinationSettings) -> None:
    """Refuses settings that lead nowhere. Raises ConfigurationError."""
    for field, unsupported in (("GlacierSettings", settings.glacier_settings), ("FtpSettings", settings.ftp_settings)):
        if unsupported is not None and not unsupported.disabled:
            raise ConfigurationError(field, "is not supported; use LocalSettings, S3Settings, AzureSettings or others")
    found = settings.destinations()
    if not found:
        raise ConfigurationError(
            "LocalSettings", "no destination is given; add LocalSettings, S3Settings, AzureSettings or others"
        )
    for destination in found:
        destination.check()


def key_of(settings: BackupEncryptionSettings | None) -> bytes | None:
    """The key of encrypted backups, None without encryption. Raises ConfigurationError."""
    if settings is None or (settings.encryption_mode == "None" and not settings.key):
        return None
    field = "BackupEncryptionSettings.EncryptionMode"
    if settings.encryption_mode == "None":
        raise ConfigurationError(field, "is None, and a Key is given; use UseProvidedKey, or remove the Key")
    if settings.encryption_mode == "UseDatabaseKey":
        raise ConfigurationError(field, "is UseDatabaseKey, and databases are not encrypted; use UseProvidedKey")
    return read_key("BackupEncryptionSettings.Key", settings.key)


def read_key(field: str, text: str | None) -> bytes:
    """A key from its base64. Raises ConfigurationError, which does not show it."""
    try:
        key = base64.b64decode(text or "", validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise ConfigurationError(field, f"must be base64 of {KEY_BYTES} bytes; make one: openssl rand -base64 32")
    return key


def _check_schedule(backup: BackupTaskConfiguration) -> None:
    if not backup.full_backup_frequency and not backup.incremental_backup_frequency:
        raise ConfigurationError("FullBackupFrequency", "no frequency is given; add it or IncrementalBackupFrequency")
    try:
        ZoneInfo(backup.time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        problem = f"'{backup.time_zone[:80]}' is no time zone of the IANA database; use one like Europe/Berlin"
        raise ConfigurationError("TimeZone", problem) from None
    for field, full, incremental in (
        ("FullBackupFrequency", backup.full_backup_frequency, None),
        ("IncrementalBackupFrequency", None, backup.incremental_backup_frequency),
    ):
        try:
            Schedule(full, incremental, backup.time_zone)
        except CronInvalid as error:
            raise ConfigurationError(field, str(error)) from None


def _check_retention(policy: RetentionPolicy | None) -> None:
    if policy is None or policy.disabled or policy.minimum_backup_age_to_keep is None:
        return
    age = _age(policy.minimum_backup_age_to_keep)
    if age is None or age < KEPT_MIN:
        problem = f"'{policy.minimum_backup_age_to_keep[:40]}' must be a time span of one day or more, like 14.00:00:00"
        raise ConfigurationError("RetentionPolicy.MinimumBackupAgeToKeep", problem)


def _age(text: str) -> timedelta | None:
    span = timestamps.time_span(text)
    return None if span is None else timedelta(seconds=span.total_s)


def _created(backup: BackupTaskConfiguration, database: Database) -> str:
    """When the task was made, from which the first run is counted; an edit keeps it."""
    if backup.created_at is not None:
        try:
            timestamps.to_ticks(backup.created_at)
        except ValueError as error:
            raise ConfigurationError("CreatedAt", str(error)) from None
        # Schedules are followed from there, and calendars end.
        if backup.created_at >= CREATED_BEFORE:
            raise ConfigurationError("CreatedAt", f"is {backup.created_at}, which is too late; leave it out")
        return max(backup.created_at, timestamps.from_ticks(0))
    present = database.tasks.get(backup.task_id)
    if present is not None:
        stored = from_json(present.configuration, BackupTaskConfiguration)
        if stored.created_at:
            return stored.created_at
    return timestamps.now()
