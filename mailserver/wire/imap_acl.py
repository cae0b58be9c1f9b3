"""SETACL, DELETEACL, GETACL, LISTRIGHTS and MYRIGHTS. RFC 4314 §7.

Identifiers and rights come out as text; which there are is `store.acl`'s business.
"""

from __future__ import annotations

from dataclasses import dataclass

from mailserver.wire.imap_arguments import ArgumentReader, ImapSyntaxError
from mailserver.wire.imap_mailbox import read_mailbox

LONGEST_IDENTIFIER = 255


@dataclass(frozen=True, slots=True)
class AboutIdentifier:
    """DELETEACL and LISTRIGHTS. `identifier` is as the client wrote it."""

    mailbox: str
    identifier: str


@dataclass(frozen=True, slots=True)
class SetAcl:
    """SETACL. `sign` is "+", "-" or "" (replace); `rights` are letters, unchecked."""

    mailbox: str
    identifier: str
    sign: str
    rights: str


def read_about_identifier(reader: ArgumentReader) -> AboutIdentifier:
    """The arguments of DELETEACL and LISTRIGHTS."""
    reader.space()
    mailbox = read_mailbox(reader)
    reader.space()
    return AboutIdentifier(mailbox, _text(reader))


def read_set_acl(reader: ArgumentReader) -> SetAcl:
    """The arguments of SETACL."""
    about = read_about_identifier(reader)
    reader.space()
    rights = _text(reader)
    sign = rights[:1] if rights[:1] in ("+", "-") else ""
    return SetAcl(about.mailbox, about.identifier, sign, rights[len(sign) :])


def _text(reader: ArgumentReader) -> str:
    try:
        text = reader.astring().decode("utf-8")
    except UnicodeDecodeError:
        raise ImapSyntaxError("Identifier is not UTF-8")
    if len(text) > LONGEST_IDENTIFIER:
        raise ImapSyntaxError("Identifier is too long")
    return text
