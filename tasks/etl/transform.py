"""Transform scripts as in RavenDB's ETL: documents in, rows by table or documents by collection out.

A script runs once for each document, which is its `this`. It calls `loadTo<Target>({...})`, or
`loadTo("target", {...})` for names that are no identifiers, any number of times; `id(this)`, `getMetadata(this)` and
`this['@metadata']` give what the system knows of the document, `load(id)` another document. A document whose script
throws fails alone.

The script runs in a process that has no documents. One that asks for others is run again, from its beginning, once
they are there. The functions `deleteDocumentsOf<Collection>Behavior` and `deleteDocumentsBehavior` that a script
declares are asked whether what was loaded before goes; also of a document that is gone, for which the script itself
does not run.

Numbers keep the digits that the document has: whole numbers that a number of JavaScript cannot hold are BigInts, other
such numbers a LongNumber, which is loaded as it is. Rows come back with Decimal for what is not a whole number.
"""

import json
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, TypeVar

import msgspec

from raftnode.documents.store.model import Document
from raftnode.foundation.decoding import DECODE_ERRORS, JsonDecoder
from raftnode.foundation.threads import in_thread
from raftnode.scripting.javascript import Program, Script, ScriptEnded, ScriptError, ScriptLimits, check, url_of
from raftnode.scripting.sandbox import Sandbox

_REMEDY = "load text without halves of surrogate pairs, and objects that are not nested beyond measure"
_BENT = "leave the functions of the language as they are"
_BEHAVIOR = re.compile(r"\bfunction\s+(deleteDocuments(?:Of\w+)?Behavior)\s*\(")
_CALL = re.compile(
    r"""\bloadTo(?:(?P<suffix>\w+)\s*\(|\s*\(\s*(?P<quote>["'])(?P<text>(?:(?!(?P=quote)).)+)(?P=quote))"""
)

