"""What FETCH asks for: data items, body sections, partial ranges, macros.

RFC 3501 §6.4.5, RFC 7162 §3.1 (MODSEQ, CHANGEDSINCE), RFC 3516 (BINARY), RFC 8474 (OBJECTID),
RFC 8514 (SAVEDATE), RFC 9394 (PARTIAL).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mailserver.wire.imap_arguments import LARGEST_MODSEQ, ArgumentReader, ImapSyntaxError
from mailserver.wire.imap_results import PartialRange, read_partial_range
from mailserver.wire.imap_sequence import SequenceSet, read_sequence_set

DEEPEST_PART: Final = 100
MOST_ITEMS: Final = 200
_SIMPLE: Final = frozenset(
    {"FLAGS", "UID", "INTERNALDATE", "RFC822.SIZE", "ENVELOPE", "BODYSTRUCTURE", "BODY", "MODSEQ",
     "EMAILID", "THREADID", "PREVIEW", "SAVEDATE"}
)  # fmt: skip
_MACROS: Final = {
    "ALL": ("FLAGS", "INTERNALDATE", "RFC822.SIZE", "ENVELOPE"),
    "FAST": ("FLAGS", "INTERNALDATE", "RFC822.SIZE"),
    "FULL": ("FLAGS", "INTERNALDATE", "RFC822.SIZE", "ENVELOPE", "BODY"),
}


@dataclass(frozen=True, slots=True)
class Attribute:
    """An item without arguments: FLAGS, UID, ENVELOPE, BODY (the short BODYSTRUCTURE), …"""

    name: str
    is_lazy: bool = False  # PREVIEW (LAZY): only where it is known. RFC 8970 §4.1


@dataclass(frozen=True, slots=True)
class Section:
    """BODY[…], its BINARY[…] and RFC822… relatives.

    BINARY[HEADER] and the like, which RFC 3516 does not have and Dovecot does, are not decoded.
    `part` counts from 1 (RFC 3501 §6.4.5); `text` is "", HEADER, HEADER.FIELDS,
    HEADER.FIELDS.NOT, TEXT or MIME; `fields` as the client spelt them. `partial` is origin
    and octets. `kind` is BODY, BINARY, BINARY.SIZE, or RFC822, RFC822.HEADER, RFC822.TEXT.
    """

    kind: str = "BODY"
    part: tuple[int, ...] = ()
    text: str = ""
    fields: tuple[bytes, ...] = ()
    partial: tuple[int, int] | None = None
    is_peek: bool = False

    @property
    def label(self) -> bytes:
        """The item's name in the response, without the partial range's count."""
        if self.kind.startswith("RFC822"):
            return self.kind.encode("ascii")
        name = ".".join([*map(str, self.part), *([self.text] if self.text else [])])
        fields = b" (" + b" ".join(map(_field, self.fields)) + b")" if self.fields else b""
        origin = b"<%d>" % self.partial[0] if self.partial else b""
        return self.kind.encode("ascii") + b"[" + name.encode("ascii") + fields + b"]" + origin


def _field(name: bytes) -> bytes:
    if any(octet in b' (){}%*"\\[]' for octet in name):
        return b'"' + name.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'
    return name


Item = Attribute | Section


@dataclass(frozen=True, slots=True)
class Fetch:
    """FETCH and UID FETCH. `changed_since` and `with_vanished` are RFC 7162's."""

    messages: SequenceSet
    items: tuple[Item, ...]
    by_uid: bool = False
    changed_since: int | None = None
    with_vanished: bool = False
    partial: PartialRange | None = None  # RFC 9394 §3.3

    @property
    def uses_modseq(self) -> bool:
        """Whether the command enables CONDSTORE. RFC 7162 §3.1."""
        return self.changed_since is not None or Attribute("MODSEQ") in self.items


def read_fetch(reader: ArgumentReader, by_uid: bool = False) -> Fetch:
    """The arguments of FETCH."""
    reader.space()
    messages = read_sequence_set(reader)
    reader.space()
    items = read_items(reader)
    if len(items) > MOST_ITEMS:
        raise ImapSyntaxError("Too many FETCH items")
    modifiers = _modifiers(reader)
    if modifiers.with_vanished and (modifiers.changed_since is None or not by_uid):
        raise ImapSyntaxError("VANISHED needs UID FETCH and CHANGEDSINCE")
    if modifiers.partial is not None and not by_uid:
        raise ImapSyntaxError("PARTIAL needs UID FETCH")
    return Fetch(
        messages,
        tuple(dict.fromkeys(items)),
        by_uid,
        modifiers.changed_since,
        modifiers.with_vanished,
        modifiers.partial,
    )


