"""What two session hosts say to each other: a JSON object and octets beside it, over a stream socket.

A frame is eight octets, the lengths of what follows (big-endian): of the object, and of all octets
together. The object's "lengths" cuts the octets into pieces. Neither side trusts the other: lengths are
bounded, and whatever is not as it should be is a BadFrame, after which the connection is of no more use.
"""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

Header = Mapping[str, Any]

LARGEST_HEADER: Final = 4 * 1024 * 1024  # octets
LARGEST_PAYLOAD: Final = 128 * 1024 * 1024
MOST_PIECES: Final = 100_000
_LENGTHS: Final = struct.Struct(">II")
_PIECE: Final = 1024 * 1024  # octets read at once
_FRAME_SECONDS: Final = 120.0  # for a frame to arrive, once it has begun
_QUIET_SECONDS: Final = 60.0  # for the other side to take what is sent, and between pieces of a frame


class BadFrame(Exception):
    """The other side does not keep to the form. The text is for the log."""


def prepare(connection: socket.socket) -> None:
    """No frame keeps either side waiting for ever."""
    connection.settimeout(_QUIET_SECONDS)


def send_frame(connection: socket.socket, header: Header, pieces: Sequence[bytes] = ()) -> None:
    """The frame is with the kernel. Raises OSError, BadFrame where it is too large for the other side."""
    content = json.dumps({**header, "lengths": [*map(len, pieces)]}).encode("ascii")
    payload = sum(map(len, pieces))
    if len(content) > LARGEST_HEADER or payload > LARGEST_PAYLOAD or len(pieces) > MOST_PIECES:
        raise BadFrame("too much for one frame")
    connection.sendall(b"".join((_LENGTHS.pack(len(content), payload), content, *pieces)))


def _admit_all(octets: int) -> None:
    """Any number of octets is taken."""


def receive_frame(
    connection: socket.socket, admit: Callable[[int], None] = _admit_all
) -> tuple[Header, Sequence[bytes]] | None:
    """The next frame and its pieces; None where the other side has closed. Raises OSError, BadFrame.

    `admit` is called before so many octets are read; it may wait, and raise.
    """
    first = _first(connection)
    if not first:
        return None
    deadline = time.monotonic() + _FRAME_SECONDS
    lengths = first + _exactly(connection, _LENGTHS.size - len(first), deadline)
    header_octets, payload_octets = _LENGTHS.unpack(lengths)
    if header_octets > LARGEST_HEADER or payload_octets > LARGEST_PAYLOAD:
        raise BadFrame("the frame is too large")
    try:
        header = json.loads(_exactly(connection, header_octets, deadline))
    except (ValueError, RecursionError) as error:
        raise BadFrame("the frame holds no JSON") from error
    admit(payload_octets)
    payload = _exactly(connection, payload_octets, deadline + _FRAME_SECONDS)
    if not isinstance(header, dict):
        raise BadFrame("the frame holds no object")
    return header, _cut(payload, header.get("lengths"))


def _first(connection: socket.socket) -> bytes:
    while True:
        try:
            return connection.recv(_LENGTHS.size)
        except TimeoutError:
            continue  # the other side has nothing to say


def _exactly(connection: socket.socket, octets: int, deadline: float) -> bytes:
    found = bytearray()
    while len(found) < octets:
        if time.monotonic() > deadline:
            raise BadFrame("the frame does not come to its end")
        piece = connection.recv(min(octets - len(found), _PIECE))
        if not piece:
            raise BadFrame("the connection ended within a frame")
        found += piece
    return bytes(found)


def _cut(payload: bytes, lengths: object) -> Sequence[bytes]:
    if not isinstance(lengths, list) or len(lengths) > MOST_PIECES:
        raise BadFrame("the frame does not say how its octets are cut")
    pieces, position = [], 0
    for length in lengths:
        if type(length) is not int or length < 0:
            raise BadFrame("a piece of no length")
        pieces.append(payload[position : position + length])
        position += length
    if position != len(payload):
        raise BadFrame("the pieces are not the whole")
    return pieces
