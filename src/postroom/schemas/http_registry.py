"""A Schema Registry behind HTTP: Confluent's REST API, also spoken by Apicurio, Karapace and Redpanda.

Every question ends within `(retries + 1) x timeout_s` and the pauses between; an answer has at most 4 MiB, that to a
lookup little more than what was asked.
Redirects are refused, because they would carry the credentials along. No message holds credentials.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import ssl
import threading
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import httpx

from postroom.libs.clock import SYSTEM_CLOCK, Clock
from postroom.libs.exceptions import (
    ConfigurationError,
    RegistryAuthError,
    RegistryUnavailableError,
    SchemaRegistryError,
)
from postroom.schemas.registry_answers import (
    NO_RULE_OF_ITS_OWN,
    UNKNOWN_SUBJECT,
    Answer,
    avro_text,
    boolean_field,
    error_from,
    is_unknown_schema,
    is_unknown_subject,
    list_of,
    references_from,
    schema_from,
    text_field,
    whole_number_field,
)
from postroom.schemas.registry_protocol import Compatibility, RegisteredSchema, Version
from postroom.schemas.schema_references import MOST_REFERENCES, Reference, with_references

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Collection, Mapping

    from postroom.libs.settings import SchemaRegistrySettings
    from postroom.schemas.registration import Registration

_MAX_ANSWER_BYTES = 4 * 1024 * 1024
# What a lookup repeats is known, and the metadata is small. Reading 4 MiB of JSON holds the interpreter, and with it
# every thread that publishes, for 200 ms (measured: a list of numbers); this much for 15.
_MAX_LOOKUP_BYTES = 256 * 1024
_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 4.0
_LONGEST_RETRY_AFTER_S = 10.0
_ACCEPT = "application/vnd.schemaregistry.v1+json, application/json; q=0.9"
_NORMALIZED = {"normalize": "true"}
_DEEPEST_REFERENCE = 8
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


class _TryAgain(Exception):  # noqa: N818 - no error yet: an attempt that may be repeated
    """An attempt ended without an answer, or with "not now"."""

    def __init__(self, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after_s = retry_after_s


class HttpRegistry:
    """The questions of `registry_protocol.Registry`, put to a server. Safe with threads and after fork."""

    def __init__(
        self,
        settings: SchemaRegistrySettings,
        *,
        clock: Clock = SYSTEM_CLOCK,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._jitter = jitter
        self._client: tuple[int, httpx.Client] | None = None

    def get(self, subject: str, version: Version) -> RegisteredSchema | None:
        """That version, or None when there is no such subject."""
        answer = self._ask("GET", "subjects", subject, "versions", str(version))
        if is_unknown_subject(answer):
            return None
        return schema_from(self._accepted(answer, f"{subject} version {version}"))

    def register(self, subject: str, registration: Registration) -> int:
        """The id of the schema, registered unless the subject has it. Asking twice does no harm."""
        query = _NORMALIZED if registration.normalize else None
        answer = self._ask("POST", "subjects", subject, "versions", query=query, body=registration.body())
        return whole_number_field(self._accepted(answer, subject), "id")

    def lookup(self, subject: str, registration: Registration) -> RegisteredSchema:
        """The version of the subject that has the schema; what a registry does not hold normalised is found too."""
        query = _NORMALIZED if registration.normalize else None
        question = registration.question()
        limit = _MAX_LOOKUP_BYTES + 8 * len(registration.schema)
        answer = self._ask("POST", "subjects", subject, query=query, body=question, limit=limit)
        if query and is_unknown_schema(answer):
            answer = self._ask("POST", "subjects", subject, body=question, limit=limit)
        found = schema_from(self._accepted(answer, f"this schema under {subject}"))
        registration.check_is(found.schema)
        return found

    def by_id(self, schema_id: int) -> str:
        """The text of the schema with that id, with all that it refers to in it."""
        data = self._accepted(self._ask("GET", "schemas", "ids", str(schema_id)), f"id {schema_id}")
        text = avro_text(data)
        references = self._referenced(data, {}, 0)
        if not references:
            return text
        try:
            return json.dumps(with_references(json.loads(text), references))
        except (ValueError, RecursionError):
            raise SchemaRegistryError(f"The schema with id {schema_id} is no JSON") from None

    def _referenced(self, data: object, found: dict[str, Reference], depth: int) -> Collection[Reference]:
        """What the schema in an answer refers to, and what that refers to; a number of questions that is bounded."""
        for name, subject, version in references_from(data):
            if name in found:
                continue
            if depth >= _DEEPEST_REFERENCE or len(found) >= MOST_REFERENCES:
                raise SchemaRegistryError("A schema in the registry refers to too many others")
            answer = self._ask("GET", "subjects", subject, "versions", str(version))
            inner = self._accepted(answer, f"{subject} version {version}")
            found[name] = Reference(name, subject, version, avro_text(inner))
            self._referenced(inner, found, depth + 1)
        return found.values()

    def versions(self, subject: str) -> tuple[int, ...]:
        """The subject's versions, rising."""
        answer = self._ask("GET", "subjects", subject, "versions")
        return tuple(sorted(list_of(int, self._accepted(answer, subject))))

    def subjects(self) -> tuple[str, ...]:
        """All subjects, sorted."""
        return tuple(sorted(list_of(str, self._accepted(self._ask("GET", "subjects"), "the list of subjects"))))

    def check_compatibility(self, subject: str, registration: Registration, version: Version) -> bool:
        """Whether the schema may follow that version."""
        path = ("compatibility", "subjects", subject, "versions", str(version))
        answer = self._ask("POST", *path, body=registration.question())
        return boolean_field(self._accepted(answer, f"{subject} version {version}"), "is_compatible")

    def get_compatibility(self, subject: str) -> Compatibility:
        """The subject's own rule, else the registry's."""
        answer = self._ask("GET", "config", subject, query={"defaultToGlobal": "true"})
        return self._rule(answer, subject)

    def own_compatibility(self, subject: str) -> Compatibility | None:
        """The subject's own rule; None without one, for which Apicurio may say NONE."""
        answer = self._ask("GET", "config", subject)
        if answer.status == 404 and answer.error()[0] in {UNKNOWN_SUBJECT, NO_RULE_OF_ITS_OWN}:
            return None
        return self._rule(answer, subject)

    def _rule(self, answer: Answer, subject: str) -> Compatibility:
        level = text_field(self._accepted(answer, subject), "compatibilityLevel")
        try:
            return Compatibility(level)
        except ValueError:
            raise SchemaRegistryError(f"The registry has a rule for {subject} that is none of Confluent's") from None

    def set_compatibility(self, subject: str, level: Compatibility) -> None:
        """Give the subject a rule."""
        self._accepted(self._ask("PUT", "config", subject, body={"compatibility": level.value}), subject)

    def prepare(self) -> None:
        """Have what a first question needs: reading the trusted certificates holds the interpreter for 25 ms."""
        self._http()

    def close(self) -> None:
        """Close the client of this process."""
        if self._client is not None and self._client[0] == os.getpid():
            self._client[1].close()
        self._client = None

    # -- one question ----------------------------------------------------------------------------------

    def _accepted(self, answer: Answer, what: str) -> object:
        """The JSON of a good answer. Raises the error that a bad one stands for."""
        if answer.status == httpx.codes.OK:
            return answer.json()
        raise error_from(answer, what, self._settings.url)

    def _ask(
        self,
        method: str,
        *path: str,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        limit: int = _MAX_ANSWER_BYTES,
    ) -> Answer:
        """Send one request until it is answered, at most `retries` times again."""
        url = "/".join([self._settings.url, *(quote(part, safe="") for part in path)])
        pause = _FIRST_PAUSE_S
        for left in range(self._settings.retries, -1, -1):
            try:
                return self._attempt(method, url, query or {}, body, limit)
            except _TryAgain as trouble:
                wait = trouble.retry_after_s
                if left == 0 or (wait is not None and wait > _LONGEST_RETRY_AFTER_S):
                    raise self._unavailable(trouble) from trouble.__cause__
                # Half of the pause is certain, half is chance: many clients that saw the same end come back apart.
                self._clock.sleep(wait if wait is not None else pause * (0.5 + self._jitter() / 2))
                pause = min(2 * pause, _LONGEST_PAUSE_S)
        raise AssertionError("the last attempt returns or raises")

    def _unavailable(self, trouble: _TryAgain) -> RegistryUnavailableError:
        wait = "" if trouble.retry_after_s is None else f"; it asks to come back in {trouble.retry_after_s:.0f} s"
        return RegistryUnavailableError(
            f"The Schema Registry at {self._settings.url} {trouble.reason}{wait}",
            remedy="check that it runs and that schema_registry.url is its address",
        )

    def _attempt(
        self, method: str, url: str, query: Mapping[str, str], body: Mapping[str, Any] | None, limit: int
    ) -> Answer:
        deadline = _Deadline(self._settings.timeout_s)
        try:
            with (
                deadline,
                self._http().stream(
                    method, url, params=query or None, json=body, extensions={"trace": deadline.trace}
                ) as response,
            ):
                self._refuse_early(response)
                answer = Answer(
                    response.status_code, response.headers.get("content-type", ""), _body_of(response, limit)
                )
        except httpx.HTTPError as exc:
            raise self._explained(exc, deadline) from exc
        if deadline.passed:  # a body without a length seems to end where its connection was shut
            raise _TryAgain(self._late())
        return answer

    def _refuse_early(self, response: httpx.Response) -> None:
        """Answers whose body does not matter."""
        status = response.status_code
        if status == httpx.codes.TOO_MANY_REQUESTS or (status >= 500 and status != httpx.codes.NOT_IMPLEMENTED):
            raise _TryAgain(f"answered HTTP {status}", _retry_after(response, self._clock))
        if response.is_redirect or 300 <= status < 400:
            raise SchemaRegistryError(
                f"The Schema Registry at {self._settings.url} redirects (HTTP {status}), and that is not followed",
                remedy="name its real address in schema_registry.url",
            )

    def _explained(self, exc: httpx.HTTPError, deadline: _Deadline) -> Exception:
        """What a failure of the connection means: try again, or never."""
        trouble = _tls_trouble(exc)
        if isinstance(trouble, ssl.SSLCertVerificationError):
            return SchemaRegistryError(
                f"The certificate of {self._settings.url} is not trusted ({trouble.verify_message})",
                remedy="name the authority that signed it in schema_registry.ca",
            )
        if trouble is not None and "ALERT" in str(trouble.reason):
            return RegistryAuthError(
                f"{self._settings.url} refuses the TLS connection ({trouble.reason})",
                remedy="name a client certificate in schema_registry.certificate and schema_registry.key",
            )
        if trouble is not None and trouble.reason == "WRONG_VERSION_NUMBER":
            return SchemaRegistryError(
                f"{self._settings.url} does not speak TLS", remedy="write http:// in schema_registry.url"
            )
        if deadline.passed or isinstance(exc, httpx.TimeoutException):
            return _TryAgain(self._late())
        return _TryAgain(f"could not be asked ({type(exc).__name__})")

    def _late(self) -> str:
        return f"did not answer within {self._settings.timeout_s:g} s"

    # -- the connection --------------------------------------------------------------------------------

    def _http(self) -> httpx.Client:
        """The client of this process; a forked child makes its own and leaves the parent's alone."""
        if self._client is None or self._client[0] != os.getpid():
            self._client = (os.getpid(), self._new_client())
        return self._client[1]

    def _new_client(self) -> httpx.Client:
        settings = self._settings
        auth = None
        if settings.username is not None:
            password = settings.password.get_secret_value() if settings.password else ""
            auth = httpx.BasicAuth(settings.username, password)
        loopback = urlsplit(settings.url).hostname in _LOOPBACK
        return httpx.Client(
            auth=auth,
            verify=self._tls() if settings.url.startswith("https:") else False,
            follow_redirects=False,
            timeout=settings.timeout_s,
            trust_env=not loopback,  # a proxy for the world outside is none for this machine
            # A connection for each question: there are few, and a kept one may be dead, or a forked child's.
            limits=httpx.Limits(max_keepalive_connections=0),
            # Uncompressed: the size of what arrives is then the size in memory.
            headers={"Accept": _ACCEPT, "Accept-Encoding": "identity", "User-Agent": "postroom"},
        )

    def _tls(self) -> ssl.SSLContext:
        settings = self._settings
        try:
            context = ssl.create_default_context(cafile=settings.ca)
            if settings.certificate is not None:
                context.load_cert_chain(settings.certificate, settings.key)
        except (OSError, ssl.SSLError) as exc:
            raise ConfigurationError(
                f"The certificates for the Schema Registry cannot be read ({type(exc).__name__})",
                remedy="check schema_registry.ca, certificate and key: PEM files, the key without a password",
            ) from exc
        return context


