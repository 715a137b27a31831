"""What the settings promise: five sources in their order, everything checked, every error useful, no secret told."""

import copy
import json
import logging
import pickle
import re
import traceback
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from postroom.libs.config_loader import (
    PACKAGED_FILE,
    Config,
    FromOption,
    Origin,
    OriginKind,
    find_config_file,
    inspect_config,
    load_config,
)
from postroom.libs.config_rules import clashes
from postroom.libs.exceptions import ConfigurationError
from postroom.libs.librdkafka_keys import ALLOWED, refusal
from postroom.libs.safe_yaml import MAX_BYTES, parse_yaml
from postroom.libs.settings import FrozenMapping, ProducerSettings
from postroom.libs.settings_table import Kind, settings_table

SECRET = "hunter2-k3y"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def load(text: str = "", env: str | None = None, environ: dict[str, str] | None = None, **overrides: object) -> Config:
    if text:
        Path("kafka.yaml").write_text(text, encoding="utf-8")
    given = {key.replace("__", "."): value for key, value in overrides.items()}
    return load_config(env=env, environ=environ or {}, overrides=given)


def failure(text: str, env: str | None = None, environ: dict[str, str] | None = None, **overrides: object) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(text, env, environ, **overrides)
    assert caught.value.code == "configuration_invalid"
    return str(caught.value)


class TestTheGuide:
    def test_the_guides_file_and_example_work_as_written(self) -> None:
        Path("kafka.yaml").write_text('broker: "localhost:9092"\n\ntopics:\n  user_events: "user_events"\n')
        config = load_config("kafka.yaml", environ={})
        assert config["broker"] == config.broker == "localhost:9092"
        assert config["topics"]["user_events"] == config.topics["user_events"] == "user_events"
        assert config["producer"]["acks"] == config.producer.acks == "all"

    def test_a_topic_is_known_by_its_logical_name(self) -> None:
        config = load("topics: {user_events: prod.events}")
        assert config.topic("user_events") == "prod.events"
        assert config.topic("somewhere_else") == "somewhere_else"

    def test_the_file_may_stand_in_the_folder_config(self) -> None:
        Path("config").mkdir()
        Path("config/kafka.yaml").write_text("broker: there:1")
        assert load_config("kafka.yaml", environ={}).broker == "there:1"
        assert load_config(environ={}).broker == "there:1"


class TestDefaults:
    def test_without_any_file_the_packaged_defaults_hold(self) -> None:
        config = load()
        assert config.flat() == Config().flat()
        assert config.file is None
        assert {config.origin(key) for key in config.flat()} == {
            Origin(OriginKind.PACKAGED, PACKAGED_FILE, config.origin(key).line) for key in config.flat()
        }

    def test_the_packaged_file_says_what_the_models_say_and_comments_every_setting(self) -> None:
        text = PACKAGED_FILE.read_text(encoding="utf-8")
        top: Any = parse_yaml(text, source="kafka.yaml").unwrap()
        for row in settings_table().values():
            level: Any = top
            for name in row.key:
                assert name in level, f"{row.name} is missing in kafka.yaml"
                level = level[name]
            default = list(row.default) if isinstance(row.default, tuple) else row.default
            assert level == (dict(default) if isinstance(default, FrozenMapping) else default)
            if row.kind is not Kind.MAPPING and row.key != ("broker",):
                assert re.search(rf"^ +{row.key[-1]}: .*# ", text, re.MULTILINE) or row.name in {
                    "producer.security.sasl_username", "schema_registry.username",
                }, row.name  # fmt: skip

    def test_the_example_environments_of_the_packaged_file_work_when_uncommented(self) -> None:
        text = PACKAGED_FILE.read_text(encoding="utf-8")
        example = re.sub(r"^# ?", "", text[text.index("# environments:") :], flags=re.MULTILINE)
        whole = text + "\n" + example
        assert load(whole, "dev").broker == "embedded"
        assert load(whole, "staging").broker == "kafka-1.staging.example:9093,kafka-2.staging.example:9093"
        prod = load(whole, "prod", {"KAFKA_PASSWORD": SECRET})
        assert prod.producer.security.protocol == "SASL_SSL"
        assert prod.producer.security.sasl_username == "postroom"
        assert prod.schema_registry.url == "https://registry.example"

    def test_variables_have_names_of_their_own(self) -> None:
        names = [row.variable for row in settings_table().values()]
        secrets = [f"{row.variable}_FILE" for row in settings_table().values() if row.kind is Kind.SECRET]
        assert len({*names, *secrets, "POSTROOM_ENV", "POSTROOM_CONFIG"}) == len(names) + len(secrets) + 2


