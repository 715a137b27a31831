"""Name servers that do not answer: the client library's threads wait for them, and nobody waits for those threads."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from tests.kafka.programs import PREAMBLE, Desk, Process

if TYPE_CHECKING:
    from pathlib import Path

# A lookup of the program takes so long; what is done without waiting for it has half of that.
LOOKUP_S = 30

PROGRAM = """
def beat():
    while True:
        beats.append(time.monotonic())
        time.sleep(0.01)

beats = []
threading.Thread(target=beat, daemon=True).start()
service = ProducerService(config)
began = time.monotonic()
receipts = publish(service, "one", 100)
until(lambda: kinds(receipts) == {"Spooled": 100})
spooled_in = time.monotonic() - began
began = time.monotonic()
service.close()
closed_in = time.monotonic() - began
say(spooled_in=spooled_in, closed_in=closed_in, longest_pause=max(b - a for a, b in zip(beats, beats[1:])))
"""


def _may_mount() -> bool:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not _may_mount(), reason="another /etc/resolv.conf needs root")
@pytest.mark.parametrize("write_ahead", ["off", "fsync"])
def test_name_servers_that_do_not_answer_stop_nobody(tmp_path: Path, write_ahead: str) -> None:
    """Rows 2 and 27: events are spooled, no thread of the process stands still, and closing ends."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind((f"127.{os.getpid() % 250 + 1}.{os.urandom(1)[0]}.53", 53))
        (tmp_path / "resolv.conf").write_text(
            f"nameserver {silent.getsockname()[0]}\noptions timeout:{LOOKUP_S} attempts:1\n"
        )
        desk = Desk(tmp_path / "desk", "kafka.example.com:9092", spool__write_ahead=write_ahead)
        (tmp_path / "program.py").write_text(PREAMBLE + textwrap.dedent(PROGRAM))
        mounted = 'mount --bind resolv.conf /etc/resolv.conf && exec "$0" program.py'
        with Process(
            ["unshare", "-m", "sh", "-c", mounted, sys.executable],
            folder=tmp_path,
            environment={"POSTROOM_CONFIG": str(desk.settings_file()), "PYTHONDONTWRITEBYTECODE": "1"},
        ) as process:
            process.ends()
            [told] = process.rest()
        silent.setblocking(False)
        assert b"kafka" in silent.recv(512), "nobody asked the name server"
    assert max(told.values()) < LOOKUP_S / 2, told
    assert desk.waiting() == {"one": 100}
