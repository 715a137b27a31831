"""librdkafka's mock cluster with its levers: chosen error codes, brokers going down and up, slow answers.

Good for "what does the client do when the broker says X", never for loss, order or duplicates.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Self

import confluent_kafka

# Kafka's API keys of requests.
PRODUCE = 0
INIT_PRODUCER_ID = 22


def _library() -> ctypes.CDLL:
    package = Path(confluent_kafka.__file__).parent
    places = [package.parent / "confluent_kafka.libs", package / ".dylibs", package.parent / "confluent_kafka.dylibs"]
    for place in places:
        for file in sorted(place.glob("librdkafka*")):
            return ctypes.CDLL(str(file))
    message = f"no librdkafka beside {package}"
    raise FileNotFoundError(message)


def meet_fatal_error(producer: object, code: int) -> None:
    """Let a producer of confluent_kafka meet a fatal error with this code, as if a broker had caused it.

    The library's handle is the first field of the Python object, behind Python's own head.
    """
    lib = _library()
    lib.rd_kafka_name.restype = ctypes.c_char_p
    lib.rd_kafka_name.argtypes = [ctypes.c_void_p]
    lib.rd_kafka_test_fatal_error.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p]
    handle = ctypes.c_void_p.from_address(id(producer) + object.__basicsize__).value
    assert b"#producer-" in lib.rd_kafka_name(handle)
    assert lib.rd_kafka_test_fatal_error(handle, code, b"from a test") == 0


class MockCluster:
    """A mock cluster from `with` to its end."""

    def __init__(self, brokers: int = 1) -> None:
        self._brokers = brokers

    def __enter__(self) -> Self:
        lib = self._lib = _library()
        pointer, integer = ctypes.c_void_p, ctypes.c_int
        lib.rd_kafka_conf_new.restype = pointer
        lib.rd_kafka_conf_set.argtypes = [pointer, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t]
        lib.rd_kafka_new.restype = pointer
        lib.rd_kafka_new.argtypes = [integer, pointer, ctypes.c_char_p, ctypes.c_size_t]
        lib.rd_kafka_destroy.argtypes = [pointer]
        lib.rd_kafka_mock_cluster_new.restype = pointer
        lib.rd_kafka_mock_cluster_new.argtypes = [pointer, integer]
        lib.rd_kafka_mock_cluster_destroy.argtypes = [pointer]
        lib.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
        lib.rd_kafka_mock_cluster_bootstraps.argtypes = [pointer]
        lib.rd_kafka_mock_topic_create.argtypes = [pointer, ctypes.c_char_p, integer, integer]
        lib.rd_kafka_mock_push_request_errors_array.argtypes = [
            pointer,
            ctypes.c_int16,
            ctypes.c_size_t,
            ctypes.POINTER(integer),
        ]
        lib.rd_kafka_mock_topic_set_error.argtypes = [pointer, ctypes.c_char_p, integer]
        lib.rd_kafka_mock_clear_request_errors.argtypes = [pointer, ctypes.c_int16]
        lib.rd_kafka_mock_broker_set_down.argtypes = [pointer, ctypes.c_int32]
        lib.rd_kafka_mock_broker_set_up.argtypes = [pointer, ctypes.c_int32]
        lib.rd_kafka_mock_broker_set_rtt.argtypes = [pointer, ctypes.c_int32, integer]
        text = ctypes.create_string_buffer(512)
        conf = lib.rd_kafka_conf_new()
        lib.rd_kafka_conf_set(conf, b"log_level", b"0", text, 512)
        self._client = lib.rd_kafka_new(0, conf, text, 512)
        self._cluster = lib.rd_kafka_mock_cluster_new(self._client, self._brokers)
        self.bootstrap: str = lib.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()
        return self

    def __exit__(self, *_: object) -> None:
        self._lib.rd_kafka_mock_cluster_destroy(self._cluster)
        self._lib.rd_kafka_destroy(self._client)

    def create_topic(self, name: str, partitions: int = 6) -> None:
        assert self._lib.rd_kafka_mock_topic_create(self._cluster, name.encode(), partitions, self._brokers) == 0

    def deny_topic(self, name: str, code: int) -> None:
        """Answer questions for the topic with this code, 0 for none; it is created if there is none."""
        self._lib.rd_kafka_mock_topic_set_error(self._cluster, name.encode(), code)

    def push_errors(self, *codes: int, api: int = PRODUCE) -> None:
        """Answer the next requests of this kind with these codes, one each."""
        array = (ctypes.c_int * len(codes))(*codes)
        self._lib.rd_kafka_mock_push_request_errors_array(self._cluster, api, len(codes), array)

    def clear_errors(self, api: int = PRODUCE) -> None:
        self._lib.rd_kafka_mock_clear_request_errors(self._cluster, api)

    def down(self) -> None:
        for broker in range(1, self._brokers + 1):
            self._lib.rd_kafka_mock_broker_set_down(self._cluster, broker)

    def up(self) -> None:
        for broker in range(1, self._brokers + 1):
            self._lib.rd_kafka_mock_broker_set_up(self._cluster, broker)

    def slow(self, milliseconds: int) -> None:
        """Let every answer take this long."""
        for broker in range(1, self._brokers + 1):
            self._lib.rd_kafka_mock_broker_set_rtt(self._cluster, broker, milliseconds)
