"""A signal's exception at a chosen place of a call, for tests that try every one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType


def interrupted_at(number: int, files: tuple[str, ...], call: Callable[[], object]) -> bool:
    """Call it, and raise KeyboardInterrupt at the given place of these files; False if it has fewer.

    `files` are endings of their names. Places are where CPython looks for signals: at the beginning of a function of
    Python, behind one of C.
    """
    left = [number]

    def profile(frame: FrameType, what: str, _: object) -> None:
        if what in {"call", "c_return"} and frame.f_code.co_filename.endswith(files):
            left[0] -= 1
            if not left[0]:
                raise KeyboardInterrupt

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.setprofile(before)
    return False
