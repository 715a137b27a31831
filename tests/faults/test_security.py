"""Rights, passwords and certificates: lost, wrong, rotated. What is accepted is safe, and nothing weaker is tried."""

from __future__ import annotations

import socket
import ssl
import threading
import time
import warnings
from typing import TYPE_CHECKING, Any, Self

import pytest

from postroom.libs.event import Spooled
from tests.faults.post import Judgement, Post, Said, connected, is_ready, pause, until
from tests.faults.secured import PASSWORD, Authority, Secured, secured_broker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.kafka


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    with secured_broker(tmp_path_factory.mktemp("secured")) as broker:
        yield broker


def test_a_right_that_is_taken_away_and_given_back(secured: Secured, spool: Path, said: Said) -> None:
    """Row 15: red, spooled, one line in ten seconds, and drained as soon as the right is there again."""
    topic = secured.new_topic()
    secured.allow(topic)
    with Post(secured.sasl, topic, spool, **secured.login()) as post:
        assert post.kinds(post.publish(40)) == {"Delivered": 40}
        assert is_ready(post)
        secured.forbid(topic)
        with post.load(100):
            until(lambda: post.state() == "spooling", f"it is {post.state()}")
            assert post.errors()["topic_authorization_failed"] >= 1, post.errors()
            assert not is_ready(post)
            assert topic in post.health()["components"]["paths"]["detail"]
            since = time.monotonic()
            pause(10.0)
            loud = [line for line in said.loud() if line["at"] > since]
            probes = post.errors()["topic_authorization_failed"]
        assert len([line for line in loud if line["event"] == "path_closed"]) <= 1
        assert len([line for line in loud if line["event"] == "probe_failed"]) <= 1
        assert probes < 200, "a hot loop"
        secured.allow(topic)
        post.settle()
        until(lambda: is_ready(post), f"{post.health()}")
    judgement = Judgement(secured.direct, topic)
    judgement.check(post)
    assert post.kinds()["Failed"] == 0
    assert post.balance.dead_lettered == 0


def test_a_wrong_password_accepts_to_the_spool(secured: Secured, spool: Path, said: Said) -> None:
    """Row 16: from the start on; a process with the right one drains what it left."""
    topic = secured.new_topic()
    secured.allow(topic)
    with Post(secured.sasl, topic, spool, **secured.login("wrong")) as wrong:
        receipts = wrong.publish(30)
        assert set(map(type, wrong.outcomes(receipts, 15))) == {Spooled}
        told = said.events("broker_unavailable")
        assert any("AUTHENTICATION" in line["error"] for line in told), told
        assert "wrong" not in said.text()
        assert not connected(wrong)
    with Post(secured.sasl, topic, spool, **secured.login()) as right:
        until(lambda: right.balance.drained == 30, f"{right.balance}")
    Judgement(secured.direct, topic).check(wrong)


def test_a_password_that_is_rotated_while_a_service_runs_accepts_to_the_spool(
    secured: Secured, spool: Path, said: Said
) -> None:
    """Row 16: the broker asks for the password again and gets the old one."""
    topic = secured.new_topic()
    secured.allow(topic)
    try:
        with Post(secured.sasl, topic, spool, **secured.login()) as old:
            assert old.kinds(old.publish(30)) == {"Delivered": 30}
            secured.set_password("through-the-looking-glass")
            with old.load(50):
                until(lambda: old.state() == "spooling", f"it is {old.state()}")
                pause(1.0)
            assert any("AUTHENTICATION" in line["error"] for line in said.events("broker_unavailable"))
            assert set(old.kinds()) == {"Delivered", "Spooled"}
        with Post(secured.sasl, topic, spool, **secured.login("through-the-looking-glass")) as new:
            until(lambda: new.balance.drained and not new.balance.spooled, f"{new.balance}")
    finally:
        secured.set_password(PASSWORD)
    assert "looking-glass" not in said.text()
    judgement = Judgement(secured.direct, topic)
    judgement.check(old)
    assert len(judgement.ids) == len(old.receipts)


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-512", "PLAIN"])
def test_a_rotated_password_is_read_from_its_file_without_a_restart(
    secured: Secured, spool: Path, tmp_path: Path, said: Said, mechanism: str
) -> None:
    """Row 16: the service that lost its login delivers again, and loses nothing in between.

    A broker can't be told another password for PLAIN while it runs: there the file has the wrong one first.
    """
    topic = secured.new_topic()
    secured.allow(topic)
    is_scram = mechanism != "PLAIN"
    secret = tmp_path / "password"
    secret.write_text(PASSWORD if is_scram else "a-looking-glass")
    login = {key: value for key, value in secured.login().items() if not key.endswith("password")}
    login["producer__security__sasl_mechanism"] = mechanism
    environ = {"POSTROOM_PRODUCER_SECURITY_SASL_PASSWORD_FILE": str(secret)}
    try:
        with Post(secured.sasl, topic, spool, environ=environ, **login) as post:
            if is_scram:
                assert post.kinds(post.publish(30)) == {"Delivered": 30}
                secured.set_password("through-a-looking-glass")
            with post.load(50):
                until(lambda: post.state() == "spooling", f"it is {post.state()}")
                until(lambda: said.events("broker_unavailable"), "nobody tells of it")
                secret.write_text("through-a-looking-glass" if is_scram else PASSWORD)
                taken_s = until(lambda: said.events("password_read_again"), "it is not read again", 5)
                until(lambda: post.state() == "direct", f"it is {post.state()}", 15)
            post.settle()
            assert post.kinds()["Spooled"]
            assert taken_s < 3
            judgement = Judgement(secured.direct, topic)
        judgement.check(post)
    finally:
        if is_scram:
            secured.set_password(PASSWORD)
    assert "looking-glass" not in said.text()
    assert PASSWORD not in said.text()


