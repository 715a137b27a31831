"""What strict YAML promises: what is written is what is read, and no file can exhaust memory or leak into an error."""

import json
import math
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from postroom.libs import safe_yaml
from postroom.libs.exceptions import ConfigurationError, InvalidContractError
from postroom.libs.safe_yaml import MAX_BYTES, MAX_DEPTH, MAX_VALUES, parse_yaml, printable, read_yaml


def read(text: str) -> object:
    return parse_yaml(text, source="x.yaml").unwrap()


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("true", True), ("False", False), ("null", None), ("~", None), ("", None),
        ("0", 0), ("-7", -7), ("+7", 7), ("9223372036854775808", 9223372036854775808),
        ("1.5", 1.5), (".5", 0.5), ("1.", 1.0), ("1e3", 1000.0), ("-2.5E-3", -0.0025),
        ("no", "no"), ("yes", "yes"), ("on", "on"), ("off", "off"), ("y", "y"), ("N", "N"), ("tRue", "tRue"),
        ("012", "012"), ("-012", "-012"), ("0o17", "0o17"), ("0x1F", "0x1F"), ("0b1", "0b1"), ("1_000", "1_000"),
        ("012.5", "012.5"), ("12:30:45", "12:30:45"), ("2024-01-01", "2024-01-01"), ("1e400", "1e400"),
        ("2024-01-01T00:00:00Z", "2024-01-01T00:00:00Z"), (".inf", ".inf"), (".nan", ".nan"), (".", "."),
        ("e5", "e5"), ("=", "="), ("1" * 41, "1" * 41), ("'5'", "5"), ('"true"', "true"), ("''", ""),
        ("٣", "٣"), ("Zürich", "Zürich"),
    ],
)  # fmt: skip
def test_only_plain_true_false_null_and_decimal_numbers_are_typed(written: str, meant: object) -> None:
    value = read(f"a: {written}")
    assert value == {"a": meant}
    assert isinstance(value, dict)
    assert type(value["a"]) is type(meant)


def test_keys_are_always_text() -> None:
    assert read("1: a\nno: b\n~: c\n2024-01-01: d") == {"1": "a", "no": "b", "~": "c", "2024-01-01": "d"}


def test_what_json_writes_as_a_pair_of_surrogates_is_one_character() -> None:
    document = {"party": "\U0001f389 at 5", "\U0001f389": ["\U0001f600", "Zürich"]}
    assert read(json.dumps(document)) == document


def test_every_value_knows_the_line_of_its_key() -> None:
    top = parse_yaml("a: 1\nb:\n  c:\n    2\n  d: &x [1,\n    2]\ne: *x\n", source="x.yaml").value
    assert isinstance(top, dict)
    below = top["b"].value
    assert isinstance(below, dict)
    assert [top["a"].line, top["b"].line, below["c"].line, below["d"].line, top["e"].line] == [1, 2, 3, 5, 7]


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)
)
DEEP_BY_ALIASES = f"a0: &a0 {'[' * 30}{']' * 30}\n" + "".join(
    f"a{i}: &a{i} {'[' * 30}*a{i - 1}{']' * 30}\n" for i in range(1, 20)
)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", None, "is empty"),
        ("# only a comment\n", None, "is empty"),
        ("a: 1\nb: 2\na: 3", 3, "a second time (first in line 1)"),
        ("a: {b: 1, b: 2}", 1, "a second time"),
        ("a: !!python/object/apply:os.system [x]", 1, "tag"),
        ("a: !!str 5", 1, "tag"),
        ("a: !hunter2", 1, "tag"),
        ("a: ! 5", 1, "tag"),
        ("a: *hunter2", 1, "alias"),
        ("a: &a [*a]", 1, "alias"),
        ("a: &a {b: *a}", 1, "alias"),
        ("x: &x {a: 1}\ny:\n  <<: *x", 3, "merge key"),
        ("? [a]\n: 1", 1, "as a key"),
        ("? {a: 1}\n: 1", 1, "as a key"),
        ("a: &x b\n*x : 1", 2, "as a key"),
        (": 1", 1, ""),
        ("? \n: 1", 1, "empty key"),
        ("a: 1\n---\nb: 2", 2, "second document"),
        ("a:\n\t- b", 2, "tab"),
        ("a: b: c", 1, "not YAML"),
        ("a: 'x", 1, "not YAML"),
        ("a: [1, 2", 1, "not YAML"),
        ('a: "\\q"', 1, "not YAML"),
        ("a: @hunter2", 1, "not YAML"),
        ("%TAG !h! hunter2\n--- !z!q 1", 2, "not YAML"),
        ("%YAML 3.0\n--- a", 1, "not YAML"),
        ("a: 1\nb: \x00", 2, "control character"),
        ("a: 1\nb: \x1b[31m", 2, "control character"),
        ('a: 1\nb: "hunter\\ud83d"', 2, "half of a surrogate pair"),
        ('a: 1\n"\\ude00\\ud83d": 2', 2, "half of a surrogate pair"),
        ('a: 1\nb: "\\U00110000 hunter2"', 2, "not YAML"),
        ('a: 1\nb: "\\UFFFFFFFF hunter2"', 2, "not YAML"),
        ("[" * 100_000, 1, "nested deeper"),
        ("- " * 100_000, 1, "nested deeper"),
        (BOMB, 5, f"more than {MAX_VALUES} values"),
        (DEEP_BY_ALIASES, 3, "nested deeper"),
        ("\n".join("- x" for _ in range(MAX_VALUES + 1)), MAX_VALUES, f"more than {MAX_VALUES} values"),
        ("a: " + "x" * MAX_BYTES, None, "larger than"),
    ],
)
def test_what_is_refused_names_the_line_and_the_remedy_and_no_content(text: str, line: int | None, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read(text)
    message = str(caught.value)
    assert message.startswith("x.yaml" if line is None else f"x.yaml:{line} ")
    assert words in message
    assert caught.value.remedy
    assert "hunter2" not in message
    assert "\x1b" not in message


@pytest.mark.parametrize("levels", [MAX_DEPTH - 1, MAX_DEPTH])
def test_nesting_up_to_the_limit_is_read(levels: int) -> None:
    assert read("[" * levels + "1" + "]" * levels)
    with pytest.raises(ConfigurationError, match="nested deeper"):
        read("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1))


def test_aliases_within_the_limits_mean_what_they_point_at() -> None:
    assert read("a: &x {b: [1, no]}\nc: *x\nd: &y text\ne: *y") == {
        "a": {"b": [1, "no"]}, "c": {"b": [1, "no"]}, "d": "text", "e": "text",
    }  # fmt: skip


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"\xff\xfea\x00:\x00", "UTF-16"),
        (b"\xfe\xff\x00a\x00:", "UTF-16"),
        (b"a: 1\nb: \xff\xff", ":2 is not UTF-8"),
        (b"\x7fELF\x02\x01\x01\x00\x00\x00\xf0", "is not UTF-8"),
        (b"a: \xed\xa0\x80", "is not UTF-8"),
        (b"#" * (MAX_BYTES + 1), "larger than"),
    ],
)
def test_files_that_are_no_text_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        read_yaml(write(tmp_path / "x.yaml", content))


