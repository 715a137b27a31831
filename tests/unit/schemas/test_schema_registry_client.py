"""What no good registry does: hang, dribble, redirect, compress, talk rubbish. Each ends in a typed error, in time."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import pytest
from benchmarks.registry_gateway import RUBBISH
from pydantic import SecretStr

from postroom.libs.exceptions import (
    ConfigurationError,
    IncompatibleSchemaError,
    InvalidSchemaError,
    RegistryAuthError,
    RegistryUnavailableError,
    SchemaRegistryError,
    SubjectNotFoundError,
    UnsupportedByRegistryError,
)
from postroom.libs.settings import SchemaRegistrySettings
from postroom.schemas.http_registry import HttpRegistry
from postroom.schemas.registration import Registration
from postroom.schemas.schema_registry_client import Compatibility, SchemaRegistryClient, subject_name
from postroom.testing.broker_settings import free_ports
from postroom.testing.manual_clock import ManualClock
from tests.unit.schemas.certificates import Certificates

Handler = Callable[[BaseHTTPRequestHandler], None]

GOOD = {"subject": "clicks-value", "version": 3, "id": 7, "schema": '"string"'}
JSON = "application/vnd.schemaregistry.v1+json"


def says(
    status: int, body: object = None, *, content_type: str = JSON, headers: dict[str, str] | None = None
) -> Handler:
    """An answer. A body that is no bytes is sent as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("Content-Type", content_type)
        request.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(data)

    return answer


class RubbishServer:
    """A server on 127.0.0.1 that gives the next of its answers to each request, the last one again and again."""

    def __init__(self, *answers: Handler, context: ssl.SSLContext | None = None) -> None:
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.stopping = threading.Event()
        left = list(answers)
        outer = self

        class Requests(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                outer.requests.append((self.command, self.path, dict(self.headers.items()), body))
                try:
                    (left.pop(0) if len(left) > 1 else left[0])(self)
                except OSError:  # the client had enough
                    self.close_connection = True

            do_GET = do_POST = do_PUT = _any  # noqa: N815 - the names that http.server looks for

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that http.server uses
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Requests)
        self._server.daemon_threads = False
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        if context is not None:
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
            self.url = f"https://localhost:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def client(url: str, clock: ManualClock | None = None, **settings: Any) -> SchemaRegistryClient:
    section = SchemaRegistrySettings(url=url, **{"timeout_s": 5.0, "retries": 0, **settings})
    return SchemaRegistryClient(settings=section, clock=clock or ManualClock())


@contextmanager
def asking(*answers: Handler, clock: ManualClock | None = None, **settings: Any) -> Iterator[SchemaRegistryClient]:
    """A client of a server that gives those answers."""
    with RubbishServer(*answers) as server, client(server.url, clock, **settings) as registry:
        yield registry


