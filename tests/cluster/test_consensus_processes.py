"""Five real processes over loopback, all killed at once in the middle of their writes, again and again."""

import asyncio
import json
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import trustme

from raftnode.cli.local_cluster import free_ports

TAGS = "ABCDE"
ROOT = Path(__file__).resolve().parents[2]


class Processes:
    """The five nodes' processes and directories."""

    def __init__(self, directory: Path, tls: dict[str, list[str]] | None = None) -> None:
        self.directory = directory
        self.tls = tls or {}
        self.boot = 0
        self.running: dict[str, asyncio.subprocess.Process] = {}
        ports = free_ports(len(TAGS))
        self.peers = {tag: f"127.0.0.1:{port}" for tag, port in zip(TAGS, ports, strict=True)}

    async def start(self) -> None:
        self.boot += 1
        for tag in TAGS:
            given = {
                "tag": tag,
                "boot": self.boot,
                "peers": self.peers,
                "directory": str(self.directory / tag),
                "acks": str(self.directory / f"{tag}.acks"),
                "tls": self.tls.get(tag),
            }
            with open(self.directory / f"{tag}.log", "ab") as log:  # noqa: ASYNC230 (a test's log)
                self.running[tag] = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "tests.cluster.raft_process", json.dumps(given),
                    cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log,
                    limit=64 * 1024 * 1024,
                )  # fmt: skip

    async def ask(self, tag: str, what: str) -> dict[str, Any]:
        process = self.running[tag]
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(what.encode() + b"\n")
        line = await process.stdout.readline()
        assert line, f"{tag} ended: {(self.directory / f'{tag}.log').read_text()[-2000:]}"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def acknowledged(self) -> set[str]:
        files = [self.directory / f"{tag}.acks" for tag in TAGS]
        lines = [file.read_text().splitlines() for file in files if file.exists()]
        return {line for part in lines for line in part}

    async def wait_for_acknowledgements(self, count: int) -> None:
        """Until that many more commands are acknowledged."""
        target = len(self.acknowledged()) + count
        while len(self.acknowledged()) < target:  # noqa: ASYNC110 (other processes write these files)
            await asyncio.sleep(0.05)

    async def kill(self, tags: str = TAGS) -> None:
        for tag in tags:
            os.kill(self.running[tag].pid, signal.SIGKILL)
        for tag in tags:
            await self.running.pop(tag).wait()

    async def agree(self) -> dict[str, int]:
        """Stops the writers and returns the counts once all five states are equal."""
        for tag in TAGS:
            await self.ask(tag, "quiet")
        while True:
            states = [await self.ask(tag, "status") for tag in TAGS]
            assert not any(state["failure"] for state in states), states
            if len({(state["applied"], state["digest"]) for state in states}) == 1 and states[0]["leader"]:
                assert all(state["snapshot"] > 0 for state in states), "the writes were meant to pass a snapshot"
                settled = [await self.ask(tag, "counts") for tag in TAGS]
                if len({state["applied"] for state in settled}) == 1:
                    assert all(state["counts"] == settled[0]["counts"] for state in settled)
                    counts: dict[str, int] = settled[0]["counts"]
                    return counts
            await asyncio.sleep(0.05)


def certificates(directory: Path) -> dict[str, list[str]]:
    """A certificate authority, and each node's certificate, key and authority file."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(directory / "ca.pem")
    files = {}
    for tag in TAGS:
        leaf = authority.issue_cert(tag)
        leaf.private_key_pem.write_to_path(directory / f"{tag}.key")
        leaf.cert_chain_pems[0].write_to_path(directory / f"{tag}.pem")
        files[tag] = [str(directory / name) for name in (f"{tag}.pem", f"{tag}.key", "ca.pem")]
    return files


@pytest.mark.parametrize(
    ("rounds", "secure"),
    [
        pytest.param(5, False, id="plain"),
        pytest.param(2, True, id="mutual TLS"),
        pytest.param(20, False, id="plain, many times", marks=[pytest.mark.long, pytest.mark.timeout(400)]),
    ],
)
async def test_killing_all_five_in_the_middle_of_writes_loses_nothing_acknowledged(
    tmp_path: Path, rounds: int, secure: bool
) -> None:
    processes = Processes(tmp_path, certificates(tmp_path) if secure else None)
    chance = random.Random(7)
    try:
        async with asyncio.timeout(20 + 15 * rounds):
            for _ in range(rounds):
                await processes.start()
                await processes.wait_for_acknowledgements(chance.randint(200, 600))
                await processes.kill()
            await processes.start()
            await processes.wait_for_acknowledgements(100)
            counts = await processes.agree()
        acknowledged = processes.acknowledged()
        assert len(acknowledged) > 200 * rounds
        assert acknowledged - set(counts) == set()
        assert {name for name, count in counts.items() if count != 1} == set()
    finally:
        await processes.kill("".join(processes.running))