def test_a_byte_order_mark_and_windows_line_ends_are_fine(tmp_path: Path) -> None:
    node = read_yaml(write(tmp_path / "x.yaml", b"\xef\xbb\xbfa: 1\r\nb: no\r\n"))
    assert node.unwrap() == {"a": 1, "b": "no"}


def test_a_folder_a_missing_file_and_a_loop_of_links_are_refused(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name, words in [(".", "is a folder"), ("missing", "does not exist"), ("loop", "cannot be read")]:
        with pytest.raises(ConfigurationError, match=words):
            read_yaml(tmp_path / name)
    with pytest.raises(ConfigurationError, match="no regular file"):
        read_yaml(Path("/dev/null"))


def test_a_file_without_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    file = write(tmp_path / "x.yaml", b"a: 1")
    monkeypatch.setattr(Path, "open", deny)
    with pytest.raises(ConfigurationError, match="cannot be read: Permission denied"):
        read_yaml(file)


def test_the_error_class_is_the_callers_choice(tmp_path: Path) -> None:
    with pytest.raises(InvalidContractError):
        read_yaml(tmp_path / "missing.yaml", error=InvalidContractError)
    with pytest.raises(InvalidContractError):
        parse_yaml("a: !t 1", source="x", error=InvalidContractError)


SCALARS = st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.text(max_size=20)
DOCUMENTS = st.recursive(
    SCALARS | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(min_size=1, max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(DOCUMENTS.filter(lambda document: document is not None))
def test_what_pyyaml_writes_is_read_back_as_it_was(document: object) -> None:
    """Texts, numbers, lists and mappings survive; PyYAML quotes what YAML 1.1 would mistake for something else."""
    text = yaml.safe_dump({"a": document}, width=10_000)
    assert _close(read(text), {"a": document})


def _close(one: object, other: object) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_close(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_close, one, other))
    if isinstance(other, float):
        return isinstance(one, float) and math.isclose(one, other)
    return type(one) is type(other) and one == other


@given(st.text(alphabet=st.sampled_from("ab:-[]{}&*!|>'\"%@`#?, \n\t~<1.0"), max_size=60) | st.text(max_size=60))
def test_no_text_ends_in_anything_but_a_value_or_the_typed_error(text: str) -> None:
    message = "x.yaml"
    try:
        read(text)
    except ConfigurationError as exc:
        message = exc.message
    assert message.startswith("x.yaml")


def test_texts_in_messages_are_cut_and_escaped() -> None:
    assert printable("a\nb\x1b") == "a\\nb\\x1b"
    assert printable("x" * 100) == "x" * 60 + "..."


def test_kinds_have_words() -> None:
    values: list[object] = [None, True, 1, 1.5, "x", {}, (), [], b""]
    assert [safe_yaml.kind_of(value) for value in values] == [
        "nothing (null)", "true or false", "a whole number", "a fraction", "a text", "a mapping", "a list", "a list",
        "bytes",
    ]  # fmt: skip
