"""Transform scripts as in RavenDB's SQL ETL: documents in, rows by table out.

A script runs once for each document, which is its `this`. It calls `loadTo<Table>({...})`, or
`loadTo("table", {...})` for names that are no identifiers, any number of times; `id(this)`, `getMetadata(this)` and
`this['@metadata']` give what the system knows of the document. A document whose script throws fails alone.

Numbers keep the digits that the document has: whole numbers that a number of JavaScript cannot hold are BigInts, other
such numbers a LongNumber, which is loaded as it is. Rows come back with Decimal for what is not a whole number.
"""

import re
from collections.abc import Iterable, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

from raftnode.documents.store.model import Document
from raftnode.foundation.decoding import DECODE_ERRORS, JsonDecoder
from raftnode.scripting.javascript import Program, Script, ScriptError, ScriptLimits, check, url_of
from raftnode.scripting.sandbox import Sandbox

_REMEDY = "load text without halves of surrogate pairs, and objects that are not nested beyond measure"
_BENT = "leave the functions of the language as they are"
_CALL = re.compile(
    r"""\bloadTo(?:(?P<suffix>\w+)\s*\(|\s*\(\s*(?P<quote>["'])(?P<text>(?:(?!(?P=quote)).)+)(?P=quote))"""
)

_PRELUDE = """
globalThis.__raftnode ??= (() => {
  const {stringify, parse, rawJSON} = JSON, text = String, keys = Object.keys, isArray = Array.isArray;
  const {isFinite} = Number, {defineProperty} = Object, big = BigInt, {toPrimitive} = Symbol, real = Number;
  let current, currentId, rows, long;
  // A number of the document whose digits a number of JavaScript cannot hold, and that is no integer.
  class LongNumber extends Number {
    #source; #name;
    constructor(source, name) { super(source); this.#source = source; this.#name = name; }
    [toPrimitive](hint) {
      if (hint === "string") return this.#source;
      if (hint === "number") return super.valueOf();
      throw new TypeError(`'${this.#name}' is ${this.#source}, more digits than a number of JavaScript holds: ` +
        "load it as it is, or write Number(...) to calculate with the nearest number, String(...) for its text");
    }
    toString(radix) { return radix === undefined ? this.#source : super.toString(radix); }
    toJSON() { return rawJSON(this.#source); }
  }
  const digits = source => {
    const [, whole, fraction = "", exponent = "0"] = /^-?(\\d+)(?:\\.(\\d+))?(?:[eE]([+-]?\\d+))?$/.exec(source);
    const all = (whole + fraction).replace(/^0+/, ""), significant = all.replace(/0+$/, "");
    return [significant, significant && real(exponent) - fraction.length + all.length - significant.length];
  };
  const exact = (name, value, {source}) => {
    if (typeof value !== "number" || (source.length < 16 && !/[eE]/.test(source))) return value;
    if (isFinite(value)) {
      const [written, power] = digits(source), [held, heldPower] = digits(text(value));
      if (written === held && power === heldPower) return value;
    }
    if (/[eE][+-]?\\d{6}/.test(source)) throw new Error(`'${name}' is ${source}, which no database can store`);
    long[long.length] = `'${name}' is ${source}`;
    return /[.eE]/.test(source) ? new LongNumber(source, name) : big(source);
  };
  // What JSON cannot say would become null, or fail without a name.
  const plainly = (name, value) => {
    if (typeof value === "bigint") return rawJSON(text(value));
    if (typeof value === "number" && !isFinite(value))
      throw new Error(`'${name}' is ${value}, which no database can store`);
    return value;
  };
  const plain = (name, value) => {
    switch (typeof value) {
      case "undefined": return null;
      case "number":
        if (!isFinite(value)) throw new Error(`${name} is ${value}, which no database can store`);
        return value;
      case "function": case "symbol": throw new Error(`${name} is a ${typeof value}`);
      default: return value;
    }
  };
  const load = (table, row) => {
    if (typeof table !== "string" || table === "")
      throw new Error("loadTo needs the name of a table as its first argument");
    if (row === null || typeof row !== "object" || isArray(row))
      throw new Error(`loadTo${table} needs an object with a value for each column`);
    const columns = {};
    for (const column of keys(row)) columns[column] = plain(`${table}.${column}`, row[column]);
    rows[rows.length] = [table, columns];
  };
  const failure = error => {
    try {
      const names = long.length && /BigInt/.test(text(error)) ? ` (BigInts here: ${long.slice(0, 5).join(", ")})` : "";
      return stringify({error: text(error) + names, stack: text(error?.stack ?? "")});
    } catch {
      return '{"error": "it threw something that cannot be shown"}';
    }
  };
  const one = (transform, metadata, document) => {
    try {
      long = [];
      if (typeof document === "string") document = parse(document, exact);
      document["@metadata"] = Object.assign(document["@metadata"] ?? {}, metadata);
      current = document; currentId = metadata["@id"]; rows = [];
      transform.call(document);
      return stringify({rows}, plainly);
    } catch (error) {
      return failure(error);
    }
  };
  const define = (name, value) => defineProperty(globalThis, name, {value, configurable: true});
  define("loadTo", load);
  define("id", document => document === current ? currentId : document?.["@metadata"]?.["@id"] ?? null);
  define("getMetadata", document => document?.["@metadata"] ?? null);
  return {
    define,
    load,
    program: transform => batch => {
      let answers = "";
      for (const [metadata, document] of batch) answers += one(transform, metadata, document) + "\\n";
      return answers;
    },
  };
})();
"""
_DRIVER = "__raftnode.program(__transform)"
"""Takes the function of its own program: a later program of the same sandbox defines the name again."""


