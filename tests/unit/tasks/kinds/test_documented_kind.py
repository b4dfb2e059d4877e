"""The kind of docs/tasks.md, as it is written there, over real documents."""

import asyncio
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

from msgspec.structs import replace

from raftnode.documents.store.store import DocumentStore
from raftnode.record.model import Task
from tests.unit.tasks.conftest import BodyBench, SqlTarget, database, until
from tests.unit.tasks.kinds.test_sql_etl import one_target, order

DOCS = Path(__file__).parents[4] / "docs" / "tasks.md"


def documented() -> Any:
    [code] = re.findall(
        r"and `raftnode_lines\.py`:\n\n```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL
    )
    module = ModuleType("raftnode_lines")
    exec(compile(code, str(DOCS), "exec"), module.__dict__)
    return module.KIND


@one_target
async def test_it_writes_each_version_that_it_meets_once_and_goes_on_where_it_was(
    bench: BodyBench, target: SqlTarget, store: DocumentStore, tmp_path: Path
) -> None:
    kind, file = documented(), tmp_path / "lines"
    given = {"Name": "lines", "Collection": "Orders", "File": str(file)}
    definition = kind.parse(given, database(target))
    task = Task(id=7, name="lines", kind=definition.kind, key=definition.key, configuration=definition.configuration)
    await store.batch([order("o/1", "old"), order("o/2", "2"), order("o/3", "3")])
    await store.batch([order("o/1", "1"), order("o/4", "4")])

    def written() -> list[str]:
        return [json.loads(line)["Company"] for line in file.read_text().splitlines()]

    context = bench.context(task, 10, batch_documents_max=1)
    body = asyncio.create_task(kind.run(context))
    await until(lambda: context.info.seen_etag == store.last_etag, body)
    assert written() == ["1", "2", "3", "4"]
    await store.batch([order("o/5", "5")])
    await until(lambda: written()[-1] == "5", body)
    await until(lambda: context.info.seen_etag == store.last_etag, body)
    body.cancel()
    await asyncio.gather(body, return_exceptions=True)
    context = bench.context(task, 11)
    context.run = replace(context.run, progress=bench.saved[-1])
    body = asyncio.create_task(kind.run(context))
    await store.batch([order("o/6", "6")])
    await until(lambda: written()[-1] == "6", body)
    body.cancel()
    await asyncio.gather(body, return_exceptions=True)
    assert written() == ["1", "2", "3", "4", "5", "6"]
