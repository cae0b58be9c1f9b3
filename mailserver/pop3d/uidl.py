"""The unique ids of UIDL, in Dovecot's format language, so that nobody downloads mail twice.

`%u` is the UID, `%v` UIDVALIDITY; before the letter may stand `0`, a width, and `X` for
hexadecimal. The default, `%08Xu%08Xv`, is Dovecot's. RFC 1939 §7, `pop3_uidl_format`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

DEFAULT_FORMAT: Final = "%08Xu%08Xv"
_SPECIFIER: Final = re.compile(r"%(?:(0?)([0-9]{0,2})(X?)([uv])|(%))")
_LONGEST: Final = 70


def uidl_maker(text: str) -> Callable[[int, int], bytes]:
    """A function from UID and UIDVALIDITY to the id.

    Raises ValueError where the format is not understood, lacks the UID, or cannot give 1 to 70
    characters from `!` to `~`.
    """
    template = _SPECIFIER.sub(_python_specifier, text.replace("{", "{{").replace("}", "}}"))
    if "%" in _SPECIFIER.sub("", text):
        raise ValueError(f"pop3_uidl_format: unknown variable in {text!r}")
    longest = template.format(u=2**32 - 1, v=2**32 - 1)
    if template.format(u=1, v=1) == template.format(u=2, v=1):
        raise ValueError(f"pop3_uidl_format: {text!r} has no %u, ids would not be unique")
    if len(longest) > _LONGEST or not re.fullmatch(r"[!-~]+", longest):
        raise ValueError(f"pop3_uidl_format: {text!r} does not give 1 to 70 printable characters")
    return lambda uid, uidvalidity: template.format(u=uid, v=uidvalidity).encode("ascii")


def _python_specifier(found: re.Match[str]) -> str:
    if found[5]:
        return "%"
    zero, width, hexadecimal, letter = found[1], found[2], found[3], found[4]
    return f"{{{letter}:{zero}{width}{'x' if hexadecimal else 'd'}}}"
