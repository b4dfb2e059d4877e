"""Transform scripts as in RavenDB's SQL ETL: documents in, rows by table out.

A script runs once for each document, which is its `this`. It calls `loadTo<Table>({...})`, or
`loadTo("table", {...})` for names that are no identifiers, any number of times; `id(this)`, `getMetadata(this)` and
`this['@metadata']` give what the system knows of the document. A document whose script throws fails alone.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from raftnode.documents.model import Document
from raftnode.javascript import Program, Sandbox, Script, ScriptLimits, check, url_of

_CALL = re.compile(
    r"""\bloadTo(?:(?P<suffix>\w+)\s*\(|\s*\(\s*(?P<quote>["'])(?P<text>(?:(?!(?P=quote)).)+)(?P=quote))"""
)

_PRELUDE = """
let __current, __currentId, __rows;
const __plain = (name, value) => {
  switch (typeof value) {
    case "undefined": return null;
    case "number":
      if (!Number.isFinite(value)) throw new Error(`${name} is ${value}, which no database can store`);
      return value;
    case "bigint": return value.toString();
    case "function": case "symbol": throw new Error(`${name} is a ${typeof value}`);
    default: return value;
  }
};
const __load = (table, row) => {
  if (row === null || typeof row !== "object" || Array.isArray(row))
    throw new Error(`loadTo${table} needs an object with a value for each column`);
  const plain = {};
  for (const column of Object.keys(row)) plain[column] = __plain(`${table}.${column}`, row[column]);
  __rows.push([table, plain]);
};
const loadTo = (table, row) => __load(String(table), row);
const id = document => document === __current ? __currentId : document?.["@metadata"]?.["@id"] ?? null;
const getMetadata = document => document?.["@metadata"] ?? null;
"""
_DRIVER = """
batch => batch.map(([metadata, document]) => {
  document["@metadata"] = Object.assign(document["@metadata"] ?? {}, metadata);
  __current = document; __currentId = metadata["@id"]; __rows = [];
  try {
    __transform.call(document);
    JSON.stringify(__rows);
    return {rows: __rows};
  } catch (error) {
    return {error: String(error), stack: String(error?.stack ?? "")};
  }
})
"""


class Loaded(msgspec.Struct, frozen=True):
    """What became of one document: its rows in the order in which they were loaded, or why it failed."""

    rows: list[tuple[str, dict[str, Any]]] = []
    error: str | None = None
    stack: str = ""


_decoder = msgspec.json.Decoder(list[Loaded])


def targets(script: str) -> list[str]:
    """The tables that a script names in its `loadTo` calls, each once, in order of appearance."""
    names = [match["suffix"] or match["text"] for match in _CALL.finditer(script)]
    return list(dict.fromkeys(names))


class Transform:
    """One script, compiled for a sandbox."""

    def __init__(self, name: str, script: str) -> None:
        loaders = (f"const loadTo{t} = row => __load({t!r}, row);" for t in _identifiers(targets(script)))
        self.name = name
        self._program = Program(
            Script("raftnode:prelude", _PRELUDE + "\n".join(loaders)),
            Script(name, "var __transform = function () { " + script + "\n};"),
            Script("raftnode:driver", _DRIVER),
            blame=name,
        )
        self._place = re.compile(re.escape(url_of(name)) + r":(\d+):\d+")

    def check(self) -> None:
        """Compile the script. Takes a moment: not for an event loop's thread. Raises ScriptError."""
        check(self._program, ScriptLimits())

    async def apply(self, sandbox: Sandbox, documents: Sequence[Document]) -> list[Loaded]:
        """What becomes of each document, in their order.

        Raises ScriptError when the script does not compile, ScriptEnded when it exceeds a limit on this batch.
        """
        items = (b"[" + _metadata(d) + b"," + (d.body or b"{}") + b"]" for d in documents)
        answer = await sandbox.call(self._program, b"[" + b",".join(items) + b"]")
        return [self._placed(loaded) for loaded in _decoder.decode(answer)]

    def _placed(self, loaded: Loaded) -> Loaded:
        if loaded.error is None:
            return loaded
        place = self._place.search(loaded.stack)
        where = f"script '{self.name}'" + (f", line {place[1]}" if place else "")
        return Loaded(error=f"{where}: {loaded.error}")


def _identifiers(names: Iterable[str]) -> list[str]:
    return [name for name in names if name.isidentifier() or re.fullmatch(r"\w+", name)]


def _metadata(document: Document) -> bytes:
    return msgspec.json.encode(
        {
            "@id": document.id,
            "@collection": document.collection,
            "@change-vector": document.change_vector,
            "@last-modified": document.last_modified,
        }
    )
