"""One broker with everything that keeps strangers out: SCRAM, ACLs, and listeners with good and bad certificates."""

from __future__ import annotations

import datetime as dt
import ipaddress
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, but not re-exported
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from postroom.testing.broker_settings import free_ports
from postroom.testing.local_stack import LocalStack
from tests.faults.conftest import new_topic

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

USER, PASSWORD = "alice", "in-wonderland"
_SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
_PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule required"
_HOST = "127.0.0.1"


class Authority:
    """Signs certificates for servers; `file` is what a client trusts."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(self._sign(self._name, self._key, is_authority=True, days=(-1, 2), host=None))

    def server(self, name: str, *, host: str = _HOST, days: tuple[int, int] = (-1, 2)) -> Path:
        """A PEM file with key and certificate for `host`, valid between these days from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        file = self._folder / f"{name}.keystore.pem"
        encoding = serialization.Encoding.PEM
        private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        file.write_bytes(private + self._sign(subject, key, is_authority=False, days=days, host=host))
        return file

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        *,
        is_authority: bool,
        days: tuple[int, int],
        host: str | None,
    ) -> bytes:
        now = dt.datetime.now(dt.UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + dt.timedelta(days=days[0]))
            .not_valid_after(now + dt.timedelta(days=days[1]))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        )
        if host is not None:
            name = x509.IPAddress(ipaddress.ip_address(host)) if host[0].isdigit() else x509.DNSName(host)
            made = made.add_extension(x509.SubjectAlternativeName([name]), critical=False)
        return made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


class Secured:
    """The broker. `sasl` is the address for who shows a password; `tls` has an address for each certificate."""

    def __init__(self, stack: LocalStack, ports: dict[str, int], authority: Authority) -> None:
        self.stack = stack
        self.authority = authority
        self.sasl = f"{_HOST}:{ports['CLIENT']}"
        self.tls = {name.lower(): f"{_HOST}:{port}" for name, port in ports.items() if name.startswith("TLS")}
        self.direct = stack.broker(1)._internal
        self.admin = AdminClient({"bootstrap.servers": self.direct, "log_level": 0})

    def new_topic(self) -> str:
        return new_topic(self.stack)

    def allow(self, topic: str) -> None:
        """Let the user write to all topics that begin so."""
        for answer in self.admin.create_acls([self._binding(topic)]).values():
            answer.result(20)

    def forbid(self, topic: str) -> None:
        """Take the right back."""
        wanted = AclBindingFilter(
            ResourceType.TOPIC,
            topic,
            ResourcePatternType.PREFIXED,
            None,  # type: ignore[arg-type]  # anybody, as documented
            None,  # type: ignore[arg-type]
            AclOperation.ANY,
            AclPermissionType.ANY,
        )
        for answer in self.admin.delete_acls([wanted]).values():
            assert answer.result(20), "there was no right to take back"

    def _binding(self, topic: str) -> AclBinding:
        return AclBinding(
            ResourceType.TOPIC,
            topic,
            ResourcePatternType.PREFIXED,
            f"User:{USER}",
            "*",
            AclOperation.WRITE,
            AclPermissionType.ALLOW,
        )

    def set_password(self, password: str) -> None:
        """Rotate the user's password."""
        scram = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        change = UserScramCredentialUpsertion(USER, scram, password.encode())
        for answer in self.admin.alter_user_scram_credentials([change]).values():
            answer.result(20)

    def login(self, password: str = PASSWORD) -> dict[str, Any]:
        """The settings of a client that shows this password."""
        return {
            "producer__security__protocol": "SASL_SSL",
            "producer__security__sasl_mechanism": "SCRAM-SHA-512",
            "producer__security__sasl_username": USER,
            "producer__security__sasl_password": password,
            "producer__security__ssl_ca": str(self.authority.file),
        }


@contextmanager
def secured_broker(folder: Path) -> Iterator[Secured]:
    """Start it. Its clients' listener asks for TLS and a password, three more for TLS alone."""
    authority = Authority(folder, "authority")
    keystores = {
        "CLIENT": authority.server("client-listener"),
        "TLS_GOOD": authority.server("good"),
        "TLS_EXPIRED": authority.server("expired", days=(-3, -1)),
        "TLS_ELSEWHERE": authority.server("elsewhere", host="kafka.elsewhere.example"),
    }
    client, registry, registry_too, internal, controller, *more = free_ports(5 + 3)
    ports = {"CLIENT": client, **dict(zip(list(keystores)[1:], more, strict=True))}
    addresses = ",".join(f"{name}://{_HOST}:{port}" for name, port in ports.items())
    protocols = ",".join(f"{name}:SSL" for name in ports if name != "CLIENT")
    properties = {
        "listeners": f"{addresses},INTERNAL://{_HOST}:{internal},CONTROLLER://{_HOST}:{controller}",
        "advertised.listeners": f"{addresses},INTERNAL://{_HOST}:{internal}",
        "listener.security.protocol.map": f"CLIENT:SASL_SSL,{protocols},INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "sasl.enabled.mechanisms": "SCRAM-SHA-512,PLAIN",
        "listener.name.client.plain.sasl.jaas.config": f'{_PLAIN} user_{USER}="{PASSWORD}";',
        "listener.name.client.scram-sha-512.sasl.jaas.config": _SCRAM,
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        # Clients show their password anew every few seconds: one that was changed is noticed.
        "listener.name.client.scram-sha-512.connections.max.reauth.ms": "4000",
        **{
            f"listener.name.{name.lower()}.ssl.{key}": value
            for name, keystore in keystores.items()
            for key, value in (("keystore.type", "PEM"), ("keystore.location", str(keystore)))
        },
    }
    stack = LocalStack(
        registry=False,
        security_protocol="SASL_SSL",
        server_properties=properties,
        format_arguments=["--add-scram", f"SCRAM-SHA-512=[name={USER},password={PASSWORD}]"],
        preferred_ports=[client, registry, registry_too, internal, controller],
    )
    with stack:
        yield Secured(stack, ports, authority)
