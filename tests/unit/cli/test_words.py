"""What the command line says, in words that people read."""

import subprocess
import sys
from typing import Any

from click.testing import CliRunner

from raftnode.cli.cluster import _node_row
from raftnode.cli.main import cli
from raftnode.cli.status import trouble
from raftnode.cli.status_events import events
from raftnode.cli.tables import counted, epoch, moment
from raftnode.record.model import GENERATION_STRIDE


def test_an_epoch_is_its_index_and_after_a_recovery_its_generation_too() -> None:
    assert epoch(None) == ""
    assert epoch("55") == "55"
    assert epoch(str(29_000_000 * GENERATION_STRIDE + 55)) == "29000000/55"


def test_one_of_a_thing_is_not_spoken_of_as_many() -> None:
    assert [counted(count, "run") for count in (0, 1, 2000)] == ["0 runs", "1 run", "2,000 runs"]


def test_times_are_shown_to_the_second() -> None:
    assert moment("2026-11-28T21:19:41.4117050Z") == "2026-11-28 21:19:41"


def status(**task: Any) -> dict[str, Any]:
    shown = {
        "TaskId": 7, "TaskName": "orders", "Placement": {"Node": "A", "Rule": "Hash"}, "Epoch": None,
        "LastHolder": None, "ClaimState": None, "Reason": None,
    }  # fmt: skip
    topology: dict[str, Any] = {"Members": ["A"], "Rehabs": [], "Promotables": [], "DemotionReasons": {}}
    return {
        "Node": {"Leader": "A", "Term": 1},
        "Databases": {"shop": {"Topology": topology, "Tasks": [shown | task]}},
    }


def test_what_was_not_there_before_is_not_spoken_of() -> None:
    first = status(Placement={"Node": None, "Rule": "NoMember"})
    claimed = status(Epoch="55", LastHolder="A", ClaimState="Held")
    assert events(first, claimed) == ["responsible for orders: A, by rule Hash", "A claimed orders: epoch 55"]
    moved = status(Epoch="60", LastHolder="B", ClaimState="Held", Placement={"Node": "B", "Rule": "Hash"})
    assert events(claimed, moved) == [
        "responsible for orders: B, by rule Hash, instead of A",
        "B claimed orders: epoch 60, after 55",
    ]


def test_a_node_is_listed_with_what_placement_reads_of_it() -> None:
    node = {
        "Tag": "B", "Kind": "Member", "Url": "http://b:1", "Weight": 2, "Labels": ["ssd", "eu"], "Draining": True,
        "Silent": True, "Kinds": ["SqlEtl", "Update"], "Flags": ["EarlyOutOfMemory"],
    }  # fmt: skip
    row = _node_row(node, "B")
    assert row[:6] == ("B", "Member", "http://b:1", "2", "ssd, eu", "SqlEtl, Update")
    for mark in ("leader", "silent", "draining", "EarlyOutOfMemory"):
        assert mark in row[6]


def test_an_error_is_not_mixed_up_with_the_node_that_tells_of_it() -> None:
    task = {"TaskName": "orders", "State": "Error", "Error": "create the table", "Holder": "A"}
    missing: dict[str, Any] = {"Unknown": None, "Failed": 0}
    assert trouble(task | missing) == ["[red]create the table[/] (on A)"]
    assert trouble(task | missing | {"State": "Unknown"}) == ["[red]create the table[/] (on A, when it last told)"]
    assert trouble(task | missing | {"State": "NoNode", "Holder": None})[0].endswith("[/] (when it last told)")


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