_PRELUDE = """
globalThis.__raftnode ??= (() => {
  const {stringify, parse, rawJSON} = JSON, text = String, keys = Object.keys, isArray = Array.isArray;
  const {isFinite, isInteger} = Number, big = BigInt, {toPrimitive} = Symbol, real = Number;
  const {create, defineProperty} = Object;
  const has = Function.prototype.call.bind(Object.prototype.hasOwnProperty), lower = text => text.toLowerCase();
  const system = {"@id": 1, "@collection": 1, "@change-vector": 1, "@last-modified": 1, "@etag": 1, "@flags": 1,
    "@attachments": 1, "@counters": 1, "@timeseries": 1};
  const ask = {};
  let current, currentId, rows, long, loads, missing, asDocuments, output;
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
      throw new Error(`loadTo${table} needs an object, as in loadTo${table}({Name: this.Name})`);
    if (rows.length >= 100000) throw new Error("it loads more than 100000 rows or documents; load fewer");
    const columns = create(null);  // to it, "__proto__" is a name like any other
    for (const column of keys(row))
      if (!asDocuments || column !== "@metadata") columns[column] = plain(`${table}.${column}`, row[column]);
    if (asDocuments) columns["@metadata"] = metadataOf(table, row["@metadata"]);
    rows[rows.length] = [table, columns];
    return attached;
  };
  // What a document takes along of what the system or its writer knew of it.
  const metadataOf = (collection, given) => {
    const metadata = create(null);
    metadata["@collection"] = collection;
    if (given !== null && typeof given === "object")
      for (const key of keys(given)) if (!has(system, key)) metadata[key] = given[key];
    return metadata;
  };
  // Documents have no attachments, counters or time series here, so that there is none to add.
  const attached = {addAttachment() {}, addCounter() {}, addTimeSeries() {}};
  const loadDocument = id => {
    if (id === null || id === undefined || id === "") return null;
    if (typeof id !== "string") throw new Error("load needs the id of a document");
    if (!has(loads, id)) {
      if (missing.length < 1000) missing[missing.length] = id;  // the others when these are there
      return null;
    }
    if (loads[id] === null) return null;
    const [metadata, body] = loads[id], document = parse(body, exact);
    document["@metadata"] = Object.assign(document["@metadata"] ?? {}, metadata);
    return document;
  };
  // RavenDB's types of texts. The column has the type; what it says of the length is kept to.
  const sized = name => (value, size) => {
    if (value === null || value === undefined) return null;
    if (typeof value !== "string") throw new Error(`${name} needs a text as its first argument: write String(...)`);
    if (size === undefined) return value;
    if (!isInteger(size) || size < 1) throw new Error(`${name} needs a length of 1 or more as its second argument`);
    if (value.length > size) throw new Error(`${name}(..., ${size}) was given a text of ${value.length} characters`);
    return value;
  };
  const deletes = (transform, behaviors, metadata, deleted) => {
    if (!behaviors) return true;
    const found = transform.call(null, ask), id = metadata["@id"], collection = metadata["@collection"];
    const own = lower(`deleteDocumentsOf${collection}Behavior`);
    for (const name of keys(found)) if (lower(name) === own) return !!found[name](id, deleted);
    if (found.deleteDocumentsBehavior) return !!found.deleteDocumentsBehavior(id, collection, deleted);
    return true;
  };
  const write = value => {
    if (output.length < 100)
      output[output.length] = typeof value === "string" ? value : stringify(value, plainly) ?? text(value);
  };
  // Mostly there is nothing, which then takes no room.
  const written = () => output.length ? output : undefined;
  const failure = error => {
    try {
      const names = long.length && /BigInt/.test(text(error)) ? ` (BigInts here: ${long.slice(0, 5).join(", ")})` : "";
      return stringify({error: text(error) + names, stack: text(error?.stack ?? ""), output: written()});
    } catch {
      return '{"error": "it threw something that cannot be shown"}';
    }
  };
  const one = (transform, behaviors, metadata, document) => {
    try {
      long = []; missing = []; rows = []; output = [];
      if (document === null) return stringify({deletes: deletes(transform, behaviors, metadata, true)});
      if (typeof document === "string") document = parse(document, exact);
      document["@metadata"] = Object.assign(document["@metadata"] ?? {}, metadata);
      current = document; currentId = metadata["@id"];
      transform.call(document);
      if (missing.length) return stringify({missing});
      return stringify({rows, deletes: deletes(transform, behaviors, metadata, false), output: written()}, plainly);
    } catch (error) {
      return missing.length ? stringify({missing}) : failure(error);
    }
  };
  const define = (name, value) => defineProperty(globalThis, name, {value, configurable: true});
  define("loadTo", load);
  define("load", loadDocument);
  for (const name of ["loadAttachment", "loadCounter", "loadTimeSeries"]) define(name, () => null);
  for (const name of ["hasAttachment", "hasCounter", "hasTimeSeries"]) define(name, () => false);
  for (const name of ["getAttachments", "getCounters", "getTimeSeries"]) define(name, () => []);
  define("output", write);
  for (const name of ["varchar", "nvarchar"]) define(name, sized(name));
  define("id", document => document === current ? currentId : document?.["@metadata"]?.["@id"] ?? null);
  define("getMetadata", document => document?.["@metadata"] ?? null);
  return {
    define,
    load,
    ask,
    program: (transform, behaviors, documents) => ([found, batch]) => {
      let answers = "";
      loads = found; asDocuments = documents;
      for (const [metadata, document] of batch) answers += one(transform, behaviors, metadata, document) + "\\n";
      return answers;
    },
  };
})();
"""
_DRIVER = "__raftnode.program(__transform, {behaviors}, {documents})"
"""Takes the function of its own program: a later program of the same sandbox defines the name again."""


LOAD_ROUNDS_MAX = 16
"""So often a script may ask for documents that it found by those before."""
LOADED_MAX = 16_384
LOADED_BYTES_MAX = 16 << 20
"""So many documents, and bytes of them, a batch may load. Beyond it the batch is halved, down to one document."""
LOADED_AT_ONCE = 64
VALUES_MAX = 500_000
"""So many values, in rows or within them, one document may become."""
BATCH_VALUES_MAX = 250_000
"""A batch that becomes more is too large, unless it is one document."""
ON_LOOP_BYTES_MAX = 64 * 1024
ERROR_LENGTH_MAX = 1_000
T = TypeVar("T")


class BatchTooLarge(Exception):
    """Together so many documents become more than is to be held at once: take fewer."""

    def __init__(self, documents: int) -> None:
        super().__init__()
        self.documents = documents


class TransformedDocument(msgspec.Struct, frozen=True):
    """What became of one document: its rows (objects, or JSON where they are documents) in the order in which they were
    loaded, or why it failed. `deletes` tells whether what it was loaded to before goes; `missing` are ids of documents
    that the script asks for first; `output` is what it wrote with `output`, for whoever tries it."""

    rows: list[tuple[str, Any]] = []
    deletes: bool = True
    error: str | None = None
    stack: str = ""
    missing: list[str] = []
    output: list[str] = []


