"""What the process that commands are forked from imports; see `commands`."""

from tests.harness.commands import load

load()