class TestGoodAnswers:
    def test_a_question_goes_to_confluent_s_path_with_everything_quoted(self) -> None:
        with RubbishServer(says(200, GOOD)) as server, client(f"{server.url}/apis/ccompat/v7/") as registry:
            found = registry.get_schema("a/b c?", 3)
            assert (found.schema_id, found.version, found.subject) == (7, 3, "clicks-value")
            registry.register("a/b", '"string"', normalize=True)
            registry.register("a/b", '"string"')
        paths = [(method, path) for method, path, _, _ in server.requests]
        assert paths == [
            ("GET", "/apis/ccompat/v7/subjects/a%2Fb%20c%3F/versions/3"),
            ("POST", "/apis/ccompat/v7/subjects/a%2Fb/versions?normalize=true"),
            ("POST", "/apis/ccompat/v7/subjects/a%2Fb/versions"),
        ]
        assert json.loads(server.requests[1][3]) == {"schema": '"string"'}

    def test_a_schema_by_id_is_asked_for_once_and_latest_each_time(self) -> None:
        with RubbishServer(says(200, GOOD)) as server, client(server.url) as registry:
            assert registry.by_id(8) == registry.by_id(8) == '"string"'
            assert len(server.requests) == 1
            registry.get_schema("clicks-value")
            registry.get_schema("clicks-value")
            assert len(server.requests) == 3
            registry.by_id(7)
            assert len(server.requests) == 3

    def test_credentials_are_sent_and_appear_nowhere_else(self) -> None:
        secret: dict[str, Any] = {"username": "alice", "password": SecretStr("in-wonderland")}
        with RubbishServer(says(401, {"error_code": 401, "message": "no"})) as server:
            registry = client(server.url, **secret)
            with registry, pytest.raises(RegistryAuthError) as caught:
                registry.subjects()
        assert server.requests[0][2]["Authorization"].startswith("Basic ")
        assert "wonderland" not in f"{caught.value} {caught.value!r} {registry!r} {caught.value.__cause__!r}"

    def test_a_client_asks_nothing_before_the_first_question(self) -> None:
        with RubbishServer(says(200, [])) as server, client(server.url) as registry:
            assert server.requests == []
            assert registry.subjects() == ()

    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    def test_a_forked_child_has_a_client_of_its_own(self) -> None:
        with RubbishServer(says(200, ["a"])) as server, client(server.url) as registry:
            registry.subjects()
            before = registry._registry._client  # type: ignore[union-attr]  # an HttpRegistry, as the address says
            pid = os.fork()
            if pid == 0:
                try:
                    own = registry.subjects() == ("a",) and registry._registry._client is not before  # type: ignore[union-attr]  # as above
                    os._exit(0 if own else 1)
                finally:
                    os._exit(2)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            assert registry._registry._client is before  # type: ignore[union-attr]  # as above


