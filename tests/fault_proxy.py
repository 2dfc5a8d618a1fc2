"""A proxy on loopback that stands before an S3 server and does to some requests what networks do.

    with FaultProxy(server.endpoint) as proxy:
        proxy.add("lost_reply", method="PUT", key="prompt/c/3")  # the next one only; the rest goes through
        client = server.client(proxy.endpoint)
        ...
        assert proxy.injected == [("lost_reply", "PUT", "/bucket/prompt/c/3")]

Plain HTTP/1.1. Requests reach the server byte by byte as the client signed them, Host header included: a proxy that
put its upstream's name there would break the signatures.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, Self
from urllib.parse import unquote, urlsplit

Kind = Literal[
    "slow_down",  # 503 with S3's code SlowDown; the server never hears of the request
    "reset",  # the connection is reset once the request is read; the server never hears of it
    "lost_reply",  # the server does the work, then the connection is reset before a byte of its reply
    "truncated",  # the connection ends half way through the reply's body
    "bit_flip",  # one bit in the middle of the reply's body is another
    "slow",  # the reply comes `seconds` late
]

SLOW_DOWN = b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>SlowDown</Code><Message>injected</Message></Error>'
LONGEST_HEAD = 1 << 16  # bytes


@dataclass
class Fault:
    """Happens to the next `times` requests with this method ("" for any) and this in their path."""

    kind: Kind
    method: str
    key: str
    times: int
    seconds: float


@dataclass(frozen=True)
class Message:
    """A request or a reply, as its bytes."""

    head: bytes
    body: bytes = b""

    @property
    def words(self) -> list[str]:
        """The first line's three parts: GET /bucket/key HTTP/1.1, or HTTP/1.1 200 OK."""
        return self.head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)

    def header(self, name: str) -> str:
        """A header's value in lower case; empty if there is none."""
        found = re.search(rf"\r\n{name}:[ \t]*([^\r]*)".encode(), self.head, re.IGNORECASE)
        return found[1].decode("latin-1").strip().lower() if found else ""


class FaultProxy:
    """Listens for as long as the `with` lasts, in a thread of its own."""

    def __init__(self, upstream: str) -> None:
        self.upstream = urlsplit(upstream)
        self.endpoint = ""  # its URL, once it listens
        self.requests: list[tuple[str, str]] = []  # method and path of each, also of those that went through
        self.injected: list[tuple[Kind, str, str]] = []  # kind, method and path of each fault
        self._faults: list[Fault] = []
        self._listens = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def add(self, kind: Kind, method: str = "", key: str = "", times: int = 1, seconds: float = 1) -> None:
        """Adds a fault; the first one that matches a request happens to it."""
        self._faults.append(Fault(kind, method, key, times, seconds))

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._listens.wait(10):
            raise RuntimeError("the proxy did not come up within 10 s")
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(10)

    async def _serve(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._talk, "127.0.0.1", 0, limit=LONGEST_HEAD)
        self.endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._listens.set()
        await self._end.wait()
        server.close()  # connections that are still open are cancelled by asyncio.run

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A client's connection: one request after the other, until either side has had enough."""
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while await self._answer(await _read_request(reader, writer), writer):
                pass
        await _close(writer)

    async def _answer(self, request: Message, writer: asyncio.StreamWriter) -> bool:
        """Answers one request. True if the connection can go on."""
        fault = self._take_fault(request)
        kind = fault.kind if fault else None
        if kind == "reset":
            return _reset(writer)
        reply = _slow_down(request) if kind == "slow_down" else await self._ask_upstream(request)
        if kind == "lost_reply":
            return _reset(writer)
        if fault and kind == "slow":
            await asyncio.sleep(fault.seconds)
        middle, body = len(reply.body) // 2, reply.body
        if kind == "truncated":
            body = body[:middle]
        if kind == "bit_flip" and body:
            body = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
        writer.write(reply.head + body)
        await writer.drain()
        return kind != "truncated" and reply.header("connection") != "close"

    def _take_fault(self, request: Message) -> Fault | None:
        method, path, _ = request.words
        path = unquote(path)
        self.requests.append((method, path))
        for fault in self._faults:
            if fault.times > 0 and fault.method in ("", method) and fault.key in path:
                fault.times -= 1
                self.injected.append((fault.kind, method, path))
                return fault
        return None

    async def _ask_upstream(self, request: Message) -> Message:
        """The server's reply, read to its end, over a connection of its own."""
        reader, writer = await asyncio.open_connection(self.upstream.hostname, self.upstream.port, limit=LONGEST_HEAD)
        try:
            writer.write(request.head + request.body)
            await writer.drain()
            head = Message(await reader.readuntil(b"\r\n\r\n"))
            empty = request.words[0] == "HEAD" or head.words[1] in ("204", "304")
            return head if empty else await _read_body(head, reader)
        finally:
            await _close(writer)


async def _read_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Message:
    """A whole request. One that waits for leave to send its body is given it, and then does not say that it waits."""
    request = Message(await reader.readuntil(b"\r\n\r\n"))
    if request.header("expect") == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request = Message(re.sub(rb"(?i)\r\nexpect:[^\r]*", b"", request.head))
    return await _read_body(request, reader)


async def _read_body(message: Message, reader: asyncio.StreamReader) -> Message:
    """The message with its body, chunks with their sizes as they came."""
    if message.header("transfer-encoding") != "chunked":
        return Message(message.head, await reader.readexactly(int(message.header("content-length") or 0)))
    pieces = []
    size = None
    while size != 0:
        line = await reader.readuntil(b"\r\n")
        size = int(line.split(b";")[0], 16)
        pieces += [line, await reader.readexactly(size + 2)]
    return Message(message.head, b"".join(pieces))


def _slow_down(request: Message) -> Message:
    head = f"HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nContent-Length: {len(SLOW_DOWN)}\r\n\r\n"
    return Message(head.encode(), b"" if request.words[0] == "HEAD" else SLOW_DOWN)


def _reset(writer: asyncio.StreamWriter) -> bool:
    """Ends a connection by a TCP reset: to linger for 0 s means to drop what is under way."""
    connection: Any = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return False


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError, asyncio.CancelledError):
        await writer.wait_closed()
