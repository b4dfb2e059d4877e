"""`raftnode demo`: the main job seen working, on real node processes, in under a minute."""

import asyncio
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from importlib import resources
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from raftnode.cli.demo_target import LINES, NET_SALES, ORDERS, DemoTarget, Figures, TargetFailed, etl
from raftnode.cli.local_cluster import LocalCluster, pids
from raftnode.cli.session import CommandFailed
from raftnode.cli.status_events import events
from raftnode.cli.tables import epoch
from raftnode.foundation.decoding import from_python_json
from raftnode.web.views.base import Json, read
from raftnode.web.views.status import StatusView
from raftnode.web.views.tasks import TaskStatus

DATABASE = "Northwind"
GROUP = ("A", "B", "E")
TASK = "Orders to SQL"
BATCH = 25
FIRST_ORDERS = 200
FEED_PAUSE_SEC = 0.3
STEP_TIMEOUT_SEC = 60.0
POLL_SEC = 0.05


class DemoFailed(Exception):
    """Something did not happen, or the figures are wrong."""


@click.command()
@click.option("--nodes", type=click.Choice(["1", "5"]), default="5", help="Five nodes, or one that is killed.")
@click.option(
    "--postgres",
    metavar="URL",
    help="Carry the orders into PostgreSQL, in a schema of its own, instead of a SQLite file.",
)
@click.option("--keep", is_flag=True, help="Leave the cluster up and print what to try next.")
def demo(nodes: str, postgres: str | None, keep: bool) -> None:
    """Northwind's orders into a SQL database, each exactly once, while the responsible node is frozen."""
    directory = Path(tempfile.mkdtemp(prefix="raftnode-demo-"))
    try:
        asyncio.run(_play(directory, nodes, postgres, keep))
    except TargetFailed as failure:
        shutil.rmtree(directory, ignore_errors=True)
        raise CommandFailed(f"The demo cannot begin: {failure}.") from None
    except DemoFailed as failure:
        click.echo(f"The demo failed: {failure}\nThe nodes' logs: {directory}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    shutil.rmtree(directory, ignore_errors=True)


async def _play(directory: Path, nodes: str, postgres: str | None, keep: bool) -> None:
    tags = GROUP[:1] if nodes == "1" else tuple("ABCDE")
    flags = ("--tasks.batch-documents-max", str(BATCH))
    target = DemoTarget(directory, postgres)
    try:
        await target.create()
        async with LocalCluster(directory / "nodes", tags, flags=flags) as cluster:
            story = Story(cluster, target)
            await (story.one_node() if nodes == "1" else story.five_nodes())
            if keep:
                await story.keep()
    finally:
        await target.close()


class Story:
    """The demo's acts, each a few lines on the screen."""

    def __init__(self, cluster: LocalCluster, target: DemoTarget) -> None:
        self.cluster = cluster
        self.target = target
        self.console = Console(highlight=False, soft_wrap=True)
        self.begun = time.monotonic()
        self.documents = _northwind()
        self.seen: StatusView | None = None
        self.frozen: str | None = None

    async def five_nodes(self) -> None:
        """The whole story on five nodes."""
        await self.form(f"Five nodes; the database {DATABASE} lives on {', '.join(GROUP)}")
        holder = await self.responsible()
        async with asyncio.TaskGroup() as group:
            feeding = group.create_task(self.feed(next(tag for tag in GROUP if tag != holder)))
            await self.until(lambda: self.orders_at_least(FIRST_ORDERS // 2), "the first orders in the target")
            await self.nap(holder)
            await self.freeze(holder)
            await feeding
        await self.until(self.complete, "all orders in the target")
        await self.thaw(holder)
        await self.check()

    async def one_node(self) -> None:
        """The short story: one node, killed in the middle and started again."""
        await self.form("One node")
        await self.put(self.orders()[FIRST_ORDERS:], "A")
        await self.until(lambda: self.orders_at_least(BATCH), "the first orders in the target")
        self.cluster.signal("A", signal.SIGKILL)
        await self.until(lambda: self.ended("A"), "the end of the process")
        figures = await self.target.figures()
        self.say(f"[red]kill -9[/] with {figures.orders} of {ORDERS} orders in the target; started again")
        self.cluster.start("A")
        await self.until(self.complete, "all orders in the target")
        await self.check()

    async def form(self, title: str) -> None:
        """Starts the cluster, makes the database, the target and the task, and imports all but most of the orders."""
        self.console.rule(f"[bold]raftnode[/]: {title}")
        await self.cluster.formed()
        status = await self.status()
        self.say(
            f"{len(self.cluster.nodes)} node processes, each with a lease; the leader is {status.node.leader}"
            if len(self.cluster.nodes) > 1
            else "one node process, with a lease"
        )
        group = GROUP if len(self.cluster.nodes) > 1 else ("A",)
        await self.call(
            "PUT",
            f"/admin/databases?name={DATABASE}",
            {"DatabaseName": DATABASE, "Topology": {"Members": list(group)}},
        )
        others = [d for d in self.documents if d["@metadata"]["@collection"] != "Orders"]
        await self.put(others + self.orders()[:FIRST_ORDERS], "A")
        self.say(f"{len(others)} documents and the first {FIRST_ORDERS} of {ORDERS} orders are written to A")
        await self.call("PUT", f"/databases/{DATABASE}/admin/connection-strings", self.target.connection_string("demo"))
        await self.call("PUT", f"/databases/{DATABASE}/admin/etl", etl(TASK, "demo"))
        self.say(f"SQL ETL task [bold]{TASK}[/] is defined, with two tables in {self.target.where}")

    async def responsible(self) -> str:
        """Waits until somebody runs the task; shows who is responsible, and why."""
        await self.until(self.task_runs, "the task's first run")
        task = _task(await self.status())
        placement = task.placement
        table = Table(
            title=f"Who runs it? Every node works it out for itself: {placement.node}, by rule {placement.rule}"
        )
        for column in ("node", "state", "score", "ruled out by"):
            table.add_column(column)
        for ranked in placement.ranking:
            mine = ranked.node == placement.node
            row = (ranked.node, ranked.state, f"{int(ranked.score):,}", ranked.ruled_out or "")
            table.add_row(*row, style="bold green" if mine else "")
        self.console.print(table)
        self.say(f"{task.holder} claimed it: epoch {epoch(task.epoch)}, its fencing token in the target")
        return str(task.holder)

    async def feed(self, tag: str) -> None:
        """Writes the other orders, a few at a time, to one node that stays up."""
        for batch in _batches(self.orders()[FIRST_ORDERS:]):
            await self.put(batch, tag)
            await asyncio.sleep(FEED_PAUSE_SEC)
        self.say(f"all {ORDERS} orders are written (to {tag})")

    async def nap(self, holder: str) -> None:
        """Freezes the responsible node until its lease has just ended, and shows that it stops before it goes on."""
        status = await self.status()
        timings, before = status.cluster.timings, int(_task(status).epoch or 0)
        assert timings is not None, "a cluster that is formed has timings"
        nap_ms = timings.lease_ms + timings.task_stop_timeout_ms // 3
        self.cluster.signal(holder, signal.SIGSTOP)
        self.say(
            f"[red]{holder} is frozen[/] (SIGSTOP) for {nap_ms} ms, a little longer than its lease of "
            f"{timings.lease_ms} ms"
        )
        await asyncio.sleep(nap_ms / 1000)
        self.cluster.wake(holder)

        async def claimed_anew() -> bool:
            task = _task(await self.status())
            return task.holder == holder and int(task.epoch or 0) > before

        await self.until(claimed_anew, f"a new claim of {holder}")
        self.say(
            f"thawed, {holder} found its lease over before it did anything else: it ended its run, "
            "and claimed the task again under a new session"
        )

    async def freeze(self, holder: str) -> None:
        """Freezes the responsible node and shows what the others make of it, until the task runs elsewhere."""
        await self.until(lambda: self.runs_on(holder), f"a running body on {holder}")
        figures = await self.target.figures()
        frozen = time.monotonic()
        self.frozen = holder
        self.cluster.signal(holder, signal.SIGSTOP)
        self.say(f"[red]{holder} is frozen[/] (SIGSTOP) with {figures.orders} orders in the target; orders keep coming")

        async def moved() -> bool:
            task = _task(await self.status())
            return task.holder != holder and task.claim_state == "Held"

        await self.until(moved, "the task on another node")
        self.say(f"relocated [bold]{time.monotonic() - frozen:.1f} s[/] after the freeze; nobody handed it out")
        at = (await self.target.figures()).orders
        await self.until(lambda: self.orders_at_least(at + 1), "new orders in the target")
        self.say("and it goes on where it stopped: new orders arrive in the target")

    async def thaw(self, holder: str) -> None:
        """Thaws the node; shows that it does nothing before it has stopped, and that its share comes back."""
        await self.until(lambda: self.ended(holder), f"the end of the frozen {holder}")
        self.say(
            f"[yellow]{holder} did not outlive its lease[/]: the kernel timer armed with it ended the frozen process "
            "at lease end + stop timeout, so a thaw finds nobody who could still write"
        )
        self.cluster.wake(holder)
        self.cluster.start(holder)
        self.frozen = None
        self.say(f"{holder} is started again, as systemd or Docker would; it has no lease and runs nothing yet")

        async def handed_back() -> bool:
            task = _task(await self.status())
            return task.holder == holder and task.claim_state == "Held"

        await self.until(handed_back, f"the task back on {holder}")
        self.say(f"handed back to {holder} by release and claim, without overlap")

    async def check(self) -> None:
        """Checks the target's figures."""
        figures = await self.target.figures()
        self.console.rule()
        for name, got, want in (
            ("orders", figures.orders, ORDERS),
            ("distinct orders", figures.distinct_orders, ORDERS),
            ("order lines", figures.lines, LINES),
            ("net sales", figures.net_sales, NET_SALES),
        ):
            mark = "[green]right[/]" if got == want else f"[red]wrong[/], must be {want:,}"
            self.console.print(f"  {name:<16} {got:>14,}  {mark}")
        if not figures.right:
            raise DemoFailed("the target's figures are wrong")
        self.console.print(
            f"  Each order is there once. {time.monotonic() - self.begun:.0f} seconds, nothing lost, nothing doubled."
        )

    async def keep(self) -> None:
        """Leaves the cluster up until Ctrl-C."""
        url = next(iter(self.cluster.nodes.values())).url
        self.console.rule("The cluster stays up; Ctrl-C ends it. Try")
        for tag, pid in pids(self.cluster).items():
            self.console.print(f"  node {tag}: {self.cluster.nodes[tag].url}, process {pid}")
        for command in ("status --watch", "tasks", f"pin --database {DATABASE} '{TASK}' E", "observer log"):
            self.console.print(f"  raftnode {command} --url {url}")
        self.console.print(f"  kill -STOP {next(iter(pids(self.cluster).values()))}", soft_wrap=True)
        await asyncio.Event().wait()

    def say(self, text: str) -> None:
        """One line with the time since the beginning."""
        self.console.print(f"[dim]{time.monotonic() - self.begun:6.1f} s[/]  {text}")

    def orders(self) -> list[Json]:
        """Northwind's orders."""
        return [d for d in self.documents if d["@metadata"]["@collection"] == "Orders"]

    async def put(self, documents: list[Json], tag: str) -> None:
        """Writes documents to a node, synced there."""
        commands = [{"Type": "PUT", "Id": d["@metadata"]["@id"], "Document": d} for d in documents]
        await self.call("POST", f"/databases/{DATABASE}/bulk_docs", {"Commands": commands}, tag)

    async def call(self, method: str, path: str, body: Any, tag: str = "A") -> Any:
        """One request to a node."""
        answer = await self.cluster.http.request(method, self.cluster.nodes[tag].url + path, json=body, timeout_s=15)
        return answer.json() if answer.body else None

    async def status(self) -> StatusView:
        """The status as a node that has a lease sees it."""
        deadline = time.monotonic() + STEP_TIMEOUT_SEC
        while time.monotonic() < deadline:
            if status := await self.look():
                return status
            await asyncio.sleep(POLL_SEC)
        raise DemoFailed("no node with a lease answers")

    async def look(self) -> StatusView | None:
        """One look at the status, None if no node with a lease answers. What is new since the last one is said."""
        for tag in pids(self.cluster):
            status = await self.seen_by(tag) if tag != self.frozen else None
            if status and status.node.has_lease and status.node.leader is not None:
                for event in events(self.seen, status):
                    self.say(event)
                self.seen = status
                return status
        return None

    async def seen_by(self, tag: str) -> StatusView | None:
        """The node's status, None while it does not answer."""
        status = await self.cluster.status(tag)
        return None if status is None else read(status, StatusView)

    async def until(self, condition: Callable[[], Awaitable[bool]], what: str) -> None:
        """Waits for a condition, watching the cluster meanwhile."""
        deadline = time.monotonic() + STEP_TIMEOUT_SEC
        while not await condition():
            if time.monotonic() > deadline:
                raise DemoFailed(f"waited {STEP_TIMEOUT_SEC:.0f} s for {what}")
            await self.look()
            await asyncio.sleep(POLL_SEC)

    async def orders_at_least(self, count: int) -> bool:
        """Whether that many orders are in the target."""
        return (await self.target.figures()).orders >= count

    async def complete(self) -> bool:
        """Whether every order is in the target."""
        figures: Figures = await self.target.figures()
        return figures.orders >= ORDERS and figures.lines >= LINES

    async def task_runs(self) -> bool:
        """Whether somebody holds the task."""
        return _task(await self.status()).claim_state == "Held"

    async def runs_on(self, tag: str) -> bool:
        """Whether the task's body runs on the node, by its own word: only then is its kernel timer armed."""
        status = await self.seen_by(tag)
        run = _task(status).run_here if status else None
        return run is not None and run.state == "Running"

    async def ended(self, tag: str) -> bool:
        """Whether the node's process has ended."""
        return self.cluster.ended(tag) is not None


def _task(status: StatusView) -> TaskStatus:
    return next(task for task in status.databases[DATABASE].tasks if task.task_name == TASK)


def _northwind() -> list[Json]:
    text = (resources.files("raftnode") / "demo" / "northwind.jsonl").read_text(encoding="utf-8")
    return [from_python_json(line) for line in text.splitlines()]


def _batches(items: list[Json]) -> list[list[Json]]:
    return [items[i : i + BATCH] for i in range(0, len(items), BATCH)]