def read_items(reader: ArgumentReader) -> list[Item]:
    """One item, a list of them, or a macro."""
    if reader.peek() == b"(":
        return reader.list_of(lambda: _item(reader))
    start = reader.position
    word = reader.word()
    if word in _MACROS:
        return [Attribute(name) for name in _MACROS[word]]
    reader.position = start
    return [_item(reader)]


@dataclass(slots=True)
class _Modifiers:
    changed_since: int | None = None
    with_vanished: bool = False
    partial: PartialRange | None = None


def _modifiers(reader: ArgumentReader) -> _Modifiers:
    found = _Modifiers()
    if reader.at_end:
        return found
    reader.space()

    def modifier() -> None:
        name = reader.word()
        if name == "VANISHED":
            found.with_vanished = True
            return
        reader.space()
        if name == "CHANGEDSINCE":
            found.changed_since = reader.number(LARGEST_MODSEQ)
        elif name == "PARTIAL":
            found.partial = read_partial_range(reader)
        else:
            raise ImapSyntaxError("Unknown FETCH modifier")

    reader.list_of(modifier)
    return found


def _item(reader: ArgumentReader) -> Item:
    name = reader.text[reader.position : reader.position + 40].upper()
    for kind in (b"BODY.PEEK[", b"BODY[", b"BINARY.PEEK[", b"BINARY.SIZE[", b"BINARY["):
        if name.startswith(kind):
            reader.position += len(kind)
            return _section(reader, kind[:-1].decode("ascii"))
    word = reader.word()
    if word in ("RFC822", "RFC822.TEXT"):
        return Section(kind=word, text=word[7:])
    if word == "RFC822.HEADER":
        return Section(kind=word, text="HEADER", is_peek=True)
    if word == "PREVIEW" and reader.skip(b" ("):  # RFC 8970 §4.1
        if reader.word() != "LAZY":
            raise ImapSyntaxError("Unknown PREVIEW modifier")
        reader.expect(b")")
        return Attribute(word, is_lazy=True)
    if word not in _SIMPLE:
        raise ImapSyntaxError("Unknown FETCH item")
    return Attribute(word)


def parse_section(text: bytes) -> Section:
    """The BODY section that `text` is, as it stands between brackets. Raises ImapSyntaxError."""
    reader = ArgumentReader(text + b"]")
    section = _section(reader, "BODY.PEEK")
    reader.end()
    return section


def _section(reader: ArgumentReader, kind: str) -> Section:
    part: list[int] = []
    while reader.peek().isdigit():
        part.append(reader.number())
        if not part[-1] or len(part) > DEEPEST_PART:
            raise ImapSyntaxError("Invalid body part")
        if not reader.skip(b"."):
            break
    else:
        if part:
            return _text_section(reader, kind, tuple(part))
    if reader.peek() == b"]" or part:
        return _finish(reader, kind, tuple(part), "", ())
    return _text_section(reader, kind, ())


def _text_section(reader: ArgumentReader, kind: str, part: tuple[int, ...]) -> Section:
    text = reader.word()
    allowed = {"HEADER", "HEADER.FIELDS", "HEADER.FIELDS.NOT", "TEXT"} | ({"MIME"} if part else set())
    if text not in allowed:
        raise ImapSyntaxError("Invalid body section")
    fields: tuple[bytes, ...] = ()
    if text.startswith("HEADER.FIELDS"):
        reader.space()
        fields = tuple(reader.list_of(reader.astring))
    return _finish(reader, kind, part, text, fields)


def _finish(
    reader: ArgumentReader, kind: str, part: tuple[int, ...], text: str, fields: tuple[bytes, ...]
) -> Section:
    reader.expect(b"]")
    partial = None
    if kind != "BINARY.SIZE" and reader.skip(b"<"):
        origin, octets = reader.number(), LARGEST_MODSEQ
        if reader.skip(b"."):  # without: all from there, as Dovecot takes it
            octets = reader.number()
        if not octets:
            raise ImapSyntaxError("Invalid partial range")
        reader.expect(b">")
        partial = (origin, octets)
    is_peek = kind in ("BODY.PEEK", "BINARY.PEEK", "BINARY.SIZE")
    return Section(kind.removesuffix(".PEEK"), part, text, fields, partial, is_peek)
