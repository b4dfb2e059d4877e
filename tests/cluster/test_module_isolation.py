"""A user's own config.py, tasks.py and observer.py, where one stands and on PYTHONPATH: every command works beside
them, and what a user's code imports is theirs."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from raftnode.cli.local_cluster import free_ports

PLUGIN = '''
"""A kind in a module called tasks, which imports its own config and observer, and ours where it has none."""
import json, subprocess, sys
from dataclasses import dataclass
from typing import get_type_hints

import config
import config.sub
import observer
from config import WHOSE
from config.sub import DEEP
from tasks.kinds.registry import ConfigurationError, TaskDefinition
from tasks.runtime.context import TaskContext

@dataclass
class Row:
    whose: "config.sub.Deep"

SEEN = {
    "config": config.WHOSE, "observer": observer.WHOSE, "from": WHOSE, "deep": DEEP, "sub": config.sub.DEEP,
    "lazily": get_type_hints(Row)["whose"].__name__, "ours": TaskDefinition.__module__,
}

class Kind:
    name = "Probe"

    def parse(self, configuration, database):
        child = "import config; print(config.WHOSE)"
        SEEN["child"] = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True).stdout.strip()
        raise ConfigurationError("Probe", "SEEN" + json.dumps(SEEN))

KIND = Kind()
'''


@dataclass
class Yard:
    """A directory with a user's modules, and a node that runs there."""

    directory: Path
    command: tuple[str, ...]
    url: str

    def run(self, *arguments: str, given: str | None = None) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*self.command, *arguments, *(("--url", self.url) if self.url else ())],
            cwd=self.directory,
            env=environment(self.directory),
            input=given or "",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def environment(directory: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAFTNODE_")}
    return kept | {"PYTHONPATH": str(directory)}


def make(directory: Path) -> None:
    (directory / "observer.py").write_text("WHOSE = 'theirs'\nimport config\n")
    (directory / "tasks.py").write_text(PLUGIN)
    (directory / "config").mkdir()
    (directory / "config" / "__init__.py").write_text("WHOSE = 'theirs'\n")
    (directory / "config" / "sub.py").write_text(
        "from . import WHOSE\nimport config\nDEEP = config.WHOSE\nclass Deep: ...\n"
    )
    metadata = directory / "theirs-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[raftnode.tasks]\nprobe_etl = tasks:KIND\n")


@pytest.fixture(scope="module", params=["python -m raftnode", "raftnode"])
def yard(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    directory = tmp_path_factory.mktemp("yard")
    make(directory)
    script = (str(Path(sys.executable).with_name("raftnode")),)
    command = script if request.param == "raftnode" else (sys.executable, "-m", "raftnode")
    http, cluster = free_ports(2)
    node = subprocess.Popen(
        [*command, "run", "--http.port", str(http), "--cluster.port", str(cluster), "--cluster.profile", "fast"],
        cwd=directory, env=environment(directory), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert node.stderr is not None
        said = []
        for line in node.stderr:
            said.append(line)
            if "The cluster is formed" in line:
                break
        else:
            raise AssertionError("".join(said))
        made = Yard(directory, command, f"http://127.0.0.1:{http}")
        created = made.run("db", "create", "Shop")
        assert created.returncode == 0, created.stderr
        yield made
    finally:
        node.send_signal(signal.SIGTERM)
        node.communicate(timeout=30)
    assert node.returncode == 0


@pytest.mark.parametrize(
    "line",
    [
        "status", "node list", "observer log", "what-if", "snapshot save saved", "demo --help", "run --help",
        "snapshot restore saved --data-dir other --node.tag A", "recover --data-dir other",
    ],
)  # fmt: skip
def test_every_command_works_beside_modules_of_these_names(yard: Yard, line: str) -> None:
    alone = Yard(yard.directory, yard.command, "")
    done = (alone if "-" in line and "what-if" not in line else yard).run(*line.split())
    assert done.returncode == 0, done.stderr


def test_a_script_runs_beside_them(yard: Yard) -> None:
    string = {
        "Name": "t",
        "Type": "Sql",
        "FactoryName": "System.Data.SQLite",
        "ConnectionString": f"Data Source={yard.directory}/t",
    }
    etl = {
        "EtlType": "Sql", "Name": "orders", "ConnectionStringName": "t",
        "SqlTables": [{"TableName": "Orders", "DocumentIdColumn": "Id"}],
        "Transforms": [{"Name": "t", "Collections": ["Orders"], "Script": "loadToOrders({"}],
    }  # fmt: skip
    assert yard.run("connection-string", "put", "-", "--database", "Shop", given=json.dumps(string)).returncode == 0
    done = yard.run("etl", "put", "-", "--database", "Shop", given=json.dumps(etl))
    assert "SyntaxError" in done.stderr


def test_a_users_code_imports_its_own(yard: Yard) -> None:
    done = yard.run("etl", "put", "-", "--database", "Shop", given=json.dumps({"EtlType": "Probe", "Name": "x"}))
    assert done.returncode == 1
    log = done.stderr
    seen: dict[str, Any] = json.loads(log[log.index("SEEN") + 4 : log.rindex("}") + 1])
    assert seen.pop("ours") == "raftnode.record.definition"
    assert seen.pop("lazily") == "Deep"
    assert set(seen.values()) == {"theirs"}
