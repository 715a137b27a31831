"""Which lane is meant: by what a caller says, and by what a record in a topic says."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from postroom.services.lane import Lane


def by_all_names(lanes: Mapping[str, Lane]) -> dict[str, Lane]:
    """Return the lanes by the names that a caller may use: the contract's, and that of a topic that only it has.

    A topic has the name that contracts use and the one on the cluster. A contract's name wins over a topic's.
    """
    named: dict[str, Lane] = {}
    for topic, there in _by_topic(lanes.values()).items():
        if len(there) == 1:
            named[topic] = there[0]
    return {**named, **lanes}


def unknown_type(lanes: Mapping[str, Lane], name: str | None) -> str:
    """Return what to tell a caller for whose event there is no lane; the name itself is not shown."""
    there = _by_topic(lanes.values()).get(name or "", ())
    if there:
        return f"that topic holds several types, name one: {', '.join(sorted(lane.name for lane in there))}"
    return f"known contracts: {', '.join(sorted(lanes)) or 'none'}"


def lane_of_record(lanes: Iterable[Lane], topic: str, headers: Iterable[tuple[str, bytes | None]]) -> Lane | None:
    """Return the lane whose record it is; in a topic of several types its `ce_type` says it. None for a foreign one."""
    there = [lane for lane in lanes if lane.topic == topic]
    if len(there) < 2:
        return there[0] if there else None
    event_type = dict(headers).get("ce_type")
    return next((lane for lane in there if lane.name.encode() == event_type), None)


def _by_topic(lanes: Iterable[Lane]) -> dict[str, list[Lane]]:
    found: dict[str, list[Lane]] = {}
    for lane in lanes:
        for topic in {lane.contract.topic, lane.topic}:
            found.setdefault(topic, []).append(lane)
    return found
