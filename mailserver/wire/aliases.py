r"""The right-hand side of an alias, and the text of `.forward` and `:include:` files.

    name: alice, "bob smith"@example.org, /var/log/mail.copy, "|command with words", :include:/etc/list

Destinations are separated by commas; in a `.forward` or `:include:` file by line ends too. A
`#` that begins a line makes it a comment. An unquoted `|command` runs to the next comma, as
in Postfix. A backslash before a user name stops expansion: deliver to that user's mailbox.

What cannot be read is an `Unusable` destination with a reason, not an exception: one bad word
in a list must not stop mail to the others. aliases(5), local(8).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from mailserver.envelope import Address
from mailserver.wire.address import AddressError, parse_lenient

_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_QUOTED_WORD: Final = re.compile(r'"(?>(?:[^"\\]|\\.)*)"', re.DOTALL)


@dataclass(frozen=True, slots=True)
class ToAddress:
    """Mail goes to an address, local or not."""

    address: Address


@dataclass(frozen=True, slots=True)
class ToMailbox:
    r"""`\user`: mail goes to that local user's mailbox, nothing is expanded any more."""

    name: str


@dataclass(frozen=True, slots=True)
class ToFile:
    """Mail is appended to a file, or put into a maildir where the path ends in `/`."""

    path: str


@dataclass(frozen=True, slots=True)
class ToCommand:
    """Mail is given to a command on its standard input."""

    command: str


@dataclass(frozen=True, slots=True)
class Include:
    """The destinations in a file."""

    path: str


@dataclass(frozen=True, slots=True)
class Unusable:
    """A word that is no destination, and why."""

    text: str
    reason: str


Destination = ToAddress | ToMailbox | ToFile | ToCommand | Include | Unusable


def parse_destinations(text: str) -> list[Destination]:
    """The destinations of one alias, in order: separated by commas, no line ends."""
    return [_destination(word) for word in _words(text) if word]


def parse_file(text: bytes) -> list[tuple[int, Destination]]:
    """Line number (from 1) and destination for a `.forward` or `:include:` file, in order."""
    destinations: list[tuple[int, Destination]] = []
    for number, line in enumerate(text.decode("utf-8", "surrogateescape").splitlines(), 1):
        if not line.lstrip().startswith("#"):
            destinations.extend((number, destination) for destination in parse_destinations(line))
    return destinations


def _words(text: str) -> list[str]:
    """The text cut at commas outside double quotes."""
    if '"' not in text:
        return [word.strip() for word in text.split(",")]
    words = []
    start = position = 0
    while position < len(text):
        if text[position] == '"':
            quoted = _QUOTED_WORD.match(text, position)
            position = quoted.end() if quoted else len(text)
        elif text[position] == ",":
            words.append(text[start:position].strip())
            position = start = position + 1
        else:
            position += 1
    words.append(text[start:].strip())
    return words


def _destination(word: str) -> Destination:
    plain = word
    if word.startswith('"'):
        quoted = _QUOTED_WORD.match(word)
        if quoted is None:
            return Unusable(word, "a double quote is not closed")
        if quoted.end() == len(word):
            plain = _ESCAPE.sub(r"\1", word[1:-1]) if _is_special(word[1:-1]) else word
    if "\0" in plain:
        return Unusable(word, "it contains a NUL")
    if plain.startswith("|"):
        command = plain[1:].strip()
        return ToCommand(command) if command else Unusable(word, "the command is empty")
    if plain.startswith("/"):
        return ToFile(plain)
    if plain.lower().startswith(":include:"):
        path = plain[9:].strip()
        return Include(path) if path.startswith("/") else Unusable(word, "the path must begin with /")
    if plain.startswith("\\") and len(plain) > 1 and "@" not in plain:
        return ToMailbox(plain[1:].lower())
    try:
        return ToAddress(parse_lenient(plain))
    except AddressError as error:
        return Unusable(word, str(error))


def _is_special(text: str) -> bool:
    """Whether the quotes stood around a command, a file or an include, not around a local-part."""
    return text.startswith(("|", "/", "\\\\")) or text.lower().startswith(":include:")