@pytest.mark.parametrize("which", ["tls_expired", "tls_elsewhere", "tls_good with a foreign authority"])
def test_a_broker_whose_certificate_proves_nothing_gets_no_record(
    secured: Secured, spool: Path, tmp_path: Path, said: Said, which: str
) -> None:
    """Row 17: expired, for another host, of an authority that nobody named."""
    topic = secured.new_topic()
    listener, _, foreign = which.partition(" ")
    trusted = Authority(tmp_path, "stranger").file if foreign else secured.authority.file
    settings: dict[str, Any] = {"producer__security__protocol": "SSL", "producer__security__ssl_ca": str(trusted)}
    with Post(secured.tls[listener], topic, spool, **settings) as post:
        receipts = post.publish(10)
        assert set(map(type, post.outcomes(receipts, 15))) == {Spooled}
        assert "certificate verify failed" in said.text()
        assert said.events("broker_unavailable")
        assert not connected(post)
    assert not Judgement(secured.direct, topic).entries


def test_a_broker_with_a_good_certificate_is_trusted(secured: Secured, spool: Path) -> None:
    """Row 17: else the tests above would show nothing."""
    topic = secured.new_topic()
    settings: dict[str, Any] = {
        "producer__security__protocol": "SSL",
        "producer__security__ssl_ca": str(secured.authority.file),
    }
    with Post(secured.tls["tls_good"], topic, spool, **settings) as post:
        assert post.kinds(post.publish(10)) == {"Delivered": 10}
    Judgement(secured.direct, topic).check(post)


def test_a_plain_client_gets_nothing_through_a_listener_that_wants_tls(
    secured: Secured, spool: Path, said: Said
) -> None:
    """Row 17: the other way round."""
    topic = secured.new_topic()
    with Post(secured.tls["tls_good"], topic, spool) as post:
        receipts = post.publish(10)
        assert set(map(type, post.outcomes(receipts, 15))) == {Spooled}
        assert said.events("broker_unavailable")
    assert not Judgement(secured.direct, topic).entries


class OldServer:
    """Speaks TLS 1.1 at best, with a certificate that is good otherwise; notes how each client begins."""

    def __init__(self, keystore: Path) -> None:
        context = self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.load_cert_chain(keystore)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.first_bytes: list[bytes] = []
        self.refusals: list[str] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client:
                client.settimeout(5)
                self.first_bytes.append(client.recv(3, socket.MSG_PEEK))
                try:
                    with self._context.wrap_socket(client, server_side=True) as spoken:
                        self.refusals.append(f"spoke {spoken.version()}")
                except OSError as exc:
                    self.refusals.append(str(exc))


def test_a_broker_that_speaks_only_an_old_protocol_is_refused_and_nothing_weaker_is_tried(
    secured: Secured, spool: Path, tmp_path: Path, said: Said
) -> None:
    """Row 17: every try begins with a TLS handshake, and none is completed."""
    keystore = secured.authority.server("old")
    settings: dict[str, Any] = {
        "producer__security__protocol": "SSL",
        "producer__security__ssl_ca": str(secured.authority.file),
    }
    with OldServer(keystore) as server, Post(server.address, "events", spool, **settings) as post:
        receipts = post.publish(10)
        assert set(map(type, post.outcomes(receipts, 15))) == {Spooled}
        until(lambda: len(server.refusals) >= 3, "it does not try again")
        assert {begun[:2] for begun in server.first_bytes} == {b"\x16\x03"}
        assert not [told for told in server.refusals if told.startswith("spoke")], server.refusals
        assert any("protocol" in told.lower() for told in server.refusals), server.refusals
        assert said.events("broker_unavailable")
        assert not connected(post)
