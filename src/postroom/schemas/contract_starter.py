"""The text of a new contract: a file that is right as it stands, with comments on what to change."""

from __future__ import annotations

import json
import re
from typing import Final

from postroom.libs.safe_yaml import scalar_of

_PLAIN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


def type_name(name: str) -> str:
    """A name for a record from any text: `order.placed` becomes `OrderPlaced`."""
    words = re.findall(r"[A-Za-z0-9]+", name)
    joined = "".join(word[0].upper() + word[1:] for word in words)
    return joined if joined and not joined[0].isdigit() else f"Event{joined}"


def topic_name(name: str) -> str:
    """The topic that is proposed for a contract of that name."""
    return name if name.endswith("s") else f"{name}s"


def yaml_text(text: str) -> str:
    """The text as YAML on one line, quoted only where it has to be: a name may be `true`, or `2024`."""
    return text if _PLAIN.fullmatch(text) and scalar_of(text) == text else json.dumps(text)


def starter(name: str) -> str:
    """The text of a contract file for the event type `name`, which is one that contracts may have."""
    names = {"name": name, "topic": topic_name(name), "record": type_name(name)}
    return _STARTER.format(**{key: yaml_text(text) for key, text in names.items()})


_STARTER = """\
# The contract of one type of event. `postroom contracts check FILE` says what is wrong with it, `lint` what could be
# better, `test` tries the examples, `diff OLD NEW` says what a change breaks.
name: {name}
version: 1                     # raise it with every change
description: Say in a sentence what happened when this event is sent.
owner: my-team                 # who answers for it

topic:
  name: {topic}
  partitions: 6                # as many as consumers may ever work side by side; hard to change later
  retention: 7d
dead_letter_topic:
  partitions: 1
  retention: 30d               # somebody has to find the time for them

key: id                        # events of one key keep their order; leave it out where order does not matter
compatibility: BACKWARD        # the next version can read what this one wrote: consumers are updated first

schema:
  type: record
  name: {record}
  namespace: my.organisation   # the names of types are unique under it
  doc: What one of these events stands for.
  fields:
    - {{name: id, type: string, doc: "What it is about; the same for all events of one thing."}}
    - {{name: occurred_at, type: {{type: long, logicalType: timestamp-millis}}, doc: "When it happened, in UTC."}}
    # May be left out: a union with null first, and null as its default.
    - {{name: note, type: ["null", string], default: null, doc: "A remark by who did it; null if there is none."}}
    # Few fixed values: an enum with a default of its own, so that old readers survive a new symbol.
    - name: state
      doc: How far it got.
      default: unknown
      type: {{type: enum, name: State, doc: All states., symbols: [unknown, open, done], default: unknown}}
    # Money is a decimal, a list an array:
    # - {{name: total, type: {{type: bytes, logicalType: decimal, precision: 18, scale: 2}}, doc: "In EUR."}}
    # - {{name: tags, type: {{type: array, items: string}}, default: [], doc: "Words to find it by."}}

examples:                      # good events; `postroom contracts test` tries them
  - {{id: "42", occurred_at: "2026-01-31T12:00:00Z", state: open}}
"""
