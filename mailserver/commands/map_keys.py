"""What `postmap -q -` asks for: lines, or with -h, -b and -m what header_checks and body_checks are asked."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from mailserver.delivery.content_checks import CheckTables, ContentChecks
from mailserver.tables.table import Entry, Table

_FIELD: Final = re.compile(r"[!-9;-~]+[ \t]*:")
_WHOLE: Final = 1 << 40  # octets of a body that are looked at


def message_keys(text: str, headers: bool, bodies: bool, follows_mime: bool) -> Iterator[str]:
    """The header fields of a message (LF line ends) and the lines of its body, in their order.

    With MIME, the fields of parts and of messages within count among header fields.
    """
    fields, body = _split(text.split("\n")[: -1 if text.endswith("\n") else None])
    if follows_mime:
        yield from _mime_keys(fields, body, headers, bodies)
        return
    yield from fields if headers else ()
    yield from body if bodies else ()


def _split(lines: Sequence[str]) -> tuple[list[str], list[str]]:
    """The header fields, folded lines joined by line breaks, and the rest with the empty line before it."""
    fields: list[str] = []
    for number, line in enumerate(lines):
        if not line:
            return fields, list(lines[number:])
        if line[0] in " \t" and fields:
            fields[-1] += "\n" + line
        elif _FIELD.match(line):
            fields.append(line)
        else:
            return fields, ["", *lines[number:]]
    return fields, []


class _Asked:
    """A table that has nothing, and knows what it was asked for."""

    name = "asked"
    whole_key = True

    def __init__(self) -> None:
        self.keys: list[str] = []

    def find(self, key: str) -> Entry | None:
        """See `Table.find`."""
        self.keys.append(key)
        return None

    def entries(self) -> Iterator[tuple[str, Entry]]:
        """See `Table.entries`."""
        return iter(())


def _mime_keys(fields: Sequence[str], body: Iterable[str], headers: bool, bodies: bool) -> Iterator[str]:
    asked = _Asked()
    none: Sequence[Table] = ()
    heads, lines = (asked,) if headers else none, (asked,) if bodies else none
    checks = ContentChecks(
        CheckTables(
            header_checks=heads,
            mime_header_checks=heads,
            nested_header_checks=heads,
            body_checks=lines,
            body_checks_size_limit=_WHOLE,
        )
    )
    checks.header(_octets(fields))
    checks.finish(_octets(body))
    return iter(asked.keys)


def _octets(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")
