"""What texts in the settings must look like: addresses, names of topics, the registry's place.

Each function gives the text in its normal form or raises FormatError. Error texts never hold the text itself:
it may be an address with a password in it.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")
_SUFFIX = re.compile(r"[A-Za-z0-9._-]{1,100}")
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}|\[?[0-9A-Fa-f:.]{2,45}\]?")
_HOST_PORT = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253}):([0-9]{1,5})")


class FormatError(ValueError):
    """A text has the wrong form. `what` continues the sentence "key ..."; `remedy` says what to write."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what}. {remedy}")
        self.what = what
        self.remedy = remedy


def broker_list(text: str) -> str:
    """`host:port`, several of them joined by commas, or the word `embedded`."""
    if text.strip() == "embedded":
        return "embedded"
    if "@" in text:
        raise FormatError(
            "holds credentials (an @ in an address)",
            "write host:port, and the credentials as producer.security.sasl_username and sasl_password",
        )
    if "://" in text:
        remedy = "write host:port, and set producer.security.protocol"
        raise FormatError("begins with a protocol", remedy)
    parts = [part.strip() for part in text.split(",")]
    if "embedded" in parts:
        raise FormatError("mixes embedded with addresses", "write either embedded or host:port")
    for part in parts:
        match = _HOST_PORT.fullmatch(part)
        if match is None or not 1 <= int(match[2]) <= 65_535:
            what = "is empty" if not part else "is not host:port with a port from 1 to 65535"
            raise FormatError(what, "write host:port (several: host1:9092,host2:9092) or embedded")
    return ",".join(parts)


def topic_name(text: str) -> str:
    """A name that Kafka takes for a topic (letters, digits, `.`, `_`, `-`; at most 249), none of Kafka's own."""
    if not _NAME.fullmatch(text) or text in {".", ".."}:
        raise FormatError(
            "holds a name that no topic can have",
            "use 1 to 249 letters, digits, dots, underscores and hyphens",
        )
    if text.startswith("__"):
        raise FormatError("names a topic of Kafka itself (two underscores in front)", "choose another name")
    return text


def topic_suffix(text: str) -> str:
    """What is put behind a topic's name."""
    if not _SUFFIX.fullmatch(text):
        remedy = "use 1 to 100 letters, digits, dots, underscores and hyphens, such as .dlq"
        raise FormatError("cannot end the name of a topic", remedy)
    return text


def contract_name(text: str) -> str:
    """The name of a contract, which is also an event type."""
    if not _NAME.fullmatch(text):
        remedy = "use letters, digits, dots, underscores and hyphens, such as user_event"
        raise FormatError("is no name of a contract", remedy)
    return text


def host_name(text: str) -> str:
    """A host name or an IP address, without a port."""
    if not _HOST.fullmatch(text):
        raise FormatError("is no host name or address", "write a host without a port, such as 127.0.0.1")
    return text


def registry_url(text: str) -> str:
    """An http(s) address without credentials, a folder, or the word `embedded`. A trailing slash is dropped."""
    if not text.strip() or not text.isprintable():
        raise FormatError("is empty or holds control characters", "write an http(s) URL, a folder or embedded")
    if "://" in text:
        return _http_url(text)
    if re.match(r"[^/]*@[^/]*:?[0-9]*", text) or re.match(r"(https?:|[A-Za-z0-9._-]+:[0-9]+(/|$))", text):
        remedy = "write http://host:port; credentials go to schema_registry.username and password"
        raise FormatError("looks like an address without http:// or https:// in front", remedy)
    return text


def _http_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        port_is_fine = parts.port is None or parts.port > 0
    except ValueError:
        parts, port_is_fine = urlsplit("http:"), False
    if "@" in text.partition("://")[2].partition("/")[0]:
        remedy = "remove them from the URL and set schema_registry.username and schema_registry.password"
        raise FormatError("holds credentials", remedy)
    if parts.scheme not in {"http", "https"} and port_is_fine:
        raise FormatError("is neither http nor https", "write an http(s) URL, a folder or embedded")
    if not port_is_fine or not parts.hostname or parts.query or parts.fragment or " " in text:
        raise FormatError("is no URL of a registry", "write http(s)://host[:port][/path] without ? and #")
    return text.rstrip("/")