class TestRefusals:
    @pytest.mark.parametrize(
        ("answer", "error", "text"),
        [
            (says(401), RegistryAuthError, "HTTP 401"),
            (says(403, {"error_code": 40301, "message": "no"}), RegistryAuthError, "HTTP 403"),
            (says(404, {"error_code": 40401, "message": "x"}), SubjectNotFoundError, "40401"),
            (says(404, {"error_code": 40402, "message": "x"}), SubjectNotFoundError, "40402"),
            (says(404, {"error_code": 40403, "message": "x"}), SubjectNotFoundError, "40403"),
            (says(404, {"error_code": 404, "message": "HTTP 404 Not Found"}), SchemaRegistryError, "ccompat"),
            (says(404, b"<html>", content_type="text/html"), SchemaRegistryError, "ccompat"),
            (says(409, {"error_code": 409, "message": "c at /fields/1"}), IncompatibleSchemaError, "c at /fields/1"),
            (says(422, {"error_code": 42201, "message": "Invalid"}), InvalidSchemaError, "Invalid"),
            (says(422, {"error_code": 42202, "message": "Bad version"}), SchemaRegistryError, "42202: Bad version"),
            (says(405), UnsupportedByRegistryError, "HTTP 405"),
            (says(501), UnsupportedByRegistryError, "HTTP 501"),
            (says(418, {"message": "a\nb\x00c" + "x" * 1_000}), SchemaRegistryError, "a b c"),
            (says(400, [1, 2]), SchemaRegistryError, "HTTP 400"),
            (says(400, {"error_code": True, "message": 3}), SchemaRegistryError, "HTTP 400"),
        ],
    )
    def test_each_refusal_is_its_own_error_and_is_not_asked_again(
        self, answer: Handler, error: type[SchemaRegistryError], text: str
    ) -> None:
        with RubbishServer(answer) as server, client(server.url, retries=3) as registry:
            with pytest.raises(SchemaRegistryError) as caught:
                registry.register("clicks-value", '"string"')
            assert type(caught.value) is error
            assert text in str(caught.value)
            assert len(str(caught.value)) < 700
            assert not caught.value.retriable
            assert len(server.requests) == 1

    @pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308])
    def test_a_redirect_is_not_followed(self, status: int) -> None:
        with RubbishServer(says(200, GOOD)) as elsewhere:
            away = says(status, headers={"Location": f"{elsewhere.url}/?token=secret"})
            with RubbishServer(away) as server, client(server.url, username="u") as registry:
                with pytest.raises(SchemaRegistryError, match="not followed") as caught:
                    registry.get_schema("clicks")
                assert "secret" not in str(caught.value)
            assert elsewhere.requests == []

    @pytest.mark.parametrize(
        "body",
        [
            b"", b"{", b"\xff\xfe", b"[" * 100_000, b"null", b"[]", b"17", b'"text"', b"{}",
            b'{"subject": "s", "version": 1, "id": 1}',
            b'{"subject": "s", "version": 1, "id": "1", "schema": "x"}',
            b'{"subject": "s", "version": 1, "id": true, "schema": "x"}',
            b'{"subject": "s", "version": 1, "id": -1, "schema": "x"}',
            b'{"subject": "s", "version": 1, "id": 4294967296, "schema": "x"}',
            b'{"subject": "s", "version": 1.5, "id": 1, "schema": "x"}',
            b'{"subject": "s", "version": 1, "id": 1, "schema": {"type": "int"}}',
            b'{"subject": null, "version": 1, "id": 1, "schema": "x"}',
            b'{"subject": "s", "version": 1, "id": ' + b"1" * 5_000 + b', "schema": "x"}',
        ],
    )  # fmt: skip
    def test_an_answer_that_is_none_is_a_registry_error(self, body: bytes) -> None:
        with RubbishServer(says(200, body)) as server, client(server.url) as registry:
            for ask in (
                lambda: registry.get_schema("clicks"),
                lambda: registry.check_compatibility("clicks", '"int"'),
                lambda: registry.get_compatibility("clicks"),
            ):
                with pytest.raises(SchemaRegistryError) as caught:
                    ask()
                assert type(caught.value) is SchemaRegistryError

    @pytest.mark.parametrize("body", [{"a": 1}, [1, "a"], ["a", None], [True], "abc"])
    def test_a_list_of_other_things_is_refused(self, body: object) -> None:
        with RubbishServer(says(200, body)) as server, client(server.url) as registry:
            with pytest.raises(SchemaRegistryError):
                registry.subjects()
            with pytest.raises(SchemaRegistryError):
                registry.versions("clicks")

    def test_a_page_that_is_no_json_is_no_registry(self) -> None:
        page = says(200, b"<html>welcome</html>", content_type="text/html")
        with asking(page) as registry, pytest.raises(SchemaRegistryError, match="no Schema Registry"):
            registry.get_schema("clicks")

    @pytest.mark.parametrize(
        "answer",
        [
            {"id": 7},
            {**GOOD, "schema": '"long"'},
            {**GOOD, "schema": "{"},
            {**GOOD, "schema": 7},
            {**GOOD, "schemaType": "PROTOBUF"},
            {**GOOD, "id": -1},
            {**GOOD, "id": True},
        ],
    )
    def test_an_id_without_the_schema_that_was_asked_for_is_refused(self, answer: object) -> None:
        with asking(says(200, answer)) as registry:
            with pytest.raises(SchemaRegistryError) as caught:
                registry.lookup("clicks-value", '"string"')
            assert not caught.value.retriable

    @pytest.mark.parametrize("rubbish", RUBBISH.values(), ids=RUBBISH.keys())
    def test_a_lookup_answered_by_rubbish_is_an_error_in_time_and_never_an_id(self, rubbish: bytes) -> None:
        def talk(request: BaseHTTPRequestHandler) -> None:
            request.close_connection = True
            request.wfile.write(rubbish)

        with asking(talk, timeout_s=10.0, retries=0) as registry, pytest.raises(SchemaRegistryError):
            registry.lookup("clicks-value", Registration('{"type": "record", "name": "R", "fields": []}'))

    def test_a_giant_answer_to_a_small_question_is_not_read(self) -> None:
        answer = says(200, {**GOOD, "metadata": {"properties": {"long": "x" * 300_000}}})
        with asking(answer) as registry, pytest.raises(SchemaRegistryError, match="more than 262"):
            registry.lookup("clicks-value", Registration('"string"'))
        with asking(answer) as registry:
            assert registry.get_schema("clicks-value").schema_id == 7

    def test_what_was_prepared_asks_nothing(self, tmp_path: Path) -> None:
        with RubbishServer(says(200, [])) as server, client(server.url) as registry:
            registry.prepare()
            assert server.requests == []
        SchemaRegistryClient(tmp_path / "registry").prepare()

    def test_what_a_registry_does_not_have_normalised_is_looked_up_as_it_is(self) -> None:
        unknown = says(404, {"error_code": 40403, "message": "x"})
        with RubbishServer(unknown, says(200, GOOD)) as server, client(server.url) as registry:
            assert registry.lookup("clicks-value", Registration('"string"')) == 7
            assert [path for _, path, _, _ in server.requests] == [
                "/subjects/clicks-value?normalize=true",
                "/subjects/clicks-value",
            ]

    def test_an_unknown_subject_is_asked_for_once(self) -> None:
        with RubbishServer(says(404, {"error_code": 40401, "message": "x"})) as server, client(server.url) as registry:
            with pytest.raises(SubjectNotFoundError):
                registry.lookup("clicks-value", Registration('"string"'))
            assert len(server.requests) == 1

    def test_what_a_schema_refers_to_is_read_along(self) -> None:
        fields = [{"name": "one", "type": "a.E"}]
        outer = {"schema": json.dumps({"type": "record", "name": "R", "fields": fields})}
        enum = {**GOOD, "schema": json.dumps({"type": "enum", "name": "a.E", "symbols": ["X"]})}
        references = {"references": [{"name": "a.E", "subject": "e", "version": 4}]}
        with RubbishServer(says(200, outer | references), says(200, enum)) as server, client(server.url) as registry:
            assert json.loads(registry.by_id(1))["fields"][0]["type"]["symbols"] == ["X"]
            assert server.requests[1][1] == "/subjects/e/versions/4"

    @pytest.mark.parametrize(
        "references",
        [
            7,
            [7],
            [{"name": "a.E", "subject": "e"}],
            [{"name": 1, "subject": "e", "version": 1}],
            [{"name": f"a.E{number}", "subject": "e", "version": 1} for number in range(65)],
        ],
    )
    def test_references_that_are_none_are_refused(self, references: object) -> None:
        answer = says(200, {"schema": '"string"', "references": references})
        with asking(answer) as registry, pytest.raises(SchemaRegistryError):
            registry.by_id(1)

    def test_references_without_end_are_given_up(self) -> None:
        names = iter(range(1000))

        def endless(request: BaseHTTPRequestHandler) -> None:
            reference = {"name": f"a.E{next(names)}", "subject": "e", "version": 1}
            says(200, {**GOOD, "references": [reference]})(request)

        with RubbishServer(endless) as server, client(server.url) as registry:
            with pytest.raises(SchemaRegistryError, match="too many"):
                registry.by_id(1)
            assert len(server.requests) < 20

    def test_a_compatibility_rule_that_nobody_knows_is_refused(self) -> None:
        odd = says(200, {"compatibilityLevel": "SIDEWAYS"})
        with asking(odd) as registry, pytest.raises(SchemaRegistryError, match="none of Confluent's"):
            registry.get_compatibility("clicks")

    @pytest.mark.parametrize("code", [40401, 40408])
    def test_a_subject_without_a_rule_of_its_own_has_none(self, code: int) -> None:
        with asking(says(404, {"error_code": code, "message": "not there"})) as registry:
            assert registry.own_compatibility("clicks") is None

    def test_an_address_without_a_registry_is_not_taken_for_a_subject_without_a_rule(self) -> None:
        with asking(says(404, {"error_code": 404})) as registry, pytest.raises(SchemaRegistryError):
            registry.own_compatibility("clicks")

    def test_a_schema_that_is_not_avro_is_refused(self) -> None:
        proto = {**GOOD, "schemaType": "PROTOBUF"}
        with RubbishServer(says(200, proto)) as server, client(server.url) as registry:
            with pytest.raises(UnsupportedByRegistryError, match="than Avro"):
                registry.get_schema("clicks")
            with pytest.raises(UnsupportedByRegistryError, match="than Avro"):
                registry.by_id(7)


