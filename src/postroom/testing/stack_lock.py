"""The committed list of every file of the local stack: which Maven artifact, how long, and its SHA-256.

`stack.lock.json` beside this module holds coordinates and sums, and no address: where artifacts come from is
jgo's business (its settings name mirrors), that they are the right ones is this list's.

To take up new versions, change `KAFKA`, `LOGGING` and `REGISTRY` below and run
`python -m postroom.testing.stack_lock`: it resolves, downloads and writes the list anew.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

LOCK_FILE = Path(__file__).with_name("stack.lock.json")

KAFKA = ("org.apache.kafka", "kafka_2.13", "4.3.1")
LOGGING = ("org.apache.logging.log4j", "log4j-slf4j-impl", "2.25.4")
REGISTRY = ("io.apicurio", "apicurio-registry-app", "3.3.3")


@dataclass(frozen=True, slots=True)
class Artifact:
    """One file in a Maven repository. `size` is in bytes, `sha256` in hexadecimal."""

    group: str
    artifact: str
    version: str
    classifier: str
    packaging: str
    size: int
    sha256: str

    @property
    def filename(self) -> str:
        """The name of the file in the repository and in our folder."""
        classifier = f"-{self.classifier}" if self.classifier else ""
        return f"{self.artifact}-{self.version}{classifier}.{self.packaging}"

    def matches(self, path: Path) -> bool:
        """Whether `path` is a file with exactly this size and SHA-256. 45 MB of jars take about 40 ms."""
        try:
            if path.stat().st_size != self.size:
                return False
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == self.sha256
        except OSError:
            return False


@dataclass(frozen=True, slots=True)
class StackLock:
    """What the local stack is made of: the jars of Kafka's class path and the packed registry."""

    kafka_version: str
    registry_version: str
    kafka: tuple[Artifact, ...]
    registry: Artifact

    def folder_names(self) -> tuple[str, str]:
        """Names for the folders of Kafka and of the registry; another content means another name."""
        kafka = hashlib.sha256("".join(jar.sha256 for jar in self.kafka).encode()).hexdigest()
        return f"kafka-{self.kafka_version}-{kafka[:12]}", (
            f"registry-{self.registry_version}-{self.registry.sha256[:12]}"
        )


def load_lock(path: Path = LOCK_FILE) -> StackLock:
    """The committed lock. Raises OSError or ValueError when the package is damaged."""
    data = json.loads(path.read_text(encoding="utf-8"))
    return StackLock(
        kafka_version=data["kafka_version"],
        registry_version=data["registry_version"],
        kafka=tuple(Artifact(**jar) for jar in data["kafka"]),
        registry=Artifact(**data["registry"]),
    )


def _locked(dependency: Any) -> Artifact:
    """Download what jgo resolved and write down what came."""
    artifact = dependency.artifact
    path = Path(artifact.resolve())
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Artifact(
        group=artifact.groupId,
        artifact=artifact.artifactId,
        version=artifact.version,
        classifier=artifact.classifier or "",
        packaging=artifact.packaging,
        size=path.stat().st_size,
        sha256=digest,
    )


def _class_path(artifacts: Iterable[Artifact]) -> tuple[Artifact, ...]:
    """One version of each artifact: the first one named, so Kafka's own choice wins."""
    chosen: dict[tuple[str, str, str], Artifact] = {}
    for artifact in artifacts:
        chosen.setdefault((artifact.group, artifact.artifact, artifact.classifier), artifact)
    return tuple(sorted(chosen.values(), key=lambda artifact: artifact.filename))


def resolve_lock(folder: Path) -> StackLock:
    """Resolve and download the versions named above into `folder` and return their lock.

    Kafka and its log binding are resolved one after the other: in one go the binding's dependency management
    reaches over to Kafka and brings client jars of another version.
    """
    from jgo.maven import Dependency, MavenContext

    maven = MavenContext(repo_cache=folder, timeout=60)

    def resolved(coordinates: tuple[str, str, str]) -> list[Any]:
        group, artifact, version = coordinates
        root = Dependency(maven.project(group, artifact).at_version(version).artifact())
        roots, transitive = maven.resolver.resolve([root])
        return [*roots, *transitive]

    group, artifact, version = REGISTRY
    registry = maven.project(group, artifact).at_version(version).artifact("all", "tar.gz")
    return StackLock(
        kafka_version=KAFKA[2],
        registry_version=version,
        kafka=_class_path(_locked(found) for found in [*resolved(KAFKA), *resolved(LOGGING)]),
        registry=_locked(Dependency(registry)),
    )


def _main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        lock = resolve_lock(Path(folder))
    LOCK_FILE.write_text(json.dumps(asdict(lock), indent=1) + "\n", encoding="utf-8")
    sys.stderr.write(f"{len(lock.kafka)} jars and the registry are in {LOCK_FILE.name}\n")


if __name__ == "__main__":
    _main()