class _WithDocuments(TransformedDocument, frozen=True):
    rows: list[tuple[str, msgspec.Raw]] = []


Loader = Callable[[Sequence[str]], Awaitable[Sequence[Document | None]]]
"""Gives the documents under these ids, None for each that is missing."""

_lines: JsonDecoder[str] = JsonDecoder(str)
_decoder: JsonDecoder[TransformedDocument] = JsonDecoder(TransformedDocument, float_hook=lambda text: _decimal(text))
_documents_decoder: JsonDecoder[_WithDocuments] = JsonDecoder(_WithDocuments)
_TO_ZEROS = bytes.maketrans(b"123456789.E+", b"0000000000e-")
_LONG_NUMBERS = (b"0" * 16, b"0e000", b"0e-000")


def targets(script: str) -> list[str]:
    """The targets that a script names in its `loadTo` calls, each once, in order of appearance."""
    names = [match["suffix"] or match["text"] for match in _CALL.finditer(script)]
    return list(dict.fromkeys(names))


def behaviors(script: str) -> list[str]:
    """The names of the functions in a script that say whether what was loaded before goes, in order of appearance."""
    return _BEHAVIOR.findall(script)


class Transform:
    """One script, compiled for a sandbox. With `documents` it loads documents by collection, else rows by table."""

    def __init__(self, name: str, script: str, *, documents: bool = False) -> None:
        loaders = (
            f"__raftnode.define('loadTo{t}', row => __raftnode.load({t!r}, row));"
            for t in _identifiers(targets(script))
        )
        self.name, self._documents = name, documents
        declared = ", ".join(dict.fromkeys(behaviors(script)))
        asked = f"if (arguments[0] === __raftnode.ask) return {{{declared}}}; " if declared else ""
        options = {"behaviors": json.dumps(bool(declared)), "documents": json.dumps(documents)}
        self._program = Program(
            Script("raftnode:prelude", _PRELUDE),
            Script("raftnode:loaders", "\n".join(loaders)),
            Script(name, "var __transform = function () { " + asked + script + "\n};"),
            Script("raftnode:driver", _DRIVER.format(**options)),
            blame=name,
        )
        self._decoder: JsonDecoder[Any] = _documents_decoder if documents else _decoder
        self._place = re.compile(re.escape(url_of(name)) + r":(\d+):\d+")

    def check(self) -> None:
        """Compile the script. Takes a moment: not for an event loop's thread. Raises ScriptError."""
        check(self._program, ScriptLimits())

    async def apply(
        self, sandbox: Sandbox, documents: Sequence[Document], loader: Loader | None = None
    ) -> list[TransformedDocument]:
        """What becomes of each document, in their order; of a tombstone only whether what was loaded before goes.

        Raises ScriptError when the script does not compile or bends the language itself, ScriptEnded when it exceeds
        a limit on this batch, BatchTooLarge.
        """
        answers = dict(enumerate(await self._call(sandbox, documents, {})))
        found: dict[str, Document | None] = {}
        for _ in range(LOAD_ROUNDS_MAX if loader is not None else 0):
            asking = [place for place, answer in answers.items() if answer.missing]
            if not asking:
                break
            ids = list(dict.fromkeys(id for place in asking for id in answers[place].missing if id not in found))
            assert loader is not None
            await self._load(ids, loader, found)
            again = await self._call(sandbox, [documents[place] for place in asking], found)
            answers |= dict(zip(asking, again, strict=True))
        return [_without_missing(answers[place], self.name) for place in range(len(documents))]

    async def _load(self, ids: Sequence[str], loader: Loader, found: dict[str, Document | None]) -> None:
        """Adds these documents to those that were found. Raises ScriptEnded."""
        size = sum(len(document.body) for document in found.values() if document is not None)
        for start in range(0, len(ids), LOADED_AT_ONCE):
            some = ids[start : start + LOADED_AT_ONCE]
            loaded = await loader(some)
            found |= dict(zip(some, loaded, strict=True))
            size += sum(len(document.body) for document in loaded if document is not None)
            if size > LOADED_BYTES_MAX or len(found) > LOADED_MAX:
                most = f"{LOADED_MAX} documents, and of {LOADED_BYTES_MAX >> 20} MiB"
                raise ScriptEnded(self.name, f"loads more than {most}, with load(id); load fewer or smaller ones")

    async def _call(
        self, sandbox: Sandbox, documents: Sequence[Document], found: Mapping[str, Document | None]
    ) -> list[TransformedDocument]:
        size = sum(len(one.body) for one in (*documents, *found.values()) if one is not None)
        argument = await _of_bytes(size, _argument, documents, found)
        answer = await sandbox.call(self._program, argument)
        if len(documents) > 1 and answer.count(b",") > BATCH_VALUES_MAX and not self._documents:
            raise BatchTooLarge(len(documents))
        return await _of_bytes(len(answer), self._read, answer, len(documents))

    def _read(self, answer: bytes, documents: int) -> list[TransformedDocument]:
        try:
            lines = _lines.decode(answer).split("\n")[:-1]
        except DECODE_ERRORS as error:
            raise ScriptError(self.name, f"gives nothing that can be read ({error}); {_BENT}") from None
        if len(lines) != documents:
            raise ScriptError(self.name, f"gives {len(lines)} answers for {documents} documents; {_BENT}")
        return [self._placed(line) for line in lines]

    def _placed(self, line: str) -> TransformedDocument:
        if not self._documents and _has_more_values(line, VALUES_MAX):
            why = f"script '{self.name}': loads more than {VALUES_MAX} values for this document; load fewer"
            return TransformedDocument(error=why)
        try:
            loaded: TransformedDocument = self._decoder.decode(line)
        except DECODE_ERRORS as error:
            why = f"script '{self.name}': what it gives for this document cannot be read: {error}"
            return TransformedDocument(error=f"{why}; {_REMEDY}")
        if loaded.error is None:
            return loaded
        place = self._place.search(loaded.stack)
        where = f"script '{self.name}'" + (f", line {place[1]}" if place else "")
        return TransformedDocument(error=f"{where}: {loaded.error[:ERROR_LENGTH_MAX]}", output=loaded.output)


