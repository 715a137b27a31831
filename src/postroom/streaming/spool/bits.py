"""One bit for each frame of a segment: memory that millions of records do not strain."""

from __future__ import annotations


class Bits:
    """A set of small numbers. The caller holds a lock."""

    __slots__ = ("_bytes",)

    def __init__(self) -> None:
        self._bytes = bytearray()

    def __contains__(self, index: int) -> bool:
        return index >> 3 < len(self._bytes) and bool(self._bytes[index >> 3] >> (index & 7) & 1)

    def __bool__(self) -> bool:
        """True when any number was ever added."""
        return bool(self._bytes)

    def add(self, index: int) -> None:
        """Add a number that is not negative."""
        missing = (index >> 3) + 1 - len(self._bytes)
        if missing > 0:  # doubling: one after the other must not copy the whole each time
            self._bytes.extend(bytes(max(missing, len(self._bytes))))
        self._bytes[index >> 3] |= 1 << (index & 7)

    def packed(self) -> tuple[int, bytes]:
        """Return the low-water mark (so many numbers from 0 on are in) and the bitmap of what is in after it."""
        number = int.from_bytes(self._bytes, "little")
        low = (~number & (number + 1)).bit_length() - 1
        rest = number >> low
        return low, rest.to_bytes((rest.bit_length() + 7) // 8, "little")

    def load(self, low: int, bitmap: bytes) -> None:
        """Take over what `packed` returned."""
        number = int.from_bytes(bitmap, "little") << low | (1 << low) - 1
        self._bytes = bytearray(number.to_bytes((number.bit_length() + 7) // 8, "little"))

    def end(self) -> int:
        """Return the number after the highest; 0 when there is none."""
        return int.from_bytes(self._bytes, "little").bit_length()
