"""Makes docs/images/live-view.svg again, from a real run: `.venv/bin/python docs/make_live_view.py`.

Ten thousand events at 1,000/s, 2 % of them broken, to the embedded broker: what `make demo` does. The picture is the
live view of `postroom run` as it was after six seconds.
"""

from __future__ import annotations

import io
import re
import threading
from pathlib import Path

from rich.console import Console

from postroom.cli.run_view import picture
from postroom.libs.config_loader import load_config
from postroom.services.producer_main import Run, RunOptions

IMAGE = Path(__file__).parent / "images" / "live-view.svg"
AFTER_S = 6.0


def main() -> None:
    """Run, draw, write."""
    overrides = {"broker": "embedded", "rate_limit.events_per_second": 1000, "rate_limit.burst": 100}
    settings = load_config(overrides=overrides, environ={})
    console = Console(record=True, width=100, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    with Run(settings, RunOptions(count=10_000, invalid_ratio=0.02, seed=7)) as job:
        where = f"embedded broker at {job.service.parts.config.broker}"
        feeding = threading.Thread(target=job.feed)
        feeding.start()
        feeding.join(AFTER_S)
        now = job.summary()
        console.print(picture(now, now.events_per_s, job, where))
        feeding.join()
        job.finish()
    svg = console.export_svg(title="postroom run --count 10000 --rate 1000 --invalid-ratio 0.02", unique_id="live")
    # Without the web fonts that rich asks for: the picture loads nothing from anywhere.
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    IMAGE.parent.mkdir(exist_ok=True)
    IMAGE.write_text("\n".join(line.rstrip() for line in svg.splitlines()) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
