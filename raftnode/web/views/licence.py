"""The licence, in RavenDB's shape. There is none to buy: what it permits is a setting of the cluster."""

from collections.abc import Mapping

from raftnode.record.model import NODES_MAX, Record
from raftnode.web.views.base import View

UNLIMITED = 2**31 - 1
STATUS = "No licence is needed; the cluster's operators set what is permitted."
FEATURES = (
    "DynamicNodesDistribution", "Encryption", "DocumentsCompression", "SnapshotBackups", "CloudBackups",
    "EncryptedBackups", "ExternalReplication", "DelayedExternalReplication", "RavenEtl", "SqlEtl", "OlapEtl",
    "ElasticSearchEtl", "QueueEtl", "SnowflakeEtl", "QueueSink", "CdcSink", "PostgreSqlIntegration", "SnmpMonitoring",
    "MonitoringEndpoints", "ReadOnlyCertificates", "HighlyAvailableTasks", "PullReplicationAsHub",
    "PullReplicationAsSink", "TimeSeriesRollupsAndRetention", "AdditionalAssembliesFromNuGet", "TcpDataCompression",
    "ConcurrentSubscriptions",
)  # fmt: skip
"""RavenDB's features; the status has a field HasX for each. All but the two that can be set are permitted: that says
nothing about which of them this server has."""


class LicenceFeatures(View, frozen=True, kw_only=True):
    """What can be set."""

    highly_available_tasks: bool
    dynamic_nodes_distribution: bool


class LicenceChanged(LicenceFeatures, frozen=True, kw_only=True):
    """What was set, and is permitted now."""

    raft_command_index: int


class LicenceStatus(View, frozen=True, kw_only=True):
    """RavenDB's licence status, without its HasX fields."""

    id: str | None = None
    licensed_to: str | None = None
    attributes: Mapping[str, bool]
    first_server_start_date: str | None = None
    error_message: str | None = None
    max_cores: int = UNLIMITED
    max_memory: int = UNLIMITED
    max_cluster_size: int = NODES_MAX
    ratio: str = ""
    expiration: str | None = None
    expired: bool = False
    status: str = STATUS
    type: str = "None"
    distributed_cluster: bool = True
    is_isv: bool = False
    is_cloud: bool = False
    can_auto_renew_lets_encrypt_certificate: bool = False


def features(record: Record) -> LicenceFeatures:
    """What is permitted now."""
    return LicenceFeatures(
        highly_available_tasks=record.highly_available_tasks,
        dynamic_nodes_distribution=record.dynamic_nodes_distribution,
    )


def permitted(record: Record) -> Mapping[str, bool]:
    """Whether each of the features is permitted, by RavenDB's names."""
    return dict.fromkeys(FEATURES, True) | {
        "HighlyAvailableTasks": record.highly_available_tasks,
        "DynamicNodesDistribution": record.dynamic_nodes_distribution,
    }
