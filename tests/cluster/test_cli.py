"""The command line against a real node, as a user or a script meets it."""

import contextlib
import gzip
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from raftnode.cli.demo_target import etl
from raftnode.cli.local_cluster import free_ports
from raftnode.cli.session import FAILING
from tests.harness import commands

SHADOW = "raise SystemExit('the directory one stands in came first')\n"


@dataclass
class Shell:
    """A directory with a tasks.py and a config.py of its own, in which commands are run, and a node to talk to."""

    directory: Path
    url: str = ""

    def environment(self) -> dict[str, str]:
        """Without settings of whoever runs the tests."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAFTNODE_")}
        return kept | ({"RAFTNODE_URL": self.url} if self.url else {})

    def run(self, *arguments: str, given: str | None = None) -> "subprocess.CompletedProcess[str]":
        """One command to its end."""
        return commands.run(*arguments, cwd=self.directory, env=self.environment(), given=given)

    def json(self, *arguments: str, given: str | None = None) -> Any:
        """A command's answer with --json; it must be well, though a task may fail that it lists."""
        done = self.run(*arguments, "--json", given=given)
        assert done.returncode in ((0, FAILING) if arguments[0] in ("tasks", "status") else (0,)), done.stderr
        return json.loads(done.stdout)


def start(shell: Shell, *arguments: str) -> "subprocess.Popen[str]":
    """A node, once it answers."""
    node = subprocess.Popen(
        [sys.executable, "-m", "raftnode", *arguments],
        cwd=shell.directory,
        env=shell.environment(),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert node.stderr is not None
    for line in node.stderr:
        if "The cluster is formed" in line:
            return node
    raise AssertionError(f"the node ended with {node.wait()}")


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A node started in a directory that would shadow ours, with no command: `python -m raftnode --http.port ...`."""
    made = Shell(tmp_path_factory.mktemp("shell"))
    for name in ("tasks.py", "config.py", "observer.py"):
        (made.directory / name).write_text(SHADOW)
    http_port, cluster_port = free_ports(2)
    node = start(made, "--http.port", str(http_port), "--cluster.port", str(cluster_port))
    made.url = f"http://127.0.0.1:{http_port}"
    try:
        yield made
    finally:
        node.send_signal(signal.SIGTERM)
        node.communicate(timeout=30)
    assert node.returncode == 0


@pytest.fixture(scope="module")
def shop(shell: Shell) -> Shell:
    """The same, with a database that holds two documents."""
    assert shell.json("db", "create", "Shop")["Topology"]["Members"] == ["A"]
    lines = [{"Name": name, "@metadata": {"@id": f"orders/{name}", "@collection": "Orders"}} for name in ("a", "b")]
    given = "\n\n".join(json.dumps(line) for line in lines)
    assert shell.json("import", "-", "--database", "Shop", given=given) == {"Database": "Shop", "Imported": 2}
    (shell.directory / "orders.json").write_text(json.dumps(etl("orders", "target")))
    place = f"Data Source={shell.directory}/x"
    string = {"Name": "target", "Type": "Sql", "FactoryName": "System.Data.SQLite", "ConnectionString": place}
    shell.json("connection-string", "put", "-", "--database", "Shop", given=json.dumps(string))
    shell.json("etl", "put", "orders.json", "--database", "Shop")
    return shell


def test_an_import_takes_compressed_files_and_arrays_and_names_the_line_that_is_refused(shop: Shell) -> None:
    def documents(*values: str) -> list[str]:
        return [f'{{"v": {v}, "@metadata": {{"@id": "imported/{n}"}}}}' for n, v in enumerate(values)]

    def imported(content: bytes) -> subprocess.CompletedProcess[str]:
        (shop.directory / "given").write_bytes(content)
        return shop.run("import", "given", "--database", "Shop", "--json")

    lines, array = "\r\n".join(documents(*"123")), f"[{', '.join(documents(*'1234'))}]\n"
    for content, count in [
        (lines.encode("utf-8-sig"), 3),
        (array.encode(), 4),
        (gzip.compress(lines.encode()) + gzip.compress(array.encode()), 7),
        (b"", 0),
    ]:
        done = imported(content)
        assert (done.returncode, json.loads(done.stdout)["Imported"]) == (0, count), done.stderr
    many = "\n\n".join(documents(*map(str, range(1500)), "NaN", "1")).encode()
    for content, says in [
        (many, "Line 3001: The body is not valid JSON"),
        (gzip.compress(many), "Imported before it: 1,500 documents."),
        (gzip.compress(lines.encode())[:-1], "was cut off"),
        (b"[1, 2]", "Before item 1 stands '[1, 2]'"),
        (lines.encode() + b'{"v": "', "The import ends within item 4 (line 3)"),
    ]:
        done = imported(content)
        assert (done.returncode, done.stdout) == (1, "")
        assert says in done.stderr


def test_a_node_alone_runs_in_a_directory_with_a_tasks_module_of_its_own_and_keeps_its_data_there(shell: Shell) -> None:
    assert shell.json("status")["Node"]["Role"] == "Leader"
    assert (shell.directory / "data" / "node.json").exists()


def test_the_status_shows_node_cluster_and_database(shop: Shell) -> None:
    shown = shop.run("status").stdout
    assert "Leader, leader A" in shown
    assert "database Shop" in shown
    assert "orders  SqlEtl" in shown.replace("\u200b", "")


@pytest.mark.parametrize("flags", [[], ["--json"]], ids=["text", "json"])
@pytest.mark.parametrize(("command", "shows"), [("status", "A at "), ("tasks", "orders")])
def test_watching_in_a_pipe_gives_each_look_after_the_other(
    shop: Shell, command: str, shows: str, flags: list[str]
) -> None:
    watching = subprocess.Popen(
        [sys.executable, "-m", "raftnode", command, "--watch", *flags],
        cwd=shop.directory,
        env=shop.environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert watching.stdout is not None
    looks: list[str] = []
    for look in watching.stdout:
        looks += [look] * (look.startswith("{") if flags else shows in look)
        if len(looks) == 2:
            break
    watching.send_signal(signal.SIGINT)
    watching.communicate(timeout=30)
    if flags:
        assert json.loads(looks[0])["At"] < json.loads(looks[1])["At"]
    assert watching.returncode == 0


def test_tasks_are_watched_on_a_terminal_with_how_far_they_are(shop: Shell) -> None:
    terminal, end = os.openpty()
    with os.fdopen(terminal, "rb", buffering=0) as shown:
        watching = subprocess.Popen(
            [sys.executable, "-m", "raftnode", "tasks", "--watch"],
            cwd=shop.directory,
            env=shop.environment() | {"COLUMNS": "160", "TERM": "xterm"},
            stdin=end,
            stdout=end,
            start_new_session=True,
        )
        os.close(end)
        seen = b""
        while seen.count(b"orders") < 3:
            seen += shown.read(4096)
        watching.send_signal(signal.SIGINT)
        with contextlib.suppress(OSError):  # the terminal goes with the last who has it open
            while shown.read(4096):
                pass
        assert watching.wait(30) == 0
    assert b"progress" in seen
    assert re.search(rb"0 %, [\d,]+ left", seen), seen.decode()


def test_ctrl_c_in_the_middle_of_a_command_ends_it_with_130(shop: Shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        waiting = subprocess.Popen(
            [sys.executable, "-m", "raftnode", "status", "--url", f"http://127.0.0.1:{mute.getsockname()[1]}"],
            cwd=shop.directory,
            env=shop.environment(),
        )
        mute.accept()
        waiting.send_signal(signal.SIGINT)
        assert waiting.wait(30) == 130


def test_tasks_are_listed_with_who_is_responsible_by_which_rule(shop: Shell) -> None:
    (task,) = shop.json("tasks")["Shop"]
    assert (task["TaskName"], task["Placement"]["Node"], task["Placement"]["Rule"]) == ("orders", "A", "Hash")
    header, row = shop.run("tasks").stdout.splitlines()[1:3]
    assert header.split() == ["task", "kind", "responsible", "rule", "holder", "epoch", "state", "progress"]
    assert row.split()[:4] == ["orders", "SqlEtl", "A", "Hash"]


def test_putting_a_task_again_edits_it(shop: Shell) -> None:
    before = shop.json("tasks")["Shop"]
    assert "edited" in shop.run("etl", "put", "orders.json", "--database", "Shop").stdout
    after = shop.json("tasks")["Shop"]
    assert [task["TaskId"] for task in after] == [task["TaskId"] for task in before]


def test_a_task_is_pinned_preferred_and_set_free(shop: Shell) -> None:
    shop.json("pin", "orders", "a")
    assert shop.json("tasks")["Shop"][0]["Placement"]["Rule"] == "PinnedMentor"
    shop.json("pin", "orders", "A", "--prefer")
    assert shop.json("tasks")["Shop"][0]["Placement"]["Rule"] == "Mentor"
    shop.json("pin", "orders", "--off")
    assert shop.json("tasks")["Shop"][0]["Placement"]["Rule"] == "Hash"


def test_an_edit_leaves_a_pin_of_which_its_file_does_not_speak_and_says_when_it_takes_one_away(shop: Shell) -> None:
    speaks = etl("orders", "target") | {"MentorNode": None, "PinToMentorNode": False, "Disabled": False}
    silent = {
        name: value for name, value in speaks.items() if name not in ("MentorNode", "PinToMentorNode", "Disabled")
    }
    shop.json("pin", "orders", "A")
    shop.json("task", "disable", "orders")

    def put(definition: dict[str, Any]) -> list[str]:
        done = shop.run("etl", "put", "-", "--database", "Shop", given=json.dumps(definition))
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()[1:]

    assert put(silent) == []
    (task,) = shop.json("tasks")["Shop"]
    assert (task["MentorNode"], task["PinToMentorNode"], task["TaskState"]) == ("A", True, "Disabled")
    assert put(speaks) == [
        "It was pinned to A, and the file takes that away: raftnode pin orders A sets it again.",
        "It was disabled, and the file enables it: raftnode task disable orders disables it again.",
    ]
    (task,) = shop.json("tasks")["Shop"]
    assert (task["MentorNode"], task["PinToMentorNode"], task["TaskState"]) == (None, False, "Enabled")


def test_failures_are_listed_and_tried_again_and_scripts_are_told(shop: Shell) -> None:
    def until(what: str, condition: Callable[[], Any]) -> None:
        deadline_s = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline_s, what
            time.sleep(0.1)

    def target(*statements: str) -> None:
        with contextlib.closing(sqlite3.connect(shop.directory / "failing.sqlite")) as connection:
            for statement in statements:
                connection.execute(statement)
            connection.commit()

    def shown() -> tuple[int, str]:
        done = shop.run("tasks", "--database", "Failing")
        return done.returncode, " ".join(done.stdout.split())

    shop.json("db", "create", "Failing")
    place = f"Data Source={shop.directory / 'failing.sqlite'}"
    string = {"Name": "t", "Type": "Sql", "FactoryName": "System.Data.SQLite", "ConnectionString": place}
    shop.json("connection-string", "put", "-", "--database", "Failing", given=json.dumps(string))
    definition = {
        "EtlType": "Sql", "Name": "fails", "ConnectionStringName": "t",
        "SqlTables": [{"TableName": "T", "DocumentIdColumn": "Id"}],
        "Transforms": [{"Name": "x", "Collections": ["O"], "Script": "loadToT({N: this.N})"}],
    }  # fmt: skip
    shop.json("etl", "put", "-", "--database", "Failing", given=json.dumps(definition))
    given = "\n".join(json.dumps({"N": n, "@metadata": {"@id": f"o/{n}", "@collection": "O"}}) for n in (1, 900))
    shop.json("import", "-", "--database", "Failing", given=given)

    until("the missing table shows", lambda: "has no table 'T'" in shown()[1])
    assert shown()[0] == FAILING
    assert "2 left" in shown()[1]
    target("CREATE TABLE T (Id text, N int CHECK (N < 100))")
    until("one document has failed", lambda: "up to date, 1 failed" in shown()[1])
    assert shown()[0] == FAILING
    assert "1 document is skipped; raftnode task failed fails" in shown()[1]
    assert shop.run("why", "fails").returncode == FAILING
    (one,) = shop.json("task", "failed", "fails")["Documents"]
    assert (one["DocumentId"], one["Transform"]) == ("o/900", "x")
    assert "CHECK constraint failed" in one["Error"]
    assert "o/900" in shop.run("task", "failed", "fails").stdout

    target("ALTER TABLE T RENAME TO before", "CREATE TABLE T (Id text, N int)", "INSERT INTO T SELECT * FROM before")
    assert "tries 1 document again" in shop.run("task", "retry", "fails").stdout
    until("nothing is failed any more", lambda: shown()[0] == 0)
    assert "up to date" in shown()[1]
    assert shop.run("task", "failed", "fails").stdout.strip() == "No document is skipped."
    shop.json("db", "delete", "Failing", "--yes")


def test_a_task_is_disabled_enabled_reset_and_deleted(shop: Shell) -> None:
    other = etl("other", "target") | {
        "SqlTables": [{"TableName": "Others", "DocumentIdColumn": "Id"}],
        "Transforms": [{"Name": "t", "Collections": ["Oders"], "Script": "loadToOthers({})"}],
    }
    put = shop.run("etl", "put", "-", "--database", "Shop", given=json.dumps(other))
    assert "Warning: Collection 'Oders' of task 'other' has no documents. Known:" in put.stdout
    states = []
    for verb in (["disable"], ["enable"], ["reset", "--yes"]):
        shop.json("task", *verb, "other")
        states.append(next(t["TaskState"] for t in shop.json("tasks")["Shop"] if t["TaskName"] == "other"))
    assert states == ["Disabled", "Enabled", "Enabled"]
    shop.json("task", "delete", "other", "--yes")
    assert [task["TaskName"] for task in shop.json("tasks")["Shop"]] == ["orders"]


def test_connection_strings_are_listed_and_one_in_use_stays(shop: Shell) -> None:
    assert shop.json("connection-string", "list", "--database", "Shop") == [{"Name": "target", "Type": "Sql"}]
    refused = shop.run("connection-string", "delete", "target", "--database", "Shop", "--yes")
    assert refused.returncode == 1
    assert "orders" in refused.stderr


def test_an_etl_is_listed_shown_put_again_and_deleted(shop: Shell) -> None:
    [listed] = [one for one in shop.json("etl", "list") if one["TaskName"] == "orders"]
    assert (listed["Database"], listed["TaskType"]) == ("Shop", "SqlEtl")
    assert "orders  SqlEtl  Enabled  Orders" in " ".join(shop.run("etl", "list").stdout.split(" ")).replace("   ", "  ")
    definition = shop.json("etl", "show", "orders")
    shop.json("etl", "delete", "orders", "--yes")
    assert shop.run("etl", "show", "orders").returncode == 4
    shop.json("etl", "put", "-", "--database", "Shop", given=json.dumps(definition))
    assert shop.json("etl", "show", "orders") == definition


def test_a_document_is_read(shop: Shell) -> None:
    assert shop.json("document", "get", "orders/a", "--database", "Shop")["Name"] == "a"
    assert [one["@id"] for one in shop.json("document", "list", "--database", "Shop", "--prefix", "orders/")] == [
        "orders/a", "orders/b",
    ]  # fmt: skip
    missing = shop.run("document", "get", "orders/z", "--database", "Shop")
    assert (missing.returncode, missing.stderr) == (4, "raftnode: Database 'Shop' has no document 'orders/z'.\n")


def test_a_document_is_shown_with_all_digits_of_its_numbers(shop: Shell) -> None:
    shop.json("db", "create", "Numbers")
    numbers = '"Price": 1234567890.12345678901234567890, "Small": 1.50e-700, "Whole": 123456789012345678901234567890'
    document = f'{{"@metadata": {{"@id": "n/1"}}, {numbers}, "Name": "Käse"}}'
    shop.json("import", "-", "--database", "Numbers", given=document)
    read = ("document", "get", "n/1", "--database", "Numbers")
    for shown in (shop.run(*read).stdout, shop.run(*read, "--json").stdout):
        assert numbers in " ".join(shown.split())
        assert json.loads(shown)["Name"] == "Käse"
    assert "K\\u00e4se" in shop.run(*read, "--json").stdout


def test_a_group_is_ordered_locked_and_switched_by_hand(shop: Shell) -> None:
    shop.json("db", "create", "Group")
    assert "Members: A" in shop.run("db", "promote", "Group", "A").stdout
    assert shop.json("db", "reorder", "Group", "A", "--fixed")["RaftCommandIndex"] > 0
    assert shop.json("db", "dynamic", "Group", "on")["DynamicNodesDistribution"]
    shop.json("db", "lock", "Group", "error")
    assert "locked" in shop.run("db", "delete", "Group", "--yes").stderr
    shop.json("db", "lock", "Group", "off")
    shop.json("db", "disable", "Group")
    disabled = shop.run("document", "list", "--database", "Group")
    assert disabled.returncode == 5
    assert "is disabled" in disabled.stderr
    shop.json("db", "enable", "Group")
    assert shop.run("db", "enable", "Nothing").returncode == 4
    assert shop.run("db", "add-node", "Group", "ZZ").returncode == 4
    shop.json("db", "delete", "Group", "--yes", "--soft")
    [copy] = shop.json("db", "removed")["Removed"]
    shop.json("db", "restore", copy["Folder"], "--node", "A", "--name", "Again")
    assert shop.run("db", "restore", copy["Folder"], "--node", "A").returncode == 4
    shop.json("db", "delete", "Again", "--yes")


def test_databases_are_listed_and_deleted(shop: Shell) -> None:
    shop.json("db", "create", "Gone")
    assert "Shop" in shop.run("db", "list").stdout
    refused = shop.run("db", "delete", "Gone")
    assert refused.returncode == 2
    assert "--yes" in refused.stderr
    shop.json("db", "delete", "Gone", "--yes")
    names = [d["Name"] for d in shop.json("db", "list")["Databases"]]
    assert "Shop" in names
    assert "Gone" not in names


def test_the_observer_is_suspended_and_resumed(shop: Shell) -> None:
    assert shop.json("observer", "suspend")["Suspended"] is True
    assert "the observer is suspended" in shop.run("status").stdout
    assert shop.json("observer", "resume")["Suspended"] is False
    assert shop.run("observer", "log").returncode == 0


def test_a_node_that_joins_as_a_watcher_is_listed_promoted_demoted_drained_and_removed(shop: Shell) -> None:
    http_port, cluster_port = free_ports(2)
    shop.json("node", "add", "B", f"http://127.0.0.1:{http_port}", f"127.0.0.1:{cluster_port}", "--watcher")
    joining = subprocess.Popen(
        [*(sys.executable, "-m", "raftnode", "run", "--join", shop.url, "--watcher", "--tag", "B"),
         *("--data-dir", "b", "--http.port", str(http_port), "--cluster.port", str(cluster_port))],
        cwd=shop.directory, env=shop.environment(), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert joining.stderr is not None
    try:
        for line in joining.stderr:
            if "This node answers HTTP" in line:
                break
        kinds = []
        for verb in ("promote", "demote"):
            shop.json("node", verb, "B")
            kinds.append(sorted(shop.json("node", "list")["Topology"]["Watchers"]))
        assert kinds == [[], ["B"]]
        assert "Node B is drained: its tasks move.\n" in shop.run("drain", "b").stdout
        shop.json("drain", "B", "--off")
        shop.json("node", "remove", "B", "--yes")
        assert sorted(shop.json("node", "list")["Topology"]["AllNodes"]) == ["A"]
    finally:
        joining.kill()
        joining.communicate()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["reelect"], 1, "nobody to hand over to"),
        (["db", "create", "Shop"], 1, "exists already"),
        (["import", "orders.json", "--database", "Shop"], 1, "Line 1"),
        (["etl", "put", "tasks.py", "--database", "Shop"], 1, "is not JSON"),
        (["frobnicate"], 2, "No such command"),
        (["pin", "orders", "--prefer"], 2, "Give a node, nothing, or --off"),
        (["node", "remove", "a1"], 2, "not a node tag"),
        (["--url", "localhost", "status"], 2, "give addresses like"),
        (["status", "--url", "http://127.0.0.1:1"], 3, "Start a node"),
        (["status", "--database", "Nothing"], 4, "no database 'Nothing'"),
        (["db", "delete", "Nothing", "--yes"], 4, "does not exist"),
        (["import", "orders.json", "--database", "Nothing"], 4, "does not exist"),
        (["pin", "nothing", "A"], 4, "no task 'nothing'"),
        (["node", "remove", "ZZ", "--yes"], 4, "not in the cluster"),
        (["pin", "orders", "ZZ"], 4, "not in the cluster"),
        (["db", "create", "Other", "--nodes", "ZZ"], 4, "not in the cluster"),
        (["db", "delete", "Shop", "--from", "ZZ", "--yes"], 4, "not in the cluster"),
        (
            ["connection-string", "delete", "nothing", "--database", "Shop", "--yes"],
            4,
            "no connection string 'nothing'",
        ),
        (["connection-string", "delete", "nothing", "--database", "Nothing", "--yes"], 4, "does not exist"),
        (["observer", "log", "--database", "Nothing"], 4, "does not exist"),
        (["what-if", "--lost", "ZZ"], 4, "not in the cluster"),
        (["node", "traits", "A"], 2, "--weight, --labels or both"),
        (["run", "--cluster.lease-ms", "60"], 2, "lease_ms >="),
        (["run", "--watcher"], 2, "--join"),
    ],
)
def test_what_goes_wrong_is_said_on_stderr_with_an_exit_code_that_tells_why(
    shop: Shell, arguments: list[str], code: int, says: str
) -> None:
    done = shop.run(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_of_several_addresses_the_first_that_answers_is_asked(shop: Shell) -> None:
    assert shop.json("status", "--url", f"http://127.0.0.1:1,{shop.url}")["Node"]["Tag"] == "A"


def test_a_second_node_on_the_same_data_ends_and_names_the_first(shop: Shell) -> None:
    done = shop.run("run", "--data-dir", "data")
    assert done.returncode == 1
    assert "Another raftnode runs on the data directory" in done.stderr


def test_a_name_in_two_databases_must_be_told_apart(shop: Shell) -> None:
    shop.json("db", "create", "Twin")
    place = f"Data Source={shop.directory}/y"
    string = {"Name": "target", "Type": "Sql", "FactoryName": "System.Data.SQLite", "ConnectionString": place}
    shop.json("connection-string", "put", "-", "--database", "Twin", given=json.dumps(string))
    shop.json("etl", "put", "orders.json", "--database", "Twin")
    assert "say which: --database" in shop.run("pin", "orders", "A").stderr
    assert shop.run("pin", "orders", "--off", "--database", "Twin").returncode == 0
    shop.json("db", "delete", "Twin", "--yes")


def test_neither_a_node_at_rest_nor_a_command_loads_the_database_library_of_the_tasks() -> None:
    program = (
        "import sys, importlib, raftnode.node; from raftnode.cli.main import MODULES\n"
        "for module in set(MODULES.values()) - {'demo'}: importlib.import_module(f'raftnode.cli.{module}')\n"
        "print('sqlalchemy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_the_demo_is_a_command(shell: Shell) -> None:
    assert "  demo " in shell.run("--help").stdout
    assert "--postgres" in shell.run("demo", "--help").stdout