class _Deadline:
    """Ends a connection when the time for the whole answer is over.

    httpx's timeouts hold for each read, so a server that sends a byte now and then would be listened to for
    ever. This one shuts the socket, whatever is being waited for. It works on a duplicate of the socket's
    handle, because TLS takes the first one over.
    """

    def __init__(self, seconds: float) -> None:
        self.passed = False
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()
        self._timer = threading.Timer(seconds, self._shut)
        self._timer.daemon = True

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self._timer.join()
        with self._lock:
            if self._socket is not None:
                self._socket.close()
                self._socket = None

    def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Is told by httpcore what it does (its `trace` extension); takes hold of the new connection."""
        if event == "connection.connect_tcp.complete":
            with self._lock:
                self._socket = info["return_value"].get_extra_info("socket").dup()
            if self.passed:
                self._shut()

    def _shut(self) -> None:
        self.passed = True
        with self._lock:
            if self._socket is not None:
                with contextlib.suppress(OSError):  # the other side was quicker
                    self._socket.shutdown(2)


def _body_of(response: httpx.Response, limit: int) -> bytes:
    """The body, at most `limit` bytes of it, and only as it was asked for: not compressed."""
    if response.headers.get("content-encoding", "identity").lower() not in {"", "identity"}:
        raise SchemaRegistryError("The Schema Registry compressed its answer without being asked to")
    body = bytearray()
    for chunk in response.iter_raw():
        body += chunk
        if len(body) > limit:
            raise SchemaRegistryError(f"The Schema Registry's answer has more than {limit} bytes")
    return bytes(body)


def _retry_after(response: httpx.Response, clock: Clock) -> float | None:
    """Seconds that the server asks to wait (RFC 9110, section 10.2.3: a number of seconds or a date)."""
    text = response.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - clock.time_ms() / 1000)
    except (ValueError, TypeError, OverflowError):
        return None


def _tls_trouble(exc: BaseException) -> ssl.SSLError | None:
    """The TLS error at the root of a failure, if there is one."""
    seen: BaseException | None = exc
    while seen is not None:
        if isinstance(seen, ssl.SSLError):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None
