"""A TCP relay between clients and a server, both on this machine, that cuts, freezes, delays and loses on demand."""

from __future__ import annotations

import contextlib
import fcntl
import queue
import selectors
import socket
import struct
import termios
import threading
import time
from collections import deque
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable

_HOST = "127.0.0.1"
_READ_BYTES = 65_536
_BUFFER_BYTES = 1024 * 1024  # a slow reader slows its writer down, as without a relay
_ANSWER_S = 10.0
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, zero seconds: closing sends RST and forgets what was not sent


@dataclass(slots=True)
class Counts:
    """What the relay did since it was made; a test reads it to show that a fault took place."""

    connections: int = 0  # taken from clients
    cut: int = 0  # connections ended by `cut`
    held: int = 0  # connections that stood still because of `freeze`: there when it began, or taken meanwhile
    held_bytes: int = 0  # bytes that waited in them, in both directions, when they went on or were cut
    lossy: int = 0  # connections from whose replies something was swallowed
    swallowed_bytes: int = 0  # bytes of replies that no client will ever see
    requests_while_lossy_bytes: int = 0  # bytes that reached the server while replies were being swallowed
    delayed_bytes: int = 0
    relayed_bytes: int = 0


class _Mode(Enum):
    RELAYING = "relaying"
    FROZEN = "frozen"
    CUT = "cut"


@dataclass(slots=True, eq=False)
class _Flow:
    """One direction of a connection: bytes read from one socket, not yet due or not yet taken by the other."""

    waiting: deque[tuple[float, bytes]] = field(default_factory=deque)
    size: int = 0
    has_ended: bool = False  # the source will send nothing more
    is_closed: bool = False  # and the sink was told so

    def put(self, due: float, data: bytes) -> None:
        self.waiting.append((due, data))
        self.size += len(data)

    def send_due(self, sink: socket.socket, now: float) -> int:
        """Give the sink what is due and what it takes now; return how many bytes."""
        sent_in_all = 0
        while self.waiting and self.waiting[0][0] <= now:
            due, data = self.waiting[0]
            try:
                sent = sink.send(data)
            except BlockingIOError:
                break
            sent_in_all += sent
            self.size -= sent
            if sent < len(data):
                self.waiting[0] = (due, data[sent:])
                break
            self.waiting.popleft()
        if self.has_ended and not self.waiting and not self.is_closed:
            self.is_closed = True
            sink.shutdown(socket.SHUT_WR)
        return sent_in_all


@dataclass(slots=True, eq=False)
class _Link:
    """One connection: the client's socket and, as soon as nothing holds it back, the server's."""

    client: socket.socket
    server: socket.socket | None = None
    is_connected: bool = False
    requests: _Flow = field(default_factory=_Flow)
    replies: _Flow = field(default_factory=_Flow)
    is_lossy: bool = False

    @property
    def is_over(self) -> bool:
        return self.requests.is_closed and self.replies.is_closed


