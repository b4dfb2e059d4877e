"""What an engine works with and does not own."""

from dataclasses import dataclass
from typing import Any, Protocol

from raftnode.consensus.engine.replication import Wire
from raftnode.consensus.engine.snapshots import Offload
from raftnode.consensus.model import ConsensusFailed, RaftConfig, StateMachine
from raftnode.foundation.ports import Clock, Random


class EngineEvents(Protocol):
    """What the engine tells its owner. Every method is called inside a tick and must only take notes."""

    def schedule_tick(self) -> None:
        """There is something to do: tick soon."""

    def applied(self, index: int, term: int, answer: Any) -> None: ...
    def jumped(self, index: int) -> None:
        """A snapshot took the state to `index`; what was applied on the way is not known."""

    def members_changed(self) -> None: ...
    def wiped(self, reason: str) -> None: ...
    def failed(self, error: ConsensusFailed) -> None:
        """The engine stops for good."""


@dataclass(frozen=True)
class EngineEnvironment:
    """All that the engine works with and does not own."""

    machine: StateMachine
    config: RaftConfig
    clock: Clock
    random: Random
    wire: Wire
    offload: Offload
    events: EngineEvents
