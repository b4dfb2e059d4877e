"""What the command line says, in words that people read."""

import subprocess
import sys
from typing import Any

from click.testing import CliRunner
from msgspec.structs import replace

from raftnode.cli.cluster import _node_row
from raftnode.cli.definitions import _undone
from raftnode.cli.main import cli
from raftnode.cli.status import _waiting, trouble
from raftnode.cli.status_events import events
from raftnode.cli.tables import counted, epoch, moment
from raftnode.record.model import GENERATION_STRIDE, Topology
from raftnode.web.views.cluster import Quorum
from raftnode.web.views.runs import RunView
from raftnode.web.views.status import ClusterStatus, DatabaseStatus, NodeStatus, NodeView, StatusView
from raftnode.web.views.tasks import PlacementView, TaskInfo, TaskStatus


def test_an_epoch_is_its_index_and_after_a_recovery_its_generation_too() -> None:
    assert epoch(None) == ""
    assert epoch("55") == "55"
    assert epoch(str(29_000_000 * GENERATION_STRIDE + 55)) == "29000000/55"


def test_one_of_a_thing_is_not_spoken_of_as_many() -> None:
    assert [counted(count, "run") for count in (0, 1, 2000)] == ["0 runs", "1 run", "2,000 runs"]


def test_times_are_shown_to_the_second() -> None:
    assert moment("2026-11-28T21:19:41.4117050Z") == "2026-11-28 21:19:41"


def task_with(*, node: str | None = "A", rule: str = "Hash", **shown: Any) -> TaskStatus:
    task = TaskStatus(
        task_id=7, task_name="orders", task_type="SqlEtl", task_state="Enabled", task_key="1", etag=7, state="Running",
        placement=PlacementView(node=node, rule=rule), responsible_node=None, mentor_node=None,
        pin_to_mentor_node=False, requires=(), run_here=None,
    )  # fmt: skip
    return replace(task, **shown)


def status_with(task: TaskStatus) -> StatusView:
    node = NodeStatus(
        tag="A", node_id="", boot=1, url="", cluster_address="", kind="Member", role="Leader", leader="A", term=1,
        has_lease=True, lease_left_ms=None, session=1, applied_index=1, commit_index=1, draining=False, version="",
        not_ready=[],
    )  # fmt: skip
    cluster = ClusterStatus(
        cluster_id="", timings=None, observer_suspended=False, highly_available_tasks=True,
        dynamic_nodes_distribution=True, nodes={}, silent_unknown=None, quorum=Quorum(leader="A", voters=["A"]),
    )  # fmt: skip
    shop = DatabaseStatus(
        name="shop", etag=1, disabled=False, lock_mode="Unlock", deletion_in_progress={},
        topology=Topology(members=("A",)), mentors={}, state_here="Member", copy=None, tasks=[task],
    )  # fmt: skip
    return StatusView(node=node, cluster=cluster, databases={"shop": shop})


def test_what_was_not_there_before_is_not_spoken_of() -> None:
    first = status_with(task_with(node=None, rule="NoMember"))
    claimed = status_with(task_with(epoch="55", last_holder="A", claim_state="Held"))
    assert events(None, first) == []
    assert events(first, claimed) == ["responsible for orders: A, by rule Hash", "A claimed orders: epoch 55"]
    moved = status_with(task_with(node="B", epoch="60", last_holder="B", claim_state="Held"))
    assert events(claimed, moved) == [
        "responsible for orders: B, by rule Hash, instead of A",
        "B claimed orders: epoch 60, after 55",
    ]


def test_a_node_is_listed_with_what_placement_reads_of_it() -> None:
    node = NodeView(
        tag="B", url="http://b:1", cluster_address="b:2", weight=2, labels=("ssd", "eu"), draining=True, silent=True,
        kinds=("SqlEtl", "Update"), flags=("EarlyOutOfMemory",),
    )  # fmt: skip
    row = _node_row(node, "B")
    assert row[:6] == ("B", "Member", "http://b:1", "2", "ssd, eu", "SqlEtl, Update")
    for mark in ("leader", "silent", "draining", "EarlyOutOfMemory"):
        assert mark in row[6]


def test_an_error_is_not_mixed_up_with_the_node_that_tells_of_it() -> None:
    task = task_with(state="Error", error="create the table", holder="A")
    assert trouble(task) == ["[red]create the table[/] (on A)"]
    unknown, nowhere = replace(task, state="Unknown"), replace(task, state="NoNode", holder=None)
    assert trouble(unknown) == ["[red]create the table[/] (on A, when it last told)"]
    assert trouble(nowhere)[0].endswith("[/] (when it last told)")


def test_a_command_that_is_suggested_can_be_typed_as_it_stands() -> None:
    skipping = replace(task_with(), task_name="Orders to SQL", failed=1)
    assert trouble(skipping) == ["[yellow]1 document is skipped[/]; raftnode task failed 'Orders to SQL'"]
    before = TaskInfo(
        task_id=1, task_name="Orders to SQL", task_type="SqlEtl", task_state="Disabled", task_key="1", etag=7,
        state="Disabled", placement=PlacementView(node="A", rule="Mentor"), responsible_node=None, mentor_node="A",
        pin_to_mentor_node=True, requires=(), task_connection_status="None", run=None, configuration={},
    )  # fmt: skip
    assert _undone(before, {"PinToMentorNode": False, "Disabled": False}) == [
        "It was pinned to A, and the file takes that away: raftnode pin 'Orders to SQL' A sets it again.",
        "It was disabled, and the file enables it: raftnode task disable 'Orders to SQL' disables it again.",
    ]


def test_the_node_that_is_asked_says_what_its_own_tasks_wait_for() -> None:
    here = RunView(
        database="shop", name="orders", kind="SqlEtl", task_id=7, node="A", state="Waiting", reason="start 1 holds it"
    )  # fmt: skip
    assert _waiting(task_with(state="Waiting", run_here=here)) == ["start 1 holds it"]
    assert _waiting(task_with(state="Running", run_here=replace(here, state="Running"))) == []
    assert _waiting(task_with(state="Waiting")) == []


def test_the_help_says_what_a_setting_takes_and_defaults_as_a_file_writes_them() -> None:
    told = CliRunner().invoke(cli, ["run", "--help"], terminal_width=2000).output
    assert "Port to listen on. Takes a whole number from 1 to 65535. Default: 8080." in told
    assert "JSON in variables and flags. Default: []." in told


def test_the_help_names_every_exit_code() -> None:
    told = CliRunner().invoke(cli, ["--help"], terminal_width=2000).output
    assert all(f" {code} " in told for code in (0, 1, 2, 3, 4, 5, 6, 130))


def test_a_command_starts_without_what_only_others_need() -> None:
    program = "import sys; from raftnode.cli.main import cli\ncli({}, standalone_mode=False); print(*sys.modules)"
    loaded = {
        words: subprocess.run(
            [sys.executable, "-c", program.format(words.split())], capture_output=True, text=True, check=True
        ).stdout.split()
        for words in ("--version", "run --help", "status --help")
    }
    assert not {"aiohttp", "rich", "raftnode.cli.run"} & set(loaded["--version"])
    assert not {"aiohttp", "rich", "raftnode.cli.status"} & set(loaded["run --help"])
    assert {"aiohttp", "rich", "raftnode.cli.status"} <= set(loaded["status --help"])