class TestPrecedence:
    TEXT = "producer: {client_id: file}\nenvironments: {prod: {producer: {client_id: environment}}}\n"

    def test_each_source_wins_over_the_weaker_ones_and_is_named(self) -> None:
        variable = {"POSTROOM_PRODUCER_CLIENT_ID": "variable"}
        steps: list[tuple[Config, str, str]] = [
            (load(), "postroom", "packaged default"),
            (load(self.TEXT), "file", "kafka.yaml:1"),
            (load(self.TEXT, "prod"), "environment", "kafka.yaml:2"),
            (load(self.TEXT, "prod", variable), "variable", "variable POSTROOM_PRODUCER_CLIENT_ID"),
            (load(self.TEXT, "prod", variable, producer__client_id="override"), "override", "override"),
        ]
        for config, value, origin in steps:
            assert config.producer.client_id == value
            assert str(config.origin("producer.client_id")) == origin
        assert steps[2][0].origin("producer.client_id").kind is OriginKind.ENVIRONMENT
        assert steps[2][0].origin("producer.client_id").name == "prod"

    def test_the_argument_chooses_the_environment_before_the_variable(self) -> None:
        text = "environments: {a: {broker: 'a:1'}, b: {broker: 'b:1'}}"
        assert load(text, None, {"POSTROOM_ENV": "a"}).broker == "a:1"
        assert load(text, "b", {"POSTROOM_ENV": "a"}).broker == "b:1"
        assert load(text, None, {"POSTROOM_ENV": ""}).broker == "localhost:9092"
        assert load(text, "b").environment == "b"

    def test_options_are_named_by_their_own_name(self) -> None:
        config = load(broker=FromOption("h:1", "--broker"))
        assert str(config.origin("broker")) == "--broker"
        assert failure("", broker=FromOption("h", "--broker")).startswith("--broker: broker is not host:port")

    def test_the_file_is_found_by_variable_then_here_then_in_config(self) -> None:
        assert find_config_file({}) is None
        Path("config").mkdir()
        Path("config/kafka.yaml").write_text("broker: config:1")
        assert find_config_file({}) == Path("config/kafka.yaml")
        Path("kafka.yaml").write_text("broker: here:1")
        assert find_config_file({}) == Path("kafka.yaml")
        Path("other.yaml").write_text("broker: other:1")
        assert load(environ={"POSTROOM_CONFIG": "other.yaml"}).broker == "other:1"
        assert load_config("kafka.yaml", environ={"POSTROOM_CONFIG": "other.yaml"}).broker == "here:1"

    @pytest.mark.parametrize(
        ("name", "text", "key", "value"),
        [
            ("BROKER", "h:1, g:2", "broker", "h:1,g:2"),
            ("SCHEMA_REGISTRY_URL", "http://r:1/", "schema_registry.url", "http://r:1"),
            ("RATE_LIMIT_EVENTS_PER_SECOND", "12.5", "rate_limit.events_per_second", 12.5),
            ("RATE_LIMIT_EVENTS_PER_SECOND", "null", "rate_limit.events_per_second", None),
            ("PRODUCER_IDEMPOTENT", "false", "producer.idempotent", False),
            ("PRODUCER_RETRIES", " 7 ", "producer.retries", 7),
            ("PRODUCER_ACKS", "-1", "producer.acks", "all"),
            ("PRODUCER_CLIENT_ID", "123", "producer.client_id", "123"),
            ("PRODUCER_CLIENT_ID", "null", "producer.client_id", "null"),
            ("PRODUCER_CLIENT_ID", "${HOME}$$", "producer.client_id", "${HOME}$$"),
            ("TOPICS_USER_EVENTS", "x", "topics.user_events", "x"),
            ("TOPICS_MORE", "y", "topics.more", "y"),
            ("PRODUCER_LIBRDKAFKA_SOCKET_TIMEOUT_MS", "5000", "producer.librdkafka.socket.timeout.ms", "5000"),
            ("PRODUCER_CLIENT_ID", "", "producer.client_id", "postroom"),
        ],
    )
    def test_variables_set_settings_typed_as_the_setting_asks(
        self, name: str, text: str, key: str, value: object
    ) -> None:
        found = load(environ={f"POSTROOM_{name}": text}).flat()[key]
        assert found == value
        assert type(found) is type(value)

    def test_a_variable_finds_the_topic_it_means(self) -> None:
        config = load("topics: {Play-Events: a}", environ={"POSTROOM_TOPICS_PLAY_EVENTS": "b"})
        assert config.topic("Play-Events") == "b"

    def test_lists_of_paths_are_joined_by_commas_in_variables(self, tmp_path: Path) -> None:
        config = load(environ={"POSTROOM_CONTRACTS_PATH": "a.yaml, /b"})
        assert config.contracts.path == (tmp_path / "a.yaml", Path("/b"))

    def test_kubernetes_variables_of_a_service_called_postroom_are_ignored_and_listed(self) -> None:
        noise = [
            "POSTROOM_SERVICE_HOST",
            "POSTROOM_PORT",
            "POSTROOM_PORT_8080_TCP_ADDR",
            "POSTROOM_METRICS_SERVICE_PORT",
        ]
        found = inspect_config(environ=dict.fromkeys(noise, "tcp://10.0.0.1:80"))
        assert found.config is not None
        assert found.ignored_variables == tuple(sorted(noise))

    def test_dotted_overrides_reach_topics_and_extra_keys(self) -> None:
        given = {"topics.a": "b", "producer.librdkafka.socket.timeout.ms": 5000, "rate_limit.events_per_second": 10}
        config = load_config(environ={}, overrides=given)
        assert config.topic("a") == "b"
        assert config.producer.librdkafka["socket.timeout.ms"] == "5000"
        assert config.rate_limit.events_per_second == 10.0


