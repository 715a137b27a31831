"""What `postroom spool` promises without any Kafka: it shows what is there, changes nothing, and names what is odd."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from postroom.__main__ import main
from postroom.cli.spool_drain import drain_folder
from postroom.libs.clock import SystemClock
from postroom.libs.config_loader import load_config
from postroom.libs.event import Record
from postroom.schemas.avro_codec import Codec, frame
from postroom.schemas.schema_registry_client import SchemaRegistryClient
from postroom.streaming.dead_letter_format import ProducerIdentity, Stage, dead_letter_record
from postroom.streaming.spool.record_format import Kind
from postroom.streaming.spool.spool import Spool

if TYPE_CHECKING:
    from pathlib import Path

SECRET = b"nobody may see this"


@pytest.fixture(autouse=True)
def _nothing_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No file, no variable: what runs here is what the command line says."""
    monkeypatch.chdir(tmp_path)
    for name in ("POSTROOM_CONFIG", "POSTROOM_BROKER", "POSTROOM_ENV", "POSTROOM_SPOOL_DIR"):
        monkeypatch.delenv(name, raising=False)


def record(number: int, topic: str = "clicks", key: bytes | None = SECRET) -> Record:
    return Record(topic, key, SECRET, (("h", SECRET),), f"event-{number}", 1_795_000_000_000, 1)


def filled(folder: Path, records: int, dead_letters: int = 0, *, topic: str = "clicks") -> Spool:
    """A running spool that holds so many."""
    spool = Spool(folder, background=False)
    spool.start()
    for number in range(records):
        spool.append(record(number, topic)).wait()
    for number in range(dead_letters):
        spool.append(record(1000 + number, f"{topic}.dlq", None), kind=Kind.DEAD_LETTER).wait()
    return spool


def as_json(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[dict[str, Any]]]:
    code = main(["spool", *words, "--json"])
    return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


