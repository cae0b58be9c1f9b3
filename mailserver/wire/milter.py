"""The milter protocol, version 6, as libmilter speaks it: packets to milters, and their answers as values.

    length (4 octets, big-endian, of what follows) command (1 octet) data

Strings end in NUL. Header values have LF line ends, bodies CRLF. What a milter says is bounded; what it
wants changed is checked where it is carried out.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntFlag
from typing import Final

VERSION: Final = 6
LARGEST_PACKET: Final = 1 << 20  # octets, of an answer
CHUNK: Final = 65535  # octets of a body packet

# What is said to milters.
OPTNEG, MACRO, CONNECT, HELO, MAIL, RCPT = b"O", b"D", b"C", b"H", b"M", b"R"
DATA, HEADER, END_OF_HEADER, BODY, END_OF_BODY = b"T", b"L", b"N", b"B", b"E"
ABORT, QUIT, UNKNOWN = b"A", b"Q", b"U"

# What decides.
CONTINUE, ACCEPT, REJECT, TEMPFAIL, DISCARD = b"c", b"a", b"r", b"t", b"d"
REPLY_CODE, SKIP, PROGRESS, SHUTDOWN, CONNECTION_FAILED = b"y", b"s", b"p", b"4", b"f"

# What changes the message, at its end.
ADD_HEADER, INSERT_HEADER, CHANGE_HEADER, REPLACE_BODY = b"h", b"i", b"m", b"b"
ADD_RECIPIENT, ADD_RECIPIENT_WITH, DELETE_RECIPIENT, CHANGE_FROM, QUARANTINE = b"+", b"2", b"-", b"e", b"q"

STAGES: Final = ("connect", "helo", "mail", "rcpt", "data", "end_of_data", "end_of_header")  # of macro lists


class MilterError(Exception):
    """The milter does not speak the protocol. The text says what is wrong."""


class Allowed(IntFlag):
    """What a milter may change (SMFIF_*)."""

    ADD_HEADERS = 0x01
    CHANGE_BODY = 0x02
    ADD_RECIPIENTS = 0x04
    DELETE_RECIPIENTS = 0x08
    CHANGE_HEADERS = 0x10
    QUARANTINE = 0x20
    CHANGE_FROM = 0x40
    ADD_RECIPIENTS_WITH = 0x80
    SET_MACROS = 0x100


class Steps(IntFlag):
    """What a milter does not want to hear, or does not answer (SMFIP_*)."""

    NONE = 0
    NO_CONNECT = 0x01
    NO_HELO = 0x02
    NO_MAIL = 0x04
    NO_RCPT = 0x08
    NO_BODY = 0x10
    NO_HEADERS = 0x20
    NO_END_OF_HEADER = 0x40
    SILENT_HEADER = 0x80
    NO_UNKNOWN = 0x100
    NO_DATA = 0x200
    SKIP = 0x400
    REJECTED_RECIPIENTS = 0x800
    SILENT_CONNECT = 0x1000
    SILENT_HELO = 0x2000
    SILENT_MAIL = 0x4000
    SILENT_RCPT = 0x8000
    SILENT_DATA = 0x10000
    SILENT_UNKNOWN = 0x20000
    SILENT_END_OF_HEADER = 0x40000
    SILENT_BODY = 0x80000
    LEADING_SPACE = 0x100000


# What the versions before 6 knew.
_ALLOWED_IN: Final = {2: 0x3F, 3: 0x3F, 4: 0x3F, 6: 0x1FF}
_STEPS_IN: Final = {2: 0x7F, 3: 0x17F, 4: 0x37F, 6: 0x1FFFFF & ~Steps.REJECTED_RECIPIENTS}


@dataclass(frozen=True, slots=True)
class Negotiated:
    """What both sides know. `macros` are the milter's own lists, by the name of their stage."""

    version: int
    allowed: Allowed
    steps: Steps
    macros: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def packet(command: bytes, data: bytes = b"") -> bytes:
    """One packet."""
    return (len(data) + 1).to_bytes(4) + command + data


def strings(*texts: str | bytes) -> bytes:
    """Each with its NUL; a NUL within one becomes `?`."""
    octets = (text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text for text in texts)
    return b"".join(each.replace(b"\0", b"?") + b"\0" for each in octets)


def offer(version: int = VERSION) -> bytes:
    """The packet that begins a session: what we can do."""
    known = version if version in _ALLOWED_IN else VERSION
    words = (version, _ALLOWED_IN[known], int(_STEPS_IN[known]))
    return packet(OPTNEG, b"".join(word.to_bytes(4) for word in words))


