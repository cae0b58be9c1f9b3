"""The header fields in which an mbox keeps a mailbox's own facts about a message.

    Status: RO            R read; O not new any more
    X-Status: AFDT        answered, flagged, deleted, draft
    X-Keywords: a b       keywords
    X-UID, X-IMAPbase     UID, UIDVALIDITY as Dovecot and UW imapd leave them
    Content-Length        what some programs count; and Lines where it follows that, as mutt writes it

They are not part of the message: hidden when it is read, dropped when a client brings them, left
out of the digest by which a message is known again, so that other programs may change them
freely. What we write is padded with spaces, so that the next change of flags fits in place.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

from mailserver.store.contract import ANSWERED, DELETED, DRAFT, FLAGGED, SEEN, Flags

_LETTERS: Final = {b"A": ANSWERED, b"F": FLAGGED, b"D": DELETED, b"T": DRAFT}
_ROOM_FOR_KEYWORDS: Final = 32
_HIDDEN: Final = re.compile(
    rb"^(?:(Status|X-Status|X-Keywords|X-UID|X-IMAPbase|X-IMAP)[ \t]*:(.*\n(?:[ \t].*\n)*)"
    rb"|Content-Length[ \t]*:.*\n(?:[ \t].*\n)*(?:Lines[ \t]*:.*\n)?)",
    re.I | re.M,
)
_STATUS: Final = re.compile(rb"^(Status|X-Status|X-Keywords)([ \t]*: ?)(.*?)(\r?\n)(?![ \t])", re.I | re.M)
_OLD_STATUS: Final = re.compile(rb"^(?:Status|X-Status|X-Keywords)[ \t]*:.*\n(?:[ \t].*\n)*", re.I | re.M)
_OLD_NUMBERS: Final = re.compile(rb"^(?:X-UID|X-IMAPbase)[ \t]*:.*\n(?:[ \t].*\n)*", re.I | re.M)
_BASE: Final = re.compile(rb"^(X-IMAP(?:base)?)[ \t]*:.*\n(?:[ \t].*\n)*", re.I | re.M)
_KEYWORD: Final = re.compile(rb'[^\x00-\x20\x7f-\xff(){%*"\\\]]+')
_FLAG_FIELDS: Final = (b"status", b"x-status", b"x-keywords")  # where there are several, all of them count
_LONGEST_HEADER: Final = 1 << 20  # octets; of a longer one the rest is not looked at
_PSEUDO: Final = b"FOLDER INTERNAL DATA"


@dataclass(frozen=True, slots=True)
class Fields:
    """What the hidden fields of one message say. `base` is X-IMAPbase's or X-IMAP's text."""

    flags: Flags = frozenset()
    uid: int = 0
    base: bytes = b""


_NO_FIELDS: Final = Fields()


class Place(NamedTuple):
    """Where a message lies, from its `From ` line to the next one, and the flags stored in it."""

    offset: int
    length: int
    flags: Flags

    def encode(self) -> str:
        """The place as the index keeps it: `offset length RAFDT keyword…`."""
        return f"{self.offset} {self.length} {_flags_text(self.flags)}"

    @classmethod
    def decode(cls, text: str) -> Place:
        """The value of `encode`; a place where nothing lies, for what is none."""
        try:
            offset, length, flags = text.split(" ", 2)
            return cls(int(offset), int(length), _flags_of_text(flags))
        except ValueError:
            return cls(0, 0, frozenset())


def _status_letters(flags: Flags) -> bytes:
    return b"".join(letter for letter, flag in _LETTERS.items() if flag in flags)


def _keywords(flags: Flags) -> list[bytes]:
    return sorted(flag for flag in flags if not flag.startswith(b"\\"))


@lru_cache(maxsize=4096)
def _flags_text(flags: Flags) -> str:
    letters = (b"R" if SEEN in flags else b"") + _status_letters(flags)
    return b" ".join([letters, *_keywords(flags)]).decode("latin-1")


@lru_cache(maxsize=4096)
def _flags_of_text(text: str) -> Flags:
    letters, *keywords = text.encode("latin-1").split(b" ")
    return _flags_of(letters, letters, keywords)


def _flags_of(status: bytes, x_status: bytes, keywords: Iterable[bytes]) -> Flags:
    flags = {flag for letter, flag in _LETTERS.items() if letter in x_status}
    if b"R" in status:
        flags.add(SEEN)
    flags.update(word for word in keywords if _KEYWORD.fullmatch(word))
    return frozenset(flags)


def header_length(text: bytes) -> int:
    """Octets of the header fields of a message's text, without the empty line."""
    if text.startswith((b"\n", b"\r\n")):
        return 0
    end = text.find(b"\n\n")
    crlf = text.find(b"\n\r\n", 0, end if end >= 0 else len(text))
    end = crlf if crlf >= 0 else end
    return end + 1 if end >= 0 else len(text)


