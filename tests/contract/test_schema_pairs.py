"""The verdicts of `schemas.compatibility` are those of others: of a real registry, and of a reader of the data.

`schema_pairs.json` holds hundreds of pairs of schemas; `make_schema_pairs` says where they came from.
"""

from __future__ import annotations

import copy
import io
import json
import random
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fastavro
import httpx
import pytest
from fastavro.utils import generate_many
from hypothesis import given, settings
from hypothesis import strategies as st

from postroom.schemas.avro_schema import try_schema
from postroom.schemas.compatibility import RULES, breaks, for_registry, misfits
from postroom.schemas.registry_protocol import Compatibility
from postroom.schemas.schema_shape import shape_of
from tests.contract import make_schema_pairs

if TYPE_CHECKING:
    from postroom.testing.local_stack import LocalStack

PAIRS: list[dict[str, Any]] = json.loads(Path(__file__).with_name("schema_pairs.json").read_text("utf-8"))
LEVELS = (Compatibility.BACKWARD, Compatibility.FORWARD, Compatibility.FULL)

NOT_JUDGED = {
    "two aliases name two fields",
    "a name and an alias name two fields",
    "two fields change names",
}
"""Here the registry has no verdict: its library fails on an alias that leaves two of the writer's fields for one of the
reader's, and it answers 422, "Could not execute compatibility rule on invalid Avro schema". The specification: "An
implementation may optionally use aliases to map a writer's schema to the reader's." We refuse, as it does."""

LENIENT = {
    # fastavro compares a short alias as it stands; "if a type named "a.b" has aliases of "c" and "x.y", then the fully
    # qualified names of its aliases are "a.c" and "x.y"".
    "both change, with a short alias",
    # fastavro reads these bytes as the index of a symbol; "It is an error if the two schemas do not match."
    "a fixed becomes an enum",
}
"""What fastavro reads and the specification does not."""


def is_compatible(old: Any, new: Any, level: Compatibility) -> bool:
    return not for_registry(breaks(shape_of(new), [shape_of(old)], level))


def test_the_table_is_what_its_program_makes() -> None:
    made = [*make_schema_pairs.by_hand(), *make_schema_pairs.generated()]
    assert [{"name": name, "old": old, "new": new} for name, old, new in made] == PAIRS
    assert len({pair["name"] for pair in PAIRS}) == len(PAIRS) > 400


def test_the_table_meets_every_rule() -> None:
    met = set()
    for pair in PAIRS:
        for one in breaks(shape_of(pair["new"]), [shape_of(pair["old"])], Compatibility.FULL):
            met.add(one.misfit.code)
    assert met == set(RULES)


@pytest.mark.kafka
def test_a_real_registry_says_the_same_of_every_pair(postroom_stack: LocalStack) -> None:
    with httpx.Client(base_url=str(postroom_stack.registry_url), timeout=30) as client, ThreadPoolExecutor(4) as pool:
        said = list(pool.map(lambda pair: _verdicts(client, pair), PAIRS))
    counted = 0
    for pair, verdicts in zip(PAIRS, said, strict=True):
        for level, (status, verdict) in verdicts.items():
            ours = is_compatible(pair["old"], pair["new"], level)
            if status == 422:
                assert pair["name"] in NOT_JUDGED, (pair, level)
                assert not ours, (pair, level)
            else:
                assert ours == verdict, (pair, level)
                counted += 1
    assert counted >= len(LEVELS) * (len(PAIRS) - len(NOT_JUDGED))


def _verdicts(client: httpx.Client, pair: dict[str, Any]) -> dict[Compatibility, tuple[int, bool | None]]:
    subject = f"pair-{uuid.uuid4().hex}"
    client.post(f"/subjects/{subject}/versions", json={"schema": json.dumps(pair["old"])}).raise_for_status()
    verdicts = {}
    for level in LEVELS:
        client.put(f"/config/{subject}", json={"compatibility": level}).raise_for_status()
        path = f"/compatibility/subjects/{subject}/versions/latest"
        answer = client.post(path, json={"schema": json.dumps(pair["new"])})
        verdicts[level] = (answer.status_code, answer.json().get("is_compatible"))
    return verdicts