class TestTexts:
    @pytest.mark.parametrize(
        ("written", "meant"),
        [
            ("${A}", "x"), ("<${A}-${B:-d}>", "<x-d>"), ("${EMPTY:-d}", "d"), ("${B:-}z", "z"), ("$${A}", "${A}"),
            ("$$$$", "$$"), ("$A $", "$A $"), ("${B:-a:-b}", "a:-b"), ("'${A}'", "x"), ("a$$b", "a$b"),
        ],
    )  # fmt: skip
    def test_references_are_replaced_and_two_dollars_are_one(self, written: str, meant: str) -> None:
        config = load(f"producer:\n  client_id: {written}", environ={"A": "x", "EMPTY": ""})
        assert config.producer.client_id == meant

    def test_what_comes_out_is_typed_only_where_the_setting_asks_for_it(self) -> None:
        text = 'producer: {client_id: "${N}", retries: "${N}"}\nrate_limit: {events_per_second: "${R:-null}"}'
        config = load(text, environ={"N": "7"})
        assert (config.producer.client_id, config.producer.retries) == ("7", 7)
        assert config.rate_limit.events_per_second is None

    @pytest.mark.parametrize(
        ("written", "words"),
        [
            ("${GONE}", "needs the variable GONE, which is not set. Set it, or write a default: ${GONE:-...}."),
            ("${A", "never closes it"),
            ("${}", "no name of a variable"),
            ("${A-b}", "no name of a variable"),
            ("${A:-${B}}", "inside ${...}"),
            ("${file:/etc/hostname}", "which only passwords may be"),
        ],
    )
    def test_broken_references_are_named(self, written: str, words: str) -> None:
        message = failure(f"broker: h:1\nproducer:\n  client_id: {written}", environ={"A": SECRET})
        assert message.startswith("kafka.yaml:3 producer.client_id ")
        assert words in message
        assert SECRET not in message

    def test_unset_variables_of_other_environments_do_not_matter_but_other_mistakes_there_do(self) -> None:
        text = "environments:\n  dev: {broker: 'h:1'}\n  prod: {producer: {client_id: '${GONE}', acs: 1}}\n"
        assert "${GONE}" not in failure(text, "dev")
        assert "kafka.yaml:3 producer.acs is no setting" in failure(text, "dev")
        assert "kafka.yaml:2 broker is not host:port" in failure("environments:\n  dev: {broker: h}", None)

    def test_secret_files_of_other_environments_are_not_opened(self) -> None:
        text = "environments: {dev: {}, prod: {schema_registry: {username: u, password: '${file:gone}'}}}"
        assert load(text, "dev").environment == "dev"
        assert "gone, which cannot be read" in failure(text, "prod")

    def test_paths_start_at_the_folder_of_the_file_and_options_at_the_current_one(self, tmp_path: Path) -> None:
        Path("deep").mkdir()
        Path("deep/kafka.yaml").write_text(
            "schema_registry: {url: schemas}\ncontracts: {path: [../c, /abs]}\n"
            "producer: {security: {protocol: SSL, ssl_ca: ca.pem}}"
        )
        config = load_config("deep/kafka.yaml", environ={})
        assert config.schema_registry.url == str(tmp_path / "deep" / "schemas")
        assert config.contracts.path == (tmp_path / "deep/../c", Path("/abs"))
        assert config.producer.security.ssl_ca == tmp_path / "deep" / "ca.pem"
        assert load(schema_registry__url="here").schema_registry.url == str(tmp_path / "here")


class TestSecrets:
    TEXT = "producer: {security: {protocol: sasl_ssl, sasl_mechanism: plain, sasl_username: u, sasl_password: '%s'}}"

    def password(self, config: Config) -> str:
        secret = config.producer.security.sasl_password
        assert secret is not None
        return secret.get_secret_value()

    def test_secrets_come_from_the_file_variables_and_files(self, tmp_path: Path) -> None:
        (tmp_path / "pw").write_text(SECRET + "\n")
        variable = "POSTROOM_PRODUCER_SECURITY_SASL_PASSWORD"
        sources: list[tuple[str, dict[str, str]]] = [
            (SECRET, {}),
            ("${PW}", {"PW": SECRET}),
            ("${file:pw}", {}),
            (f"${{file:{tmp_path}/pw}}", {}),
            ("x", {variable: SECRET}),
            ("x", {f"{variable}_FILE": "pw"}),
        ]
        for written, environ in sources:
            assert self.password(load(self.TEXT % written, environ=environ)) == SECRET

    def test_a_secret_that_is_the_content_of_a_file_is_read_again_when_asked_for(self, tmp_path: Path) -> None:
        key, file = "producer.security.sasl_password", tmp_path / "pw"
        file.write_text(SECRET)
        variable = {"POSTROOM_PRODUCER_SECURITY_SASL_PASSWORD_FILE": "pw"}
        for config in (load(self.TEXT % "${file:pw}"), load(self.TEXT % "x", environ=variable)):
            file.write_text("changed\n")
            assert config.secret(key) == "changed"
            assert config.with_overrides({"broker": "other:9092"}).secret(key) == "changed"
            file.unlink()  # or being written just now
            assert config.secret(key) == SECRET
            file.write_text(SECRET)
        assert load(self.TEXT % "a${file:pw}").secret(key) == f"a{SECRET}"
        assert load(self.TEXT % "a${file:pw}").origin(key).secret_file is None
        assert load(self.TEXT % "x").secret("schema_registry.password") is None
        with pytest.raises(KeyError):
            load(self.TEXT % "x").secret("broker")

    def test_a_secret_is_never_shown(self) -> None:
        config = load(self.TEXT % SECRET)
        shown = [
            repr(config),
            str(config),
            config.model_dump_json(),
            repr(config.flat()),
            f"{config.producer.security}",
        ]
        assert not [text for text in shown if SECRET in text]

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (None, "cannot be read"),
            (b"", "is empty"),
            (b"\n", "is empty"),
            (b"\xff\xfe", "no UTF-8"),
            (b"x" * 70_000, "larger"),
        ],
    )
    def test_files_that_hold_no_secret_are_named(self, content: bytes | None, words: str, tmp_path: Path) -> None:
        if content is not None:
            (tmp_path / "pw").write_bytes(content)
        assert words in failure(self.TEXT % "${file:pw}")
        assert words in failure("", environ={"POSTROOM_SCHEMA_REGISTRY_PASSWORD_FILE": "pw"})
        assert "which is no file" in failure(self.TEXT % "${file:/}")

    def test_a_secret_given_twice_is_refused(self) -> None:
        variable = "POSTROOM_SCHEMA_REGISTRY_PASSWORD"
        message = failure("", environ={variable: SECRET, f"{variable}_FILE": "pw"})
        assert "is given by POSTROOM_SCHEMA_REGISTRY_PASSWORD_FILE and by" in message
        assert SECRET not in message

    @pytest.mark.parametrize(
        "text",
        [
            f"broker: '{SECRET}@h:9092'",
            f"broker: 'SASL_SSL://user:{SECRET}@h:9092'",
            f"broker: ['h:1', 'u:{SECRET}@h:9092']",
            f"schema_registry: {{url: 'https://user:{SECRET}@h:8081/x'}}",
            f"schema_registry: {{url: 'https://{SECRET}@h'}}",
            f"schema_registry: {{url: 'user:{SECRET}@h:8081'}}",
            f"schema_registry: {{url: 'https://h/?token={SECRET}'}}",
            f"schema_registry: {{url: 'ftp://user:{SECRET}@h'}}",
            f"schema_registry: {{url: 'http://user:{SECRET}@[::1'}}",
            f"producer: {{security: {{sasl_password: [{SECRET}]}}}}",
            f"producer: {{security: {{sasl_password: {{a: {SECRET}}}}}}}",
            f"producer: {{security: {{sasl_mechanism: {SECRET}}}}}",
            f"producer: {{security: {{sasl_password: *{SECRET}}}}}",
            f"producer: {{security: {{sasl_password: !{SECRET} }}}}",
            f"producer: {{security: {{sasl_password: {SECRET}}}}}",
            f"producer: {{security: sasl_password:{SECRET}}}",
            f"producer: {SECRET}",
            f"schema_registry: {{password: {SECRET}}}",
            f"topics: {{a: 'x/{SECRET}'}}",
            f"metrics: {{host: 'u:{SECRET}@h'}}",
            f"topics: {SECRET}",
            f"environments: {SECRET}",
            SECRET,
        ],
    )
    def test_no_error_tells_what_may_be_a_secret(self, text: str) -> None:
        assert SECRET not in failure(text)

    def test_the_cause_of_an_error_tells_no_secret_either(self) -> None:
        for text in (f"broker: h:1\npassword: '{SECRET}", f"a: {SECRET}: x", f"producer: {{retries: [{SECRET}]}}"):
            Path("kafka.yaml").write_text(text, encoding="utf-8")
            with pytest.raises(ConfigurationError) as caught:
                load_config(environ={})
            assert SECRET not in "".join(traceback.format_exception(caught.value))

    def test_values_that_came_out_of_variables_in_the_file_are_not_told(self) -> None:
        message = failure("producer: {compression: '${X}', retries: '${X}'}", environ={"X": SECRET})
        assert SECRET not in message
        assert "producer.retries is a text. Write a whole number" in message


