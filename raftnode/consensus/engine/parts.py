"""What one engine is made of."""

from dataclasses import dataclass

from raftnode.consensus.engine.core import Core
from raftnode.consensus.engine.elections import Elections
from raftnode.consensus.engine.members import Members
from raftnode.consensus.engine.package_log import PackageLog
from raftnode.consensus.engine.replication import Replication
from raftnode.consensus.engine.snapshots import Snapshots
from raftnode.consensus.storage.journal import Journal


@dataclass(frozen=True)
class EngineParts:
    """Made by the engine once, and shared with the classes that make several of them act together."""

    tag: str
    log: PackageLog
    journal: Journal
    members: Members
    core: Core
    elections: Elections
    snapshots: Snapshots
    replication: Replication