def reads(writer: Any, reader: Any, seed: int) -> list[bool]:
    """Whether each of some random values of the writer's schema can be read with the reader's, by fastavro."""
    random.seed(seed)
    written, wanted = fastavro.parse_schema(copy.deepcopy(writer)), fastavro.parse_schema(copy.deepcopy(reader))
    results = []
    for value in generate_many(written, 25):
        stream = io.BytesIO()
        fastavro.schemaless_writer(stream, written, value)
        stream.seek(0)
        try:
            fastavro.schemaless_reader(stream, written, wanted)
        except UnicodeDecodeError:  # bytes may be read as text, says the specification; these happen to be none
            results.append(True)
        except (fastavro.read.SchemaResolutionError, LookupError, ValueError, TypeError, EOFError):
            results.append(False)
        else:
            results.append(True)
    return results


@pytest.mark.parametrize("backward", [True, False], ids=["backward", "forward"])
def test_a_reader_of_the_data_says_the_same_of_every_pair(backward: bool) -> None:
    for pair in PAIRS:
        writer, reader = (pair["old"], pair["new"]) if backward else (pair["new"], pair["old"])
        if "Tree" in json.dumps(writer) or pair["name"] in LENIENT:  # fastavro's generator makes trees without end
            continue
        found = misfits(reader=shape_of(reader), writer=shape_of(writer))
        read = reads(writer, reader, seed=1)
        if not found:
            assert all(read), pair
        elif any(not misfit.silent for misfit in found) and "generated" not in pair["name"]:
            assert not all(read), pair


@given(seed=st.integers(0, 2**32), changes=st.integers(1, 3))
@settings(max_examples=150, deadline=None)
def test_whatever_is_found_to_fit_can_be_read(seed: int, changes: int) -> None:
    maker = make_schema_pairs.Maker(seed)
    writer = maker.record(0)
    reader = copy.deepcopy(writer)
    for _ in range(changes):
        maker.change(reader)
    if try_schema(writer)[1] or try_schema(reader)[1]:
        return
    if not misfits(reader=shape_of(reader), writer=shape_of(writer)):
        assert all(reads(writer, reader, seed))


TRANSITIVE = (
    Compatibility.BACKWARD_TRANSITIVE,
    Compatibility.FORWARD_TRANSITIVE,
    Compatibility.FULL_TRANSITIVE,
)


def histories() -> list[list[Any]]:
    """Lives of schemas: a first version and three changes, one after the other."""
    made = []
    for seed in range(60):
        maker = make_schema_pairs.Maker(seed)
        versions = [maker.record(0)]
        for _ in range(3):
            versions.append(copy.deepcopy(versions[-1]))
            maker.change(versions[-1])
        if len({json.dumps(version) for version in versions}) == 4 and not any(try_schema(v)[1] for v in versions):
            made.append(versions)
    return made


@pytest.mark.kafka
def test_a_real_registry_registers_the_same_versions_under_transitive_rules(postroom_stack: LocalStack) -> None:
    lives = histories()
    with httpx.Client(base_url=str(postroom_stack.registry_url), timeout=30) as client, ThreadPoolExecutor(4) as pool:
        said = list(pool.map(lambda versions: _registered(client, versions), lives))
    verdicts = set()
    for versions, statuses in zip(lives, said, strict=True):
        shapes = [shape_of(version) for version in versions]
        for level, status in statuses.items():
            ours = not for_registry(breaks(shapes[-1], shapes[:-1], level))
            assert ours == (status == 200), (versions, level, status)
            verdicts.add((level, ours))
    assert len(verdicts) == 2 * len(TRANSITIVE)


def _registered(client: httpx.Client, versions: list[Any]) -> dict[Compatibility, int]:
    """The status of registering the last version after the others, under each transitive rule."""
    statuses = {}
    for level in TRANSITIVE:
        subject = f"life-{uuid.uuid4().hex}"
        for version in versions[:-1]:
            path = f"/subjects/{subject}/versions"
            client.post(path, json={"schema": json.dumps(version)}).raise_for_status()
        client.put(f"/config/{subject}", json={"compatibility": level}).raise_for_status()
        answer = client.post(f"/subjects/{subject}/versions", json={"schema": json.dumps(versions[-1])})
        statuses[level] = answer.status_code
    return statuses
