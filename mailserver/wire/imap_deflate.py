"""The compressed stream of COMPRESS=DEFLATE: raw DEFLATE, both ways. RFC 4978 §4.

What arrives is inflated in bounded pieces, only as fast as it is used, and not without end:
beyond a free allowance, a stream may not grow to more than `MOST_GROWTH` times its size.
A small window keeps what an idle connection holds small; any client can read it.
"""

from __future__ import annotations

import zlib
from typing import Final

PIECE: Final = 65_536  # octets inflated at once
MOST_GROWTH: Final = 100
_WINDOW: Final = 12  # 4 KiB
_MEMORY: Final = 5
_LEVEL: Final = 3


class DeflateError(ValueError):
    """The stream cannot be followed. The text is public."""


class Deflater:
    """Compresses what is said; every answer can be read to its end."""

    def __init__(self) -> None:
        self._stream = zlib.compressobj(_LEVEL, zlib.DEFLATED, -_WINDOW, _MEMORY)

    def deflate(self, data: bytes) -> bytes:
        """The octets, all of them readable at once by the other side."""
        return self._stream.compress(data) + self._stream.flush(zlib.Z_SYNC_FLUSH)


class Inflater:
    """Inflates what arrives. `allowance`: octets that may come out whatever went in."""

    def __init__(self, allowance: int) -> None:
        self._stream = zlib.decompressobj(-zlib.MAX_WBITS)
        self._compressed = bytearray()
        self._may_have_more = False
        self._room = allowance

    @property
    def pending(self) -> int:
        """Compressed octets that wait."""
        return len(self._compressed)

    def feed(self, data: bytes) -> None:
        """The octets are kept until `read` takes them."""
        self._compressed += data
        self._room += MOST_GROWTH * len(data)

    def read(self) -> bytes:
        """The next piece, b"" where nothing more can be known yet. Raises DeflateError."""
        if not self._compressed and not self._may_have_more:
            return b""
        try:
            piece = self._stream.decompress(bytes(self._compressed), PIECE)
        except zlib.error as fault:
            raise DeflateError("Compressed data is broken") from fault
        self._compressed[:] = self._stream.unconsumed_tail
        self._may_have_more = len(piece) == PIECE
        self._room -= len(piece)
        if self._room < 0:
            raise DeflateError("Compressed data grows too much")
        if self._stream.eof and not piece:
            raise DeflateError("Compressed data has ended")
        return piece
