"""`python -m tests.chaos`: see `driver`."""

import sys

from tests.chaos.driver import main

sys.exit(main())
