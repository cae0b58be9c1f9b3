"""SELECT and EXAMINE, and what a client remembers of a mailbox.

RFC 3501 §6.3.1 and §6.3.2, RFC 7162 §3.2.5 (QRESYNC).
"""

from __future__ import annotations

from dataclasses import dataclass

from mailserver.wire.imap_arguments import LARGEST_MODSEQ, ArgumentReader, ImapSyntaxError
from mailserver.wire.imap_mailbox import InvalidMailboxName, read_mailbox
from mailserver.wire.imap_sequence import SequenceSet, read_known_set


@dataclass(frozen=True, slots=True)
class Resync:
    """What a client remembers of a mailbox."""

    uidvalidity: int
    modseq: int
    uids: SequenceSet | None = None
    matched_numbers: SequenceSet | None = None
    matched_uids: SequenceSet | None = None


@dataclass(frozen=True, slots=True)
class Select:
    """SELECT and EXAMINE. `name_fault` says why no mailbox can have that name.

    It is here and no syntax error because the command still deselects (RFC 3501 §6.3.1).
    """

    mailbox: str
    is_read_only: bool = False
    with_condstore: bool = False
    resync: Resync | None = None
    name_fault: str = ""


def read_select(reader: ArgumentReader, is_read_only: bool = False) -> Select:
    """Its arguments. Raises ImapSyntaxError."""
    reader.space()
    mailbox, fault = "", ""
    try:
        mailbox = read_mailbox(reader)
    except InvalidMailboxName as invalid:
        fault = str(invalid)
    resyncs: list[Resync] = []
    names: list[str] = []

    def parameter() -> None:
        names.append(reader.word())
        if names[-1] == "QRESYNC":
            resyncs.append(_resync(reader))
        elif names[-1] != "CONDSTORE":
            raise ImapSyntaxError("Unknown SELECT parameter")

    if not reader.at_end:
        reader.space()
        reader.list_of(parameter)
    return Select(mailbox, is_read_only, bool(names), resyncs[-1] if resyncs else None, fault)


def _resync(reader: ArgumentReader) -> Resync:
    reader.space()
    reader.open()
    uidvalidity = reader.number()
    reader.space()
    modseq = reader.number(LARGEST_MODSEQ)
    uids = numbers = matched = None
    if reader.skip(b" ") and reader.peek() != b"(":
        uids = read_known_set(reader)
        reader.skip(b" ")
    if reader.peek() == b"(":
        reader.open()
        numbers = read_known_set(reader)
        reader.space()
        matched = read_known_set(reader)
        reader.close()
        if numbers.size != matched.size:
            raise ImapSyntaxError("As many message numbers as UIDs expected")
    reader.close()
    return Resync(uidvalidity, modseq, uids, numbers, matched)
