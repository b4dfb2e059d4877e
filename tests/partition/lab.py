"""A network for real nodes: each in a network namespace of its own, joined by a bridge, with links that can be cut.

    root namespace ── management ── hub (bridge) ── A, B, C ...

Cuts are made where packets arrive: nftables in the receiver's namespace drops those of the sender. So each direction
can be cut by itself, and the test's own view, which comes from the management address, stays. The bridge lives in a
namespace too, so that packet filters of the machine (Docker's, say) do not meddle.
"""

import asyncio
import contextlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from raftnode.cli.local_cluster import LocalNode
from tests.harness.cluster import Cluster, die_with_us

PREFIX = "rnlab"
NETWORKS = [f"198.{b}.{c}" for b in (18, 19) for c in range(256)]
"""The range that is set aside for benchmarks of networks; a lab takes one /24 of it."""
MANAGEMENT_HOST = 254
HTTP_PORT, CLUSTER_PORT = 8080, 38888


def unavailable() -> str | None:
    """Why there can be no lab on this machine; None if there can."""
    missing = [program for program in ("ip", "nft", "tc") if shutil.which(program, path=_path()) is None]
    if missing:
        return f"the lab needs {', '.join(missing)}: install iproute2 and nftables"
    if os.geteuid() != 0:
        return "the lab needs root, to make network namespaces"
    probe = f"{PREFIX}{os.getpid()}-probe"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"the lab cannot make network namespaces here: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "delete", probe], check=True)
    return None