class TestFiles:
    def test_a_missing_file_says_where_it_was_looked_for_and_how_to_write_one(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError) as caught:
            load_config("kafka.yaml", environ={})
        message = str(caught.value)
        assert str(tmp_path / "kafka.yaml") in message
        assert str(tmp_path / "config" / "kafka.yaml") in message
        assert "postroom config init kafka.yaml" in message
        message = failure("", environ={"POSTROOM_CONFIG": "gone.yaml"})
        assert "gone.yaml (named by POSTROOM_CONFIG)" in message
        assert "postroom config init gone.yaml" in message

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b"", "kafka.yaml is empty"),
            (b"# broker: x\n", "kafka.yaml is empty"),
            (b"\x00\x01\x02", "holds a control character"),
            (b"\xff\xfeb\x00", "UTF-16"),
            (b"a: \xff", "kafka.yaml:1 is not UTF-8"),
            (b"#" * (MAX_BYTES + 1), "larger than"),
            (b"- a\n- b", "kafka.yaml:1 is a list, but must be a mapping"),
            (b"localhost:9092", "kafka.yaml:1 is a text, but must be a mapping"),
            (b"broker: h:1\nbroker: g:1", "kafka.yaml:2 has the key broker a second time"),
            (b"broker: !env X", "kafka.yaml:1 uses a YAML tag"),
            (b"a: &a [x, x, x, x]\nb: &b [*a, *a]\n" + b"c: [" + b"*b, " * 9000 + b"]", "more than 20000 values"),
            (b"broker: h:1\n\tx: 1", "kafka.yaml:2 is not YAML"),
        ],
    )  # fmt: skip
    def test_a_file_that_cannot_be_read_is_one_typed_error(self, content: bytes, words: str) -> None:
        Path("kafka.yaml").write_bytes(content)
        assert words in failure("")

    def test_a_folder_is_no_file(self) -> None:
        Path("kafka.yaml").mkdir()
        assert "kafka.yaml is a folder" in failure("")

    def test_a_byte_order_mark_and_sections_without_content_are_fine(self) -> None:
        Path("kafka.yaml").write_bytes(b"\xef\xbb\xbfbroker: h:1\nproducer:\ntopics:\nenvironments:\n")
        assert load().broker == "h:1"


