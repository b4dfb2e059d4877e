"""The partition exception: a cut-off holder goes on with a task of a kind that may run twice, and with nothing else."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.harness import hostile_tasks
from tests.harness.plugins import install
from tests.harness.runs import assert_no_overlap
from tests.partition.lab import Lab
from tests.partition.scene import lead

pytestmark = [pytest.mark.lab, pytest.mark.timeout(180)]

DATABASE = "Shop"
OTHERS = ("B", "C")


class Rounds:
    """Tasks that write a line with their node and epoch, round after round."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self.lab, self.directory = lab, directory

    async def put(self, name: str, **more: Any) -> None:
        """Such a task, which runs on A first."""
        task = {"TaskType": "HostileEtl", "Name": name, "Does": "rounds", "File": str(self.directory / name), **more}
        query = f"/databases/{DATABASE}/admin/tasks"
        id = (await self.lab.call("PUT", query, task | {"MentorNode": "A"}))["TaskId"]
        await self.lab.wait_until(lambda: self.counts(name)["A"] > 0, f"{name} to run on A")
        await self.lab.call("POST", f"{query}/pin?key={id}")

    def counts(self, name: str) -> Counter[str]:
        """How many rounds each node has made."""
        file = self.directory / name
        return Counter(line.split()[0] for line in file.read_text().splitlines()) if file.exists() else Counter()

    async def goes_on(self, name: str, tag: str) -> None:
        """Waits for three more rounds on that node."""
        seen = self.counts(name)[tag]
        await self.lab.wait_until(lambda: self.counts(name)[tag] >= seen + 3, f"{name} to go on on {tag}")

    async def shown(self, name: str, tag: str) -> dict[str, Any]:
        """The task as that node shows it."""
        status = await self.lab.status(tag)
        return next(t for t in (status or {})["Databases"][DATABASE]["Tasks"] if t["TaskName"] == name)

    async def why(self, name: str) -> dict[str, Any]:
        """Why the task is where it is, as B says."""
        answer: dict[str, Any] = await self.lab.call("GET", f"/databases/{DATABASE}/tasks/{name}/why", tag="B")
        return answer


async def test_scenario_43_a_holder_that_is_cut_off_goes_on_and_reports_when_it_is_back(tmp_path: Path) -> None:
    """RavenDB's holder goes on without a leader, and what it has done is not stored: it may be repeated. Here it is
    stored once the holder is back, as long as the task is still its own; if another node has the task by then, both
    runs are told of."""
    lab = Lab(tmp_path, "ABC", flags=("--cluster.stabilization-time-sec", "0"))
    found = install(tmp_path / "packages", Path(hostile_tasks.__file__), "hostile_etl")
    for node in lab.nodes.values():
        node.prefix += found
    rounds = Rounds(lab, tmp_path)
    traits = {"Sticky": True, "PartitionTolerant": True}
    async with lab:
        await lab.create_database(DATABASE, "ABC")
        await lead(lab, "B")
        await rounds.put("backup", Traits=traits)
        await rounds.put("impatient", Traits=traits | {"GraceMin": 0})
        await rounds.put("strict", Traits={"Sticky": True, "GraceMin": 0})
        before = await rounds.shown("backup", "B")
        lab.network.isolate("A")
        await _strict_moves(rounds)
        await _both_run(rounds)
        await _patient_stays(rounds, before)
        lab.network.heal()
        await _reports(rounds, before)
        await _told_twice(rounds)
        strict = {key: runs for key, runs in lab.runs().items() if key.endswith("strict")}
        assert_no_overlap(strict, ["strict"])


async def _strict_moves(rounds: Rounds) -> None:
    """What needs a lease stops on A and runs elsewhere; its node lives on."""
    await rounds.lab.wait_until(lambda: rounds.counts("strict").keys() & set(OTHERS), "strict to run elsewhere")
    here = (await rounds.shown("strict", "A"))["RunHere"]
    assert here is None or here["State"] != "Running"


async def _both_run(rounds: Rounds) -> None:
    """Without a grace a tolerant task runs elsewhere, too, while A goes on; the observer has said that it may."""
    await rounds.lab.wait_until(lambda: rounds.counts("impatient").keys() & set(OTHERS), "impatient to run elsewhere")
    for tag in ("A", next(iter(rounds.counts("impatient").keys() & set(OTHERS)))):
        await rounds.goes_on("impatient", tag)
    decisions = await rounds.lab.call("GET", "/admin/cluster/observer/decisions", tag="B")
    said = [entry["Message"] for entry in decisions["ObserverLog"]]
    [void] = [message for message in said if "impatient" in message and "Claims void" in message]
    assert "A may go on with it until it is heard again, as its kind needs no lease" in void


async def _patient_stays(rounds: Rounds, before: dict[str, Any]) -> None:
    """Within its grace it runs nowhere else, and keeps its claim."""
    await rounds.goes_on("backup", "A")
    assert set(rounds.counts("backup")) == {"A"}
    here = (await rounds.shown("backup", "A"))["RunHere"]
    assert (here["State"], here["Epoch"]) == ("Running", before["Epoch"])
    assert here["Reason"] == "without a lease: it goes on under its last claim, as its kind may"
    there = await rounds.shown("backup", "B")
    assert (there["Holder"], there["Epoch"], there["Placement"]["Rule"]) == ("A", before["Epoch"], "StickyHolder")
    assert "A, which is in Rehab, for 30 min: until " in (await rounds.why("backup"))["Because"]


async def _reports(rounds: Rounds, before: dict[str, Any]) -> None:
    """Back in the cluster the same run goes on, and what it did meanwhile is known to all."""
    done = rounds.counts("backup")["A"]

    async def told() -> bool:
        progress = (await rounds.shown("backup", "B"))["Progress"]
        return bool(progress and progress["Processed"] >= done)

    await rounds.lab.wait_until(told, f"{done} rounds to be reported")
    assert (await rounds.shown("backup", "B"))["Epoch"] == before["Epoch"]
    assert set(rounds.counts("backup")) == {"A"}


async def _told_twice(rounds: Rounds) -> None:
    """A's run of the task that has moved ends, and everybody sees that there were two."""

    async def told() -> list[str]:
        decisions = await rounds.lab.call("GET", "/admin/cluster/observer/decisions", tag="C")
        return [entry["Message"] for entry in decisions["ObserverLog"] if "ran twice" in entry["Message"]]

    [said] = await rounds.lab.wait_until(told, "the decisions to tell that a task ran twice")
    assert said.startswith("HostileEtl 'impatient' ran twice: A, which was not heard, went on under epoch ")
    why = await rounds.why("impatient")
    [late] = [run for run in why["Runs"] if run["Node"] == "A"]
    assert late["State"] == "Released"
    assert "; its body ran on until " in late["Reason"]
    over = rounds.counts("impatient")["A"]
    await rounds.goes_on("impatient", why["Runs"][0]["Node"])
    assert rounds.counts("impatient")["A"] == over
