"""What FETCH and its relatives take from a message's content, as wire octets.

Two kinds: *facts* are rendered once per message and remembered by the store (ENVELOPE,
BODYSTRUCTURE, header blocks); *sections* are cut from the content each time. Everything here
runs in threads and touches no session.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple

from mailserver.message.header import first, header_end, selected
from mailserver.message.imap_envelope import ENVELOPE_KIND, render_envelope
from mailserver.message.mime import Part, parse
from mailserver.message.preview import preview
from mailserver.message.section import UnknownEncoding, binary, section_bytes
from mailserver.message.sort_keys import message_ids, references
from mailserver.message.structure import BODY_KIND, BODYSTRUCTURE_KIND, render_body, render_bodystructure
from mailserver.store.contract import Uid
from mailserver.wire.imap_fetch import Attribute, Item, Section
from mailserver.wire.imap_responses import literal, string

Make = Callable[[bytes], bytes]


class Fact(NamedTuple):
    """What the store remembers of a message; see `Mailbox.facts` for each."""

    kind: str
    make: Make
    of_header: bool = False


LONGEST_KIND: Final = 400  # octets of a list of header fields that is remembered
_ATTRIBUTES: Final = {
    "ENVELOPE": Fact(ENVELOPE_KIND, render_envelope, of_header=True),
    "BODYSTRUCTURE": Fact(BODYSTRUCTURE_KIND, render_bodystructure),
    "BODY": Fact(BODY_KIND, render_body),
}


class CannotDecode(Exception):
    """BINARY of a part with an unknown Content-Transfer-Encoding. RFC 3516 §4.3."""


def _email_id(content: bytes) -> bytes:
    return b"E" + hashlib.sha256(content).hexdigest()[:40].encode("ascii")


def _thread_id(content: bytes) -> bytes:
    """The same for all messages of a thread: by the oldest reference, or what the message itself is.

    It depends on the message alone, so it never changes and is the same in all mailboxes. A reply that
    names only its parent is a thread of its own where the parent is a reply too. RFC 8474 §5.2.
    """
    header = content[: header_end(content)]
    older = references(first(header, b"references") or b"", first(header, b"in-reply-to") or b"")
    root = (*older, *message_ids(first(header, b"message-id") or b""), content)[0]
    return b"T" + hashlib.sha256(root).hexdigest()[:40].encode("ascii")


def _preview(content: bytes) -> bytes:
    return string(preview(content).encode("utf-8"))


def _header(content: bytes) -> bytes:
    return literal(without_nul(content[: header_end(content)]))


def _fields(names: frozenset[bytes], content: bytes) -> bytes:
    return literal(without_nul(selected(content[: header_end(content)], names)))


def without_nul(octets: bytes) -> bytes:
    """The octets with 0x80 for NUL, which no literal may hold; as many as before. RFC 3501 §4.3.1."""
    return octets.replace(b"\0", b"\x80") if b"\0" in octets else octets


def fact(item: Item) -> Fact | None:
    """How the store remembers the item, None for what is cut from the content each time."""
    if isinstance(item, Attribute):
        if item.name == "EMAILID":
            return Fact("emailid.1", _email_id)
        if item.name == "THREADID":
            return Fact("threadid.1", _thread_id)
        if item.name == "PREVIEW":
            return Fact("preview.1", _preview)
        return _ATTRIBUTES.get(item.name)
    if item.part or item.partial or item.kind.startswith("BINARY"):
        return None
    if item.text == "HEADER":
        return Fact("header.1", _header, of_header=True)
    if item.text == "HEADER.FIELDS":
        names = frozenset(name.lower() for name in item.fields)
        kind = b"fields.1 " + b" ".join(sorted(names))
        if len(kind) <= LONGEST_KIND:
            return Fact(kind.decode("latin-1"), partial(_fields, names), of_header=True)
    return None


def cut_all(contents: Mapping[Uid, bytes], sections: Sequence[Section]) -> dict[Item, dict[Uid, bytes]]:
    """Each section of each message as it follows its label: a literal, or for BINARY.SIZE a number.

    A section that the message does not have is an empty string, not NIL, as Dovecot says it:
    clients that take a part's header before they know its type choke on NIL.
    """
    trees: dict[Uid, Part] = {}
    if any(section.part or section.kind.startswith("BINARY") for section in sections):
        trees = {uid: parse(content) for uid, content in contents.items()}
    return {
        section: {uid: _rendered(content, section, trees.get(uid)) for uid, content in contents.items()}
        if section.part or section.text or section.partial or section.kind.startswith("BINARY")
        else {uid: literal(without_nul(content)) for uid, content in contents.items()}  # whole messages
        for section in sections
    }


def _rendered(content: bytes, section: Section, tree: Part | None) -> bytes:
    octets = _octets(content, section, tree) or b""
    if section.kind == "BINARY.SIZE":
        return b"%d" % len(octets)
    if section.partial is not None:
        origin, count = section.partial
        octets = octets[origin : origin + count]
    if section.kind == "BINARY" and b"\0" in octets:
        return b"~" + literal(octets)
    return literal(without_nul(octets))


def octets_of(content: bytes, section: Section) -> bytes | None:
    """The octets of one section, None where the message has no such section."""
    return _octets(content, section, parse(content) if section.part else None)


def _octets(content: bytes, section: Section, tree: Part | None) -> bytes | None:
    if tree is None:
        return _whole_message_section(content, section)
    if section.kind.startswith("BINARY") and not section.text:
        try:
            return binary(content, tree, section.part)
        except UnknownEncoding as fault:
            raise CannotDecode from fault
    names = frozenset(name.lower() for name in section.fields)
    return section_bytes(content, tree, section.part, section.text, names)


def _whole_message_section(content: bytes, section: Section) -> bytes:
    """A section of the message itself needs no tree."""
    if not section.text:
        return content
    end = header_end(content)
    if section.text == "TEXT":
        return content[end:]
    if section.text == "HEADER":
        return content[:end]
    names = frozenset(name.lower() for name in section.fields)
    return selected(content[:end], names, exclude=section.text.endswith("NOT"))