# One line each: the file, and what the error must say.
BAD_VALUES = [
    ("broker:", "kafka.yaml:1 broker is nothing (null). Write host:port, a list of them, or embedded."),
    ("broker: ''", "broker is empty"),
    ("broker: localhost", "broker is not host:port"),
    ("broker: 9092", "broker is 9092. Put it into quotes."),
    ("broker: 'h:0'", "broker is not host:port with a port from 1 to 65535"),
    ("broker: 'h:65536'", "port from 1 to 65535"),
    ("broker: 'h:1,,g:1'", "broker is empty"),
    ("broker: 'h:1 g:1'", "is not host:port"),
    ("broker: 'http://h:1'", "begins with a protocol. Write host:port, and set producer.security.protocol."),
    ("broker: [h:1, embedded]", "mixes embedded with addresses"),
    ("broker: []", "broker is empty"),
    ("broker: [1]", "broker is a list"),
    ("broker: {host: h}", "broker is a mapping"),
    ("topics: {a: ''}", "topics.a holds a name that no topic can have"),
    ("topics: {a: 'x y'}", "no topic can have"),
    ("topics: {a: zürich}", "no topic can have"),
    ("topics: {a: ..}", "no topic can have"),
    (f"topics: {{a: {'x' * 250}}}", "no topic can have"),
    ("topics: {a: __consumer_offsets}", "names a topic of Kafka itself"),
    ("topics: {a: 5}", "topics.a is 5. Put it into quotes."),
    ("topics: {a: no, b: null}", "topics.b is nothing (null). Write a text."),
    ("topics: [a]", "topics is a list, but must be a mapping"),
    ("producer: {acks: 2}", "producer.acks is 2. Write one of all, 1, 0."),
    ("producer: {acks: true}", "producer.acks is true. Write one of all, 1, 0."),
    ("producer: {idempotent: yes}", "producer.idempotent is yes. Write true or false."),
    ("producer: {idempotent: 1}", "producer.idempotent is 1. Write true or false."),
    ("producer: {idempotent: 'true'}", "producer.idempotent is true. Write true or false without quotes."),
    ("producer: {compression: no}", "producer.compression is no. Write one of none, gzip, snappy, lz4, zstd."),
    ("producer: {retries: '5'}", "producer.retries is 5. Write a whole number from 0 to 2147483647 without quotes."),
    ("producer: {retries: 012}", "producer.retries is 012. Write a whole number"),
    ("producer: {retries: 5.0}", "producer.retries is 5.0. Write a whole number"),
    ("producer: {retries: -1}", "producer.retries is -1. Write a whole number from 0"),
    ("producer: {retries: null}", "producer.retries is nothing (null)."),
    ("producer: {retries: 5 times}", "producer.retries is 5 times. Write a whole number"),
    ("producer: {linger_ms: 5ms}", "producer.linger_ms is 5ms. Write a number from 0 to 900000."),
    ("producer: {linger_ms: .inf}", "producer.linger_ms is .inf."),
    ("producer: {linger_ms: 1e400}", "producer.linger_ms is 1e400."),
    ("producer: {queue_max_bytes: 256MiB}", "producer.queue_max_bytes is 256MiB. Write a whole number from 1024"),
    ("producer: {queue_max_messages: 1_000}", "producer.queue_max_messages is 1_000."),
    ("producer: {max_message_bytes: 99999999999}", "from 1000 to 1000000000"),
    ("producer: {client_id: 5}", "producer.client_id is 5. Put it into quotes."),
    ("producer: {client_id: ''}", "producer.client_id is an empty text. Write a text."),
    ("producer: {security: {protocol: TLS}}", "producer.security.protocol is a text. Write one of PLAINTEXT, SSL,"),
    ("producer: {security: {sasl_password: 123}}", "producer.security.sasl_password is a whole number. Put it into"),
    ("producer: {security: {sasl_mechanism: GSSAPI}}", "Write one of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or null."),
    ("producer: {security: {ssl_ca: 5}}", "ssl_ca is a whole number. Put it into quotes."),
    ("producer: [acks]", "producer is a list, but must be a mapping of settings"),
    ("producer: {librdkafka: {debug: null}}", "producer.librdkafka.debug is nothing (null)"),
    ("producer: {librdkafka: {debug: [msg]}}", "producer.librdkafka.debug is a list"),
    ("producer: {librdkafka: 5}", "producer.librdkafka is a whole number, but must be a mapping"),
    ("schema_registry: {url: 'localhost:8081'}", "looks like an address without http:// or https://"),
    ("schema_registry: {url: 'http:/x'}", "looks like an address without"),
    ("schema_registry: {url: 'file:///x'}", "is neither http nor https"),
    ("schema_registry: {url: 'http://'}", "is no URL of a registry"),
    ("schema_registry: {url: 'http://h:99999'}", "is no URL of a registry"),
    ("schema_registry: {url: 'http://h/x#y'}", "is no URL of a registry"),
    ("schema_registry: {url: ''}", "is empty"),
    ("schema_registry: {timeout_s: 0}", "schema_registry.timeout_s is 0. Write a number above 0 up to 300."),
    ("schema_registry: {timeout_s: 5s}", "schema_registry.timeout_s is 5s."),
    ("schema_registry: {timeout_s: 12:30:45}", "schema_registry.timeout_s is 12:30:45."),
    ("schema_registry: {subject_strategy: TopicNameStrategy}", "Write one of topic_name, record_name, topic_record"),
    ("contracts: {path: {a: b}}", "contracts.path is a mapping. Write a list of paths."),
    ("contracts: {path: [1]}", "contracts.path is a list"),
    ("contracts: {default: 'a b'}", "contracts.default is no name of a contract"),
    ("rate_limit: {events_per_second: 0}", "Write a number above 0 up to 100000000 or null."),
    ("rate_limit: {events_per_second: 100/s}", "rate_limit.events_per_second is 100/s."),
    ("rate_limit: {events_per_second: 10, burst: 0}", "rate_limit.burst is 0. Write a whole number from 1"),
    ("rate_limit: {events_per_second: 10, burst: 1.5}", "rate_limit.burst is 1.5."),
    ("dead_letters: {suffix: ''}", "dead_letters.suffix cannot end the name of a topic"),
    ("dead_letters: {suffix: /dlq}", "dead_letters.suffix cannot end"),
    ("dead_letters: {max_header_bytes: 16 KiB}", "dead_letters.max_header_bytes is 16 KiB."),
    (
        "delivery: {hand_over_after_s: 11.9}",
        "delivery.hand_over_after_s is 11.9. Write a number from 12 to 86400 or null.",
    ),
    ("delivery: {close_timeout_s: -1}", "delivery.close_timeout_s is -1."),
    ("logging: {level: INFO}", "logging.level is INFO. Write one of debug, info"),
    ("logging: {format: off}", "logging.format is off."),
    ("metrics: {port: 0}", "metrics.port is 0. Write a whole number from 1 to 65535 or null."),
    ("metrics: {port: 99999}", "metrics.port is 99999."),
    ("metrics: {host: 'a b'}", "metrics.host is no host name or address"),
    ("spool: {write_ahead: sometimes}", "spool.write_ahead is sometimes. Write one of off, fsync"),
    ("spool: {max_bytes: 1000}", "spool.max_bytes is 1000."),
    ("delivery: {on_exhausted: drop}", "delivery.on_exhausted is drop. Write one of spool, dead_letter"),
    ("environments: [dev]", "environments is a list, but must be a mapping"),
    ("environments: {dev: 5}", "is a whole number, but must be a mapping of settings"),
    ("environments: {dev: {environments: {}}}", "environments is no setting"),
]


