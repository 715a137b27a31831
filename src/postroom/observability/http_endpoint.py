"""`/metrics`, `/livez`, `/readyz` and `/status` over HTTP: small, bounded in every direction, and no more than that.

One request per connection. A request head of 8 KiB in 5 seconds, an answer taken in 5 seconds, 16 connections at
once; who wants more gets an error or is hung up on, and nobody else notices.
"""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
import threading
from email.utils import formatdate
from typing import TYPE_CHECKING, Final, NamedTuple

from postroom.libs.clock import SYSTEM_CLOCK
from postroom.libs.exceptions import ConfigurationError, LifecycleError
from postroom.observability.prometheus import render

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from postroom.libs.clock import Clock
    from postroom.observability.health import HealthCheck
    from postroom.observability.metrics import Metrics

REQUEST_TIMEOUT_S: Final = 5.0
MAX_CONNECTIONS: Final = 16
_MAX_HEAD_BYTES: Final = 8 * 1024
_MAX_LEFT_OVER_BYTES: Final = 64 * 1024
_TEXT: Final = "text/plain; charset=utf-8"
_PHRASES: Final = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


class _Answer(NamedTuple):
    status: int
    body: bytes
    content_type: str = _TEXT
    headers: tuple[tuple[str, str], ...] = ()


class _RequestError(Exception):
    """The request cannot be read; holds the status to answer with."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class HttpEndpoint:
    """Answers scrapes and probes between `start()` and `stop()`; also a context manager.

    `port=0` takes a free port; `port` says which. Meant for the own machine or a closed network: there is no TLS and
    no password, and it listens on 127.0.0.1 unless told otherwise.
    """

    def __init__(
        self,
        metrics: Metrics,
        health: HealthCheck,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        request_timeout_s: float = REQUEST_TIMEOUT_S,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._metrics = metrics
        self._health = health
        self._host = host
        self._wanted_port = port
        self._request_timeout_s = request_timeout_s
        self._clock = clock
        self._lock = threading.Lock()
        self._listener: socket.socket | None = None
        self._waker: socket.socket | None = None
        self._acceptor: threading.Thread | None = None
        self._open: dict[socket.socket, threading.Thread] = {}

    @property
    def port(self) -> int:
        """The port it listens on. Raises LifecycleError when it does not."""
        if self._listener is None:
            raise LifecycleError("the metrics endpoint is not started", remedy="call start() first")
        return int(self._listener.getsockname()[1])

    @property
    def url(self) -> str:
        """Where it listens, such as `http://127.0.0.1:9464`. Raises LifecycleError when it does not."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self.port}"

    def start(self) -> None:
        """Listen from now on.

        Raises ConfigurationError when the address cannot be listened on, LifecycleError when already started.
        """
        if self._listener is not None:
            raise LifecycleError("the metrics endpoint is already started")
        listener = _listen(self._host, self._wanted_port)
        listener.settimeout(0.0)
        wake, self._waker = socket.socketpair()
        self._listener = listener
        self._acceptor = threading.Thread(target=self._accept, args=(listener, wake), name="postroom-http", daemon=True)
        self._acceptor.start()

    def stop(self) -> None:
        """Hang up on everybody and return when the port and the threads are gone. Stopping twice does nothing.

        A thread that hangs in a health check or a source of metrics is waited for as long as for a request, no longer.
        """
        if self._listener is None or self._waker is None or self._acceptor is None:
            return
        self._waker.close()
        self._acceptor.join()
        with self._lock:
            threads = list(self._open.values())
            for connection in self._open:
                _hang_up(connection)
        for thread in threads:
            thread.join(self._request_timeout_s)
        self._listener = self._waker = self._acceptor = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _accept(self, listener: socket.socket, wake: socket.socket) -> None:
        with listener, wake, selectors.DefaultSelector() as selector:
            selector.register(listener, selectors.EVENT_READ)
            selector.register(wake, selectors.EVENT_READ)
            while True:
                ready = {key.fileobj for key, _ in selector.select()}
                if wake in ready:
                    return
                try:
                    connection, _ = listener.accept()
                except BlockingIOError:
                    continue  # the caller went away between the two calls
                except OSError:
                    # No file handles left, most likely. Without a pause this would spin until there are some.
                    self._clock.sleep(0.05)
                    continue
                self._hand_over(connection)

    def _hand_over(self, connection: socket.socket) -> None:
        with self._lock:
            if len(self._open) < MAX_CONNECTIONS:
                thread = threading.Thread(
                    target=self._serve, args=(connection,), name="postroom-http-request", daemon=True
                )
                self._open[connection] = thread
                try:
                    thread.start()
                except RuntimeError:  # the system gives no more threads: as good as too many connections
                    del self._open[connection]
                else:
                    return
        # At once and without reading: a few bytes fit into any socket buffer.
        with connection, contextlib.suppress(OSError):
            connection.settimeout(0.0)
            connection.sendall(self._encoded(_plain(503, "too many connections"), with_body=True))

    def _serve(self, connection: socket.socket) -> None:
        try:
            with contextlib.suppress(OSError):  # the other side is gone or too slow: nobody is left to be told
                self._converse(connection)
        finally:
            with self._lock:
                del self._open[connection]
                connection.close()

    def _converse(self, connection: socket.socket) -> None:
        with_body = True
        try:
            method, target, headers = _parsed(self._read_head(connection))
            with_body = method != "HEAD"
            answer = self._answer(method, target, headers)
        except _RequestError as error:
            answer = _plain(error.status, _PHRASES[error.status].lower())
        except Exception as exc:  # noqa: BLE001  the one who asked gets an answer, the endpoint goes on
            answer = _plain(500, f"internal error: {type(exc).__name__}")
        connection.settimeout(self._request_timeout_s)
        connection.sendall(self._encoded(answer, with_body=with_body))
        # Closing on unread bytes would reset the connection and could destroy the answer on its way.
        connection.shutdown(socket.SHUT_WR)
        self._read_left_over(connection)

    def _read_head(self, connection: socket.socket) -> bytes:
        deadline = self._clock.monotonic() + self._request_timeout_s
        head = b""
        while b"\r\n\r\n" not in head:
            rest = deadline - self._clock.monotonic()
            if rest <= 0:
                raise _RequestError(408)
            connection.settimeout(rest)
            try:
                piece = connection.recv(4096)
            except TimeoutError as exc:
                raise _RequestError(408) from exc
            if not piece:
                raise _RequestError(400)
            head += piece
            if len(head) > _MAX_HEAD_BYTES:
                raise _RequestError(431)
        return head

    def _read_left_over(self, connection: socket.socket) -> None:
        deadline = self._clock.monotonic() + self._request_timeout_s
        read = 0
        while read < _MAX_LEFT_OVER_BYTES and (rest := deadline - self._clock.monotonic()) > 0:
            connection.settimeout(rest)
            piece = connection.recv(4096)
            if not piece:
                return
            read += len(piece)

    def _answer(self, method: str, target: str, headers: dict[str, str]) -> _Answer:
        path = target.partition("?")[0]
        if path not in {"/metrics", "/livez", "/readyz", "/status"}:
            return _plain(404, "not found; there are /metrics, /livez, /readyz and /status")
        if method not in {"GET", "HEAD"}:
            return _plain(405, "only GET and HEAD", (("Allow", "GET, HEAD"),))
        if path == "/metrics":
            body, content_type = render(self._metrics, headers.get("accept", ""))
            return _Answer(200, body, content_type)
        if path == "/status":  # a document about the state, not an answer to yes or no
            return _json(200, self._health.status())
        report = self._health.report()
        well = report.live if path == "/livez" else report.ready
        return _json(200 if well else 503, report.as_json())

    def _encoded(self, answer: _Answer, *, with_body: bool) -> bytes:
        lines = [
            f"HTTP/1.1 {answer.status} {_PHRASES[answer.status]}",
            f"Date: {formatdate(self._clock.time_ms() / 1_000, usegmt=True)}",
            f"Content-Type: {answer.content_type}",
            f"Content-Length: {len(answer.body)}",
            "Cache-Control: no-store",
            "X-Content-Type-Options: nosniff",
            "Connection: close",
            *(f"{name}: {value}" for name, value in answer.headers),
        ]
        head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
        return head + answer.body if with_body else head


