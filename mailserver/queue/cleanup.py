"""What is done to content between the wire and the queue file, as it streams through.

Content comes in pieces with LF line ends (from `wire.lines`) and goes out the same way, to
`IncomingMessage.write`. Our Received: field goes first, fields named in message_drop_headers
are left out, missing ones are added for local clients. A message without a blank line behind
its header, or whose header is broken off by something else, gets one there: nothing that we
prepend can be continued by the sender's first line.

Limits: `hopcount_limit` Received: fields including ours, `message_size_limit` octets including
our fields. Of a field longer than `header_size_limit` the excess is left out, as in Postfix: whole lines
of it, or of its first line what is too much; the log says so. The first MEMORY_LIMIT octets of a header
are examined; what follows passes as it is, so memory is bounded. After a refusal the rest is swallowed.
No I/O, no clock.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from mailserver.delivery.content_checks import CheckTables, ContentChecks, Findings, Rejected
from mailserver.tables.table import TableError

MEMORY_LIMIT: Final = 1 << 20  # octets of header
DROPPED_FIELDS: Final = frozenset({b"bcc", b"content-length", b"resent-bcc", b"return-path"})

_FIELD: Final = re.compile(rb"([!-9;-~]++)[ \t]*+:[^\n]*+\n(?>(?:[ \t][^\n]*+\n)*)")
_HEADER: Final = re.compile(rb"(?>(?:[!-9;-~]++[ \t]*+:[^\n]*+\n(?>(?:[ \t][^\n]*+\n)*))*)")
_LONGEST_NAME: Final = 60  # characters of a field that the log shows
_HOP: Final = re.compile(rb"^received[ \t]*+:", re.IGNORECASE | re.MULTILINE)
_MESSAGE_ID: Final = re.compile(rb"^message-id[ \t]*+:[ \t\n]*+([^\n]*+)", re.IGNORECASE | re.MULTILINE)
_MBOX_LINE: Final = re.compile(rb">*From ")


class ContentRefused(Exception):
    """The message cannot be taken: the reply to the end of its content."""

    def __init__(self, code: int, dsn: str, text: str) -> None:
        super().__init__(f"{code} {dsn} {text}")
        self.code = code
        self.dsn = dsn
        self.text = text


@dataclass(frozen=True, slots=True)
class CleanupRules:
    """Parameters of `Cleanup`, each under its main.cf name but for `drop` (message_drop_headers).

    `drop` holds names in lower case. Limits of 0 mean none. `checks` are header_checks and their like;
    `rewrite` changes headers of local mail, `rewrite_remote` those of other mail; they may raise TableError.
    """

    drop: frozenset[bytes] = DROPPED_FIELDS
    hopcount_limit: int = 50
    message_size_limit: int = 10_240_000
    header_size_limit: int = 102_400
    checks: CheckTables = field(default_factory=CheckTables)
    rewrite: Callable[[bytes], bytes] | None = None
    rewrite_remote: Callable[[bytes], bytes] | None = None


class Cleanup:
    """Turns one message's content into what the queue file holds.

    `received` is our Received: field, with its line end; `is_local` says that the client is one of our
    own, whose header is rewritten. `missing` are fields to add where the
    header lacks them: name to value, in order, as for local clients (always_add_missing_headers);
    in a resent message their Resent- forms are added. After `finish`, `message_id` holds
    the Message-Id's value, "" where there is none; `findings` what `checks` want done, and logged.
    """

    def __init__(
        self,
        rules: CleanupRules,
        received: bytes = b"",
        missing: Mapping[str, str] | None = None,
        is_local: bool = False,
    ) -> None:
        self._rules = rules
        self._received = received
        self._missing = missing or {}
        self._has_cut = False
        self._rewrite = rules.rewrite if is_local else rules.rewrite_remote
        self._header = bytearray()
        self._in_header = True
        self._octets = 0
        self._ends_in_newline = True
        self._refusal: ContentRefused | None = None
        self._checks = ContentChecks(rules.checks) if rules.checks else None
        self.findings = self._checks.findings if self._checks is not None else Findings()
        self.message_id = ""

    def feed(self, data: bytes) -> bytes:
        """The content that is certain by now. b"" after a refusal, which `finish` raises."""
        if self._in_header:
            seen = len(self._header)
            self._header += data
            if not self._header_is_whole(max(seen - 1, 0)):
                return b""
            data = self._leave_header(self._is_cut())
        elif self._checks is not None:
            data = self._judged(self._checks.body, data)
        if data:
            self._ends_in_newline = data.endswith(b"\n")
        return self._counted(data)

    def finish(self) -> bytes:
        """The rest of the content, which now ends in a line end. Raises ContentRefused."""
        rest = b""
        if self._in_header:
            if self._header and not self._header.endswith(b"\n"):
                self._header += b"\n"
            rest = self._leave_header(False)
        if self._checks is not None:
            rest += self._judged(self._checks.finish, b"")
        if rest:
            self._ends_in_newline = rest.endswith(b"\n")
        if not self._ends_in_newline:
            rest += b"\n"
        rest = self._counted(rest)
        if self._refusal is not None:
            raise self._refusal
        return rest

    def _judged(self, check: Callable[[bytes], bytes], data: bytes) -> bytes:
        """The content as a check leaves it; a rejection, or a table that fails, is noted."""
        if self._refusal is not None:
            return b""
        try:
            return check(data)
        except Rejected as rejected:
            code = 550 if rejected.dsn.startswith("5") else 450
            self._refusal = ContentRefused(code, rejected.dsn, rejected.text)
        except TableError as error:
            self._refusal = ContentRefused(451, "4.3.0", "Error: temporary lookup failure")
            self.findings.notes.append(("warning", "header_checks", str(error), ""))
        return b""

    def _counted(self, data: bytes) -> bytes:
        self._octets += len(data)
        limit = self._rules.message_size_limit
        if limit and self._octets > limit and self._refusal is None:
            self._refusal = ContentRefused(552, "5.3.4", "Error: message file too big")
        return b"" if self._refusal is not None else data

    def _header_is_whole(self, start: int) -> bool:
        """Whether a blank line, or the limit, is among what was fed; `start` is where to look on."""
        header = self._header
        return header.startswith(b"\n") or header.find(b"\n\n", start) >= 0 or len(header) >= MEMORY_LIMIT

    def _shortened(self, header: bytes) -> bytes:
        """Fields longer than header_size_limit have lost their excess."""
        limit = self._rules.header_size_limit
        if not limit or len(header) <= limit:
            return header
        return _FIELD.sub(lambda found: self._cut(found[0], limit), header)

    def _cut(self, field: bytes, limit: int) -> bytes:
        if len(field) <= limit:
            return field
        if not self._has_cut:
            self._has_cut = True
            name = field[:_LONGEST_NAME].decode("utf-8", "replace").partition("\n")[0]
            text = f"longer than header_size_limit = {limit}: the excess is left out"
            self.findings.notes.append(("warning", "header", f"{name}...", text))
        end = field.rfind(b"\n", 0, limit) + 1
        return field[:end] if end else field[:limit] + b"\n"

    def _is_cut(self) -> bool:
        """Whether the limit came before the header's end."""
        return not self._header.startswith(b"\n") and b"\n\n" not in self._header

    def _leave_header(self, is_cut: bool) -> bytes:
        """The examined header with what was buffered behind it.

        Where it `is_cut`, the lines behind the last whole one pass as they are.
        """
        self._in_header = False
        buffered, mbox_line = _without_mbox_line(bytes(self._header))
        self._header.clear()
        found = _HEADER.match(buffered)
        end = found.end() if found else 0
        header, rest = self._shortened(buffered[:end]), buffered[end:]
        if not (is_cut and end and b"\n" not in rest) and not rest.startswith(b"\n"):
            rest = b"\n" + rest
        if self._checks is None:
            return b"".join((self._received, mbox_line, self._examined(header), rest))
        whole = b"".join((self._received, mbox_line, header))
        examined = self._judged(self._checks.header, whole)
        return self._examined(examined, len(_HOP.findall(whole))) + self._judged(self._checks_behind, rest)

    def _checks_behind(self, rest: bytes) -> bytes:
        """The body's first piece, behind the blank line that ends the header."""
        assert self._checks is not None
        blank = rest[:1] if rest.startswith(b"\n") else b""
        return blank + self._checks.body(rest[len(blank) :])

    def _examined(self, header: bytes, hops: int = -1) -> bytes:
        """The header with fields dropped and added; a refusal is noted. `hops` -1: not counted yet."""
        names = [name.lower() for name in _FIELD.findall(header)]
        if hops < 0:
            hops = names.count(b"received") + bool(self._received)
        if self._rules.hopcount_limit and hops >= self._rules.hopcount_limit:
            self._refusal = ContentRefused(554, "5.4.0", "Error: too many hops")
        if not self._rules.drop.isdisjoint(names):
            header = b"".join(
                field[0] for field in _FIELD.finditer(header) if field[1].lower() not in self._rules.drop
            )
        if self._missing:
            header += self._added(frozenset(names) - self._rules.drop)
        if self._rewrite is not None:
            header = self._judged(self._rewrite, header)
        message_id = _MESSAGE_ID.search(header)
        if message_id is not None:
            self.message_id = message_id[1].strip().decode("utf-8", "replace")
        return header

    def _added(self, names: frozenset[bytes]) -> bytes:
        """The fields that are missing among those of these names."""
        prefix = "Resent-" if any(name.startswith(b"resent-") for name in names) else ""
        return b"".join(
            f"{prefix}{name}: {value}\n".encode("utf-8", "surrogateescape")
            for name, value in self._missing.items()
            if f"{prefix}{name}".lower().encode() not in names
        )


def _without_mbox_line(header: bytes) -> tuple[bytes, bytes]:
    """A `From ` line that begins the content becomes a field of its own, as Postfix keeps it."""
    if not _MBOX_LINE.match(header):
        return header, b""
    line, _, rest = header.partition(b"\n")
    return rest, b"X-Mailbox-Line: %s\n" % line
