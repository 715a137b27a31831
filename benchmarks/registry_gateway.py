"""Stands between a service and a real Schema Registry, in a process of its own, and plays tricks when it is told to.

    python -m benchmarks.registry_gateway PORT_OF_THE_REGISTRY

It says its port on stdout. Then each line on stdin is a mode (`relay`, `slow`, `hang`, `rubbish`) or `count`; the
answer to each is how many connections it has taken in the present mode.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import subprocess
import sys
from typing import Self

SLOW_S = 3.0
_HEAD = "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{more}Content-Length: {size}\r\n\r\n"
_JSON = "application/vnd.schemaregistry.v1+json"


def _answer(body: bytes, *, status: str = "200 OK", kind: str = _JSON, more: str = "") -> bytes:
    return _HEAD.format(status=status, kind=kind, more=more, size=len(body)).encode() + body


def _other(schema: str) -> bytes:
    return json.dumps({"subject": "x", "version": 1, "id": 99, "schema": schema}).encode()


RUBBISH: dict[str, bytes] = {
    "a page": _answer(b"<html>welcome</html>", kind="text/html"),
    "no JSON": _answer(b'{"id": '),
    "an id alone": _answer(b'{"id": 99}'),
    "another schema": _answer(_other('"string"')),
    "a schema that is none": _answer(_other("[" * 50_000)),
    "an id that is none": _answer(json.dumps({"subject": "x", "version": 1, "id": "99", "schema": "{}"}).encode()),
    "a giant": _answer(json.dumps([1] * 1_300_000).encode()),
    "a giant without a length": b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + b"[" * 5_000_000,
    "compressed": _answer(b"\x1f\x8b" + b"\0" * 1000, more="Content-Encoding: gzip\r\n"),
    "a redirect": _answer(b"", status="307 Temporary Redirect", more="Location: http://127.0.0.1:1/\r\n"),
    "no HTTP": b"SSH-2.0-OpenSSH_9.6\r\n" * 20,
    "headers without end": b"HTTP/1.1 200 OK\r\n" + b"X-More: and more\r\n" * 20_000,
    "nothing": b"",
    "not allowed": _answer(b'{"error_code": 401, "message": "no"}', status="401 Unauthorized"),
    "not now": _answer(b"", status="503 Service Unavailable", more="Retry-After: 3600\r\n"),
    "a broken answer": _answer(b"", status="500 Internal Server Error"),
}
"""What a registry never says, by what it is; one after the other is said to each connection."""


class _Relay:
    def __init__(self, target: int) -> None:
        self._target = target
        self._rubbish = itertools.cycle(RUBBISH.values())
        self.mode = "relay"
        self.taken = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.taken += 1
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            if self.mode == "rubbish":
                await reader.readuntil(b"\r\n\r\n")
                writer.write(next(self._rubbish))
                await writer.drain()
            elif self.mode == "hang":
                await reader.read(-1)
            else:
                await self._pass_on(reader, writer)
        writer.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.mode == "slow":
            await asyncio.sleep(SLOW_S)
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self._target)
        await asyncio.gather(_pump(reader, to_server), _pump(from_server, writer))
        to_server.close()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(65_536):
        sink.write(data)
        await sink.drain()
    if sink.can_write_eof():
        sink.write_eof()


async def _main(target: int) -> None:
    relay = _Relay(target)
    server = await asyncio.start_server(relay.serve, "127.0.0.1", 0)
    _say(server.sockets[0].getsockname()[1])
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        if line.strip() != "count":
            relay.mode, relay.taken = line.strip(), 0
        _say(relay.taken)


def _say(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


class Gateway:
    """The gateway to a registry on this machine, from `with` to its end."""

    def __init__(self, target: int) -> None:
        self._target = target

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.registry_gateway", str(self._target)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.port = self._number()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def tell(self, mode: str) -> None:
        """Treat every later connection in this way."""
        self._ask(mode)

    def taken(self) -> int:
        """How many connections there were in the present mode."""
        return self._ask("count")

    def _ask(self, line: str) -> int:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return self._number()

    def _number(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1])))
