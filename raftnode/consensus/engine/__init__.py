"""PySyncObj, hardened. Everything that names the package's private state is in here, and nothing outside needs to."""

from raftnode.consensus.engine.engine import Engine
from raftnode.consensus.engine.members import Refused
from raftnode.consensus.engine.replication import Wire
from raftnode.consensus.engine.snapshots import Offload
from raftnode.consensus.engine.storage import Storage, open_storage
from raftnode.consensus.engine.surroundings import Events, Surroundings

__all__ = [
    "Engine",
    "Events",
    "Offload",
    "Refused",
    "Storage",
    "Surroundings",
    "Wire",
    "open_storage",
]
