"""The MIME structure of a message: a tree of parts as spans of the original octets.

One scan finds it, in time linear in the message for any input: candidate lines (those that
begin with `--`) are compared with the boundaries that are open, innermost and longest first
(RFC 2046 §5.1.2). What is malformed becomes the nearest thing that is not (RFC 7103 §7):
a part without an end ends with its parent, a multipart without a boundary has no parts.
Beyond DEEPEST levels or MOST_PARTS parts nothing is looked into.

All offsets count octets of the content, from 0. Content has CRLF line ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from mailserver.message import parameters as mime_parameters
from mailserver.message.header import header_end, scan, verbatim
from mailserver.message.parameters import Parameters

DEEPEST: Final = 100
MOST_PARTS: Final = 10_000
LONGEST_BOUNDARY: Final = 200  # octets; RFC 2046 §5.1.1 allows 70


class Span(NamedTuple):
    """Octets `start` up to, not including, `end`."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Disposition:
    """Content-Disposition. RFC 2183."""

    kind: bytes
    parameters: Parameters = ()


@dataclass(frozen=True, slots=True)
class Description:
    """What the header of a part says about it. Words keep their spelling; None: no such field."""

    type: bytes = b"text"
    subtype: bytes = b"plain"
    parameters: Parameters = ()
    identifier: bytes | None = None
    description: bytes | None = None
    encoding: bytes = b"7bit"
    md5: bytes | None = None
    disposition: Disposition | None = None
    language: tuple[bytes, ...] = ()
    location: bytes | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """A part, or the message itself.

    `header` includes the blank line. `body` of a multipart includes preamble and epilogue;
    the line end before a boundary belongs to the boundary. `lines` counts the line ends in the
    body. `children` are the parts of a multipart, or the one message inside a message/rfc822.
    """

    said: Description
    header: Span
    body: Span
    lines: int
    children: tuple[Part, ...] = ()

    @property
    def is_multipart(self) -> bool:
        """Whether the type is multipart, with or without parts in it."""
        return self.said.type.lower() == b"multipart"

    @property
    def is_message(self) -> bool:
        """Whether the part is a message/rfc822 that was looked into."""
        return bool(self.children) and not self.is_multipart

    def walk(self) -> Iterator[Part]:
        """This part and all below it, in the order of the message."""
        waiting = [self]
        while waiting:
            part = waiting.pop()
            yield part
            waiting.extend(reversed(part.children))


_PLAIN: Final = Description()
_IN_DIGEST: Final = Description(type=b"message", subtype=b"rfc822")


def describe(header: bytes, default: Description = _PLAIN) -> Description:
    """What the Content- fields of a header say. Of a repeated Content-Type the first counts."""
    said: dict[bytes, bytes] = {}
    for name, body in scan(header):
        if name[:8].lower() == b"content-":
            key = name[8:].rstrip().lower()
            if key != b"type" or key not in said:
                said[key] = verbatim(body)
    if not said:
        return default
    kind, subtype, parameters = default.type, default.subtype, default.parameters
    if b"type" in said:
        kind, subtype, parameters = content_type(said[b"type"])
    return Description(
        type=kind,
        subtype=subtype,
        parameters=parameters,
        identifier=said.get(b"id"),
        description=said.get(b"description"),
        encoding=mime_parameters.word(said.get(b"transfer-encoding", b"")) or b"7bit",
        md5=said.get(b"md5"),
        disposition=_disposition(said.get(b"disposition")),
        language=mime_parameters.words(said.get(b"language", b"")),
        location=said.get(b"location"),
    )


def content_type(value: bytes) -> tuple[bytes, bytes, Parameters]:
    """Type, subtype and parameters of an unfolded Content-Type.

    One that does not parse means text/plain, RFC 2045 §5.2; `text` alone means text/plain too,
    and another type alone is application/octet-stream.
    """
    value = mime_parameters.without_comments(value)
    kind, _, rest = value.partition(b";")[0].partition(b"/")
    major, minor = mime_parameters.word(kind), mime_parameters.word(rest)
    if not major or (not minor and major.lower() == b"text"):
        return b"text", b"plain", mime_parameters.parameters(value)
    if not minor:
        return b"application", b"octet-stream", mime_parameters.parameters(value)
    return major, minor, mime_parameters.parameters(value)


