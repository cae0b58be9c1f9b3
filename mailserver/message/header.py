"""Header fields of a message as raw bytes, in order, found in one linear scan.

A header is a run of fields up to the first blank line. Nothing is decoded and nothing is
rebuilt: what HEADER and HEADER.FIELDS answer are the message's own octets, duplicates,
spelling and folding kept (RFC 3501 §6.4.5). A line without a colon is a field without a
value, as in RFC 7103 §7.1.2's second choice and in Dovecot; it ends no header.

Content has CRLF line ends. A bare LF, which the store never gives, is taken for a line end.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final, NamedTuple

LARGEST_HEADER: Final = 10 * 1024 * 1024  # octets of one header that are looked at

_FIELD: Final = re.compile(rb"([^:\n]*)((?:[^\n]*+\n?)(?>(?:[ \t][^\n]*+\n?)*))")
_FOLD: Final = re.compile(rb"\r?\n(?=[ \t])")


class Field(NamedTuple):
    """One header field. `name` is as spelt, `body` runs from the colon to the last line end."""

    name: bytes
    body: bytes

    @property
    def raw(self) -> bytes:
        """The octets of the field, line end included."""
        return self.name + self.body

    @property
    def value(self) -> bytes:
        """The unfolded value without white space at its ends."""
        return unfold(self.body)


def header_end(content: bytes, start: int = 0) -> int:
    """Offset of the first octet after the header that begins at `start`, its blank line included.

    The end of `content` where there is no blank line.
    """
    if content.startswith(b"\r\n", start):
        return start + 2
    blank = content.find(b"\r\n\r\n", start)
    return len(content) if blank < 0 else blank + 4


def scan(header: bytes) -> list[tuple[bytes, bytes]]:
    """Name and body of each field of a header, as raw pairs: `Field` without its price.

    The blank line gives no pair. Only the first LARGEST_HEADER octets are looked at.
    """
    pairs = _FIELD.findall(header[:LARGEST_HEADER])
    while pairs and not (pairs[-1][0].strip() or pairs[-1][1].strip()):
        pairs.pop()
    return pairs


def fields(header: bytes) -> list[Field]:
    """The fields of a header in order."""
    return [Field(*pair) for pair in scan(header)]


def unfold(body: bytes) -> bytes:
    """A field's value on one line: the colon, line ends and outer white space are gone. RFC 5322 §2.2.3."""
    return verbatim(body).strip()


def verbatim(body: bytes) -> bytes:
    """A field's value on one line, all white space kept but the blanks right behind the colon."""
    value = (
        (body[1:] if body.startswith(b":") else body).lstrip(b" \t").removesuffix(b"\n").removesuffix(b"\r")
    )
    if b"\n" in value or b"\r" in value:
        value = _FOLD.sub(b"", value).replace(b"\n", b" ").replace(b"\r", b" ")
    return value


def values(header: bytes, name: bytes) -> list[bytes]:
    """The unfolded values of all fields of that name, in order; `name` in lower case."""
    return [unfold(body) for spelt, body in scan(header) if spelt.strip().lower() == name]


def first(header: bytes, name: bytes) -> bytes | None:
    """The unfolded value of the first field of that name, or None; `name` in lower case."""
    found = values(header, name)
    return found[0] if found else None


def selected(header: bytes, names: Collection[bytes], exclude: bool = False) -> bytes:
    """What HEADER.FIELDS answers, or HEADER.FIELDS.NOT with `exclude`; `names` in lower case.

    The fields are those of the message, octet for octet, in its order; the blank line follows,
    except in a message that has none. RFC 3501 §6.4.5.
    """
    wanted = frozenset(names)
    chosen = [name + body for name, body in scan(header) if (name.rstrip().lower() in wanted) != exclude]
    if header.endswith(b"\r\n\r\n") or header == b"\r\n":
        chosen.append(b"\r\n")
    return b"".join(chosen)
