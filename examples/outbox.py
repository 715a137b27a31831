"""The outbox: the event is a row of the same transaction, and a relay hands it in until it is safe."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import sqlite3

    from postroom import ProducerService

TABLES = """
CREATE TABLE IF NOT EXISTS plays (id TEXT PRIMARY KEY, user_id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS outbox (
    number INTEGER PRIMARY KEY AUTOINCREMENT, event_id TEXT NOT NULL, type TEXT NOT NULL, event TEXT NOT NULL
);
"""


def start_play(db: sqlite3.Connection, user_id: str, now_ms: int) -> None:
    """Write the row and the event that tells of it: both, or none of the two."""
    event: dict[str, Any] = {"user_id": user_id, "timestamp": now_ms, "action": "start"}
    with db:
        db.execute("INSERT INTO plays VALUES (?, ?)", (str(uuid.uuid4()), user_id))
        db.execute(
            "INSERT INTO outbox (event_id, type, event) VALUES (?, ?, ?)",
            (str(uuid.uuid4()), "user_event", json.dumps(event)),
        )


def relay(db: sqlite3.Connection, post: ProducerService, batch: int = 1000) -> int:
    """Hand in the oldest rows, delete those that are safe, return how many; call it again and again, in one process.

    It stops at the first event that is not safe; what stands behind it is handed in again the next time, under the
    same ids, and so is everything between publishing and deleting when the relay dies there.
    """
    rows = db.execute("SELECT number, event_id, type, event FROM outbox ORDER BY number LIMIT ?", (batch,)).fetchall()
    receipts = [
        (number, post.publish_event(event, event_type=event_type, event_id=event_id))
        for number, event_id, event_type, event in rows
    ]
    done = 0
    for number, receipt in receipts:
        receipt.result()
        if not receipt.safe:
            break
        with db:
            db.execute("DELETE FROM outbox WHERE number = ?", (number,))
        done += 1
    return done
