"""What a record carries about itself: in Kafka its number of attempts, in the spool what the pipeline wants back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from postroom.libs.event import Headers, Record
    from postroom.services.item import Item

ATTEMPT_HEADER = "x-attempt"

TYPE_LABEL, CONTRACT_LABEL, TOPIC_LABEL, REASON_LABEL = "type", "contract", "topic", "reason"
"""Labels of a stored record: contract name, `name:version`, logical topic, and the reason of a dead letter."""


def marked(record: Record, attempt: int) -> Record:
    """Return the record as its `attempt`-th try: above 1 it says so in the header `x-attempt`."""
    headers = tuple(pair for pair in record.headers if pair[0] != ATTEMPT_HEADER)
    if attempt > 1:
        headers = (*headers, (ATTEMPT_HEADER, str(attempt).encode()))
    return msgspec.structs.replace(record, headers=headers, attempt=attempt)


def labels_of(item: Item) -> Headers:
    """Return what is stored beside the item's record."""
    lane = item.lane
    labels: Headers = () if lane is None else lane.labels
    return (*labels, (REASON_LABEL, item.dead_letter_reason.encode())) if item.dead_letter_reason else labels