def _may_hide(folded: bytes) -> bool:
    """Whether a header in lower case can have hidden fields: spares most messages the expression."""
    return (
        b"\nstatus" in folded
        or b"\nx-status" in folded
        or b"\nx-uid" in folded
        or b"\nx-imap" in folded
        or b"\nx-keywords" in folded
        or b"\ncontent-length" in folded
    )


def split_fields(header: bytes) -> tuple[bytes, Fields]:
    """The header without its hidden fields, and what those said."""
    if not _may_hide(b"\n" + header.lower()):
        return header, _NO_FIELDS
    values: dict[bytes, bytes] = {}

    def hide(found: re.Match[bytes]) -> bytes:
        if found[1] is not None:
            name = found[1].lower()
            before = values.get(name)
            if before is None:
                values[name] = found[2].strip()
            elif name in _FLAG_FIELDS:
                values[name] = before + b" " + found[2]
        return b""

    shown = _HIDDEN.sub(hide, header)
    uid = values.get(b"x-uid", b"")
    return shown, Fields(
        _flags_of(
            values.get(b"status", b""), values.get(b"x-status", b""), values.get(b"x-keywords", b"").split()
        ),
        int(uid) if uid.isdigit() and len(uid) <= 10 else 0,
        values.get(b"x-imapbase") or values.get(b"x-imap", b""),
    )


def without_hidden_fields(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The message, cut anywhere, without the fields that a stranger shall not bring: LF line ends.

    Who sends mail does not say that it was read or deleted, nor which UIDs a mailbox has.
    """
    held, following = b"", iter(pieces)
    for piece in following:
        held += piece
        if b"\n\n" in held or held.startswith(b"\n") or len(held) > _LONGEST_HEADER:
            break
    length = header_length(held)
    shown = split_fields(held[:length])[0]
    yield held if len(shown) == length else shown + held[length:]
    yield from following


def is_pseudo(header: bytes, fields: Fields) -> bool:
    """Whether this is the message in which UW imapd keeps a mailbox's facts: never shown, never removed."""
    return bool(fields.base) and _PSEUDO in header


def message_text(raw: bytes) -> bytes:
    """The message of a span of the file: `From ` line and one empty line at the end taken off.

    It always ends with a line end, whether the file's last line did or not.
    """
    text = raw[raw.find(b"\n") + 1 :] if b"\n" in raw else b""
    if text.endswith(b"\n\n") or text == b"\n":
        return text[:-1]
    if text.endswith(b"\n\r\n") or text == b"\r\n":
        return text[:-2]
    return text if text.endswith(b"\n") or not text else text + b"\n"


def key_of(shown: bytes, body: bytes | memoryview) -> str:
    """The name under which a message is known again: a digest of all but the hidden fields."""
    digest = hashlib.sha256(shown)
    digest.update(body)
    return digest.hexdigest()[:32]


def status_fields(flags: Flags) -> bytes:
    """The fields that say so, with room for later changes."""
    keywords = b" ".join(_keywords(flags))
    room = _ROOM_FOR_KEYWORDS * (len(keywords) // _ROOM_FOR_KEYWORDS + 1)
    fields = b"Status: %-2b\nX-Status: %-4b\n" % (_status(flags), _status_letters(flags))
    return fields + (b"X-Keywords: %b\n" % keywords.ljust(room) if keywords else b"")


def _status(flags: Flags) -> bytes:
    return b"RO" if SEEN in flags else b"O"


def with_flags(header: bytes, flags: Flags) -> bytes:
    """The header with exactly these flags in it."""
    kept = _OLD_STATUS.sub(b"", header)
    if kept and not kept.endswith(b"\n"):
        kept += b"\n"
    return kept + status_fields(flags)


def with_base(start: bytes, base: bytes) -> bytes | None:
    """The start of a file with `base` in UW imapd's pseudo message; None where that is not there."""
    if _PSEUDO not in start or not _BASE.search(start):
        return None
    return _BASE.sub(lambda found: found[1] + b": " + base + b"\n", start, count=1)


def with_uid(header: bytes, uid: int, base: bytes = b"") -> bytes:
    """The header with that UID in it, and with `base` as the X-IMAPbase of the mailbox."""
    kept = _OLD_NUMBERS.sub(b"", header)
    if kept and not kept.endswith(b"\n"):
        kept += b"\n"
    return kept + (b"X-IMAPbase: %b\n" % base if base else b"") + b"X-UID: %d\n" % uid


def fitted(header: bytes, flags: Flags) -> bytes | None:
    """The header with these flags and its old length, or None where it has not the room."""
    wanted = {
        b"status": _status(flags),
        b"x-status": _status_letters(flags),
        b"x-keywords": b" ".join(_keywords(flags)),
    }
    left = dict(wanted)
    if SEEN not in flags:
        left.pop(b"status")
    fits = True

    def refill(found: re.Match[bytes]) -> bytes:
        nonlocal fits
        name = found[1].lower()
        left.pop(name, None)
        fits = fits and len(wanted[name]) <= len(found[3])
        return b"".join((found[1], found[2], wanted[name].ljust(len(found[3])), found[4]))

    changed = _STATUS.sub(refill, header)
    return changed if fits and not any(left.values()) else None