def dribbles(server: list[RubbishServer], *, head: bytes, forever: bytes) -> Handler:
    """Sends `head` and then `forever` a little at a time, until the server stops or the client hangs up."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.close_connection = True
        request.wfile.write(head)
        while not server[0].stopping.wait(0.02):
            request.wfile.write(forever)

    return answer


class TestBounds:
    def test_an_answer_of_more_than_four_mebibytes_is_cut_off(self) -> None:
        def giant(request: BaseHTTPRequestHandler) -> None:
            request.close_connection = True
            request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n[")
            for _ in range(1_000):
                request.wfile.write(b" " * 1_048_576)

        with asking(giant) as registry, pytest.raises(SchemaRegistryError, match="more than 4194304 bytes"):
            registry.subjects()

    def test_a_compressed_answer_is_refused_unread(self) -> None:
        bomb = says(200, b"\x1f\x8b" + b"\0" * 100, headers={"Content-Encoding": "gzip"})
        with RubbishServer(bomb) as server, client(server.url) as registry:
            with pytest.raises(SchemaRegistryError, match="compressed"):
                registry.subjects()
            assert server.requests[0][2]["Accept-Encoding"] == "identity"

    @pytest.mark.parametrize(
        ("head", "forever"),
        [
            (b"", b""),
            (b"", b"H"),
            (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n", b"X-Slow: 1\r\n"),
            (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n[", b" "),
            (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n[", b" "),
        ],
        ids=["silence", "endless status", "endless headers", "endless body", "body that never gets whole"],
    )
    def test_an_answer_that_does_not_end_is_given_up_in_time(self, head: bytes, forever: bytes) -> None:
        holder: list[RubbishServer] = []
        threads = threading.active_count()
        with RubbishServer(dribbles(holder, head=head, forever=forever)) as server:
            holder.append(server)
            with client(server.url, timeout_s=0.3) as registry, pytest.raises(SchemaRegistryError) as caught:
                registry.subjects()
        if forever != b"H":  # a status line that never ends is broken before it is late
            assert isinstance(caught.value, RegistryUnavailableError)
            assert "within 0.3 s" in str(caught.value)
        assert threading.active_count() == threads

    @pytest.mark.parametrize(
        "greeting", [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200", b"HTTP/1.1 xyz\r\n\r\n", b"\0" * 99]
    )
    def test_what_is_no_http_is_unavailable(self, greeting: bytes) -> None:
        def talk(request: BaseHTTPRequestHandler) -> None:
            request.close_connection = True
            request.wfile.write(greeting)

        with asking(talk) as registry, pytest.raises(RegistryUnavailableError):
            registry.subjects()

    def test_nobody_there_is_unavailable(self) -> None:
        [port] = free_ports(1)
        with client(f"http://127.0.0.1:{port}") as registry:
            with pytest.raises(RegistryUnavailableError, match="ConnectError") as caught:
                registry.subjects()
            assert caught.value.retriable

    def test_a_connection_is_not_kept_between_questions(self) -> None:
        with RubbishServer(says(200, [])) as server, client(server.url) as registry:
            registry.subjects()
            registry.subjects()
            sockets = [path for path in Path("/proc/self/fd").iterdir() if _is_connected_to(path, server.port)]
            assert sockets == []


def _is_connected_to(handle: Path, port: int) -> bool:
    try:
        if not str(handle.readlink()).startswith("socket:"):
            return False
        with socket.socket(fileno=os.dup(int(handle.name))) as copy:
            # A socket of the file system, such as a server of this process may hold, has a name and no port.
            return copy.family == socket.AF_INET and bool(copy.getpeername()[1] == port)
    except OSError:
        return False


class TestTryingAgain:
    @pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 599])
    def test_not_now_is_asked_again_and_the_good_answer_counts(self, status: int) -> None:
        clock = ManualClock()
        with RubbishServer(says(status), says(status), says(200, ["a"])) as server:
            with client(server.url, clock, retries=2) as registry:
                began = clock.monotonic()
                assert registry.subjects() == ("a",)
                assert 0.125 + 0.25 <= clock.monotonic() - began <= 0.25 + 0.5
            assert len(server.requests) == 3

    def test_a_broken_connection_is_asked_again_also_for_registering(self) -> None:
        def hang_up(request: BaseHTTPRequestHandler) -> None:
            request.close_connection = True

        with RubbishServer(hang_up, says(200, {"id": 5})) as server, client(server.url, retries=1) as registry:
            assert registry.register("clicks-value", '"string"') == 5
            assert len(server.requests) == 2

    def test_pauses_double_up_to_four_seconds_and_end(self) -> None:
        clock = ManualClock()
        with RubbishServer(says(503)) as server:
            registry = HttpRegistry(SchemaRegistrySettings(url=server.url, retries=7), clock=clock, jitter=lambda: 1.0)
            began = clock.monotonic()
            with pytest.raises(RegistryUnavailableError, match="HTTP 503"):
                registry.subjects()
            assert clock.monotonic() - began == 0.25 + 0.5 + 1 + 2 + 4 + 4 + 4
            assert len(server.requests) == 8
            registry.close()

    @pytest.mark.parametrize(
        ("header", "waited"),
        [("3", 3.0), ("0", 0.0), ("10", 10.0), (" 2 ", 2.0), ("soon", None), ("-5", None), ("1.5", None), ("٣", None)],
    )
    def test_retry_after_is_waited_for(self, header: str, waited: float | None) -> None:
        clock = ManualClock()
        not_now = says(503, headers={"Retry-After": header}) if header.isascii() else says(503)
        with RubbishServer(not_now, says(200, [])) as server, client(server.url, clock, retries=1) as registry:
            began = clock.monotonic()
            registry.subjects()
            if waited is None:
                assert 0.125 <= clock.monotonic() - began <= 0.25
            else:
                assert clock.monotonic() - began == waited

    def test_retry_after_may_be_a_date(self) -> None:
        clock = ManualClock()
        date = formatdate(clock.time_ms() / 1000 + 4, usegmt=True)
        not_now = says(503, headers={"Retry-After": date})
        with asking(not_now, says(200, []), clock=clock, retries=1) as registry:
            began = clock.monotonic()
            registry.subjects()
            assert 3 <= clock.monotonic() - began <= 4

    def test_a_wish_to_wait_for_long_is_passed_on_and_not_waited_for(self) -> None:
        clock = ManualClock()
        with RubbishServer(says(429, headers={"Retry-After": "3600"})) as server:
            with client(server.url, clock, retries=5) as registry:
                began = clock.monotonic()
                with pytest.raises(RegistryUnavailableError, match="come back in 3600 s"):
                    registry.subjects()
                assert clock.monotonic() == began
            assert len(server.requests) == 1


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """An authority, a server's and a client's certificate, and an authority that nobody knows."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


