"""The relay of the tests: every fault that it claims to make reaches both sides, and is counted."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.tcp_proxy import TcpProxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Server:
    """Answers every received block with `got ` and the block; keeps what it received."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.received: list[bytes] = []
        self.connections: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                self.connections.append(connection)
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := connection.recv(65_536):
                self.received.append(data)
                connection.sendall(b"got " + data)
            connection.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        for one in (self.listener, *self.connections):
            one.close()


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    yield one
    one.close()


@pytest.fixture
def proxy(server: Server) -> Iterator[TcpProxy]:
    with TcpProxy(0, server.port) as one:
        yield one


@pytest.fixture
def connect(proxy: TcpProxy) -> Iterator[Callable[[], socket.socket]]:
    made: list[socket.socket] = []

    def connect() -> socket.socket:
        made.append(socket.create_connection(("127.0.0.1", proxy.port), timeout=10))
        return made[-1]

    yield connect
    for one in made:
        one.close()


def asked(client: socket.socket, text: bytes) -> bytes:
    client.sendall(text)
    return client.recv(65_536)


def within_10_s(condition: Callable[[], object]) -> bool:
    end = time.monotonic() + 10
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.002)  # the relay runs in real time
    return True


def test_what_one_side_sends_the_other_gets(proxy: TcpProxy, connect: Callable[[], socket.socket]) -> None:
    client = connect()
    assert asked(client, b"hello") == b"got hello"
    assert proxy.counts.connections == proxy.open_connections == 1
    assert within_10_s(lambda: proxy.counts.relayed_bytes == len(b"hello" + b"got hello"))


def test_a_long_stream_arrives_whole_and_slowly_read(proxy: TcpProxy, connect: Callable[[], socket.socket]) -> None:
    client = connect()
    text = bytes(range(256)) * 40_000
    sender = threading.Thread(target=client.sendall, args=(text,))
    sender.start()
    got = b""
    while len(got.replace(b"got ", b"")) < len(text):
        got += client.recv(1_000_000)
    sender.join()
    assert got.replace(b"got ", b"") == text


def test_an_ended_connection_is_ended_on_the_other_side(
    proxy: TcpProxy, server: Server, connect: Callable[[], socket.socket]
) -> None:
    client = connect()
    assert asked(client, b"hello") == b"got hello"
    client.shutdown(socket.SHUT_WR)
    assert client.recv(10) == b""
    assert within_10_s(lambda: proxy.open_connections == 0)


def test_a_server_that_is_not_there_ends_the_connection(server: Server, connect: Callable[[], socket.socket]) -> None:
    server.close()
    with contextlib.suppress(ConnectionResetError):  # which may come before `connect` has returned
        assert connect().recv(10) == b""


def test_a_cut_ends_connections_and_refuses_new_ones_until_healed(
    proxy: TcpProxy, server: Server, connect: Callable[[], socket.socket]
) -> None:
    client = connect()
    asked(client, b"hello")
    proxy.cut()
    assert proxy.counts.cut == 1
    with pytest.raises(ConnectionResetError):
        client.recv(10)
    with pytest.raises(ConnectionRefusedError):
        connect()
    proxy.heal()
    assert asked(connect(), b"again") == b"got again"
    assert server.received == [b"hello", b"again"]


def test_a_freeze_takes_connections_and_relays_nothing_until_healed(
    proxy: TcpProxy, server: Server, connect: Callable[[], socket.socket]
) -> None:
    old = connect()
    asked(old, b"before")
    proxy.freeze()
    new = connect()
    old.sendall(b"old")
    new.sendall(b"new")
    server.connections[0].sendall(b"unasked")
    assert within_10_s(lambda: proxy.counts.held == 2)
    old.settimeout(0.2)
    with pytest.raises(TimeoutError):
        old.recv(10)
    assert server.received == [b"before"]
    proxy.heal()
    old.settimeout(10)
    answers = b""
    while len(answers) < len(b"unasked" + b"got old"):
        answers += old.recv(100)
    assert answers == b"unaskedgot old"
    assert new.recv(100) == b"got new"
    assert proxy.counts.held_bytes == len(b"old" + b"new" + b"unasked")


def test_a_delay_holds_every_byte_back_in_both_directions(
    proxy: TcpProxy, connect: Callable[[], socket.socket]
) -> None:
    client = connect()
    asked(client, b"quick")
    proxy.delay(0.15)
    began = time.monotonic()
    assert asked(client, b"slow") == b"got slow"
    assert time.monotonic() - began >= 0.3
    assert proxy.counts.delayed_bytes == len(b"slow" + b"got slow")
    proxy.heal()
    began = time.monotonic()
    assert asked(client, b"quick") == b"got quick"
    assert time.monotonic() - began < 0.15


def test_lost_replies_are_counted_while_requests_go_through(
    proxy: TcpProxy, server: Server, connect: Callable[[], socket.socket]
) -> None:
    client = connect()
    asked(client, b"hello")
    proxy.drop_replies()
    client.sendall(b"done, and not confirmed")
    assert within_10_s(lambda: proxy.counts.swallowed_bytes == len(b"got done, and not confirmed"))
    assert server.received == [b"hello", b"done, and not confirmed"]
    assert proxy.counts.lossy == 1
    assert proxy.counts.requests_while_lossy_bytes == len(b"done, and not confirmed")
    untouched = connect()
    proxy.heal()
    with pytest.raises(ConnectionResetError):
        client.recv(10)
    assert asked(untouched, b"hello") == b"got hello"


def test_a_frozen_relay_can_be_cut(proxy: TcpProxy, connect: Callable[[], socket.socket]) -> None:
    client = connect()
    asked(client, b"hello")
    proxy.freeze()
    proxy.cut()
    assert proxy.counts.cut == 1
    with pytest.raises(ConnectionResetError):
        client.recv(10)
    proxy.freeze()
    connect()
    proxy.heal()
    assert asked(connect(), b"again") == b"got again"


def test_the_end_leaves_no_connection_and_no_port(server: Server) -> None:
    with TcpProxy(0, server.port) as proxy:
        client = socket.create_connection(("127.0.0.1", proxy.port), timeout=10)
        asked(client, b"hello")
    with contextlib.suppress(ConnectionResetError):
        assert client.recv(10) == b""
    client.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", proxy.port), timeout=10)
