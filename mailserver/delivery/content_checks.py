"""header_checks, mime_header_checks, nested_header_checks and body_checks: looking at mail as it comes in,
and, with fewer actions, as it goes out.

Tables are asked for whole header fields, line ends within them kept, and for lines of the body; the
first word of what they find is the action. header_checks(5). Content streams through: a header field is
held until it ends, of the body at most one line, so memory is bounded, and so is time: fields and lines
are asked about with LONGEST_KEY octets at most, and body_checks for the first `body_checks_size_limit`
octets of each part.

MIME parts are followed by their boundaries, as far as mime_nesting_limit; encoded messages in messages
are not decoded. A table that cannot be read, or an action that this program cannot carry out, is a
temporary refusal of the message: mail that was to be filtered is never let through.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from mailserver.delivery.routing import find_first
from mailserver.envelope import Address
from mailserver.message import mime
from mailserver.message import parameters as mime_parameters
from mailserver.tables.table import Entry, Table, TableError
from mailserver.wire.address import AddressError, parse_lenient

LONGEST_KEY: Final = 4096  # octets of a field or line that tables are asked about
LONGEST_HELD: Final = 1 << 16  # octets of a line or field that wait for their end
FIELD: Final = re.compile(rb"([!-9;-~]++)[ \t]*+:[^\n]*+\n(?>(?:[ \t][^\n]*+\n)*)")
_MARK: Final = re.compile(rb"^--[^\n]*\n", re.MULTILINE)
_STATUS: Final = re.compile(r"([45]\.\d{1,3}\.\d{1,3})[ \t]+(.+)", re.DOTALL)
_REJECTION: Final = "message content rejected"
_LONGEST_SHOWN: Final = 200  # characters of content in the log
_MIME_NAMES: Final = (b"content-", b"mime-version")


class Rejected(Exception):
    """A rule rejects the message, with that enhanced status and text."""

    def __init__(self, dsn: str, text: str) -> None:
        super().__init__(text)
        self.dsn = dsn
        self.text = text


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckTables:
    """The tables of the parameters, each under its name there, and their limits."""

    header_checks: Sequence[Table] = ()
    mime_header_checks: Sequence[Table] = ()
    nested_header_checks: Sequence[Table] = ()
    body_checks: Sequence[Table] = ()
    body_checks_size_limit: int = 51_200
    mime_nesting_limit: int = 100

    def __bool__(self) -> bool:
        """Whether there is anything to look at."""
        return bool(self.header_checks) or self.look_at_body

    @property
    def look_at_body(self) -> bool:
        """Whether anything behind the header is looked at."""
        return bool(self.body_checks or self.mime_header_checks or self.nested_header_checks)


@dataclass(slots=True)
class Findings:
    """What the message is to undergo. `notes` are for the log: action, kind of content, content, text."""

    hold: bool = False
    discard: bool = False
    redirect: Address | None = None
    content_filter: str = ""
    bcc: list[Address] = field(default_factory=list)
    notes: list[tuple[str, str, str, str]] = field(default_factory=list)


class ContentChecks:
    """The checks of one message: `header` first, then `body` for each piece, then `finish`.

    Each gives the content as the rules leave it, and raises Rejected or TableError. Of actions that are not
    among `actions` there is a note "unsupported", and nothing else.
    """

    def __init__(self, tables: CheckTables, actions: frozenset[str] | None = None) -> None:
        self._tables = tables
        self._actions = actions
        self._held = b""
        self._boundaries: list[bytes] = []
        self._part_header: bytearray | None = None  # of a part whose header has begun
        self._is_nested = False  # that header is a message's within the message
        self._budget = self._full_budget()
        self.findings = Findings()

    def _full_budget(self) -> int:
        """How much of a part body_checks look at."""
        return self._tables.body_checks_size_limit if self._tables.body_checks else 0

    # ------------------------------------------------------------ headers

    def header(self, header: bytes) -> bytes:
        """The message's header: whole fields, without the blank line."""
        checked = self._fields(header, self._tables.header_checks, "header")
        self._enter_part(header)
        return checked

    def _fields(self, header: bytes, tables: Sequence[Table], word: str) -> bytes:
        """Each field by `tables`, those about MIME by mime_header_checks."""
        mime_tables = self._tables.mime_header_checks
        if not tables and not mime_tables:
            return header
        return b"".join(
            self._checked(mime_tables if found[1].lower().startswith(_MIME_NAMES) else tables, word, found[0])
            for found in FIELD.finditer(header)
        )

    def _enter_part(self, header: bytes) -> None:
        """What follows this header: a body, parts between boundaries, or a message's header."""
        self._part_header, self._is_nested = None, False
        self._budget = self._full_budget()
        if not self._tables.look_at_body:
            return
        said = mime.describe(header)
        kind = said.type.lower()
        boundary = mime_parameters.find(said.parameters, b"boundary")
        if kind == b"multipart" and boundary and len(self._boundaries) < self._tables.mime_nesting_limit:
            self._boundaries.append(boundary)
        elif (kind, said.subtype.lower()) == (b"message", b"rfc822"):
            self._part_header, self._is_nested = bytearray(), True

    # ------------------------------------------------------------ bodies

    def body(self, data: bytes) -> bytes:
        """The next piece behind the header; a line that has not ended is kept back."""
        if self._is_idle():
            return data
        data = self._held + data
        end = data.rfind(b"\n") + 1
        if len(data) - end > LONGEST_HELD:
            end = len(data)
        whole, self._held = data[:end], data[end:]
        return b"".join(self._lines(whole))

    def finish(self, data: bytes = b"") -> bytes:
        """The last piece, and what was kept back."""
        rest = self.body(data)
        held, self._held = self._held, b""
        rest += b"".join(self._lines(held))
        if self._part_header is not None:
            rest += self._end_of_header(b"")
        return rest

    def _is_idle(self) -> bool:
        """Whether nothing is left to look for, now or later."""
        return not (self._held or self._boundaries or self._budget > 0 or self._part_header is not None)

    def _lines(self, whole: bytes) -> Iterator[bytes]:
        position = 0
        while position < len(whole):
            if self._part_header is None and self._budget <= 0:
                position, mark = self._next_mark(whole, position)
                yield mark
                continue
            end = whole.find(b"\n", position) + 1 or len(whole)
            line = whole[position:end]
            position = end
            yield self._header_line(line) if self._part_header is not None else self._body_line(line)

    def _next_mark(self, whole: bytes, start: int) -> tuple[int, bytes]:
        """As much of the body as needs no look, up to the end of the next boundary line."""
        found = _MARK.search(whole, start) if self._boundaries else None
        end = len(whole) if found is None else found.end()
        if found is not None:
            self._cross(found[0])
        return end, whole[start:end]

    def _body_line(self, line: bytes) -> bytes:
        self._budget -= len(line)
        if line.startswith(b"--"):
            self._cross(line)
        return self._checked(self._tables.body_checks, "body", line)

    def _cross(self, line: bytes) -> bool:
        """Whether the line is a boundary: then the part within it is over. RFC 2046 §5.1.1."""
        text = line.rstrip()[2:]
        for depth in range(len(self._boundaries) - 1, -1, -1):
            if text in (self._boundaries[depth], self._boundaries[depth] + b"--"):
                is_last = text != self._boundaries[depth]
                del self._boundaries[depth + (not is_last) :]
                self._part_header = None if is_last else bytearray()
                self._is_nested = False
                return True
        return False

    def _header_line(self, line: bytes) -> bytes:
        header = self._part_header
        assert header is not None
        is_field = FIELD.match(line if line.endswith(b"\n") else line + b"\n") is not None
        if line != b"\n" and (is_field or (header and line[:1] in b" \t")) and len(header) < LONGEST_HELD:
            header += line
            return b""
        if line.startswith(b"--") and self._cross(line):
            return self._checked_part(bytes(header)) + line
        return self._end_of_header(line)

    def _end_of_header(self, line: bytes) -> bytes:
        """The part's header as the rules leave it, and the line that ended it."""
        header = bytes(self._part_header or b"")
        checked = self._checked_part(header)
        self._enter_part(header)
        return checked + line

    def _checked_part(self, header: bytes) -> bytes:
        if self._is_nested:
            return self._fields(header, self._tables.nested_header_checks, "nested header")
        return self._fields(header, self._tables.mime_header_checks, "mime header")

    # ------------------------------------------------------------ actions

    def _checked(self, tables: Sequence[Table], word: str, content: bytes) -> bytes:
        if not tables:
            return content
        key = content[:LONGEST_KEY].rstrip(b"\n").decode("utf-8", "replace")
        entry = find_first(tables, key)
        return content if entry is None else self._carried_out(entry, word, key, content)

    def _carried_out(self, entry: Entry, word: str, key: str, content: bytes) -> bytes:
        action, _, text = entry.value.strip().partition(" ")
        action, text = action.upper(), text.strip()
        if self._actions is not None and action not in self._actions:
            self._note("unsupported", word, key, entry.value.strip())
            return content
        match action:
            case "DUNNO" | "OK" | "PASS":
                return content
            case "IGNORE":
                return b""
            case "REJECT":
                status = _STATUS.fullmatch(text)
                dsn, text = (status[1], status[2]) if status else ("5.7.1", text or _REJECTION)
                self._note("reject", word, key, f"{dsn} {text}")
                raise Rejected(dsn, text)
            case "WARN" | "INFO" | "STRIP":
                self._note({"WARN": "warning"}.get(action, action.lower()), word, key, text)
                return b"" if action == "STRIP" else content
            case "PREPEND" | "REPLACE":
                return self._added(action, entry, word, key, text, content)
            case "HOLD":
                self.findings.hold = True
            case "DISCARD":
                self.findings.discard = True
            case "FILTER":
                if ":" not in text:
                    raise TableError(f"{entry.source}: FILTER {text!r}: write FILTER transport:destination")
                self.findings.content_filter = text
            case "REDIRECT":
                self.findings.redirect = _address(entry, text)
            case "BCC":
                self.findings.bcc.append(_address(entry, text))
            case _:
                raise TableError(f"{entry.source}: {word} action {action} is not supported: remove it")
        self._note(action.lower(), word, key, text)
        return content

    def _added(self, action: str, entry: Entry, word: str, key: str, text: str, content: bytes) -> bytes:
        line = f"{text}\n".encode("utf-8", "surrogateescape")
        if not text or (word != "body" and not FIELD.fullmatch(line)):
            raise TableError(f"{entry.source}: {action} {text!r} is no header field: write `Name: value`")
        self._note(action.lower(), word, key, text)
        return line if action == "REPLACE" else line + content

    def _note(self, action: str, word: str, key: str, text: str) -> None:
        self.findings.notes.append((action, word, key[:_LONGEST_SHOWN], text))


def _address(entry: Entry, text: str) -> Address:
    try:
        return parse_lenient(text)
    except AddressError as error:
        raise TableError(f"{entry.source}: {text!r} is no address: {error}") from error