@pytest.mark.parametrize(("text", "words"), BAD_VALUES)
def test_a_wrong_value_is_named_with_line_key_kind_and_remedy(text: str, words: str) -> None:
    message = failure(text)
    assert message.startswith("kafka.yaml:1 ")
    assert words in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("brokr: h:1", "kafka.yaml:1 brokr is no setting. Perhaps broker is meant."),
        ("acks: all", "kafka.yaml:1 acks is no setting. Perhaps producer.acks is meant."),
        ("producer: {aks: all}", "producer.aks is no setting. Perhaps producer.acks is meant."),
        ("producer: {sasl_password: x}", "Perhaps producer.security.sasl_password is meant."),
        ("zzz: 1", "zzz is no setting. Here can stand: broker, topics, producer, "),
        ("producer: {security: {}, timeout: 5}", "producer.timeout is no setting."),
        ("rate_limit: {qqq: 5}", "rate_limit.qqq is no setting. Here can stand: events_per_second, burst."),
        ('"a\\nb\\e[31m": 1', "a\\nb\\x1b[31m is no setting"),
        ("broker: {broker: 1}\nproducers: {}", "kafka.yaml:2 producers is no setting. Perhaps producer is meant."),
    ],
)
def test_an_unknown_key_is_refused_with_a_suggestion(text: str, words: str) -> None:
    message = failure(text)
    assert words in message
    assert "\x1b" not in message


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("POSTROOM_PRODUCER_ACK", "POSTROOM_PRODUCER_ACK: sets no setting that exists. Perhaps POSTROOM_PRODUCER_ACKS"),
        ("POSTROOM_BROKERS", "Perhaps POSTROOM_BROKER is meant"),
        ("POSTROOM_METRICS_ZZZZZ", "sets no setting that exists. See the names with: postroom config show."),
        ("POSTROOM_PRODUCER_LIBRDKAFKA_TEST_MOCK_NUM_BROKERS", "is not among the keys that may be set"),
    ],
)
def test_an_unknown_variable_is_refused_with_a_suggestion(name: str, words: str) -> None:
    assert words in failure("", environ={name: SECRET})


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("PRODUCER_LINGER_MS", "abc", "POSTROOM_PRODUCER_LINGER_MS: producer.linger_ms is abc. Write a number"),
        ("PRODUCER_IDEMPOTENT", "yes", "producer.idempotent is yes. Write true or false."),
        ("RATE_LIMIT_BURST", "1e3", "rate_limit.burst is 1000.0. Write a whole number"),
        ("METRICS_PORT", "tcp://10.0.0.1:80", "metrics.port is tcp://10.0.0.1:80. Write a whole number"),
        ("BROKER", f"u:{SECRET}@h:1", "POSTROOM_BROKER: broker holds credentials"),
        ("SPOOL_WRITE_AHEAD", "x", "POSTROOM_SPOOL_WRITE_AHEAD: spool.write_ahead is x"),
        ("METRICS_PORT", f"u:{SECRET}@h", "metrics.port is a text. Write a whole number"),
        ("CONTRACTS_DEFAULT", "a b", "POSTROOM_CONTRACTS_DEFAULT: contracts.default is no name"),
    ],
)
def test_a_wrong_variable_is_named_instead_of_a_line(name: str, text: str, words: str) -> None:
    message = failure("", environ={f"POSTROOM_{name}": text})
    assert words in message
    assert SECRET not in message


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("producer.ack", "all", "override: producer.ack is no setting. Perhaps producer.acks is meant."),
        ("producer", {}, "override: producer is no setting"),
        ("topics", {}, "override: topics is no setting"),
        ("producer.retries", 5.5, "override: producer.retries is 5.5."),
        ("producer.retries", object(), "override: producer.retries is <object"),
        ("producer.librdkafka.plugin.library.paths", "x", "override: producer.librdkafka.plugin.library.paths loads"),
    ],
)
def test_a_wrong_override_is_named(key: str, value: object, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_config(environ={}, overrides={key: value})
    assert words in str(caught.value)


# One contradiction each: the file, and the whole error.
SASL = "protocol: SASL_SSL, sasl_mechanism: PLAIN, sasl_username: u, sasl_password: p"
WHOLE_SENTENCE = (
    "kafka.yaml:2 producer.acks is 1, but producer.idempotent is true: the broker only removes duplicates when all "
    "replicas acknowledge. Set acks to all."
)
CONTRADICTIONS = [
    (
        "producer:\n  acks: 1",
        WHOLE_SENTENCE,
    ),
    ("producer: {acks: 0, idempotent: true}", "producer.acks is 0, but producer.idempotent is true: "),
    ("producer: {max_in_flight: 6}", "producer.max_in_flight is 6, but producer.idempotent is true: "),
    ("producer: {retries: 0}", "producer.retries is 0, but producer.idempotent is true: "),
    (
        "producer: {retry_backoff_ms: 9000}",
        "kafka.yaml:1 producer.retry_backoff_ms is 9000, but producer.retry_backoff_max_ms is 8000: the longest wait",
    ),
    ("producer: {retry_backoff_max_ms: 10}", "producer.retry_backoff_max_ms is 10, but producer.retry_backoff_ms is"),
    ("producer: {queue_max_bytes: 2048}", "producer.queue_max_bytes is 2048, but producer.max_message_bytes is 10000"),
    ("producer: {max_message_bytes: 9000}", "producer.max_message_bytes is 9000, but dead_letters.max_header_bytes "),
    ("producer: {linger_ms: 40000}", "producer.linger_ms is 40000, but delivery.hand_over_after_s is 30: "),
    ("{broker: embedded, spool: {dir: s}}", "spool.dir is set, but broker is embedded"),
    ("spool: {write_ahead: fsync}", "spool.write_ahead is fsync, but spool.dir is null: there is no disk to write to"),
    ("delivery: {on_exhausted: dead_letter}", "delivery.on_exhausted is dead_letter, but spool.dir is null: "),
    ("producer: {security: {sasl_username: u}}", "sasl_username is set, but producer.security.protocol is PLAINTEXT"),
    ("producer: {security: {sasl_password: u}}", "sasl_password is set, but producer.security.protocol is PLAINTEXT"),
    ("producer: {security: {protocol: SSL, sasl_mechanism: PLAIN}}", "sasl_mechanism is set, but"),
    ("producer: {security: {protocol: SASL_SSL, sasl_username: u, sasl_password: p}}", "sasl_mechanism is null: SASL"),
    ("producer: {security: {protocol: SASL_SSL, sasl_mechanism: PLAIN, sasl_username: u}}", "sasl_password is null"),
    ("producer: {security: {protocol: SASL_SSL, sasl_mechanism: PLAIN, sasl_password: u}}", "sasl_username is null"),
    ("producer: {security: {ssl_ca: ca.pem}}", "ssl_ca is set, but producer.security.protocol is PLAINTEXT: without"),
    (f"producer: {{security: {{{SASL.replace('SSL', 'PLAINTEXT')}, ssl_ca: ca.pem}}}}", "ssl_ca is set, but"),
    ("producer: {security: {protocol: SSL, ssl_certificate: c}}", "ssl_certificate is set, but producer.security.ssl_"),
    ("producer: {security: {protocol: SSL, ssl_key: k}}", "ssl_key is set, but producer.security.ssl_certificate is n"),
    ("producer: {security: {protocol: SSL, ssl_key_password: p}}", "ssl_key_password is set, but"),
    ("schema_registry: {username: u}", "schema_registry.username is set, but schema_registry.password is null"),
    (
        "schema_registry: {max_stale_s: 599}",
        "schema_registry.max_stale_s is 599, but schema_registry.refresh_s is 300:",
    ),
    ("schema_registry: {password: p}", "schema_registry.password is set, but schema_registry.username is null"),
    ("schema_registry: {url: 'https://h', certificate: c}", "schema_registry.certificate is set, but"),
    ("schema_registry: {ca: ca.pem}", "schema_registry.ca is set, but schema_registry.url begins with http://"),
    ("schema_registry: {url: embedded, username: u, password: p}", "schema_registry.username is set, but schema_regis"),
    ("schema_registry: {url: folder, ca: c}", "schema_registry.ca is set, but schema_registry.url is no URL"),
    ("rate_limit: {burst: 5}", "rate_limit.burst is 5, but rate_limit.events_per_second is null: "),
    ("topics: {a: x, b: x.dlq}", "topics.b is x.dlq, but topics.a is x: its dead letters go there."),
    (f"topics: {{a: {'x' * 248}}}", "topics.a has 248 characters, but dead_letters.suffix adds 4: "),
]


@pytest.mark.parametrize(("text", "words"), CONTRADICTIONS)
def test_settings_that_contradict_each_other_die_at_the_start(text: str, words: str) -> None:
    message = failure(text)
    assert words in message
    assert "kafka.yaml:" in message


def test_the_defaults_contradict_nothing() -> None:
    assert not list(clashes(Config()))


def inspect_text(text: str) -> list[str]:
    Path("kafka.yaml").write_text(text, encoding="utf-8")
    return [str(problem) for problem in inspect_config(environ={}).problems]


@pytest.mark.parametrize(
    "text",
    [
        "producer: {idempotent: false, acks: 1, max_in_flight: 1000, retries: 0}",
        f"producer: {{security: {{{SASL}, ssl_ca: a, ssl_certificate: b, ssl_key: c, ssl_key_password: d}}}}",
        "producer: {security: {protocol: SSL}}",
        "schema_registry: {url: 'https://h/apis/ccompat/v7/', username: u, password: p, ca: a}",
        "schema_registry: {username: '', password: ''}",
        "rate_limit: {events_per_second: 0.5, burst: 10}",
        "topics: {a: x, b: x, c: c.dlq}",
        "broker: '[::1]:9092,127.0.0.1:9092'",
        "delivery: {hand_over_after_s: 12}",
        "contracts: {path: contracts/}",
        "{spool: {dir: s, write_ahead: fsync}, delivery: {on_exhausted: dead_letter}}",
        "spool: {dir: s, write_ahead: off}",
    ],
)
def test_settings_that_fit_together_are_taken(text: str) -> None:
    assert load(text).file == Path("kafka.yaml")


def test_a_contradiction_across_sources_names_both() -> None:
    message = failure("producer: {idempotent: true}", environ={"POSTROOM_PRODUCER_ACKS": "1"})
    assert message.startswith(
        "POSTROOM_PRODUCER_ACKS: producer.acks is 1, but producer.idempotent is true (kafka.yaml:1): "
    )


def test_all_problems_are_told_at_once_in_the_order_of_the_file() -> None:
    text = "producer:\n  acks: 1\n  retries: many\n  queue: 5\nmetrics: {port: x}\nbroker: h\n"
    lines = failure(text, environ={"POSTROOM_LOGGING_LEVEL": "loud"}).splitlines()
    assert lines[0] == "6 problems in the settings:"
    starts = [
        "kafka.yaml:2 ",
        "kafka.yaml:3 ",
        "kafka.yaml:4 ",
        "kafka.yaml:5 ",
        "kafka.yaml:6 ",
        "POSTROOM_LOGGING_LEVEL: ",
    ]
    assert [line.strip().startswith(start) for line, start in zip(lines[1:], starts, strict=True)] == [True] * 6


def test_a_wrong_value_does_not_bring_contradictions_with_the_default_that_took_its_place() -> None:
    problems = inspect_text("rate_limit: {events_per_second: fast, burst: 5}")
    assert problems == [
        "kafka.yaml:1 rate_limit.events_per_second is fast. Write a number above 0 up to 100000000 or null."
    ]


class TestEnvironments:
    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("broker: h:1", "the environment prd is chosen, but kafka.yaml has no such section (there is: none)."),
            ("environments: {dev: {}, prod: {}}", "(there is: dev, prod). Write it under environments, or choose"),
            ("", "the environment prd is chosen, but there is no file with environments."),
        ],
    )
    def test_an_environment_that_is_not_there_is_an_error(self, text: str, words: str) -> None:
        assert words in failure(text, "prd")
        assert words in failure(text, None, {"POSTROOM_ENV": "prd"})

    def test_lists_are_replaced_and_mappings_are_joined(self) -> None:
        text = "topics: {a: x}\ncontracts: {path: [/a]}\nenvironments: {e: {topics: {b: y}, contracts: {path: [/b]}}}"
        config = load(text, "e")
        assert dict(config.topics) == {"user_events": "user_events", "a": "x", "b": "y"}
        assert config.contracts.path == (Path("/b"),)


