"""`python -m postroom` and the command `postroom`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from postroom.cli import app, border

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (that of the process when None) and give its exit code; never a traceback for our errors."""
    words = sys.argv[1:] if arguments is None else arguments
    return border.run(lambda: app.main(words), words)


if __name__ == "__main__":
    sys.exit(main())
