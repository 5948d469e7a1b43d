"""A zarr store over HTTP that counts bytes and seconds and goes where it was sent.

A server is a stranger: an answer may never end, may be slow without end, may inflate to
gigabytes, or may lead to a port of this machine. zarr's own store over HTTP reads
whatever comes.
"""

from __future__ import annotations

import asyncio
import socket
import time
import zlib
from typing import TYPE_CHECKING, Any

import aiohttp
import yarl
from aiohttp.abc import AbstractResolver
from aiohttp.resolver import DefaultResolver
from zarr.abc.store import (
    ByteRequest,
    OffsetByteRequest,
    RangeByteRequest,
    Store,
    SuffixByteRequest,
)

from napari_histodistill.addresses import WebAddress, is_public
from napari_histodistill.errors import InputError
from napari_histodistill.slides.formats.zarr_limits import (
    MAX_CHUNK_BYTES,
    MAX_METADATA_BYTES,
    METADATA,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from zarr.core.buffer import Buffer, BufferPrototype

CONNECT_S = 10.0
SILENCE_S = 20.0
"""Seconds without a byte after which a server is given up."""

ANSWER_S = 60.0
"""Seconds for one answer, however it trickles."""

OPENING_S = 90.0
"""Seconds for all that is read to open an image."""

MAX_HOPS = 5
MAX_BYTES_AT_ONCE = 4 * MAX_CHUNK_BYTES
"""What all answers that are being read may hold together."""

_MISSING = {404, 410}
_REDIRECTS = {301, 302, 303, 307, 308}
_PIECE = 1 << 16
_CLOSED = "the slide was closed"


class RemoteError(OSError):
    """A server that does not answer as it should; the message names no address."""


class RemoteStore(Store):
    """The files below an address, to be read.

    Parameters
    ----------
    address : WebAddress
        The folder of a zarr group.
    """

    def __init__(self, address: WebAddress) -> None:
        super().__init__(read_only=True)
        self._address = address
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._resolver = _Resolver(address.host)
        self._held, self._shut = 0, False
        self._limits: set[asyncio.Timeout] = set()
        self._deadline: float | None = time.monotonic() + OPENING_S
        self.refused = False
        """Whether the server said that one may not read here (403)."""

    def opened(self) -> None:
        """End the time limit for opening: from here on every answer has its own."""
        self._deadline = None

    def shut(self) -> None:
        """Close the session in zarr's event loop, so that nothing of it stays there."""
        session, self._session, self._shut = self._session, None, True
        if session is not None and self._loop is not None and self._loop.is_running():
            closing = asyncio.run_coroutine_threadsafe(self._end(session), self._loop)
            closing.result(timeout=CONNECT_S)

    async def _end(self, session: aiohttp.ClientSession) -> None:
        """End what is being read, which aiohttp leaves to wait, and the session."""
        for limit in self._limits:
            if not limit.expired():
                limit.reschedule(asyncio.get_running_loop().time())
        await session.close()

    def __eq__(self, value: object) -> bool:
        return isinstance(value, RemoteStore) and value._address == self._address

    def __hash__(self) -> int:
        return hash(self._address)

    def __repr__(self) -> str:
        return f"RemoteStore({self._address!r})"

    async def get(
        self,
        key: str,
        prototype: BufferPrototype,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Return what is stored under a key; None if there is nothing.

        Raises
        ------
        RemoteError
            If the server does not answer, or not as it should.
        """
        left = ANSWER_S
        if self._deadline is not None:
            left = min(left, self._deadline - time.monotonic())
        try:
            if left <= 0:
                raise TimeoutError
            async with asyncio.timeout(left) as limit:
                self._limits.add(limit)
                try:
                    content = await self._fetched(key, byte_range)
                finally:
                    self._limits.discard(limit)
        except aiohttp.ServerTimeoutError:
            msg = f"it was silent for {SILENCE_S:.0f} s"
            raise RemoteError(msg) from None
        except TimeoutError:
            msg = f"it took longer than {min(ANSWER_S, OPENING_S):.0f} s to answer"
            raise RemoteError(_CLOSED if self._shut else msg) from None
        except RemoteError:
            raise
        except (InputError, aiohttp.ClientError, OSError, ValueError) as error:
            # Without their cause: aiohttp's errors hold the address and its query.
            raise RemoteError(_why(error)) from None
        return None if content is None else prototype.buffer.from_bytes(content)

    async def get_partial_values(
        self,
        prototype: BufferPrototype,
        key_ranges: Iterable[tuple[str, ByteRequest | None]],
    ) -> list[Buffer | None]:
        """Return several parts, in their order."""
        wanted = [self.get(key, prototype, part) for key, part in key_ranges]
        return list(await asyncio.gather(*wanted))

    async def exists(self, key: str) -> bool:
        """Return whether there is something under a key."""
        from zarr.core.buffer import default_buffer_prototype

        part = RangeByteRequest(0, 1)
        return await self.get(key, default_buffer_prototype(), part) is not None

    @property
    def supports_writes(self) -> bool:
        """Nothing is written."""
        return False

    @property
    def supports_deletes(self) -> bool:
        """Nothing is deleted."""
        return False

    @property
    def supports_listing(self) -> bool:
        """HTTP has no folders; pages that list files are not parsed."""
        return False

    async def set(self, key: str, value: Buffer) -> None:
        """Refuse: nothing is written."""
        raise NotImplementedError

    async def delete(self, key: str) -> None:
        """Refuse: nothing is deleted."""
        raise NotImplementedError

    def list(self) -> AsyncIterator[str]:
        """Refuse: nothing is listed."""
        raise NotImplementedError

    def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Refuse: nothing is listed."""
        raise NotImplementedError

    def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Refuse: nothing is listed."""
        raise NotImplementedError

    async def _fetched(self, key: str, part: ByteRequest | None) -> bytes | None:
        """Follow redirects to an answer and return its body."""
        headers = {"Accept-Encoding": "identity"}
        if part is not None:
            headers["Range"] = _range_header(part)
        target = self._address.below(key)
        is_metadata = key.rpartition("/")[2] in METADATA
        for _ in range(MAX_HOPS + 1):
            url = yarl.URL(target.url, encoded=True)
            async with self._client().get(
                url, headers=headers, allow_redirects=False
            ) as answer:
                if answer.status in _REDIRECTS:
                    location = answer.headers.get("Location", "")
                    target = await self._followed(target, location)
                    continue
                if answer.status in _MISSING:
                    return None
                if answer.status == 403 and is_metadata:
                    # Object stores answer so for what is not there, unless one may
                    # list; a chunk that may not be read must not be taken for empty.
                    self.refused = True
                    return None
                if answer.status not in {200, 206}:
                    msg = f"it answered {answer.status}"
                    raise RemoteError(msg)
                most = MAX_METADATA_BYTES if is_metadata else MAX_CHUNK_BYTES
                return await self._body(answer, part, most)
        msg = f"it redirects more than {MAX_HOPS} times"
        raise RemoteError(msg)

    async def _followed(self, source: WebAddress, location: str) -> WebAddress:
        target = source.led_to(location)
        if self._address.is_beyond(target):
            await self._resolver.refuse_private(target.host, target.port)
        return target

    async def _body(
        self, answer: aiohttp.ClientResponse, part: ByteRequest | None, most: int
    ) -> bytes:
        """Read an answer, and of a whole file the part that was asked for."""
        coding = answer.headers.get("Content-Encoding", "identity").lower()
        if coding not in {"identity", "gzip", "x-gzip", "deflate"}:
            msg = f"its answer is compressed in a way that is not read ({coding[:20]})"
            raise RemoteError(msg)
        unpack = None if coding == "identity" else zlib.decompressobj(47)
        stated = answer.content_length or 0
        body = bytearray()
        try:
            if stated > most:
                raise RemoteError(_too_much(most))
            async for piece in answer.content.iter_chunked(_PIECE):
                room = most - len(body) + 1
                new = piece if unpack is None else unpack.decompress(piece, room)
                body += new
                self._held += len(new)
                if len(body) > most or (unpack and unpack.unconsumed_tail):
                    raise RemoteError(_too_much(most))
                if self._held > MAX_BYTES_AT_ONCE:
                    raise RemoteError(_too_much(MAX_BYTES_AT_ONCE))
        except zlib.error:
            msg = "its answer is compressed, and damaged"
            raise RemoteError(msg) from None
        finally:
            self._held -= len(body)
        whole = answer.status == 200
        return bytes(body[_slice_of(part)] if whole and part is not None else body)

    def _client(self) -> aiohttp.ClientSession:
        if self._shut:  # the rest of what zarr had asked for at once
            raise RemoteError(_CLOSED)
        if self._session is None:
            self._loop = asyncio.get_running_loop()
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(resolver=self._resolver),
                timeout=aiohttp.ClientTimeout(
                    total=ANSWER_S, sock_connect=CONNECT_S, sock_read=SILENCE_S
                ),
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session


class _Resolver(AbstractResolver):
    """Keeps what a name first meant, and refuses private addresses of other servers.

    A name of a stranger's may mean a server of theirs at first and this machine later;
    what is checked here is what is connected to.
    """

    def __init__(self, own: str) -> None:
        self._own = own
        self._inner: AbstractResolver | None = None
        self._known: dict[str, list[Any]] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[Any]:
        """Return where a host is; as aiohttp wants it."""
        found = await self._found(host, port, family)
        if host != self._own:
            _refuse_private(entry["host"] for entry in found)
        return [{**entry, "port": port} for entry in found]

    async def refuse_private(self, host: str, port: int) -> None:
        """Refuse a host that is not on the internet, by name or by number.

        Raises
        ------
        RemoteError
            If so.
        """
        if ":" in host:
            _refuse_private([host])
            return
        found = await self._found(host, port, socket.AF_UNSPEC)
        _refuse_private(entry["host"] for entry in found)

    async def close(self) -> None:
        """Let go of what resolves."""
        if self._inner is not None:
            await self._inner.close()

    async def _found(
        self, host: str, port: int, family: socket.AddressFamily
    ) -> list[Any]:
        if host not in self._known:
            self._inner = self._inner or DefaultResolver()
            self._known[host] = await self._inner.resolve(host, port, family)
        return self._known[host]


def _refuse_private(addresses: Iterable[str]) -> None:
    if not all(map(is_public, addresses)):
        msg = (
            "it redirects into this machine or its network, which is not followed: "
            "open that address itself if you trust it"
        )
        raise RemoteError(msg)


def _range_header(part: ByteRequest) -> str:
    if isinstance(part, RangeByteRequest):
        return f"bytes={part.start}-{part.end - 1}"
    if isinstance(part, OffsetByteRequest):
        return f"bytes={part.offset}-"
    return f"bytes=-{part.suffix}"


def _slice_of(part: ByteRequest) -> slice:
    """Return the part of a whole file, from a server that does not send parts."""
    if isinstance(part, RangeByteRequest):
        return slice(part.start, part.end)
    if isinstance(part, SuffixByteRequest):
        return slice(-part.suffix, None)
    return slice(part.offset, None)


def _too_much(most: int) -> str:
    return f"its answer is larger than {most >> 20} MiB"


def _why(error: Exception) -> str:
    """Return what went wrong, in words that hold no address."""
    if isinstance(error, InputError):
        return str(error).rstrip(".")
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "its certificate is not valid"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"there is no connection ({error.os_error.strerror or 'refused'})"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "its answer broke off"
    if isinstance(error, aiohttp.ClientResponseError):
        return "its answer is not HTTP"
    return f"the connection failed ({type(error).__name__})"
