"""What is written in a queue file: the grammar, on bytes. No file is touched here.

    mailqueue 1 <content octets, 15 digits> <content CRC-32> <CRC-32 of this line so far>\n
    <content, LF line ends>
    <CRC-32> ["envelope", 1, {...}]\n
    <CRC-32> ["expanded", ...]\n
    ...

The header has a fixed width, so that the content begins at a known place and streams to disk
before anything else about the message is known. While a message is coming in the header holds
zeros. The envelope follows the content: it may change until the last moment (recipients from
header fields, header_checks), and being the last thing written it is also the end mark. The
records after it are the journal, appended as delivery goes on; the last one may be torn by a
crash and then counts as not written. A bad record that good ones follow is damage.

Text is JSON in ASCII, so lone surrogates (octets that are not UTF-8) survive the round trip.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from zlib import crc32

from mailserver.envelope import Address, Client, Envelope, Recipient

HEADER_SIZE: Final = 46
INCOMPLETE_HEADER: Final = b"mailqueue 1 000000000000000 00000000 00000000\n"
_HEADER: Final = re.compile(rb"(mailqueue 1 (\d{15}) ([0-9a-f]{8}) )([0-9a-f]{8})\n")

Record = Sequence[Any]
_to_json: Final = json.JSONEncoder(separators=(",", ":")).encode


class Damaged(Exception):
    """The queue file is not what was written. The text says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The envelope record: everything known about a message when it was accepted.

    `arrival` is wall-clock seconds. `origin` is "" for mail from outside, else "bounce",
    "double-bounce", "delay" or "forward" for messages that the queue made itself.
    """

    envelope: Envelope
    arrival: float
    origin: str = ""


def encode_header(length: int, checksum: int) -> bytes:
    """The header line of a complete file, HEADER_SIZE octets."""
    start = b"mailqueue 1 %015d %08x " % (length, checksum)
    return b"%s%08x\n" % (start, crc32(start))


def decode_header(data: bytes) -> tuple[int, int]:
    """Content length and checksum. Raises Damaged."""
    match = _HEADER.fullmatch(data)
    if match is None or crc32(match[1]) != int(match[4], 16):
        raise Damaged("its header line is damaged")
    return int(match[2]), int(match[3], 16)


def encode_record(record: Record) -> bytes:
    """One line, its checksum first."""
    text = _to_json(record).encode("ascii")
    return b"%08x %s\n" % (crc32(text), text)


def _decode_record(line: bytes) -> Record | None:
    try:
        if line[8:9] != b" " or int(line[:8], 16) != crc32(line[9:]):
            return None
        value = json.loads(line[9:])
    except ValueError:
        return None
    return value if isinstance(value, list) and value else None


def decode_records(data: bytes) -> tuple[list[Record], int]:
    """The records, and how many octets of `data` they fill: what follows is a torn record.

    Raises Damaged where a bad record is followed by more than its own line.
    """
    records: list[Record] = []
    position = 0
    while position < len(data):
        end = data.find(b"\n", position)
        record = _decode_record(data[position:end]) if end >= 0 else None
        if record is None:
            if end >= 0 and end + 1 < len(data):
                raise Damaged(f"the record at octet {position} of its journal is damaged")
            break
        records.append(record)
        position = end + 1
    return records, position


def _encode_recipient(recipient: Recipient) -> list[Any]:
    address = recipient.address
    return [address.local, address.domain, recipient.original, sorted(recipient.notify), recipient.orcpt]


def _decode_recipient(value: Sequence[Any]) -> Recipient:
    local, domain, original, notify, orcpt = value
    return Recipient(Address(local, domain), original, frozenset(notify), orcpt)


_CLIENT_FIELDS: Final = ("name", "address", "helo", "protocol", "login", "sasl_method", "tls", "uid")


def accepted_record(accepted: Accepted) -> Record:
    """The envelope record of a message."""
    envelope = accepted.envelope
    sender = envelope.sender
    seldom = {"filter": envelope.content_filter, "trace": envelope.trace}
    return [
        "envelope",
        1,
        {
            "sender": None if sender is None else [sender.local, sender.domain],
            "recipients": [_encode_recipient(recipient) for recipient in envelope.recipients],
            "client": [getattr(envelope.client, name) for name in _CLIENT_FIELDS],
            "body": envelope.body,
            "smtputf8": envelope.smtputf8,
            "ret": envelope.ret,
            "envid": envelope.envid,
            "arrival": accepted.arrival,
            "origin": accepted.origin,
            **{name: text for name, text in seldom.items() if text},
        },
    ]


def read_accepted(record: Record) -> Accepted:
    """The inverse of `accepted_record`. Raises Damaged."""
    try:
        kind, version, value = record
        if kind != "envelope" or version != 1:
            raise Damaged(f"its envelope has the unknown version {version!r}")
        sender = value["sender"]
        envelope = Envelope(
            sender=None if sender is None else Address(*sender),
            recipients=tuple(_decode_recipient(each) for each in value["recipients"]),
            client=Client(**dict(zip(_CLIENT_FIELDS, value["client"], strict=True))),
            body=value["body"],
            smtputf8=value["smtputf8"],
            ret=value["ret"],
            envid=value["envid"],
            content_filter=value.get("filter", ""),
            trace=value.get("trace", ""),
        )
        return Accepted(envelope, value["arrival"], value["origin"])
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise Damaged(f"its envelope cannot be read: {error}") from error
