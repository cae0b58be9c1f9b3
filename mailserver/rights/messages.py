"""Messages between roles: one JSON object a packet, with open descriptors beside it.

Channels are Unix sockets of type SOCK_SEQPACKET: a packet arrives whole or not at all, so there is
no half-read state, and a bad one costs its sender the connection and nobody else anything. The first
octet says how the object travels: `J`, in the packet itself; `M`, in a memory file whose
descriptor comes last. Octets travel as text in latin-1 (`to_text`, `to_octets`).
unix(7), cmsg(3).
"""

from __future__ import annotations

import array
import json
import os
import socket
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

Message = Mapping[str, Any]

LARGEST_PACKET: Final = 65_536  # octets
LARGEST_MESSAGE: Final = 64 * 1024 * 1024  # octets, through a memory file
MOST_DESCRIPTORS: Final = 4
_INLINE: Final = b"J"
_IN_MEMORY_FILE: Final = b"M"
_CREDENTIALS: Final = struct.Struct("iII")


class BadMessage(Exception):
    """What arrived is no message; the connection is to be closed. The text is for the log."""


def to_text(octets: bytes) -> str:
    """Octets as text that a message can carry."""
    return octets.decode("latin-1")


def to_octets(text: str) -> bytes:
    """The inverse of `to_text`. Raises ValueError."""
    return text.encode("latin-1")


def peer_uid(connection: socket.socket) -> int:
    """Who connected, by the kernel's word. SO_PEERCRED in unix(7)."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(raw)[1])


def send(connection: socket.socket, message: Message, descriptors: Sequence[int] = ()) -> None:
    """The message is with the kernel; the descriptors stay the caller's too. Raises OSError."""
    content = json.dumps(message).encode("ascii")
    if len(content) < LARGEST_PACKET:
        _send_packet(connection, _INLINE + content, descriptors)
        return
    with open(os.memfd_create("message", os.MFD_CLOEXEC), "wb") as file:
        file.write(content)
        file.flush()
        _send_packet(connection, _IN_MEMORY_FILE, (*descriptors, file.fileno()))


def _send_packet(connection: socket.socket, packet: bytes, descriptors: Sequence[int]) -> None:
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    connection.sendmsg([packet], rights, socket.MSG_NOSIGNAL)


def receive(connection: socket.socket, large: bool = False) -> tuple[Message, list[int]] | None:
    """The next message and its descriptors (the caller's to close), or None after the other end closed.

    `large` admits messages in memory files. Raises BadMessage, OSError; no descriptor stays open then.
    """
    space = socket.CMSG_SPACE((MOST_DESCRIPTORS + 1) * array.array("i").itemsize)
    packet, ancillary, flags, _ = connection.recvmsg(LARGEST_PACKET + 1, space, socket.MSG_CMSG_CLOEXEC)
    descriptors = _descriptors(ancillary)
    try:
        if not packet:
            close_all(descriptors)
            return None
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC) or len(descriptors) > MOST_DESCRIPTORS + large:
            raise BadMessage("the packet or its descriptors are too many")
        return _decode(packet, descriptors, large), descriptors
    except BadMessage:
        close_all(descriptors)
        raise


def _descriptors(ancillary: Iterable[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(content[: len(content) - len(content) % found.itemsize])
    return found.tolist()


def _decode(packet: bytes, descriptors: list[int], large: bool) -> Message:
    content = packet[1:]
    if packet == _IN_MEMORY_FILE and large and descriptors:
        content = _memory_file(descriptors.pop())
    elif packet[:1] != _INLINE:
        raise BadMessage("the packet is of no known kind")
    try:
        message = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BadMessage("the packet holds no JSON") from error
    if not isinstance(message, dict):
        raise BadMessage("the packet holds no object")
    return message


def _memory_file(descriptor: int) -> bytes:
    with open(descriptor, "rb") as file:
        file.seek(0)
        content = file.read(LARGEST_MESSAGE + 1)
    if len(content) > LARGEST_MESSAGE:
        raise BadMessage("the message is too large")
    return content


def close_all(descriptors: Iterable[int]) -> None:
    """None of the descriptors is open any more."""
    for descriptor in descriptors:
        os.close(descriptor)
