"""The unique ids of UIDL, in Dovecot's format language, so that nobody downloads mail twice.

    %u  the UID                 %f  the name of the message's file in a maildir, as Courier gave it
    %v  UIDVALIDITY             %g  Dovecot's GUID, which is the same
    %%  a per cent sign         %m  the MD5 of a few header fields, as Dovecot gives it for an mbox

Between the per cent sign and the letter may stand `0`, a width, and modifiers: `X` for hexadecimal, `L`
and `U` for lower and upper case, `M` for the MD5 of what it would have been (`%Mf` is tpop3d's). Where two
messages would have the same name or digest, the default format takes their place: no two ids are ever equal.
The default, `%08Xu%08Xv`, is Dovecot's. RFC 1939 §7, `pop3_uidl_format`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Final, NamedTuple

from mailserver.message.header import first, header_end, scan

DEFAULT_FORMAT: Final = "%08Xu%08Xv"
_SPECIFIER: Final = re.compile(r"%([LUMX]*)(0?)([0-9]{0,2})([LUMX]*)([uvfgm%])")
_PRINTABLE: Final = re.compile(r"[!-~]+")
_LONGEST: Final = 70
_LINE_END: Final = re.compile(rb"\r?\n")
_HASHED: Final = frozenset({b"date", b"delivered-to", b"message-id", b"received", b"x-delivery-id"})


class Known(NamedTuple):
    """What an id is made of; `name` and `digest` are "" where there is none that is this message's alone."""

    uid: int
    uidvalidity: int
    name: str = ""
    digest: str = ""


MakeId = Callable[[Known], bytes]


def uidl_maker(text: str) -> MakeId:
    """A function from what is known of a message to its id.

    Raises ValueError where the format is not understood, is not unique, or cannot give 1 to 70
    characters from `!` to `~`; a file name is taken as it is, or its digest where it is not printable.
    """
    if "%" in _SPECIFIER.sub("", text):
        raise ValueError(f"pop3_uidl_format: unknown variable in {text!r}")
    longest = _written(text, Known(2**32 - 1, 2**32 - 1, "n", "d" * 32))
    shortest = _written(text, Known(1, 1, "a", "c"))
    if shortest == _written(text, Known(2, 1, "b", "d")):
        raise ValueError(f"pop3_uidl_format: {text!r} has no %u, %f, %g or %m, ids would not be unique")
    if len(longest) > _LONGEST or not _PRINTABLE.fullmatch(shortest + longest):
        raise ValueError(f"pop3_uidl_format: {text!r} does not give 1 to 70 printable characters")
    return lambda known: _id(text, known)


def needs_names(text: str) -> bool:
    """Whether the format has the file name in it."""
    return any(found[5] in "fg" for found in _SPECIFIER.finditer(text))


def needs_digests(text: str) -> bool:
    """Whether the format has the header's digest in it."""
    return any(found[5] == "m" for found in _SPECIFIER.finditer(text))


def header_digest(content: bytes) -> bytes:
    """The MD5 of the fields that tell messages apart, in hexadecimal, as Dovecot makes it of an mbox.

    Delivered-To and X-Delivery-ID count; the first Received; and what comes before it of Date and Message-ID.
    """
    digest = hashlib.md5(usedforsecurity=False)
    was_received = False
    for spelt, body in scan(content[: header_end(content)]):
        name = spelt.strip().lower()
        if name not in _HASHED or (was_received and name in (b"date", b"message-id", b"received")):
            continue
        was_received = was_received or name == b"received"
        value = body.removeprefix(b":")
        digest.update(_LINE_END.sub(b"", value[1:] if value[:1] in (b" ", b"\t") else value))
    return digest.hexdigest().encode("ascii")


def old_id(content: bytes) -> bytes:
    """The id in X-UIDL, where another server left one that can be an id; else nothing. `pop3_reuse_xuidl`."""
    found = (first(content[: header_end(content)], b"x-uidl") or b"").strip()
    return found if len(found) <= _LONGEST and _PRINTABLE.fullmatch(found.decode("latin-1")) else b""


def _id(text: str, known: Known) -> bytes:
    lacks = (not known.name and needs_names(text)) or (not known.digest and needs_digests(text))
    return _written(DEFAULT_FORMAT if lacks else text, known).encode("ascii")


def _written(text: str, known: Known) -> str:
    name = known.name
    if name and not _PRINTABLE.fullmatch(name):
        name = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:40]
    values: dict[str, int | str] = {
        "u": known.uid,
        "v": known.uidvalidity,
        "f": name,
        "g": name,
        "m": known.digest,
        "%": "%",
    }
    return _SPECIFIER.sub(lambda found: _specified(found, values[found[5]]), text)


def _specified(found: re.Match[str], value: int | str) -> str:
    zero, width, modifiers = found[2], int(found[3] or 0), found[1] + found[4]
    text = f"{value:x}" if isinstance(value, int) and "X" in modifiers else str(value)
    for modifier in modifiers:
        if modifier == "M":
            text = hashlib.md5(text.encode("ascii", "replace"), usedforsecurity=False).hexdigest()
        elif modifier in "LU":
            text = text.upper() if modifier == "U" else text.lower()
    return text.rjust(width, "0" if zero else " ")