class TestLibrdkafkaKeys:
    @pytest.mark.parametrize(
        ("key", "words"),
        [
            ("test.mock.num.brokers", "replaces the brokers"),
            ("test.mock.broker.rtt", "replaces the brokers"),
            ("plugin.library.paths", "loads foreign code"),
            ("ssl.engine.location", "loads foreign code"),
            ("ssl.providers", "loads foreign code"),
            ("sasl.kerberos.kinit.cmd", "runs commands"),
            ("sasl.oauthbearer.client.secret", "mechanism that is not supported"),
            ("enable.ssl.certificate.verification", "switches off"),
            ("ssl.endpoint.identification.algorithm", "switches off"),
            ("bootstrap.servers", "has a setting of its own. Use broker."),
            ("linger.ms", "has a setting of its own. Use producer.linger_ms."),
            ("sasl.password", "Use producer.security.sasl_password."),
            ("message.timeout.ms", "Use delivery.hand_over_after_s."),
            ("partitioner", "murmur2_random is fixed"),
            ("transactional.id", "transactions"),
            ("statistics.interval.ms", "is set by postroom itself"),
            ("socket.timout.ms", "is not among the keys that may be set. Perhaps socket.timeout.ms is meant."),
            ("group.id", "is not among the keys that may be set."),
            ("Test.Mock.Num.Brokers", "is not among the keys"),
            (" test.mock.num.brokers", "is not among the keys"),
        ],
    )  # fmt: skip
    def test_keys_that_break_a_promise_are_refused_with_the_reason(self, key: str, words: str) -> None:
        message = failure(f"broker: h:1\nproducer:\n  librdkafka:\n    '{key}': x")
        assert message.startswith("kafka.yaml:4 producer.librdkafka.")
        assert words in message
        with pytest.raises(ValidationError):
            ProducerSettings(librdkafka={key: "x"})

    def test_allowed_keys_pass_as_texts(self) -> None:
        config = load("producer: {librdkafka: {socket.keepalive.enable: true, socket.timeout.ms: 5000, debug: msg}}")
        assert dict(config.producer.librdkafka) == {
            "socket.keepalive.enable": "true", "socket.timeout.ms": "5000", "debug": "msg",
        }  # fmt: skip

    def test_the_client_library_knows_every_allowed_key(self) -> None:
        from confluent_kafka import KafkaException, Producer

        silent = logging.getLogger("librdkafka-of-this-test")
        silent.addHandler(logging.NullHandler())
        silent.propagate = False
        for key in sorted(ALLOWED):
            told = ""
            try:
                Producer({key: "\x01"}, logger=silent)
            except KafkaException as exc:
                told = str(exc)
            assert "No such configuration property" not in told, key

    @given(st.text(alphabet="abcdefghijklmnopqrstuvwxyz._", max_size=40) | st.text(max_size=20))
    def test_what_is_not_listed_is_refused(self, key: str) -> None:
        assert (refusal(key) is None) == (key in ALLOWED)