@contextmanager
def secure_server(certificates: Certificates, *, wants_client: bool = False) -> Iterator[str]:
    """The address of a server that speaks TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server, certificates.server_key)
    if wants_client:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(certificates.authority)
    with RubbishServer(says(200, ["a"]), context=context) as server:
        yield server.url


class TestTls:
    def test_a_server_of_the_named_authority_is_trusted(self, certificates: Certificates) -> None:
        with secure_server(certificates) as url, client(url, ca=certificates.authority) as registry:
            assert registry.subjects() == ("a",)

    @pytest.mark.parametrize("ca", ["none", "another"])
    def test_a_server_of_another_authority_is_refused_at_once(self, certificates: Certificates, ca: str) -> None:
        clock = ManualClock()
        named = certificates.stranger if ca == "another" else None
        with secure_server(certificates) as url, client(url, clock, ca=named, retries=3) as registry:
            began = clock.monotonic()
            with pytest.raises(SchemaRegistryError, match="not trusted") as caught:
                registry.subjects()
            assert type(caught.value) is SchemaRegistryError
            assert clock.monotonic() == began

    def test_a_certificate_for_another_host_is_refused(self, certificates: Certificates) -> None:
        with secure_server(certificates) as url:
            registry = client(url.replace("localhost", "127.0.0.1"), ca=certificates.authority)
            with registry, pytest.raises(SchemaRegistryError, match="not trusted"):
                registry.subjects()

    def test_a_client_certificate_is_shown(self, certificates: Certificates) -> None:
        with secure_server(certificates, wants_client=True) as url:
            registry = client(
                url, ca=certificates.authority, certificate=certificates.client, key=certificates.client_key
            )
            with registry:
                assert registry.subjects() == ("a",)

    def test_a_missing_client_certificate_is_an_authorization_error(self, certificates: Certificates) -> None:
        with secure_server(certificates, wants_client=True) as url:
            registry = client(url, ca=certificates.authority)
            with registry, pytest.raises(RegistryAuthError, match="client certificate"):
                registry.subjects()

    def test_tls_to_a_plain_port_says_what_is_wrong(self, certificates: Certificates) -> None:
        with RubbishServer(says(200, [])) as server:
            registry = client(server.url.replace("http:", "https:"), ca=certificates.authority)
            with registry, pytest.raises(SchemaRegistryError, match="does not speak TLS"):
                registry.subjects()

    @pytest.mark.parametrize("broken", ["missing", "directory", "no certificate"])
    def test_a_file_that_is_no_certificate_is_a_configuration_error(self, tmp_path: Path, broken: str) -> None:
        path = {"missing": tmp_path / "no.pem", "directory": tmp_path, "no certificate": tmp_path / "x.pem"}[broken]
        (tmp_path / "x.pem").write_text("hello", encoding="utf-8")
        registry = client("https://localhost:1", ca=path)
        with registry, pytest.raises(ConfigurationError, match=r"schema_registry\.ca"):
            registry.subjects()


class TestSettings:
    def test_without_arguments_it_goes_where_the_settings_say(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("POSTROOM_SCHEMA_REGISTRY_URL", str(tmp_path / "here"))
        with SchemaRegistryClient() as registry:
            registry.register("user_events-value", '"string"')
            assert registry.get_schema("user_events").subject == "user_events-value"
        assert (tmp_path / "here" / "schemas.json").exists()

    def test_the_word_embedded_is_the_caller_s_to_understand(self) -> None:
        with SchemaRegistryClient("embedded") as registry, pytest.raises(ConfigurationError, match="embedded"):
            registry.subjects()

    @pytest.mark.parametrize("url", ["http://alice:secret@host:1", "ftp://host", "", "localhost:8081", "http://h:0x"])
    def test_an_address_that_is_none_is_refused_without_its_secrets(self, url: str) -> None:
        with SchemaRegistryClient(url) as registry, pytest.raises(ConfigurationError) as caught:
            registry.subjects()
        assert "secret" not in str(caught.value)

    def test_an_address_and_settings_together_are_refused(self) -> None:
        with pytest.raises(ConfigurationError, match="not both"):
            SchemaRegistryClient("http://localhost:1", settings=SchemaRegistrySettings())

    def test_a_folder_needs_no_http_library(self, tmp_path: Path) -> None:
        script = (
            "import sys; from postroom.schemas.schema_registry_client import SchemaRegistryClient\n"
            f"SchemaRegistryClient({str(tmp_path)!r}).subjects(); print('httpx' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "False"

    def test_a_rule_is_one_of_confluent_s(self) -> None:
        assert [str(level) for level in Compatibility] == [level.name for level in Compatibility]


class TestSubjectNames:
    @pytest.mark.parametrize(
        ("strategy", "name"),
        [("topic_name", "plays-value"), ("record_name", "com.x.Play"), ("topic_record_name", "plays-com.x.Play")],
    )
    def test_each_strategy_has_its_name(self, strategy: str, name: str) -> None:
        assert subject_name(strategy, "plays", "com.x.Play") == name

    def test_another_strategy_is_refused(self) -> None:
        with pytest.raises(ValueError, match="topic_name, record_name or topic_record_name"):
            subject_name("by_mood", "plays", "Play")