class LabNetwork:
    """The namespaces, the bridge and the links of the named nodes, made by `up`, removed by `down`."""

    def __init__(self, tags: Sequence[str]) -> None:
        self.name = f"{PREFIX}{os.getpid()}"
        self.tags = list(tags)
        self.net = _free_network()
        self._deaf: dict[str, set[str]] = {tag: set() for tag in tags}
        self._loss: dict[str, dict[str, int]] = {tag: {} for tag in tags}

    def namespace(self, tag: str) -> str:
        """The node's network namespace."""
        return f"{self.name}-{tag}"

    def address(self, tag: str) -> str:
        """The node's IP address."""
        return f"{self.net}.{self.tags.index(tag) + 1}"

    def inside(self, tag: str) -> tuple[str, ...]:
        """The command prefix that runs a command on the node."""
        return ("ip", "netns", "exec", self.namespace(tag))

    def up(self) -> None:
        """Makes everything; what an earlier test process left behind goes first."""
        remove_stale()
        try:
            self._make()
        except BaseException:
            self.down()
            raise

    def _make(self) -> None:
        hub = self.namespace("hub")
        _ip(f"netns add {hub}", *(f"netns add {self.namespace(tag)}" for tag in self.tags))
        _ip("link add br0 type bridge", "link set br0 up", "link set lo up", namespace=hub)
        _ip(f"link add {self.name} type veth peer name root netns {hub}")
        _ip("link set root master br0 up", namespace=hub)
        _ip(f"address add {self.net}.{MANAGEMENT_HOST}/24 dev {self.name}", f"link set {self.name} up")
        for tag in self.tags:
            namespace = self.namespace(tag)
            _ip(f"link add node{tag} type veth peer name eth0 netns {namespace}", namespace=hub)
            _ip(f"link set node{tag} master br0 up", namespace=hub)
            address = f"address add {self.address(tag)}/24 dev eth0"
            _ip(address, "link set eth0 up", "link set lo up", namespace=namespace)
        self._filter(self.tags)

    def down(self) -> None:
        """Removes everything that `up` made, as far as it is there. The processes inside must have ended."""
        for name in [self.namespace("hub"), *(self.namespace(tag) for tag in self.tags)]:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)
        subprocess.run(["ip", "link", "delete", self.name], capture_output=True, check=False)

    # Accidents.

    def drop(self, sender: str, receiver: str) -> None:
        """Loses everything in this one direction."""
        self._deaf[receiver].add(sender)
        self._filter([receiver])

    def partition(self, *groups: Iterable[str]) -> None:
        """Cuts the nodes into these groups: whoever is not in one's own group is out of reach, both ways.

        Nodes that are named in no group keep all their links.
        """
        sides = [set(group) for group in groups]
        for side in sides:
            others = set().union(*(s for s in sides if s is not side))
            for tag in side:
                self._deaf[tag] |= others
        self._filter(self.tags)

    def isolate(self, tag: str) -> None:
        """Cuts one node off from all others."""
        self.partition([tag], [t for t in self.tags if t != tag])

    def lose(self, sender: str, receiver: str, percent: int) -> None:
        """Loses that share of the packets (1 to 99) in this one direction, at random."""
        self._loss[receiver][sender] = percent
        self._filter([receiver])

    def slow(self, tag: str, kbit_per_sec: int) -> None:
        """Limits what the node can send, to everybody."""
        shape = f"tbf rate {kbit_per_sec}kbit burst 16kb latency 400ms"
        _run(["tc", "-n", self.namespace(tag), "qdisc", "replace", "dev", "eth0", "root", *shape.split()])

    def can_delay(self) -> bool:
        """Whether this kernel has netem, and so can delay what is sent."""
        command = ["tc", "-n", self.namespace("hub"), "qdisc", "replace", "dev", "lo", "root", "netem"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def delay(self, tag: str, delay_ms: int) -> None:
        """Has all that the node sends arrive so much later, give or take half of that; needs `can_delay`."""
        late = f"netem delay {delay_ms}ms {delay_ms // 2}ms"
        _run(["tc", "-n", self.namespace(tag), "qdisc", "replace", "dev", "eth0", "root", *late.split()])

    def heal(self) -> None:
        """Undoes every accident."""
        for tag in self.tags:
            self._deaf[tag].clear()
            self._loss[tag].clear()
            # Fails where nothing was limited.
            limit = ["tc", "-n", self.namespace(tag), "qdisc", "delete", "dev", "eth0", "root"]
            subprocess.run(limit, capture_output=True, check=False)
        self._filter(self.tags)

    def _filter(self, receivers: Iterable[str]) -> None:
        """Replaces the whole filter of each receiver at one moment."""
        for tag in receivers:
            rules = [f"ip saddr {self.address(sender)} drop" for sender in sorted(self._deaf[tag])]
            rules += [
                f"ip saddr {self.address(sender)} numgen random mod 100 < {percent} drop"
                for sender, percent in sorted(self._loss[tag].items())
            ]
            chain = "\n".join(["type filter hook input priority 0;", *rules])
            table = f"table inet lab {{}}\ndelete table inet lab\ntable inet lab {{\nchain input {{\n{chain}\n}}\n}}\n"
            _run([*self.inside(tag), "nft", "-f", "-"], table)


class Lab(Cluster):
    """A cluster whose nodes live in a `Network`, in `network`. Cuts do not end the test's own view of the nodes.

    The network has a place for each of `guests` too, nodes that `add` brings in later.
    """

    def __init__(
        self,
        directory: Path,
        tags: Sequence[str] = "ABCDE",
        *,
        guests: Sequence[str] = "",
        profile: str = "fast",
        flags: Sequence[str] = (),
    ) -> None:
        open_to_us = ("--security.unsecured-access-allowed", "private_network")
        super().__init__(directory, tags, profile=profile, flags=(*open_to_us, *flags))
        self.network = LabNetwork([*tags, *guests])
        for node in self.nodes.values():
            self.place(node)

    def place(self, node: LocalNode) -> LocalNode:
        """Has a node live in the network, at its tag's place."""
        node.host, node.http_port, node.cluster_port = self.network.address(node.tag), HTTP_PORT, CLUSTER_PORT
        node.prefix = (*self.network.inside(node.tag), *die_with_us())
        return node

    def _newcomer(self, tag: str, flags: tuple[str, ...]) -> LocalNode:
        return self.place(super()._newcomer(tag, flags))

    async def __aenter__(self) -> "Lab":
        await asyncio.to_thread(self.network.up)
        try:
            return await super().__aenter__()
        except BaseException:
            self.network.down()
            raise

    async def __aexit__(self, *failure: object) -> None:
        try:
            await super().__aexit__(*failure)
        finally:
            await asyncio.to_thread(self.network.down)


def remove_stale() -> None:
    """Removes what labs of test processes that are dead left behind, with the nodes that still run in there."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    for name in re.findall(rf"^{PREFIX}\d+-\w+", listed, re.MULTILINE):
        if Path(f"/proc/{re.findall(r'[0-9]+', name)[0]}").exists():
            continue
        inside = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=False).stdout
        for pid in inside.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), 9)
        subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def _free_network() -> str:
    """A /24 that no interface of this machine is in; different test processes begin to look at different ones."""
    listed = json.loads(subprocess.run(["ip", "-j", "address"], capture_output=True, text=True, check=True).stdout)
    used = {address["local"].rpartition(".")[0] for link in listed for address in link["addr_info"]}
    first = os.getpid() % len(NETWORKS)
    return next(net for net in NETWORKS[first:] + NETWORKS[:first] if net not in used)


def _ip(*commands: str, namespace: str | None = None) -> None:
    _run(["ip", *(["-n", namespace] if namespace else []), "-batch", "-"], "\n".join(commands) + "\n")


def _run(command: Sequence[str], text: str | None = None) -> None:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr.strip() or done.stdout.strip()}\n{text or ''}")


def _path() -> str:
    return os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


@contextlib.contextmanager
def network(tags: Sequence[str]) -> Iterator[LabNetwork]:
    """A network by itself, for tests of the lab."""
    made = LabNetwork(tags)
    made.up()
    try:
        yield made
    finally:
        made.down()