class TransformedDocument(msgspec.Struct, frozen=True):
    """What became of one document: its rows in the order in which they were loaded, or why it failed."""

    rows: list[tuple[str, dict[str, Any]]] = []
    error: str | None = None
    stack: str = ""


_lines: JsonDecoder[str] = JsonDecoder(str)
_decoder: JsonDecoder[TransformedDocument] = JsonDecoder(TransformedDocument, float_hook=lambda text: _decimal(text))
_MAY_BE_LONG = re.compile(rb"\d[\d.]{15}|\d[eE][+-]?\d{3}")


def targets(script: str) -> list[str]:
    """The tables that a script names in its `loadTo` calls, each once, in order of appearance."""
    names = [match["suffix"] or match["text"] for match in _CALL.finditer(script)]
    return list(dict.fromkeys(names))


class Transform:
    """One script, compiled for a sandbox."""

    def __init__(self, name: str, script: str) -> None:
        loaders = (
            f"__raftnode.define('loadTo{t}', row => __raftnode.load({t!r}, row));"
            for t in _identifiers(targets(script))
        )
        self.name = name
        self._program = Program(
            Script("raftnode:prelude", _PRELUDE),
            Script("raftnode:loaders", "\n".join(loaders)),
            Script(name, "var __transform = function () { " + script + "\n};"),
            Script("raftnode:driver", _DRIVER),
            blame=name,
        )
        self._place = re.compile(re.escape(url_of(name)) + r":(\d+):\d+")

    def check(self) -> None:
        """Compile the script. Takes a moment: not for an event loop's thread. Raises ScriptError."""
        check(self._program, ScriptLimits())

    async def apply(self, sandbox: Sandbox, documents: Sequence[Document]) -> list[TransformedDocument]:
        """What becomes of each document, in their order.

        Raises ScriptError when the script does not compile or bends the language itself, ScriptEnded when it exceeds
        a limit on this batch.
        """
        items = (b"[" + _metadata(d) + b"," + _read_by_script(d.body or b"{}") + b"]" for d in documents)
        answer = await sandbox.call(self._program, b"[" + b",".join(items) + b"]")
        try:
            lines = _lines.decode(answer).split("\n")[:-1]
        except DECODE_ERRORS as error:
            raise ScriptError(self.name, f"gives nothing that can be read ({error}); {_BENT}") from None
        if len(lines) != len(documents):
            raise ScriptError(self.name, f"gives {len(lines)} answers for {len(documents)} documents; {_BENT}")
        return [self._placed(line) for line in lines]

    def _placed(self, line: str) -> TransformedDocument:
        try:
            loaded = _decoder.decode(line)
        except DECODE_ERRORS as error:
            why = f"script '{self.name}': what it gives for this document cannot be read: {error}"
            return TransformedDocument(error=f"{why}; {_REMEDY}")
        if loaded.error is None:
            return loaded
        place = self._place.search(loaded.stack)
        where = f"script '{self.name}'" + (f", line {place[1]}" if place else "")
        return TransformedDocument(error=f"{where}: {loaded.error}")


def _identifiers(names: Iterable[str]) -> list[str]:
    return [name for name in names if name.isidentifier() or re.fullmatch(r"\w+", name)]


def _decimal(text: str) -> Decimal | str:
    try:
        return Decimal(text)
    except InvalidOperation:  # an exponent beyond all measure, which only a script can make up
        return text


def _read_by_script(body: bytes) -> bytes:
    """The body as JSON, or as a text with it if a number in it may have more digits than JavaScript's numbers."""
    return msgspec.json.encode(body.decode()) if _MAY_BE_LONG.search(body) else body


def _metadata(document: Document) -> bytes:
    return msgspec.json.encode(
        {
            "@id": document.id,
            "@collection": document.collection,
            "@change-vector": document.change_vector,
            "@last-modified": document.last_modified,
        }
    )