class TestWhichFolder:
    @pytest.mark.parametrize("command", ["status", "inspect", "drain", "adopt other"])
    def test_without_one_it_is_a_usage_error_that_names_both_ways(
        self, command: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["spool", *command.split()]) == 2
        told = capsys.readouterr().err
        assert "--spool" in told
        assert "spool.dir" in told

    @pytest.mark.parametrize("command", ["status", "inspect", "drain"])
    def test_one_that_is_not_there_is_refused_and_not_made(
        self, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["spool", command, "--spool", str(tmp_path / "no_such")]) == 2
        assert "is no folder" in capsys.readouterr().err
        assert not (tmp_path / "no_such").exists()

    @pytest.mark.parametrize("command", ["status", "inspect", "drain", "adopt"])
    def test_a_name_that_no_folder_can_have_is_refused_too(
        self, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        odd = "a" * 300
        words = ["adopt", odd] if command == "adopt" else [command, "--spool", odd]
        assert main(["spool", *words, *(["--spool", str(tmp_path)] if command == "adopt" else [])]) == 2
        assert "is no folder" in capsys.readouterr().err
        assert main(["spool", "adopt", str(tmp_path), "--spool", odd]) == 1
        assert "[spool_unavailable]" in capsys.readouterr().err

    def test_the_settings_may_name_it(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        filled(tmp_path / "spool", 2).stop()
        (tmp_path / "kafka.yaml").write_text("broker: localhost:9092\nspool: {dir: ./spool}\n")
        code, (told,) = as_json(capsys, "status")
        assert (code, told["total"]["records"]) == (0, 2)

    @pytest.mark.parametrize("command", ["status", "inspect", "drain"])
    def test_the_same_words_fit_all_commands(
        self, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = ["--broker", "127.0.0.1:1", "--registry", "http://127.0.0.1:1", "--spool", str(tmp_path)]
        assert as_json(capsys, command, *words)[0] == 0


class TestStatus:
    def test_each_slot_is_told_with_its_owner_and_what_waits(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        at_work, left = filled(tmp_path, 3, 1), filled(tmp_path, 2, topic="orders")
        left.stop()
        before = content(tmp_path)
        code, (told,) = as_json(capsys, "status", "--spool", str(tmp_path))
        assert code == 0
        first, second = told["slots"]
        assert (first["slot"], second["slot"]) == ("0001", "0002")
        assert first["owner"].startswith(f"pid {os.getpid()}, since 20")
        assert first["records"]["by_topic"] == {"clicks": 3}
        assert first["dead_letters"]["by_topic"] == {"clicks.dlq": 1}
        assert first["records"]["oldest_s"] >= 0
        assert (second["owner"], second["records"]["by_topic"]) == (None, {"orders": 2})
        total = told["total"]
        assert (total["slots"], total["in_use"], total["records"], total["dead_letters"]) == (2, 1, 5, 1)
        assert total["bytes"] > 6 * len(SECRET)
        assert main(["spool", "status", "--spool", str(tmp_path)]) == 0
        shown = capsys.readouterr().out
        assert f"0001  in use by pid {os.getpid()}" in shown
        assert "0002  unclaimed" in shown
        assert "dead letters: 1 waiting (clicks.dlq 1)" in shown
        assert "total: 2 slots, 1 in use; 5 records and 1 dead letter waiting" in shown
        assert content(tmp_path) == before
        at_work.stop()

    def test_an_empty_folder_has_no_slots(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["spool", "status", "--spool", str(tmp_path)]) == 0
        assert "total: 0 slots; 0 records and 0 dead letters waiting" in capsys.readouterr().out

    def test_what_is_odd_is_named(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        filled(tmp_path, 5).stop()
        (tmp_path / "0001" / "records" / "notes.txt").write_text("mine")
        (tmp_path / "0001" / "quarantine").mkdir()
        for number in range(5):
            (tmp_path / "0001" / "quarantine" / f"1-{number}.bad").write_bytes(b"?")
        (segment,) = (tmp_path / "0001" / "records").glob("*.seg")
        data = bytearray(segment.read_bytes())
        data[data.find(SECRET)] ^= 1
        segment.write_bytes(data)
        code, (told,) = as_json(capsys, "status", "--spool", str(tmp_path))
        assert code == 0
        assert (told["total"]["quarantined"], told["total"]["foreign"]) == (5, 1)
        assert main(["spool", "status", "--spool", str(tmp_path)]) == 0
        shown = capsys.readouterr().out
        assert "quarantine: 5 files (1-0.bad, 1-1.bad, 1-2.bad, ...)" in shown
        assert "left alone: 1 file (notes.txt)" in shown

    @pytest.mark.parametrize("command", ["status", "inspect"])
    def test_a_segment_that_the_disk_does_not_give_hides_no_other(
        self, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        filled(tmp_path, 2).stop()
        (tmp_path / "0001" / "records" / f"{7:020d}.seg").mkdir()
        code, told = as_json(capsys, command, "--spool", str(tmp_path))
        assert code == 0
        assert told[0]["total"]["records"] == 2 if command == "status" else told[-1]["summary"]["waiting"] == 2

    def test_draining_beside_a_segment_that_the_disk_does_not_give_does_not_say_that_nothing_waits(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        filled(tmp_path, 0).stop()
        (tmp_path / "0001" / "records" / f"{7:020d}.seg").mkdir(parents=True)
        assert main(["spool", "drain", "--spool", str(tmp_path), "--broker", "127.0.0.1:1"]) == 1
        shown = capsys.readouterr().out
        assert "slot 0001 has files that cannot be read: look at the disk" in shown
        assert "Nothing waits" not in shown

    def test_names_that_are_no_text_are_told_all_the_same(self, tmp_path: Path) -> None:
        folder = tmp_path / os.fsdecode(b"sp\xffool")
        filled(folder, 2).stop()
        (folder / "0001" / os.fsdecode(b"\xff")).write_text("mine")
        for words in (["status"], ["status", "--json"], ["drain", "--timeout", "0"]):
            command = [
                sys.executable,
                "-m",
                "postroom",
                "spool",
                *words,
                "--spool",
                str(folder),
                "--broker",
                "127.0.0.1:1",
            ]
            strict = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}  # as in most locales
            done = subprocess.run(command, env=strict, capture_output=True, check=False, timeout=60)
            assert "Traceback" not in done.stderr.decode()
            assert done.returncode == (4 if "drain" in words else 0)
            if "--json" in words:
                assert json.loads(done.stdout)["slots"][0]["foreign"] == ["\udcff"]

    def test_a_slot_of_a_newer_version_is_left_alone(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.make_newer(tmp_path)
        assert main(["spool", "status", "--spool", str(tmp_path)]) == 0
        assert "0001  unclaimed, written by a newer version of postroom: left alone" in capsys.readouterr().out
        code, (told,) = as_json(capsys, "drain", "--spool", str(tmp_path), "--broker", "127.0.0.1:1")
        assert (code, told["newer"]) == (1, ["0001"])
        assert "drain it with that version" in told["problems"][0]

    def make_newer(self, folder: Path) -> None:
        filled(folder, 1).stop()
        (segment,) = (folder / "0001" / "records").glob("*.seg")
        data = bytearray(segment.read_bytes())
        data[8] = data[64 + 8] = 99
        segment.write_bytes(data)

    def test_postroom_status_shows_the_folder_as_well(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        filled(tmp_path, 5).stop()
        assert main(["status", "--spool", str(tmp_path)]) == 0
        assert "records: 5 waiting (clicks 5)" in capsys.readouterr().out
        assert main(["status", "--spool", str(tmp_path), "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["process"], told["folder"]["total"]["records"]) == (None, 5)


class TestInspect:
    def test_records_are_listed_with_all_but_their_content(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        filled(tmp_path, 3, 1).stop()
        code, told = as_json(capsys, "inspect", "--spool", str(tmp_path))
        assert code == 0
        assert told[-1] == {"summary": {"shown": 4, "waiting": 4}}
        assert [one["event_id"] for one in told[:-1]] == ["event-0", "event-1", "event-2", "event-1000"]
        assert (told[0]["slot"], told[0]["queue"], told[0]["topic"]) == ("0001", "records", "clicks")
        assert (told[0]["key_bytes"], told[3]["key_bytes"], told[0]["attempt"]) == (len(SECRET), None, 1)
        assert told[0]["appended_at"].endswith("Z")
        assert main(["spool", "inspect", "--spool", str(tmp_path)]) == 0
        shown = capsys.readouterr().out
        assert f"0001/records/{told[0]['sequence']}  clicks  event-0  key of {len(SECRET)} bytes  since 20" in shown
        assert "no key" in shown
        assert SECRET.decode() not in shown + json.dumps(told)

    def test_a_limit_and_a_topic_choose_and_what_is_left_out_is_counted(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        filled(tmp_path, 5).stop()
        filled(tmp_path, 0).stop()
        other = Spool(tmp_path, background=False)
        other.start()
        other.append(record(9, "orders")).wait()
        other.stop()
        code, told = as_json(capsys, "inspect", "--spool", str(tmp_path), "--limit", "2", "--topic", "clicks")
        assert (code, told[-1]["summary"]) == (0, {"shown": 2, "waiting": 5})
        assert main(["spool", "inspect", "--spool", str(tmp_path), "-n", "2", "--topic", "clicks"]) == 0
        assert "3 more: --limit 5 shows all" in capsys.readouterr().out
        assert main(["spool", "inspect", "--spool", str(tmp_path), "--topic", "nowhere"]) == 0
        assert "Nothing waits." in capsys.readouterr().out

    def test_what_is_on_the_disk_commands_no_terminal(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        filled(tmp_path, 1, topic="a\x1b[2Jb").stop()
        assert main(["spool", "inspect", "--spool", str(tmp_path)]) == 0
        assert main(["spool", "status", "--spool", str(tmp_path)]) == 0
        shown = capsys.readouterr().out
        assert "a?[2Jb" in shown
        assert "\x1b" not in shown


class TestAdopt:
    def test_the_slots_of_another_host_are_taken_and_told(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        here, there = tmp_path / "here", tmp_path / "there"
        filled(here, 1).stop()
        filled(there, 3, 2).stop()
        code, (told,) = as_json(capsys, "adopt", str(there), "--spool", str(here))
        assert code == 0
        (slot,) = told["adopted"]
        assert (slot["from"], slot["to"], slot["records"], slot["dead_letters"]) == ("0001", "0002", 3, 2)
        assert told["refused"] == []
        assert as_json(capsys, "status", "--spool", str(here))[1][0]["total"]["records"] == 4
        assert main(["spool", "adopt", str(there), "--spool", str(here)]) == 0
        assert "Nothing waits in" in capsys.readouterr().out

    def test_a_slot_in_use_is_left_and_told(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        at_work = filled(tmp_path / "there", 3)
        assert main(["spool", "adopt", str(tmp_path / "there"), "--spool", str(tmp_path / "here")]) == 1
        assert "slot 0001 was left: " in capsys.readouterr().out
        at_work.stop()
        assert main(["spool", "adopt", str(tmp_path / "there"), "--spool", str(tmp_path / "here")]) == 0
        shown = capsys.readouterr().out
        assert "slot 0001 is 0001 now: 3 records and 0 dead letters" in shown
        assert "postroom spool drain" in shown

    @pytest.mark.parametrize("source", ["no_such", "."])
    def test_what_cannot_be_adopted_is_a_usage_error(
        self, source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["spool", "adopt", source, "--spool", str(tmp_path)]) == 2
        assert "[configuration_invalid]" in capsys.readouterr().err


@pytest.fixture
def of_another_user(tmp_path: Path) -> Path:
    """A spool with records that is looked at by somebody else: to postroom, a slot that is a link is the same."""
    filled(tmp_path / "theirs", 3).stop()
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "0001").symlink_to(tmp_path / "theirs" / "0001")
    return tmp_path / "spool"


class TestWhatIsNotOurs:
    """`sudo postroom spool drain`, say: nobody may take it for an empty spool."""

    def test_status_names_it(self, of_another_user: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert as_json(capsys, "status", "--spool", str(of_another_user))[1][0]["shut"] == ["0001"]
        assert main(["spool", "status", "--spool", str(of_another_user)]) == 0
        assert "0001  another user's, or no folder: nobody knows what waits there" in capsys.readouterr().out

    def test_drain_does_not_call_it_empty(self, of_another_user: Path, capsys: pytest.CaptureFixture[str]) -> None:
        words = ["spool", "drain", "--spool", str(of_another_user), "--broker", "127.0.0.1:1"]
        assert main(words) == 1
        shown = capsys.readouterr().out
        assert "Nothing waits" not in shown
        assert "slot 0001 cannot be taken (another user's, or no folder)" in shown

    def test_adopt_leaves_it_and_says_so(
        self, of_another_user: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["spool", "adopt", str(of_another_user), "--spool", str(tmp_path / "here")]) == 1
        assert "slot 0001 was left: another user's, or no folder" in capsys.readouterr().out

    def test_drain_does_not_call_a_slot_empty_that_it_could_not_lock(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        filled(tmp_path, 3).stop()
        (tmp_path / "0001" / "LOCK").unlink()
        (tmp_path / "0001" / "LOCK").mkdir()
        code, (told,) = as_json(capsys, "drain", "--spool", str(tmp_path), "--broker", "127.0.0.1:1")
        assert (code, told["shut"]) == (1, ["0001"])


class TestDrain:
    def test_an_empty_spool_is_drained_without_asking_anybody(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        filled(tmp_path, 0).stop()
        code, (told,) = as_json(capsys, "drain", "--spool", str(tmp_path), "--broker", "127.0.0.1:1")
        assert (code, told["sent"], told["left"]) == (0, 0, 0)
        assert main(["spool", "drain", "--spool", str(tmp_path)]) == 0
        assert "Nothing waits in" in capsys.readouterr().out

    def test_a_slot_in_use_is_named(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        at_work = filled(tmp_path, 3)
        code, (told,) = as_json(capsys, "drain", "--spool", str(tmp_path), "--broker", "127.0.0.1:1")
        assert code == 3
        (slot,) = told["in_use"]
        assert (slot["slot"], slot["waiting"]) == ("0001", 3)
        assert slot["owner"].startswith(f"pid {os.getpid()}")
        at_work.stop()

    def test_a_slot_in_use_that_empties_in_time_is_no_failure(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        at_work = filled(tmp_path, 3)

        def empty_it(_: float) -> None:
            for waiting in at_work.read(Kind.RECORD):
                at_work.ack(waiting)
            at_work.tend()

        monkeypatch.setattr("postroom.libs.clock.SystemClock.sleep", lambda _, seconds: empty_it(seconds))
        code, (told,) = as_json(capsys, "drain", "--spool", str(tmp_path), "--broker", "127.0.0.1:1", "--timeout", "60")
        assert (code, told["in_use"]) == (0, [])
        at_work.stop()

    def test_files_that_hold_nothing_readable_are_no_empty_spool(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        filled(tmp_path, 3).stop()
        (segment,) = (tmp_path / "0001" / "records").glob("*.seg")
        segment.write_bytes(b"?" * segment.stat().st_size)
        assert main(["spool", "status", "--spool", str(tmp_path)]) == 0
        assert "records: 1 damaged place, to be set aside" in capsys.readouterr().out
        words = ["drain", "--spool", str(tmp_path), "--broker", "127.0.0.1:1"]
        code, (told,) = as_json(capsys, *words)
        assert (code, told["damaged"]) == (1, 1)
        assert as_json(capsys, "status", "--spool", str(tmp_path))[1][0]["total"]["quarantined"] == 1
        assert as_json(capsys, *words)[0] == 0

    def test_what_was_lost_in_one_slot_is_not_forgotten_over_the_next(self, tmp_path: Path) -> None:
        at_work = filled(tmp_path, 1)
        damaged = (tmp_path / "0002" / "records", tmp_path / "0001" / "records")
        filled(tmp_path, 1).stop()
        for segment in damaged[0].glob("*.seg"):
            segment.write_bytes(b"?" * 200)

        class Clock(SystemClock):
            """While it waits for the slot in use, its owner goes and leaves a broken file there."""

            def sleep(self, seconds: float) -> None:
                if seconds < 0.5:  # it looks at what it drains
                    super().sleep(seconds)
                    return
                at_work.stop()
                for segment in damaged[1].glob("*.seg"):
                    segment.write_bytes(b"?" * 200)

        settings = load_config(overrides={"broker": "127.0.0.1:1"}, environ={})
        result = drain_folder(settings, tmp_path, 60.0, Clock())
        assert (result.last.damaged, result.code) == (2, 1)

    def test_the_embedded_broker_is_refused(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["spool", "drain", "--spool", str(tmp_path), "--broker", "embedded"]) == 2
        assert "embedded" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["run", "send events.ndjson"])
def test_a_spool_is_never_drained_into_the_embedded_broker(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    filled(tmp_path / "spool", 1).stop()
    (tmp_path / "events.ndjson").write_text('{"user_id": "u1", "timestamp": 1}\n')
    words = [*command.split(), "--broker", "embedded", "--spool", "spool"]
    assert main(words) == 2
    assert "a broker that is gone with this process" in capsys.readouterr().err
    if command == "run":  # it is embedded when no broker is named anywhere
        assert main(["run", "--spool", "spool"]) == 2
    assert content(tmp_path / "spool")


def registered(folder: Path) -> tuple[int, Codec]:
    """A schema in a registry of files."""
    schema = {
        "type": "record",
        "name": "Click",
        "fields": [{"name": "user_id", "type": "string"}, {"name": "url", "type": "string"}],
    }
    with SchemaRegistryClient(folder) as registry:
        return registry.register("clicks-value", json.dumps(schema)), Codec(schema)


class TestInspectingWhatIsInside:
    @pytest.fixture
    def spool(self, tmp_path: Path) -> Path:
        """An event with a schema, one with an unknown one, and a dead letter, with the labels that a service stores."""
        schema_id, codec = registered(tmp_path / "registry")
        value = codec.encode({"user_id": SECRET.decode(), "url": "u"}, frame(schema_id))
        letter = dead_letter_record(
            {SECRET.decode(): SECRET.decode()},
            topic="clicks",
            reason="validation_failed",
            stage=Stage.VALIDATE,
            event_id="event-3",
            producer=ProducerIdentity("s", "h", "1"),
            now_ms=1,
        )
        spool = Spool(tmp_path / "spool", background=False)
        spool.start()
        labels = (("type", b"click"), ("contract", b"click:3"))
        for number, one in enumerate((value, frame(99) + b"\x00")):
            spool.append(msgspec.structs.replace(record(number), value=one), labels=labels).wait()
        spool.append(letter, kind=Kind.DEAD_LETTER, labels=(*labels, ("reason", b"validation_failed"))).wait()
        spool.stop()
        return tmp_path / "spool"

    def test_contract_version_and_reason_are_told_from_the_disk_alone(
        self, spool: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        _, told = as_json(capsys, "inspect", "--spool", str(spool))
        assert [(one["contract"], one.get("reason")) for one in told[:-1]] == [
            ("click:3", None),
            ("click:3", None),
            ("click:3", "validation_failed"),
        ]
        assert not {"fields", "schema_id", "problem"} & told[0].keys()

    def test_with_a_registry_the_fields_of_events_are_named_and_nothing_of_them_is_shown(
        self, spool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        options = ("inspect", "--spool", str(spool), "--registry", str(tmp_path / "registry"))
        code, told = as_json(capsys, *options)
        assert code == 0
        assert told[0]["fields"] == ["user_id", "url"]
        assert "schema 99" in told[1]["problem"]
        assert not {"fields", "event", "key"} & told[2].keys(), "names of a dead letter are its caller's"
        assert main(["spool", *options]) == 0
        shown = capsys.readouterr().out
        assert "schema 1: user_id, url" in shown
        assert "not decoded: schema 99" in shown
        assert SECRET.decode() not in shown + json.dumps(told)

    def test_values_are_shown_only_when_they_are_asked_for(
        self, spool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        options = ("inspect", "--spool", str(spool), "--registry", str(tmp_path / "registry"), "--values")
        _, told = as_json(capsys, *options)
        assert told[0]["event"] == {"user_id": SECRET.decode(), "url": "u"}
        assert (told[0]["key"], told[0]["event_id"], told[0]["contract"]) == (SECRET.decode(), "event-0", "click:3")
        assert told[2]["event"] == {SECRET.decode(): SECRET.decode()}
        assert main(["spool", *options]) == 0
        assert f'event: {{"user_id": "{SECRET.decode()}", "url": "u"}}' in capsys.readouterr().out

    def test_a_registry_that_is_not_there_hides_no_record(
        self, spool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        code, told = as_json(capsys, "inspect", "--spool", str(spool), "--registry", str(tmp_path / "none"))
        assert (code, told[-1]["summary"]["shown"]) == (0, 3)
        assert told[0]["problem"]