class TestTheValue:
    def test_nothing_can_be_changed(self) -> None:
        config = load()
        with pytest.raises(ValidationError):
            config.broker = "x:1"
        with pytest.raises(ValidationError):
            config.producer.retries = 1
        with pytest.raises(TypeError):
            config.topics["a"] = "b"  # type: ignore[index]  # the same
        assert isinstance(config.topics, FrozenMapping)

    def test_it_survives_copies_and_other_processes(self) -> None:
        config = load("broker: h:1\nproducer: {security: {protocol: SSL}}")
        for other in (pickle.loads(pickle.dumps(config)), copy.deepcopy(config), copy.copy(config)):
            assert other == config
            assert other.origin("broker") == config.origin("broker")
        assert json.loads(config.model_dump_json())["topics"] == {"user_events": "user_events"}

    def test_keys_are_known_by_name_only(self) -> None:
        config = load()
        assert "broker" in config
        assert "model_config" not in config
        for key in ("nope", "model_fields", "producer.nope"):
            with pytest.raises(KeyError):
                config[key]
            with pytest.raises(KeyError):
                config.origin(key)
        with pytest.raises(KeyError):
            config.origin("producer")

    def test_a_program_can_replace_values_it_found_while_running(self) -> None:
        config = load("broker: embedded\ntopics: {a: b}")
        other = config.with_overrides({"broker": "127.0.0.1:5", "topics.a": "c", "schema_registry.auto_register": True})
        assert (other.broker, other.topic("a"), other.schema_registry.auto_register) == ("127.0.0.1:5", "c", True)
        assert str(other.origin("broker")) == "override"
        assert other.file == Path("kafka.yaml")
        assert config.broker == "embedded"
        for key, value in [("nope", 1), ("producer", {}), ("broker", f"u:{SECRET}@h:1"), ("broker.x", "y")]:
            with pytest.raises(ConfigurationError) as caught:
                config.with_overrides({key: value})
            assert SECRET not in str(caught.value)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([row.name for row in settings_table().values()]), VALUES, max_size=5))
def test_no_overrides_end_in_anything_but_settings_or_the_typed_error(overrides: dict[str, object]) -> None:
    found = inspect_config(environ={}, overrides=overrides)
    assert (found.config is None) == bool(found.problems)


@given(st.dictionaries(st.sampled_from([row.variable for row in settings_table().values()]), st.text(max_size=12)))
def test_no_variables_end_in_anything_but_settings_or_the_typed_error(environ: dict[str, str]) -> None:
    found = inspect_config(environ=environ)
    assert (found.config is None) == bool(found.problems)
