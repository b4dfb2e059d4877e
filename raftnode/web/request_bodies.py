"""Request bodies, decompressed as they arrive. Every handler reads its body here."""

import asyncio
from collections.abc import AsyncIterator

from aiohttp import web

from raftnode.foundation.decompression import ENCODINGS, MAGIC_BYTES_MAX, Decompressor, NotCompressed, encoding_of
from raftnode.web.errors import ApiError, bad_request

CHUNK_BYTES_MAX = 16 * 1024
"""Compressed bytes that are worked on between two turns of the loop."""

_WHOLE = web.RequestKey("whole", bytes)


async def whole(request: web.Request, *, bytes_max: int | None = None) -> bytes:
    """The whole body, at most http.body_bytes_max unless another limit is given. May be asked for again."""
    if _WHOLE in request:
        return request[_WHOLE]
    limit = request.client_max_size if bytes_max is None else bytes_max
    content = bytearray()
    async for piece in pieces(request):
        content += piece
        if len(content) > limit:
            setting = " (http.body_bytes_max)" if bytes_max is None else ""
            raise ApiError("TooLargeException", f"The body has more than {limit} bytes{setting}. Send less at once.")
    request[_WHOLE] = bytes(content)
    return request[_WHOLE]


def given_body(request: web.Request, content: bytes) -> None:
    """The body of a request that has not come by itself."""
    request[_WHOLE] = content


async def pieces(request: web.Request, *, sniffed: bool = False) -> AsyncIterator[bytes]:
    """The body as it arrives, of any length. `sniffed`: a compressed file is known by its first bytes, too."""
    inflater = _inflater(request)
    beginning = b""
    if inflater is None and sniffed:
        beginning = await _beginning(request)
        encoding = encoding_of(beginning)
        inflater = None if encoding is None else Decompressor(encoding)
    async for chunk in _chunks(request, beginning):
        if inflater is None:
            yield chunk
            continue
        try:
            for piece in inflater.feed(chunk):
                yield piece
                await asyncio.sleep(0)
        except NotCompressed as error:
            raise bad_request(f"The body cannot be decompressed: {error}.") from None
    try:
        if inflater is not None:
            inflater.end()
    except NotCompressed as error:
        raise bad_request(f"The body cannot be decompressed: {error}. Send it again, whole.") from None


def _inflater(request: web.Request) -> Decompressor | None:
    encoding = ",".join(request.headers.getall("Content-Encoding", ())).strip().lower().removeprefix("x-")
    if encoding in ("", "identity"):
        return None
    if encoding not in ENCODINGS:
        known = ", ".join(ENCODINGS)
        message = f"Content-Encoding {encoding[:40]!r} is not known. Send the body plain, or as one of: {known}."
        raise ApiError("UnsupportedEncodingException", message, headers={"Accept-Encoding": known})
    return Decompressor(encoding)


async def _beginning(request: web.Request) -> bytes:
    data = b""
    while len(data) < MAGIC_BYTES_MAX and (more := await request.content.read(MAGIC_BYTES_MAX - len(data))):
        data += more
    return data


async def _chunks(request: web.Request, beginning: bytes) -> AsyncIterator[bytes]:
    if beginning:
        yield beginning
    async for chunk in request.content.iter_chunked(CHUNK_BYTES_MAX):
        yield chunk