def _without_missing(answer: TransformedDocument, name: str) -> TransformedDocument:
    if not answer.missing:
        return answer
    problem = f"script '{name}' asks for '{answer.missing[0]}' after {LOAD_ROUNDS_MAX} documents that led to it"
    return TransformedDocument(error=f"{problem}; load fewer that depend on one another")


async def _of_bytes(size: int, work: Callable[..., T], *arguments: Any) -> T:
    """What `work` returns, which takes some time for each of so many bytes: for many it is done in a thread."""
    return work(*arguments) if size <= ON_LOOP_BYTES_MAX else await in_thread(work, *arguments)


def _has_more_values(text: str, limit: int) -> bool:
    """Whether JSON has more values than that. Decoding very many holds the interpreter for seconds, in a thread too."""
    if text.count(",") <= limit:
        return False
    # Without its texts, which may have any number of commas.
    marks = text.replace("\\\\", "").replace('\\"', "").split('"')[::2]
    return sum(part.count(",") for part in marks) > limit


def _argument(documents: Sequence[Document], found: Mapping[str, Document | None]) -> bytes:
    """What a program is called with."""
    loads = b",".join(msgspec.json.encode(id) + b":" + _loaded(document) for id, document in found.items())
    items = (
        b"[" + _metadata(d) + b"," + (b"null" if d.deleted else _read_by_script(d.body or b"{}")) + b"]"
        for d in documents
    )
    return b"[{" + loads + b"},[" + b",".join(items) + b"]]"


def _loaded(document: Document | None) -> bytes:
    if document is None:
        return b"null"
    return b"[" + _metadata(document) + b"," + msgspec.json.encode(document.body.decode()) + b"]"


def _identifiers(names: Iterable[str]) -> list[str]:
    return [name for name in names if name.isidentifier() or re.fullmatch(r"\w+", name)]


def _decimal(text: str) -> Decimal | str:
    try:
        return Decimal(text)
    except InvalidOperation:  # an exponent beyond all measure, which only a script can make up
        return text


def _read_by_script(body: bytes) -> bytes:
    """The body as JSON, or as a text with it if a number in it may have more digits than JavaScript's numbers."""
    # A regular expression would hold the interpreter for a second for a document of 16 MiB.
    marks = body.translate(_TO_ZEROS)
    return msgspec.json.encode(body.decode()) if any(number in marks for number in _LONG_NUMBERS) else body


def _metadata(document: Document) -> bytes:
    return msgspec.json.encode(
        {
            "@id": document.id,
            "@collection": document.collection,
            "@change-vector": document.change_vector,
            "@last-modified": document.last_modified,
        }
    )
