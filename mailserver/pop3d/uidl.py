"""The unique ids of UIDL, in Dovecot's format language, so that nobody downloads mail twice.

`%u` is the UID, `%v` UIDVALIDITY; before the letter may stand `0`, a width, and `X` for
hexadecimal. `%f` is the name of the message's file in a maildir, as Courier's POP3 server gave it,
and `%g` Dovecot's GUID, which is the same; where messages share a file the default format takes
their place. The default, `%08Xu%08Xv`, is Dovecot's. RFC 1939 §7, `pop3_uidl_format`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Final

DEFAULT_FORMAT: Final = "%08Xu%08Xv"
_SPECIFIER: Final = re.compile(r"%(?:(0?)([0-9]{0,2})(X?)([uv])|([fg])|(%))")
_PRINTABLE: Final = re.compile(r"[!-~]+")
_LONGEST: Final = 70
MakeId = Callable[[int, int, str], bytes]


def uidl_maker(text: str) -> MakeId:
    """A function from UID, UIDVALIDITY and file name ("" where there is none) to the id.

    Raises ValueError where the format is not understood, is not unique, or cannot give 1 to 70
    characters from `!` to `~`; a file name is taken as it is, or its digest where it is not printable.
    """
    template = _SPECIFIER.sub(_python_specifier, text.replace("{", "{{").replace("}", "}}"))
    if "%" in _SPECIFIER.sub("", text):
        raise ValueError(f"pop3_uidl_format: unknown variable in {text!r}")
    longest = template.format(u=2**32 - 1, v=2**32 - 1, name="n")
    if template.format(u=1, v=1, name="a") == template.format(u=2, v=1, name="b"):
        raise ValueError(f"pop3_uidl_format: {text!r} has no %u, %f or %g, ids would not be unique")
    if len(longest) > _LONGEST or not _PRINTABLE.fullmatch(longest):
        raise ValueError(f"pop3_uidl_format: {text!r} does not give 1 to 70 printable characters")
    if not needs_names(text):
        return lambda uid, uidvalidity, name: template.format(u=uid, v=uidvalidity).encode("ascii")
    return lambda uid, uidvalidity, name: _named(template, uid, uidvalidity, name)


def needs_names(text: str) -> bool:
    """Whether the format has the file name in it."""
    return any(found[5] for found in _SPECIFIER.finditer(text))


def _named(template: str, uid: int, uidvalidity: int, name: str) -> bytes:
    if not name:
        return uidl_maker(DEFAULT_FORMAT)(uid, uidvalidity, "")
    if not _PRINTABLE.fullmatch(name):
        name = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:40]
    return template.format(u=uid, v=uidvalidity, name=name).encode("ascii")


def _python_specifier(found: re.Match[str]) -> str:
    if found[6]:
        return "%"
    if found[5]:
        return "{name}"
    zero, width, hexadecimal, letter = found[1], found[2], found[3], found[4]
    return f"{{{letter}:{zero}{width}{'x' if hexadecimal else 'd'}}}"
