"""The content that goes to another server: as it lies in the queue, or as rules for outgoing mail leave it.

smtp_header_checks and their like come first, then smtp_generic_maps. Where only the header differs the body
is read from the queue file; where rules look at the body, a copy is made in a file without a name. What a
header has beyond its first MiB counts as body. header_checks(5), generic(5).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from mailserver.delivery.content_checks import CheckTables, ContentChecks, Findings
from mailserver.delivery.header_rewriting import HeaderRewriting
from mailserver.delivery.transport import Outgoing
from mailserver.envelope import Address

ACTIONS: Final = frozenset({"DUNNO", "OK", "PASS", "IGNORE", "INFO", "PREPEND", "REPLACE", "STRIP", "WARN"})
_LARGEST_HEADER: Final = 1 << 20  # octets of header that rules see
_PIECE: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class OutgoingRules:
    """Parameters of smtp(8): `generic` is smtp_generic_maps, and may block and raise TableError."""

    checks: CheckTables = field(default_factory=CheckTables)
    generic: Callable[[Address], Address] | None = None

    def __bool__(self) -> bool:
        """Whether they can change anything."""
        return bool(self.checks) or self.generic is not None

    def change(self, address: Address) -> Address:
        """The address as others know it."""
        return self.generic(address) if self.generic is not None else address


class OutgoingContent:
    """`octets` of content, LF line ends. `findings` are what rules found. To be closed."""

    def __init__(self, mail: Outgoing, rules: OutgoingRules) -> None:
        """*Blocking* where there are rules. Raises TableError, OSError."""
        self._mail = mail
        self._copy = -1
        self._start, self._skipped = b"", 0
        self.findings = Findings()
        if rules:
            self._apply(rules)
        self.octets = len(self._start) + self._source()[1] - self._skipped

    def _source(self) -> tuple[int, int, int]:
        """Descriptor, length and offset of what is read behind the start."""
        mail = self._mail
        if self._copy >= 0:
            return self._copy, os.fstat(self._copy).st_size, 0
        return mail.descriptor, mail.content_length, mail.content_offset

    def _apply(self, rules: OutgoingRules) -> None:
        mail = self._mail
        head = os.pread(mail.descriptor, min(_LARGEST_HEADER, mail.content_length), mail.content_offset)
        end = _header_end(head)
        header = head[:end]
        if rules.checks:
            checks = ContentChecks(rules.checks, ACTIONS)
            self.findings = checks.findings
            header = checks.header(header)
            if rules.checks.look_at_body:
                self._copy_body(checks, end, head[end : end + 1] == b"\n")
        if rules.generic is not None:
            header = HeaderRewriting(rules.generic, rules.generic)(header)
        self._start, self._skipped = header, 0 if self._copy >= 0 else end

    def _copy_body(self, checks: ContentChecks, start: int, is_blank: bool) -> None:
        """The copy has what follows the header as the rules leave it, a blank line at its start as it is."""
        mail = self._mail
        with tempfile.TemporaryFile(buffering=_PIECE) as file:
            file.write(b"\n" * is_blank)
            for offset in range(start + is_blank, mail.content_length, _PIECE):
                length = min(_PIECE, mail.content_length - offset)
                file.write(checks.body(os.pread(mail.descriptor, length, mail.content_offset + offset)))
            file.write(checks.finish())
            file.flush()
            self._copy = os.dup(file.fileno())

    def read(self, offset: int, length: int) -> bytes:
        """That part of the content. *Blocking.* Raises OSError."""
        head = self._start[offset : offset + length]
        descriptor, _, begin = self._source()
        position = begin + self._skipped + max(offset - len(self._start), 0)
        return head + os.pread(descriptor, length - len(head), position) if len(head) < length else head

    def close(self) -> None:
        """The copy is gone."""
        if self._copy >= 0:
            os.close(self._copy)
            self._copy = -1


def _header_end(head: bytes) -> int:
    """Where the header at a message's start ends: before its blank line, or with the last line."""
    if head.startswith(b"\n"):
        return 0
    blank = head.find(b"\n\n")
    return (blank if blank >= 0 else head.rfind(b"\n")) + 1