def _disposition(value: bytes | None) -> Disposition | None:
    kind = mime_parameters.word(value) if value else b""
    if not value or not kind:
        return None
    return Disposition(kind, mime_parameters.parameters(value))


@dataclass(slots=True)
class _Open:
    """A part whose end is not yet found."""

    said: Description
    start: int
    body: int
    is_digest: bool = False
    boundary: bytes = b""  # with the leading dashes; empty where none is open
    children: list[Part] = field(default_factory=list)

    def closed(self, content: bytes, end: int) -> Part:
        """The part, given where its body ends."""
        end = max(end, self.body)
        lines = content.count(b"\n", self.body, end)
        return Part(self.said, Span(self.start, self.body), Span(self.body, end), lines, tuple(self.children))


class _Scanner:
    """The one pass over a message. `stack` holds the open parts, the message itself first."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.stack: list[_Open] = []
        self.boundaries: tuple[bytes, ...] = ()
        self.parts = 0
        self.position = 0
        self._blank = -1
        self._candidate = -1

    def tree(self) -> Part:
        """The whole message."""
        content = self.content
        self.open(0, _PLAIN)
        while (line := self.next_boundary(len(content))) >= 0:
            self.cross(line)
        while True:
            part = self.stack.pop().closed(content, len(content))
            if not self.stack:
                return part
            self.stack[-1].children.append(part)

    def open(self, start: int, default: Description) -> None:
        """A part begins; it is on the stack, and so is what it begins with in turn."""
        self.position = max(start - 2, 0)
        body = self.header_end(start)
        said = describe(self.content[start:body], default)
        part = _Open(said, start, body)
        self.stack.append(part)
        self.parts += 1
        self.position = max(body - 2, start - 2, 0)
        if len(self.stack) > DEEPEST or self.parts >= MOST_PARTS:
            return
        kind = said.type.lower()
        if kind == b"multipart":
            part.is_digest = said.subtype.lower() == b"digest"
            boundary = mime_parameters.find(said.parameters, b"boundary")
            if boundary:
                part.boundary = b"--" + boundary[:LONGEST_BOUNDARY]
                self.list_boundaries()
        elif kind == b"message" and said.subtype.lower() == b"rfc822":
            self.open(body, _PLAIN)

    def header_end(self, start: int) -> int:
        """Where the body begins: after the blank line, or at a boundary that comes before it."""
        if self.content.startswith(b"\r\n", start):
            end = start + 2
        else:
            if self._blank < start + 4:
                self._blank = header_end(self.content, start)
            end = self._blank
        line = self.next_boundary(end)
        return end if line < 0 else line

    def next_boundary(self, limit: int) -> int:
        """Offset of the next line before `limit` that begins with an open boundary, or -1.

        Every candidate line is looked at once, whatever is asked.
        """
        content, boundaries = self.content, self.boundaries
        if not boundaries:
            return -1
        while True:
            if self._candidate < self.position:
                found = content.find(b"\r\n--", self.position)
                self._candidate = len(content) if found < 0 else found
            line = self._candidate + 2
            if line >= limit:
                return -1
            if content.startswith(boundaries, line):
                return line
            self.position = self._candidate + 1

    def cross(self, line: int) -> None:
        """Parts end at a boundary line, and another begins after it unless it is a closing one."""
        content = self.content
        boundary = next(boundary for boundary in self.boundaries if content.startswith(boundary, line))
        while self.stack[-1].boundary != boundary:
            part = self.stack.pop().closed(content, line - 2)
            self.stack[-1].children.append(part)
        parent = self.stack[-1]
        if content.startswith(b"--", line + len(boundary)):
            parent.boundary = b""
            self.list_boundaries()
            self.position = line
            return
        self.list_boundaries()
        start = content.find(b"\r\n", line) + 2
        if start < 2 or self.parts >= MOST_PARTS:
            self.position = line
            return
        self.open(start, _IN_DIGEST if parent.is_digest else _PLAIN)

    def list_boundaries(self) -> None:
        """The boundaries of open parts, longest first; of equal ones only the innermost is ever found."""
        open_boundaries = {part.boundary for part in self.stack if part.boundary}
        self.boundaries = tuple(sorted(open_boundaries, key=len, reverse=True))


def parse(content: bytes) -> Part:
    """The tree of a whole message. Never fails; linear in the length of `content`."""
    return _Scanner(content).tree()
