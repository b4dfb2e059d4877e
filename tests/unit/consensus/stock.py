"""A second, untouched copy of the PySyncObj package, to show what it does by itself."""

import importlib
import sys
from collections import defaultdict, deque
from types import ModuleType
from typing import Any


def fresh_package() -> ModuleType:
    """The package as it comes: the one that raftnode has patched stays where it is."""
    ours = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "pysyncobj"}
    for name in ours:
        del sys.modules[name]
    try:
        package = importlib.import_module("pysyncobj")
        for name in ("syncobj", "node", "transport", "journal"):
            importlib.import_module(f"pysyncobj.{name}")
        return package
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "pysyncobj"]:
            del sys.modules[name]
        sys.modules.update(ours)


class StockWorld:
    """Plain PySyncObj nodes with a counter of applied values, FIFO links and a clock of the test's."""

    def __init__(self, tags: str, **conf: Any) -> None:
        self.package: Any = fresh_package()
        self.now_s = 1000.0
        self.package.syncobj.monotonicTime = lambda: self.now_s
        self.queues: dict[tuple[str, str], deque[Any]] = defaultdict(deque)
        self.node = self.package.node.Node
        world = self

        class Outlet(self.package.transport.Transport):  # type: ignore[misc, name-defined]
            def __init__(self, owner: Any, me: Any, others: Any) -> None:
                super().__init__(owner, me, others)
                self.me = me

            def send(self, node: Any, message: Any) -> bool:
                world.queues[self.me.id, node.id].append(message)
                return True

        class Values(self.package.SyncObj):  # type: ignore[misc, name-defined]
            def __init__(self, me: str, others: list[str]) -> None:
                nodes = [world.node(other) for other in others]
                settings = world.package.SyncObjConf(autoTick=False, **conf)
                super().__init__(world.node(me), nodes, settings, nodeClass=world.node, transportClass=Outlet)
                self.values: list[Any] = []

            @self.package.replicated  # type: ignore[untyped-decorator]
            def put(self, value: Any) -> None:
                self.values.append(value)
                if value == "boom":
                    raise ValueError(value)

        self.nodes = {tag: Values(tag, [other for other in tags if other != tag]) for tag in tags}
        for tag in tags:
            for other in tags:
                if tag != other:
                    self.connected(tag, other, True)

    def private(self, tag: str, name: str) -> Any:
        return getattr(self.nodes[tag], f"_SyncObj__{name}")

    def set_private(self, tag: str, name: str, value: Any) -> None:
        setattr(self.nodes[tag], f"_SyncObj__{name}", value)

    def connected(self, tag: str, other: str, up: bool) -> None:
        transport = self.private(tag, "transport")
        (transport._onNodeConnected if up else transport._onNodeDisconnected)(self.node(other))

    def deliver(self, sender: str, to: str) -> None:
        queue = self.queues[sender, to]
        while queue:
            self.private(to, "transport")._onMessageReceived(self.node(sender), queue.popleft())

    def receive(self, to: str, sender: str, message: dict[str, Any]) -> None:
        self.private(to, "transport")._onMessageReceived(self.node(sender), message)

    def settle(self, rounds: int = 20, step_s: float = 0.02) -> None:
        for _ in range(rounds):
            for node in self.nodes.values():
                node.doTick(0)
            for sender in self.nodes:
                for to in self.nodes:
                    self.deliver(sender, to)
            self.now_s += step_s

    def elect(self, tag: str) -> None:
        self.set_private(tag, "raftElectionDeadline", 0)
        self.settle()
        assert self.nodes[tag]._isLeader()
