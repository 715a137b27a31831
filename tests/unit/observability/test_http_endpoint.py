"""What the endpoint promises over real loopback connections: right answers, bounds on everything, a clean end."""

import errno
import http.client
import json
import socket
import threading
from collections.abc import Iterator

import pytest

from postroom.libs.exceptions import ConfigurationError, LifecycleError
from postroom.observability import http_endpoint
from postroom.observability.health import HealthCheck, State
from postroom.observability.http_endpoint import MAX_CONNECTIONS, HttpEndpoint, serve
from postroom.observability.metrics import Metrics, Reading
from postroom.testing.manual_clock import ManualClock


class World:
    """An endpoint with its metrics and one part whose state a test may set."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.state = State.OK
        self.health = HealthCheck()
        self.health.add("kafka_client", lambda: self.state)
        self.endpoint = HttpEndpoint(self.metrics, self.health, request_timeout_s=2.0)

    def request(self, method: str, path: str, headers: dict[str, str] | None = None) -> tuple[int, str, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.endpoint.port, timeout=10)
        try:
            connection.request(method, path, headers=headers or {})
            response = connection.getresponse()
            return response.status, response.getheader("Content-Type", ""), response.read()
        finally:
            connection.close()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.endpoint.port), timeout=10)

    def send(self, raw: bytes) -> bytes:
        """What comes back, to the end, for these bytes."""
        with self.connect() as connection:
            connection.sendall(raw)
            return read_all(connection)


def read_all(connection: socket.socket) -> bytes:
    answer = b""
    while piece := connection.recv(65_536):
        answer += piece
    return answer


def _no_more_threads(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    with world.endpoint:
        yield world


class TestAnswers:
    def test_metrics_are_served_in_prometheus_text(self, world: World) -> None:
        world.metrics.record_event_published("user_events")
        status, content_type, body = world.request("GET", "/metrics")
        assert (status, content_type) == (200, "text/plain; version=0.0.4; charset=utf-8")
        assert b'postroom_events_delivered_total{topic="user_events"} 1.0\n' in body

    def test_openmetrics_is_served_to_who_asks_for_it(self, world: World) -> None:
        _, content_type, body = world.request(
            "GET", "/metrics", {"Accept": "application/openmetrics-text; version=1.0.0"}
        )
        assert content_type.startswith("application/openmetrics-text")
        assert body.endswith(b"# EOF\n")

    @pytest.mark.parametrize(
        ("state", "ready"), [(State.OK, 200), (State.DEGRADED, 200), (State.STARTING, 503), (State.DOWN, 503)]
    )
    def test_readyz_is_503_unless_an_event_can_be_made_safe(self, world: World, state: State, ready: int) -> None:
        world.state = state
        status, content_type, body = world.request("GET", "/readyz")
        assert (status, content_type) == (ready, "application/json")
        assert json.loads(body)["components"]["kafka_client"]["state"] == state.value
        assert world.request("GET", "/livez")[0] == 200

    @pytest.mark.parametrize("state", list(State))
    def test_status_is_a_document_and_answers_200_whatever_the_health(self, world: World, state: State) -> None:
        world.state = state
        world.health.tell(lambda: {"ledger": {"received": 7}})
        status, content_type, body = world.request("GET", "/status")
        document = json.loads(body)
        assert (status, content_type) == (200, "application/json")
        assert document["components"]["kafka_client"]["state"] == state
        assert document["ledger"] == {"received": 7}

    def test_a_check_that_raises_is_a_503_not_an_error(self, world: World) -> None:
        world.health.add("broken", lambda: State("no such state"))
        status, _, body = world.request("GET", "/readyz")
        assert status == 503
        assert json.loads(body)["components"]["broken"]["detail"] == "the check raised ValueError"

    def test_head_has_the_same_head_and_no_body(self, world: World) -> None:
        got = world.send(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
        head = world.send(b"HEAD /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert head.endswith(b"\r\n\r\n")
        names = [line.split(b":")[0] for line in got.partition(b"\r\n\r\n")[0].split(b"\r\n")]
        assert [line.split(b":")[0] for line in head.rstrip().split(b"\r\n")] == names
        assert b"Content-Length: 0" not in head

    def test_a_query_changes_nothing(self, world: World) -> None:
        assert world.request("GET", "/livez?verbose=1")[0] == 200

    @pytest.mark.parametrize("path", ["/", "/metrics/", "/METRICS", "/../metrics", "/livez%00", "//livez", "*"])
    def test_other_paths_are_not_found(self, world: World, path: str) -> None:
        assert status_of(world.send(f"GET {path} HTTP/1.1\r\n\r\n".encode())) == 404

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "get", "BREW"])
    def test_other_methods_are_not_allowed(self, world: World, method: str) -> None:
        answer = world.send(f"{method} /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc".encode())
        assert status_of(answer) == 405
        assert b"\r\nAllow: GET, HEAD\r\n" in answer

    def test_nothing_tells_the_version_of_anything(self, world: World) -> None:
        for raw in (b"GET /livez HTTP/1.1\r\n\r\n", b"GET /nothing HTTP/1.1\r\n\r\n", b"nonsense\r\n\r\n"):
            answer = world.send(raw).lower()
            assert b"server:" not in answer
            assert b"python" not in answer

    def test_a_source_that_raises_does_not_spoil_the_scrape(self, world: World) -> None:
        def broken() -> list[Reading]:
            raise RuntimeError("secret")

        world.metrics.add_source(broken)
        world.request("GET", "/metrics")
        status, _, body = world.request("GET", "/metrics")
        assert status == 200
        assert b"postroom_metrics_source_errors_total 1.0\n" in body
        assert b"secret" not in body

    def test_an_error_of_our_own_is_a_500_with_its_class_only(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*_: object) -> None:
            raise ZeroDivisionError("secret")

        monkeypatch.setattr(http_endpoint, "render", broken)
        status, _, body = world.request("GET", "/metrics")
        assert (status, body) == (500, b"internal error: ZeroDivisionError\n")
        assert world.request("GET", "/livez")[0] == 200


class TestBadRequests:
    @pytest.mark.parametrize(
        "raw",
        [
            b"\r\n\r\n",
            b"GET\r\n\r\n",
            b"GET /livez\r\n\r\n",
            b"GET /livez HTTP/2.0\r\n\r\n",
            b"GET /livez HTTP/1.1 x\r\n\r\n",
            b"GET  /livez HTTP/1.1\r\n\r\n",
            b"GET /livez HTTP/1.1\r\nno colon\r\n\r\n",
            b"GET /livez HTTP/1.1\r\n: nameless\r\n\r\n",
            b"GET /livez HTTP/1.1\r\nHost : x\r\n\r\n",
            b"GET /livez HTTP/1.1\r\nA: b\r\n folded: c\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
            bytes(range(256)) + b"\r\n\r\n",
        ],
    )
    def test_what_is_no_http_is_a_400(self, world: World, raw: bytes) -> None:
        assert status_of(world.send(raw)) == 400
        assert world.request("GET", "/livez")[0] == 200

    @pytest.mark.parametrize("raw", [b"GET /" + b"a" * 9_000, b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 2_000])
    def test_a_head_of_more_than_8_kib_is_refused(self, world: World, raw: bytes) -> None:
        assert status_of(world.send(raw)) == 431

    def test_a_half_closed_connection_gets_its_answer(self, world: World) -> None:
        with world.connect() as connection:
            connection.sendall(b"GET /livez HTTP/1.1\r\n\r\n")
            connection.shutdown(socket.SHUT_WR)
            assert status_of(read_all(connection)) == 200

    def test_a_request_that_ends_too_early_is_a_400(self, world: World) -> None:
        with world.connect() as connection:
            connection.sendall(b"GET /livez HT")
            connection.shutdown(socket.SHUT_WR)
            assert status_of(read_all(connection)) == 400

    def test_the_second_request_of_a_pipeline_is_not_answered(self, world: World) -> None:
        answer = world.send(b"GET /livez HTTP/1.1\r\n\r\nGET /metrics HTTP/1.1\r\n\r\n")
        assert answer.count(b"HTTP/1.1 200 OK") == 1
        assert b"\r\nConnection: close\r\n" in answer

    def test_a_body_that_nobody_wants_does_not_destroy_the_answer(self, world: World) -> None:
        body = b"x" * 50_000
        answer = world.send(b"POST /metrics HTTP/1.1\r\nContent-Length: 50000\r\n\r\n" + body)
        assert status_of(answer) == 405

    def test_a_body_that_comes_after_the_answer_breaks_nothing(self, world: World) -> None:
        """A client that sends first and reads then must not meet a reset connection."""
        with world.connect() as connection:
            connection.sendall(b"PUT /metrics HTTP/1.1\r\nContent-Length: 3000\r\n\r\n")
            assert status_of(read_all(connection)) == 405
            for _ in range(3):
                connection.sendall(b"x" * 1_000)
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(1) == b""


class TestBounds:
    def test_slow_clients_do_not_hold_up_others_and_are_hung_up_on(self) -> None:
        world = World()
        world.endpoint = HttpEndpoint(world.metrics, world.health, request_timeout_s=0.3)
        with world.endpoint:
            slow = [world.connect() for _ in range(MAX_CONNECTIONS - 1)]
            try:
                for connection in slow:
                    connection.sendall(b"GET /me")
                assert world.request("GET", "/livez")[0] == 200
                assert [status_of(read_all(connection)) for connection in slow] == [408] * len(slow)
            finally:
                for connection in slow:
                    connection.close()

    def test_a_hanging_scrape_does_not_hold_up_others(self, world: World) -> None:
        inside, go_on = threading.Event(), threading.Event()

        def hanging() -> list[Reading]:
            inside.set()
            go_on.wait(30)
            return []

        end = world.metrics.add_source(hanging)
        with world.connect() as scraper:
            scraper.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            assert inside.wait(10)
            assert world.request("GET", "/readyz")[0] == 200
            world.metrics.record_event_published("user_events")
            go_on.set()
            assert status_of(read_all(scraper)) == 200
        end()

    def test_one_connection_too_many_is_told_so_at_once(self, world: World) -> None:
        held = [world.connect() for _ in range(MAX_CONNECTIONS)]
        try:
            with world.connect() as one_more:
                assert status_of(read_all(one_more)) == 503
        finally:
            for connection in held:
                connection.close()

    def test_without_file_handles_it_pauses_and_goes_on(self, monkeypatch: pytest.MonkeyPatch) -> None:
        real_accept = socket.socket.accept
        errors = [OSError(errno.EMFILE, "too many open files"), BlockingIOError()]
        pauses: list[float] = []

        class PauseClock(ManualClock):
            def sleep(self, seconds: float) -> None:
                pauses.append(seconds)

        def accept(listener: socket.socket) -> tuple[socket.socket, object]:
            if errors:
                raise errors.pop()
            return real_accept(listener)

        world = World()
        world.endpoint = HttpEndpoint(world.metrics, world.health, clock=PauseClock())
        with world.endpoint:
            monkeypatch.setattr(socket.socket, "accept", accept)
            assert world.request("GET", "/livez")[0] == 200
        assert len(pauses) == 1

    def test_without_threads_it_says_no_and_goes_on(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", _no_more_threads)
            assert world.request("GET", "/livez")[0] == 503
        assert world.request("GET", "/livez")[0] == 200

    def test_it_still_answers_after_many_requests_and_keeps_no_thread(self, world: World) -> None:
        before = threading.active_count()
        for _ in range(300):
            assert world.request("GET", "/livez")[0] == 200
        world.endpoint.stop()
        assert threading.active_count() == before - 1

    def test_a_client_that_vanishes_leaves_no_trace(self, world: World, capfd: pytest.CaptureFixture[str]) -> None:
        for _ in range(MAX_CONNECTIONS - 1):
            connection = world.connect()
            connection.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            # Linger 0: closing sends a reset.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
            connection.close()
        assert world.request("GET", "/livez")[0] == 200
        assert capfd.readouterr() == ("", "")


class TestLifecycle:
    def test_serve_starts_on_a_free_port_of_the_own_machine(self) -> None:
        endpoint = serve(Metrics(), HealthCheck())
        try:
            assert endpoint.port > 0
            assert endpoint.url == f"http://127.0.0.1:{endpoint.port}"
        finally:
            endpoint.stop()

    def test_after_stop_the_port_is_free_and_no_thread_is_left(self) -> None:
        world = World()
        before = threading.active_count()
        world.endpoint.start()
        port = world.endpoint.port
        world.request("GET", "/livez")
        world.endpoint.stop()
        world.endpoint.stop()
        assert threading.active_count() == before
        with HttpEndpoint(world.metrics, world.health, port=port) as again:
            assert again.port == port

    def test_stop_hangs_up_on_who_is_still_connected(self) -> None:
        world = World()
        before = threading.active_count()
        with world.endpoint:
            idle = [world.connect() for _ in range(3)]
            assert world.request("GET", "/livez")[0] == 200
        assert threading.active_count() == before
        for connection in idle:
            with connection:
                assert status_of(read_all(connection) or b"x 400 ") == 400

    def test_it_can_be_started_again(self) -> None:
        world = World()
        for _ in range(2):
            with world.endpoint:
                assert world.request("GET", "/livez")[0] == 200

    def test_a_port_in_use_is_a_configuration_error_with_a_remedy(self, world: World) -> None:
        with pytest.raises(ConfigurationError, match="cannot listen") as caught:
            serve(world.metrics, world.health, port=world.endpoint.port)
        assert "metrics.port" in caught.value.remedy

    @pytest.mark.parametrize(("host", "port"), [("127.0.0.1", 70_000), ("192.0.2.1", 0), ("bad host!", 0)])
    def test_an_address_that_cannot_be_is_a_configuration_error(self, host: str, port: int) -> None:
        with pytest.raises(ConfigurationError):
            serve(Metrics(), HealthCheck(), host, port)

    def test_misuse_is_told(self, world: World) -> None:
        with pytest.raises(LifecycleError):
            world.endpoint.start()
        with pytest.raises(LifecycleError):
            _ = HttpEndpoint(world.metrics, world.health).port

    def test_it_listens_on_ipv6_too(self) -> None:
        if not socket.has_ipv6:
            pytest.skip("no IPv6 here")
        try:
            endpoint = serve(Metrics(), HealthCheck(), "::1")
        except ConfigurationError:
            pytest.skip("no IPv6 loopback here")
        try:
            assert endpoint.url == f"http://[::1]:{endpoint.port}"
        finally:
            endpoint.stop()
