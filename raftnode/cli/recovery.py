"""`raftnode snapshot` and `raftnode recover`: to begin again after the worst."""

from pathlib import Path
from typing import Any

import click

from config import Settings
from raftnode.cli.asking import ask, asks
from raftnode.cli.run import settings_of, with_settings
from raftnode.cli.session import Answer, CommandFailed, Session, talks
from raftnode.cli.tables import counted
from raftnode.foundation import logs
from raftnode.foundation.atomic_files import replacing

# The recovery itself is imported late: the other commands start faster without the daemon's parts.


@click.group()
def snapshot() -> None:
    """The cluster's record (databases, tasks, nodes; no documents) as a file."""


@snapshot.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--local", is_flag=True, help="What the node has applied; needs no leader.")
@talks
async def save(session: Session, file: Path, local: bool) -> None:
    """Save the record of a running cluster to FILE, verified, in place of an older one."""
    from raftnode.cluster import recovery

    data = await session.fetch("/admin/cluster/snapshot" + ("?local=true" if local else ""))
    try:
        # The record holds connection strings, and these passwords.
        with replacing(file, data, mode=0o600) as new:
            record = recovery.read_saved(new)
    except OSError as error:
        raise CommandFailed(f"{file} cannot be written: {error.strerror}.") from None
    except recovery.RecoveryRefused as error:
        raise CommandFailed(f"The snapshot did not arrive whole; try again. {error}") from None
    about = {"File": str(file), "Bytes": len(data), "Index": record.index, "ClusterId": record.cluster_id}
    holds = f"{counted(len(data), 'byte')}, {counted(len(record.databases), 'database')}"
    session.show(Answer(about, about), f"{file}: {holds}, up to entry {record.index}.")


@snapshot.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@with_settings
def restore(file: Path, config: Path | None, **values: Any) -> None:
    """Begin a cluster of its own from FILE, with this node alone, in an empty data directory.

    Give the settings that the node will run with, --data-dir and --node.tag above all; then start it with `raftnode
    run` and let others join. The databases and tasks are those of the file, the documents are not in it.
    """
    from raftnode.cluster import recovery

    settings = _settings(config, values)
    try:
        record = recovery.restore(settings, file)
    except recovery.RecoveryRefused as error:
        raise CommandFailed(str(error)) from None
    click.echo(
        f"Node {settings.node.tag} is cluster {record.cluster_id} now, in {settings.node.data_dir}, with "
        f"{counted(len(record.databases), 'database')}. Start it with: raftnode run, and the same settings."
    )


@click.command()
@click.option("--force-new-cluster", is_flag=True, help="Make this node the only one of its cluster.")
@asks("--yes-the-others-are-off")
@with_settings
def recover(force_new_cluster: bool, yes: bool, config: Path | None, **values: Any) -> None:
    """Go on with one node after a majority is lost for good. The node must be stopped.

    Without --force-new-cluster: says how far this node's log goes and changes nothing. Compare the survivors, and force
    the one with the highest term, then the highest index; the others join it again with empty directories.
    """
    from raftnode.cluster import recovery

    settings = _settings(config, values)
    try:
        with recovery.survivor(settings) as survivor:
            click.echo(_described(survivor))
            if not force_new_cluster:
                return
            ask("Are all other nodes off, and will none of them be started again with its current data?", yes=yes)
            recovery.force_new_cluster(settings, survivor)
    except recovery.RecoveryRefused as error:
        raise CommandFailed(str(error)) from None
    click.echo(f"Node {settings.node.tag} is the only one of its cluster now. Start it with: raftnode run.")


def _settings(config: Path | None, values: dict[str, Any]) -> Settings:
    """The node's settings. Of what the storage logs while it is read, warnings are shown, as a node shows them."""
    settings = settings_of(config, values)
    logs.configure(settings.node.tag, settings.log.format, "warning")
    return settings


def _described(survivor: Any) -> str:
    others = ", ".join(f"{node.tag} ({node.url})" for node in survivor.others) or "none"
    lines = [
        f"Node {survivor.tag}: its log ends in term {survivor.last.term} at index {survivor.last.index}.",
        f"Other nodes of the cluster, which a recovery drops: {others}.",
        f"Databases without a copy here, which a recovery drops: {', '.join(survivor.without_copy) or 'none'}.",
    ]
    return "\n".join(lines)
