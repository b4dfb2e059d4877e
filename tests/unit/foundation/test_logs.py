"""Where the daemon's sentences go, and that it outlives that place."""

import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import structlog
from raftnode.foundation.logs import configure
configure("A", "console", "info")
log = structlog.get_logger("test")
for n in range(10_000):
    log.info("one sentence", n=n)
print("alive")
"""


@pytest.mark.parametrize("place", ["/dev/full", "a pipe whose reader has gone"])
def test_a_log_that_takes_no_more_costs_lines_and_not_the_daemon(place: str) -> None:
    if place == "/dev/full":
        with Path(place).open("w") as full:
            ran = subprocess.run([sys.executable, "-c", CODE], stdout=subprocess.PIPE, stderr=full, check=False)
            said = ran.stdout
    else:
        process = subprocess.Popen([sys.executable, "-c", CODE], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stderr is not None
        process.stderr.close()
        said, _ = process.communicate()
    assert said == b"alive\n"


FAILING = """
import logging, structlog
from raftnode.foundation.logs import configure
configure("A", "%s", "info")
password = "s3cret"
try:
    raise ValueError(f"postgresql://u:{password}@h/d cannot be reached")
except ValueError as error:
    structlog.get_logger("test").warning("a task has failed", reason=str(error), exc_info=error)
    logging.getLogger("driver").exception("failed: Password=%%s", password)
"""


@pytest.mark.parametrize("format", ["json", "console"])
def test_no_secret_reaches_the_log(format: str) -> None:
    done = subprocess.run([sys.executable, "-c", FAILING % format], capture_output=True, text=True, check=True)
    assert "s3cret" not in done.stderr
    assert done.stderr.count("********") >= 4, done.stderr
    assert "Traceback" in done.stderr


def test_epochs_in_the_log_are_text_as_they_outgrow_what_readers_of_json_keep() -> None:
    code = (
        "import structlog; from raftnode.foundation.logs import configure;"
        "configure('A', 'json', 'info');"
        f"structlog.get_logger('test').info('A task was started.', epoch={2**53 + 1})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f'"epoch": "{2**53 + 1}"' in done.stderr, done.stderr
