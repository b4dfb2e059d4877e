"""The demo, on databases that belong to somebody."""

import subprocess
import sys
from collections.abc import Iterator

import asyncpg
import pytest

from tests import postgres


@pytest.fixture(scope="module")
def postgres_url() -> Iterator[str]:
    with postgres.server() as url:
        yield url


def demo(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "raftnode", "demo", *arguments], capture_output=True, text=True, timeout=110, check=False
    )


@pytest.mark.postgres
async def test_the_demo_leaves_the_tables_and_schemas_that_it_finds(postgres_url: str) -> None:
    name = "somebodys"
    admin = await asyncpg.connect(postgres_url)
    await admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    await admin.execute(f"CREATE DATABASE {name}")
    url = f"{postgres_url.rsplit('/', 1)[0]}/{name}"
    theirs = await asyncpg.connect(url)
    await theirs.execute('CREATE TABLE "Orders" (v int); INSERT INTO "Orders" VALUES (7)')
    await theirs.execute('CREATE TABLE "OrderLines" (v int); CREATE SCHEMA raftnode_demo')
    schemas = "SELECT schema_name FROM information_schema.schemata ORDER BY 1"
    tables = "SELECT table_schema, table_name FROM information_schema.tables ORDER BY 1, 2"
    before = await theirs.fetch(schemas), await theirs.fetch(tables)
    done = demo("--nodes", "1", "--postgres", url.replace("postgresql://", "postgres://"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Each order is there once" in done.stdout
    assert await theirs.fetch('SELECT * FROM "Orders"') == [(7,)]
    assert (await theirs.fetch(schemas), await theirs.fetch(tables)) == before
    await theirs.close()
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


def test_a_target_that_is_not_there_is_a_sentence_without_the_password() -> None:
    for url, says in [
        ("postgresql://u:s3cret@127.0.0.1:1/d", "cannot be used"),
        ("nonsense", "not an address like postgresql://"),
    ]:
        done = demo("--postgres", url)
        assert done.returncode == 1
        assert says in done.stderr
        assert "Traceback" not in done.stderr
        assert "s3cret" not in done.stderr + done.stdout