def negotiated(command: bytes, data: bytes, version: int = VERSION) -> Negotiated:
    """What the milter answered to `offer`. Raises MilterError."""
    if command != OPTNEG or len(data) < 12:
        raise MilterError("it does not negotiate")
    theirs, allowed, steps = (int.from_bytes(data[at : at + 4]) for at in (0, 4, 8))
    known = version if version in _ALLOWED_IN else VERSION
    if not 2 <= theirs <= version:
        raise MilterError(f"it speaks version {theirs}, not {version}: see milter_protocol")
    if steps & ~int(_STEPS_IN[known]) or allowed & ~_ALLOWED_IN[known]:
        raise MilterError(f"it wants what version {version} does not have: see milter_protocol")
    return Negotiated(theirs, Allowed(allowed), Steps(steps), dict(_macro_lists(data[12:])))


def _macro_lists(data: bytes) -> Iterator[tuple[str, tuple[str, ...]]]:
    while len(data) > 4:
        stage = int.from_bytes(data[:4])
        text, _, data = data[4:].partition(b"\0")
        if stage < len(STAGES):
            yield STAGES[stage], tuple(text.decode("ascii", "replace").replace(",", " ").split())


def macros(command: bytes, values: Mapping[str, str]) -> bytes:
    """The packet that defines macros for the command behind it."""
    return packet(MACRO, command + strings(*(text for pair in values.items() for text in pair)))


def connect(name: str, address: str, port: int) -> bytes:
    """The packet about a client; an address that is none is of unknown family."""
    try:
        family = b"6" if ipaddress.ip_address(address).version == 6 else b"4"
    except ValueError:
        return packet(CONNECT, strings(name) + b"U")
    shown = f"IPv6:{address}" if family == b"6" else address
    return packet(CONNECT, strings(name) + family + port.to_bytes(2) + strings(shown))


class PacketReader:
    """Takes the milter's octets and gives packets."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """The octets wait to be read."""
        self._buffer += data

    def take(self) -> tuple[bytes, bytes] | None:
        """Command and data of the next packet; None where it has not arrived. Raises MilterError."""
        if len(self._buffer) < 5:
            return None
        length = int.from_bytes(self._buffer[:4])
        if not 0 < length <= LARGEST_PACKET:
            raise MilterError(f"its packet has {length} octets")
        if len(self._buffer) < 4 + length:
            return None
        whole = bytes(self._buffer[4 : 4 + length])
        del self._buffer[: 4 + length]
        return whole[:1], whole[1:]


@dataclass(frozen=True, slots=True)
class Edit:
    """One change: the command, and its texts. `index` is of INSERT_HEADER and CHANGE_HEADER."""

    command: bytes
    texts: tuple[bytes, ...] = ()
    index: int = 0


_NEEDS: Final[Mapping[bytes, tuple[int, Allowed]]] = {  # how many texts, and what must have been negotiated
    ADD_HEADER: (2, Allowed.ADD_HEADERS),
    INSERT_HEADER: (2, Allowed.ADD_HEADERS),
    CHANGE_HEADER: (2, Allowed.CHANGE_HEADERS),
    REPLACE_BODY: (0, Allowed.CHANGE_BODY),
    ADD_RECIPIENT: (1, Allowed.ADD_RECIPIENTS),
    ADD_RECIPIENT_WITH: (1, Allowed.ADD_RECIPIENTS_WITH),
    DELETE_RECIPIENT: (1, Allowed.DELETE_RECIPIENTS),
    CHANGE_FROM: (1, Allowed.CHANGE_FROM),
    QUARANTINE: (1, Allowed.QUARANTINE),
}


def edit(command: bytes, data: bytes, allowed: Allowed) -> Edit:
    """The change that a packet asks for. Raises MilterError for anything else, or what was not negotiated."""
    if command not in _NEEDS:
        raise MilterError(f"it says {command!r}")
    count, needs = _NEEDS[command]
    if not allowed & needs:
        raise MilterError(f"it did not announce {needs.name}")
    if command == REPLACE_BODY:
        return Edit(command, (data,))
    index = 0
    if command in (INSERT_HEADER, CHANGE_HEADER):
        index, data = int.from_bytes(data[:4]), data[4:]
    texts = tuple(data.removesuffix(b"\0").split(b"\0"))
    if len(texts) < count or not data.endswith(b"\0"):
        raise MilterError(f"its {needs.name} lacks a text")
    return Edit(command, texts, index)


def body_packets(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Body packets of octets that have CRLF line ends."""
    for piece in pieces:
        for start in range(0, len(piece), CHUNK):
            yield packet(BODY, piece[start : start + CHUNK])