class TcpProxy:
    """Relays every connection to `port` on to `target`, from `with` to its end. One fault at a time, until `heal`.

    `port` 0 takes a free one. `target` may be changed: later connections go there. Each of the calls below has taken
    effect when it returns.
    """

    def __init__(self, port: int, target: int) -> None:
        self.target = target
        self._listener = socket.create_server((_HOST, port))
        self._listener.setblocking(False)
        self.port = int(self._listener.getsockname()[1])
        self._selector = selectors.DefaultSelector()
        self._bell, self._ringer = socket.socketpair()
        self._bell.setblocking(False)
        self._orders: queue.SimpleQueue[tuple[Callable[[], None], threading.Event]] = queue.SimpleQueue()
        self._links: list[_Link] = []
        self._counts = Counts()
        self._mode = _Mode.RELAYING
        self._delay_s = 0.0
        self._loses_replies = False
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=f"tcp-proxy-{self.port}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(RuntimeError):  # it is gone already
            self._order(self._end)
        self._thread.join(_ANSWER_S)

    # -- what a test asks for

    @property
    def counts(self) -> Counts:
        """What has happened so far; later events do not change the value."""
        return replace(self._counts)

    @property
    def open_connections(self) -> int:
        """How many connections there are at this moment."""
        return len(self._links)

    def cut(self) -> None:
        """End every connection by a reset, in both directions, and refuse new ones."""
        self._order(self._cut)

    def freeze(self) -> None:
        """Half-open: connections stay, new ones are taken, and not one byte is relayed either way."""
        self._order(self._freeze)

    def delay(self, seconds: float) -> None:
        """Relay every byte that is read from now on that much later, in both directions."""

        def change() -> None:
            self._delay_s = seconds

        self._order(change)

    def drop_replies(self) -> None:
        """Swallow what the server sends; what clients send still reaches it: done, and never confirmed."""

        def change() -> None:
            self._loses_replies = True

        self._order(change)

    def heal(self) -> None:
        """Relay as in the beginning. Connections that lost replies are reset: a stream with a hole is no stream."""
        self._order(self._heal)

    # -- orders, carried out by the relay's own thread

    def _order(self, action: Callable[[], None]) -> None:
        done = threading.Event()
        self._orders.put((action, done))
        with contextlib.suppress(OSError):
            self._ringer.send(b"!")
        end = time.monotonic() + _ANSWER_S
        while not done.wait(0.05):
            if not self._thread.is_alive() or time.monotonic() > end:
                raise RuntimeError("the relay does not answer")

    def _cut(self) -> None:
        if self._mode is _Mode.FROZEN:
            self._count_held()
        self._counts.cut += len(self._links)
        for link in list(self._links):
            self._drop(link)
        if self._mode is not _Mode.CUT:
            # Bound and not listening: connections are refused, and the port cannot go to anybody else.
            self._forget(self._listener)
            self._listener.close()
            self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listener.setblocking(False)
            self._listener.bind((_HOST, self.port))
        self._mode = _Mode.CUT

    def _freeze(self) -> None:
        self._listen_again()
        self._mode = _Mode.FROZEN
        self._counts.held += len(self._links)

    def _heal(self) -> None:
        self._listen_again()
        if self._mode is _Mode.FROZEN:
            self._count_held()
        self._mode, self._delay_s, self._loses_replies = _Mode.RELAYING, 0.0, False
        for link in list(self._links):
            if link.is_lossy:
                self._drop(link)

    def _listen_again(self) -> None:
        if self._mode is _Mode.CUT:
            self._listener.listen()

    def _count_held(self) -> None:
        sockets = [one for link in self._links for one in (link.client, link.server) if one is not None]
        self._counts.held_bytes += sum(map(_unread_bytes, sockets))

    def _end(self) -> None:
        self._closed = True

    # -- the relay

    def _run(self) -> None:
        try:
            while not self._closed:
                self._watch()
                ready: set[object] = {key.fileobj for key, _ in self._selector.select(self._until_due())}
                with contextlib.suppress(BlockingIOError):
                    self._bell.recv(1024)
                while not self._orders.empty():
                    action, done = self._orders.get()
                    action()
                    done.set()
                if self._is_shut():
                    continue
                if self._listener in ready:
                    self._take_connections()
                if self._mode is _Mode.RELAYING:
                    for link in list(self._links):
                        self._serve(link, ready)
        finally:
            for link in list(self._links):
                self._drop(link)
            for one in (self._listener, self._bell, self._ringer):
                one.close()
            self._selector.close()

    def _is_shut(self) -> bool:
        return self._closed or self._mode is _Mode.CUT

    def _until_due(self) -> float | None:
        """Seconds until the next delayed byte is due; None when nothing is delayed."""
        if self._mode is not _Mode.RELAYING:
            return None
        flows = (flow for link in self._links for flow in (link.requests, link.replies) if flow.waiting)
        now = time.monotonic()
        due = [flow.waiting[0][0] for flow in flows if not _has_due(flow, now)]  # what is due waits for its sink
        return max(0.0, min(due) - now) if due else None

    def _watch(self) -> None:
        """Tell the selector what is waited for. Nothing is registered for nothing: a hang-up would wake it for ever."""
        self._interest(self._bell, reading=True, writing=False)
        self._interest(self._listener, reading=self._mode is not _Mode.CUT, writing=False)
        relaying, now = self._mode is _Mode.RELAYING, time.monotonic()
        for link in self._links:
            self._interest(
                link.client,
                reading=relaying and _wants_more(link.requests),
                writing=relaying and _has_due(link.replies, now),
            )
            if link.server is not None:
                self._interest(
                    link.server,
                    reading=relaying and link.is_connected and _wants_more(link.replies),
                    writing=relaying and (not link.is_connected or _has_due(link.requests, now)),
                )

    def _interest(self, one: socket.socket, *, reading: bool, writing: bool) -> None:
        wanted = (selectors.EVENT_READ if reading else 0) | (selectors.EVENT_WRITE if writing else 0)
        known = self._selector.get_map().get(one)
        if known is None:
            if wanted:
                self._selector.register(one, wanted)
        elif not wanted:
            self._selector.unregister(one)
        elif known.events != wanted:
            self._selector.modify(one, wanted)

    def _forget(self, one: socket.socket) -> None:
        if one in self._selector.get_map():
            self._selector.unregister(one)

    def _take_connections(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            client.setblocking(False)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._links.append(_Link(client))
            self._counts.connections += 1
            self._counts.held += self._mode is _Mode.FROZEN

    def _serve(self, link: _Link, ready: set[object]) -> None:
        try:
            if link.server is None:
                link.server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
                link.server.setblocking(False)
                link.server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with contextlib.suppress(BlockingIOError):
                    link.server.connect((_HOST, self.target))
                return
            if not link.is_connected:
                if link.server not in ready:
                    return
                error = link.server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if error:
                    raise OSError(error, "the server cannot be reached")  # noqa: TRY301 - it ends this connection
                link.is_connected = True
            now = time.monotonic()
            self._read(link, link.requests, link.client, ready, now)
            self._read(link, link.replies, link.server, ready, now)
            sent = link.requests.send_due(link.server, now)
            self._counts.relayed_bytes += sent + link.replies.send_due(link.client, now)
            if self._loses_replies:
                self._counts.requests_while_lossy_bytes += sent
            if link.is_over:
                self._drop(link, reset=False)
        except OSError:
            self._drop(link)

    def _read(self, link: _Link, flow: _Flow, source: socket.socket, ready: set[object], now: float) -> None:
        if source not in ready or not _wants_more(flow):
            return
        try:
            data = source.recv(_READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            flow.has_ended = True
        elif self._loses_replies and flow is link.replies:
            self._counts.swallowed_bytes += len(data)
            self._counts.lossy += not link.is_lossy
            link.is_lossy = True
        else:
            if self._delay_s:
                self._counts.delayed_bytes += len(data)
            flow.put(now + self._delay_s, data)

    def _drop(self, link: _Link, *, reset: bool = True) -> None:
        self._links.remove(link)
        for one in (link.client, link.server):
            if one is not None:
                self._forget(one)
                if reset:
                    with contextlib.suppress(OSError):
                        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                one.close()


def _wants_more(flow: _Flow) -> bool:
    return not flow.has_ended and flow.size < _BUFFER_BYTES


def _has_due(flow: _Flow, now: float) -> bool:
    return bool(flow.waiting) and flow.waiting[0][0] <= now


def _unread_bytes(one: socket.socket) -> int:
    answer = fcntl.ioctl(one.fileno(), termios.FIONREAD, b"\0\0\0\0")
    return int(struct.unpack("i", answer)[0])
