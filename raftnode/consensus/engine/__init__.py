"""PySyncObj, hardened. Everything that names the package's private state is in here, and nothing outside needs to."""

from raftnode.consensus.engine.engine import Engine
from raftnode.consensus.engine.environment import EngineEnvironment, EngineEvents
from raftnode.consensus.engine.members import RequestRefused
from raftnode.consensus.engine.replication import Wire
from raftnode.consensus.engine.snapshots import Offload
from raftnode.consensus.engine.storage import Storage, open_storage

__all__ = [
    "Engine",
    "EngineEnvironment",
    "EngineEvents",
    "Offload",
    "RequestRefused",
    "Storage",
    "Wire",
    "open_storage",
]
