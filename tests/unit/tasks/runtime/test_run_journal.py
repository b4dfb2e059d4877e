"""The journal of bodies, and how it tells freezes from work."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from tasks.runtime.run_journal import FreezeDetector, RunJournal, machine_ns


def test_lines_are_there_for_other_processes_at_once_and_the_file_stays_within_its_bound(tmp_path: Path) -> None:
    journal = RunJournal(tmp_path, "A", bytes_max=1000)
    journal.write("db/Probe/t", 7, "active", 1, 2)
    (line,) = [json.loads(text) for text in (tmp_path / "runs.jsonl").read_text().splitlines()]
    assert {k: line[k] for k in ("task", "epoch", "node", "event", "from_ns", "to_ns")} == {
        "task": "db/Probe/t", "epoch": 7, "node": "A", "event": "active", "from_ns": 1, "to_ns": 2,
    }  # fmt: skip
    for n in range(100):
        journal.write("db/Probe/t", 7, "active", n, n + 1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["runs.jsonl", "runs.jsonl.1"]
    assert all(p.stat().st_size < 1300 for p in tmp_path.iterdir())
    kept = [json.loads(t)["from_ns"] for p in ("runs.jsonl.1", "runs.jsonl") for t in (tmp_path / p).open()]
    assert kept == list(range(kept[0], 100))


def test_a_journal_that_is_closed_or_cannot_write_costs_no_task(tmp_path: Path) -> None:
    journal = RunJournal(tmp_path, "A")
    journal.close()
    journal.write("t", 1, "start", 1, 1)
    journal.close()
    assert (tmp_path / "runs.jsonl").read_text() == ""


def test_a_disk_that_takes_half_a_line_spoils_no_other_and_the_journal_goes_on(tmp_path: Path) -> None:
    code = (
        "import resource, signal, sys; from pathlib import Path; from tasks.runtime.run_journal import RunJournal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "journal = RunJournal(Path(sys.argv[1]), 'A')\n"
        "journal.write('t', 1, 'active', 0, 0)\n"
        "bytes_max = Path(sys.argv[1], 'runs.jsonl').stat().st_size * 3 // 2\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_max, resource.RLIM_INFINITY))\n"
        "journal.write('t', 1, 'active', 1, 1); journal.write('t', 1, 'active', 2, 2)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "journal.write('t', 1, 'active', 3, 3)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    kept = [json.loads(line)["from_ns"] for line in (tmp_path / "runs.jsonl").read_text().splitlines()]
    assert kept == [0, 3]
    assert ran.stdout.count("loses lines") == 1
    assert "lines_lost=2" in re.sub(r"\x1b\[[0-9;]*m", "", ran.stdout)


def test_a_journal_that_cannot_begin_a_new_file_goes_on_in_the_old_one(tmp_path: Path) -> None:
    journal = RunJournal(tmp_path, "A", bytes_max=300)
    (tmp_path / "runs.jsonl.1").mkdir()
    for n in range(4):
        journal.write("t", 1, "active", n, n)
    assert len((tmp_path / "runs.jsonl").read_text().splitlines()) == 4
    (tmp_path / "runs.jsonl.1").rmdir()
    journal.write("t", 1, "active", 4, 4)
    assert len((tmp_path / "runs.jsonl.1").read_text().splitlines()) == 5


def test_a_gap_without_processor_time_is_a_freeze_and_one_with_it_is_work() -> None:
    now_ns = used_ns = 0
    freezes = FreezeDetector(clock=lambda: now_ns, used=lambda: used_ns)
    now_ns = 5_000_000_000
    assert freezes.frozen_within(1_000_000_000, 6_000_000_000) == [(1_000_000_000, 5_000_000_000)]
    now_ns, used_ns = 9_000_000_000, 2_000_000_000
    assert freezes.frozen_within(5_000_000_000, 9_000_000_000) == []
    now_ns = 9_100_000_000
    freezes.beat()
    assert freezes.frozen_within(5_000_000_000, now_ns) == []
    assert freezes.frozen_within(0, now_ns) == [(0, 5_000_000_000)]


def test_a_process_that_was_stopped_by_a_signal_says_so() -> None:
    code = (
        "import sys\n"
        "from tasks.runtime.run_journal import FreezeDetector, machine_ns\n"
        "freezes, since = FreezeDetector(), machine_ns()\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "print(freezes.frozen_within(since, machine_ns()) != [])\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    child.stdout.readline()
    os.kill(child.pid, signal.SIGSTOP)
    until_ns = machine_ns() + 400_000_000
    while machine_ns() < until_ns:
        signal.sigtimedwait([], 0.1)
    os.kill(child.pid, signal.SIGCONT)
    answer, _ = child.communicate("\n")
    assert answer.strip() == "True"
