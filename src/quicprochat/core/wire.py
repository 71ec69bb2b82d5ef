"""Reading bytes that came from outside: exact lengths, one error type, nothing allocated on a stranger's word."""

from __future__ import annotations

from quicprochat.core.errors import LocalError, WireError


def utf8(text: str, what: str) -> bytes:
    """Return the bytes of a text of our own. Raises: LocalError for half a character, which a shell makes of bytes."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise LocalError(f"{what} has bytes in it that are not UTF-8; write it anew") from None


class Reader:
    """A cursor over received bytes; every read checks that the bytes are there.

    Raises: WireError, and nothing else, on any input.
    """

    __slots__ = ("_data", "_pos", "_what")

    def __init__(self, data: bytes, what: str) -> None:
        self._data = data
        self._pos = 0
        self._what = what

    def take(self, count: int) -> bytes:
        """Return the next ``count`` bytes."""
        end = self._pos + count
        if end > len(self._data):
            raise WireError(f"{self._what} is cut short: {end} bytes needed, {len(self._data)} there")
        piece = self._data[self._pos : end]
        self._pos = end
        return piece

    def uint(self, width: int) -> int:
        """Return the next big-endian unsigned integer of ``width`` bytes."""
        return int.from_bytes(self.take(width), "big")

    def sized(self, width: int, limit: int) -> bytes:
        """Return bytes preceded by their length in ``width`` bytes; more than ``limit`` is refused before reading."""
        length = self.uint(width)
        if length > limit:
            raise WireError(f"{self._what} has a field of {length} bytes where {limit} are allowed")
        return self.take(length)

    def text(self, width: int, limit: int) -> str:
        """Return UTF-8 text preceded by its length in bytes."""
        raw = self.sized(width, limit)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise WireError(f"{self._what} has text that is not UTF-8") from None

    def rest(self) -> bytes:
        """Return all that is left."""
        return self.take(len(self._data) - self._pos)

    def end(self) -> None:
        """Demand that nothing is left; trailing bytes are an error, so that one value has one encoding."""
        if self._pos != len(self._data):
            raise WireError(f"{self._what} has {len(self._data) - self._pos} bytes after its end")
