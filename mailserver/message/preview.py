"""The first words of a message, for a list of messages. RFC 8970 §3.3.

They come from the first text part that is shown in place, plain text before HTML in an
alternative. Quoted lines, signatures, markup and runs of white space are left out. What has no
such text has an empty preview.
"""

from __future__ import annotations

import html
import re
from dataclasses import replace
from typing import Final

from mailserver.message.mime import Part, Span, parse
from mailserver.message.text import part_text

LONGEST: Final = 200  # characters
_LOOKED_AT: Final = 65_536  # octets of a part
_MARKUP: Final = re.compile(r"(<!--|-->|<[^<>]*+>)")
_UNSEEN: Final = re.compile(r"<(style|script|head|title)\b", re.IGNORECASE)
_SPACE: Final = re.compile(r"[\s\u200b-\u200f\u2060\ufeff\u00ad\u034f]+")
_NO_TEXT: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def preview(content: bytes) -> str:
    """At most 200 characters of the message's own words."""
    part = _shown(parse(content))
    if part is None:
        return ""
    end = min(part.body.end, part.body.start + _LOOKED_AT)
    text = part_text(content, replace(part, body=Span(part.body.start, end)))
    text = _without_markup(text) if part.said.subtype.lower() == b"html" else _own_words(text)
    return _NO_TEXT.sub("", _SPACE.sub(" ", text)).strip()[:LONGEST].rstrip()


def _shown(message: Part) -> Part | None:
    """The first text part that is no attachment, a plain one where an alternative has both."""
    texts = [part for part in message.walk() if _is_shown_text(part)]
    plain = [part for part in texts[:2] if part.said.subtype.lower() == b"plain"]
    return plain[0] if plain else texts[0] if texts else None


def _is_shown_text(part: Part) -> bool:
    said = part.said
    is_attached = said.disposition is not None and said.disposition.kind.lower() == b"attachment"
    is_text = said.type.lower() == b"text" and said.subtype.lower() in (b"plain", b"html")
    return is_text and not is_attached and part.body.end > part.body.start


def _own_words(text: str) -> str:
    """The text without quoted lines and without what follows the signature mark. RFC 3676 §4.3."""
    lines = []
    for line in text.splitlines():
        if line == "-- ":
            break
        if not line.startswith(">"):
            lines.append(line)
    return "\n".join(lines)


def _without_markup(text: str) -> str:
    words: list[str] = []
    until: tuple[str, ...] = ()  # what ends the part that is not shown
    for index, piece in enumerate(_MARKUP.split(text)):
        is_markup = index % 2 == 1
        if until:
            if is_markup and piece.lower().startswith(until):
                until = ()
        elif not is_markup:
            words.append(piece)
        elif piece == "<!--":
            until = ("-->",)
        elif unseen := _UNSEEN.match(piece):
            until = ("</" + unseen[1].lower(), "<body")
        else:
            words.append(" ")
    return html.unescape("".join(words))