def serve(metrics: Metrics, health: HealthCheck, host: str = "127.0.0.1", port: int = 0) -> HttpEndpoint:
    """A started endpoint; `stop()` ends it. Raises ConfigurationError when the address cannot be listened on."""
    endpoint = HttpEndpoint(metrics, health, host, port)
    endpoint.start()
    return endpoint


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65_535:
        raise ConfigurationError(f"metrics: {port} is no port", remedy="set metrics.port to a number from 0 to 65535")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except (OSError, UnicodeError) as exc:
        reason = getattr(exc, "strerror", None) or type(exc).__name__
        raise ConfigurationError(
            f"metrics: cannot listen on host {host}, port {port}: {reason}",
            remedy="set metrics.port to a free port (0 takes any) and metrics.host to an address of this machine",
        ) from exc


def _parsed(head: bytes) -> tuple[str, str, dict[str, str]]:
    lines = head.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    parts = lines[0].split(" ")
    if len(parts) != 3 or parts[2] not in {"HTTP/1.0", "HTTP/1.1"}:
        raise _RequestError(400)
    headers = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise _RequestError(400)
        headers[name.lower()] = value.strip()
    return parts[0], parts[1], headers


def _plain(status: int, text: str, headers: tuple[tuple[str, str], ...] = ()) -> _Answer:
    return _Answer(status, text.encode() + b"\n", _TEXT, headers)


def _json(status: int, document: dict[str, object]) -> _Answer:
    return _Answer(status, json.dumps(document, indent=2).encode() + b"\n", "application/json")


def _hang_up(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # already gone
        connection.shutdown(socket.SHUT_RDWR)
