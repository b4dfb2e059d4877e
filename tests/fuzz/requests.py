"""HTTP requests as bytes: good ones of every route, bent in their line, their headers, their framing or their body."""

import json
import zlib
from collections.abc import Callable
from random import Random
from typing import Any
from urllib.parse import quote, urlencode

from raftnode.documents.replication.sender import DEFLATED, PLAIN, encode
from raftnode.documents.store.model import Document, ReplicationBatch
from tests.fuzz.mutate import bent, strange, strange_message
from tests.unit.web.routes import GOOD, ROUTES, Route

JOINING = ("PUT", "/admin/cluster/node")
"""Its good body names a node that is taken in, and nobody runs that."""
SOURCE = "b" * 22
"""The database id of the other node, of which batches come."""
MODIFIED = "2026-01-01T00:00:00.0000000Z"
METHODS = (
    *("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "RESET", "get", ""),
    "G" * 9000,
)
PATHS = (
    *(b"*", b"", b"/", b"//", b"/../../etc/passwd", b"/%00", b"/%ff%fe", b"/%zz", b"/databases/%2e%2e%2f/docs"),
    *(b"/\xff\xfe", b"http://other/status", b"http://[::1/status", b"/status#x", b"/\x00", b"/a" * 5_000),
    b"/databases/" + b"a" * 70_000 + b"/docs",
    b"/databases/Shop/docs?" + b"id=x&" * 2_000,
    b"/status?database=\r\nX: y",
    b"/databases/Shop%0d%0aX:%20y/docs",
)
HEADERS = (
    *(b"Content-Length: -1", b"Content-Length: 99999999999999999999", b"Content-Length: 5, 6", b"Content-Length: 0x10"),
    *(b"Content-Length: 3\r\nContent-Length: 4", b"Transfer-Encoding: chunked\r\nContent-Length: 3"),
    *(b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: \x0bchunked"),
    *(b"Expect: 100-continue", b"Expect: the unexpected", b"Connection: upgrade\r\nUpgrade: h2c"),
    b"Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13",
    *(b"Content-Encoding: gzip", b"Content-Encoding: deflate, br", b"Content-Type: text/plain; charset=nonsense"),
    b"Content-Type: multipart/form-data; boundary=" + b"b" * 300,
    *(b"Accept-Encoding: " + b"gzip;q=9," * 500, b"If-Match: \xff\xfe", b"Cookie: " + b"a=b; " * 3_000),
    *(b"Host:", b": empty", b"no colon", b" folded: line", b"Name with space: x", b"X\x00Y: z", b"X: a\x00b"),
    *(b"Range: bytes=a-", b"X: " + b"y" * 70_000, b"\r\n".join(b"H%d: x" % n for n in range(300))),
)
CHUNKS = (
    *(b"-1\r\nx\r\n0\r\n\r\n", b"ffffffffffffffffff\r\nx", b"5\r\nab", b"zz\r\nab\r\n0\r\n\r\n"),
    *(b"2;ext=1\r\nab\r\n0\r\nTrailer: x\r\n\r\n", b"2\r\nabcd\r\n0\r\n\r\n", b"0\r\n" + b"T: x\r\n" * 300),
    *(b"\r\n\r\n", b"1\nx\n0\n\n", b"0x2\r\nab\r\n0\r\n\r\n"),
)
BODIES = (
    *(b"[" * 5_000, b'{"a":' * 5_000, b'"\xff"', b"\xef\xbb\xbf{}", b"NaN", b'"\\ud800"'),
    b'{"a":' + b"1" * 5_000 + b"}",
)


class Requests:
    """Requests by one random sequence. `task` is the id of a task that is there."""

    def __init__(self, random: Random, task: int) -> None:
        self._random = random
        self._task = task
        self._sent = 0
        self._routes = [route for route in ROUTES if route.id != JOINING]

    def next(self) -> bytes:
        """The next request; perhaps two in one go, perhaps no HTTP at all."""
        random = self._random
        way = random.random()
        if way < 0.1:
            return random.randbytes(random.randint(1, 300))
        if way < 0.3:
            return bent(random, self._request())
        if way < 0.35:
            return self._request() + self._request()
        return self._request()

    def _request(self) -> bytes:
        """One request with nothing, or one of its parts, not as it should be."""
        random = self._random
        route = random.choice(self._routes)
        parts: dict[str, bytes] = {
            "method": route.method.encode(),
            "path": self._path(route),
            "headers": b"Host: localhost\r\nConnection: close",
            "body": self._body(route),
        }
        part = random.choice(("none", "method", "path", "headers", "body", "body", "body", "framing"))
        if part == "framing":
            return self._chunked(parts)
        if part != "none":
            parts[part] = self._spoiled(part, parts[part])
        if part != "headers" or random.random() < 0.5:
            parts["headers"] += b"\r\nContent-Length: %d" % len(parts["body"])
        return self._written(parts)

    def _path(self, route: Route) -> bytes:
        values = {name: GOOD[kind].replace("{task}", str(self._task)) for name, kind in route.query.items()}
        path = route.path.replace("{database}", "Shop").replace("{task}", str(self._task))
        if values and self._random.random() < 0.3:
            values[self._random.choice(sorted(values))] = self._random.randbytes(8).decode("latin-1")
        return f"{quote(path)}?{urlencode(values)}&{route.extra}".encode()

    def _body(self, route: Route) -> bytes:
        if route.path.startswith("/replication") and route.method == "POST":
            return self._batch()
        return route.body if isinstance(route.body, bytes) else b"" if route.body is None else _json(route.body)

    def _batch(self) -> bytes:
        """A batch of another node's documents, with something wrong in it or not."""
        random = self._random
        first, self._sent = self._sent, self._sent + 3
        documents = tuple(self._document(first + n, f"B:{first + n}-{SOURCE}", n == 3) for n in range(1, 4))
        packed = encode(ReplicationBatch(SOURCE, first, first + 3, f"B:{first + 3}-{SOURCE}", documents))
        how = random.random()
        body = strange_message(random, packed[1:]) if how < 0.5 else bent(random, packed[1:])
        compression, body = (DEFLATED, zlib.compress(body)) if random.random() < 0.2 else (PLAIN, body)
        return packed if how > 0.9 else compression + body

    @staticmethod
    def _document(etag: int, written: str, deleted: bool) -> Document:
        body = b"" if deleted else b'{"A":1}'
        return Document(f"bent/{etag}", "Bent", body, etag, written, MODIFIED, deleted, written)

    def _spoiled(self, part: str, good: bytes) -> bytes:
        random = self._random
        ways: dict[str, list[Callable[[], bytes]]] = {
            "method": [lambda: random.choice(METHODS).encode(), lambda: bent(random, good)],
            "path": [lambda: random.choice(PATHS), lambda: bent(random, good), lambda: bent(random, good)],
            "headers": [lambda: good + b"\r\n" + random.choice(HEADERS), lambda: bent(random, good)],
            "body": [
                lambda: bent(random, good or b"{}"),
                lambda: self._strange(good),
                lambda: self._strange(good),
                lambda: random.choice(BODIES),
            ],
        }
        return random.choice(ways[part])()

    def _strange(self, good: bytes) -> bytes:
        try:
            value: Any = json.loads(good)
        except ValueError:
            value = {}
        return _json(strange(self._random, value))

    def _chunked(self, parts: dict[str, bytes]) -> bytes:
        random, body = self._random, parts["body"]
        parts["headers"] += b"\r\nTransfer-Encoding: chunked"
        if random.random() < 0.5:
            parts["body"] = random.choice(CHUNKS)
        else:
            step = random.randint(1, 50)
            pieces = [body[i : i + step] for i in range(0, len(body), step)]
            parts["body"] = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
            if random.random() < 0.5:
                parts["body"] = bent(random, parts["body"])
        return self._written(parts)

    def _written(self, parts: dict[str, bytes]) -> bytes:
        version = b"HTTP/1.1" if self._random.random() < 0.95 else self._random.choice((b"HTTP/1.0", b"HTTP/9.9", b""))
        line = b" ".join((parts["method"], parts["path"], version))
        return line + b"\r\n" + parts["headers"] + b"\r\n\r\n" + parts["body"]


def _json(value: Any) -> bytes:
    return json.dumps(value, default=repr).encode()
