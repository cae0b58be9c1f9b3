"""What a pipe(8) row of master.cf says, and the arguments that it makes for one delivery.

    maildrop unix - n n - - pipe flags=DRXhu user=vmail argv=/usr/bin/maildrop -d ${recipient}

No shell sees anything. An argument that names a recipient's macro is there once for each recipient. What
a stranger chose can become no option: an argument that begins with `-` only because of an address is
refused (Postfix refuses such addresses, allow_min_user). Not here: chroot=.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from mailserver.delivery.transport import Outgoing
from mailserver.envelope import Address, Recipient
from mailserver.tables.words import BraceError, unbrace

FLAGS: Final = frozenset("BDFORXhqu.>")
_MACRO: Final = re.compile(r"\$(?:(\$)|\{\s*(\w+)\s*\}|\(\s*(\w+)\s*\)|(\w+))")
_ESCAPE: Final = re.compile(r"\\(?:([0-7]{1,3})|(.))")
_ESCAPED: Final = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\"}
_OF_RECIPIENTS: Final = frozenset(
    {"domain", "extension", "mailbox", "original_recipient", "recipient", "user"}
)
_OF_MAIL: Final = frozenset(
    {"client_address", "client_helo", "client_hostname", "client_port", "client_protocol", "nexthop"}
    | {"queue_id", "sasl_method", "sasl_sender", "sasl_username", "sender", "size"}
)


class BadAttribute(Exception):
    """The row cannot be used; the text says why, and what to write."""


class UnsafeArgument(Exception):
    """An address would become an option of the command, or no argument at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PipeAttributes:
    """A row's attributes, under pipe(8)'s names. `size` 0 is no limit; a relative path stays as it is."""

    user: str
    argv: tuple[str, ...]
    group: str = ""
    flags: frozenset[str] = frozenset()
    directory: str = ""
    eol: str = "\n"
    null_sender: str = "MAILER-DAEMON"
    size: int = 0

    @property
    def is_for_one_recipient(self) -> bool:
        """Whether a header field names the recipient, so that each gets a delivery of its own."""
        return bool(self.flags & {"D", "O"})


@dataclass(frozen=True, slots=True)
class Pipe:
    """A row of master.cf. `time_limit` is in seconds, `where` is path:line; `processes` 0 is no limit."""

    attributes: PipeAttributes
    time_limit: int
    where: str
    processes: int = 0


def parse_attributes(words: Sequence[str]) -> PipeAttributes:
    """The attributes that stand behind `pipe` in a row of master.cf. Raises BadAttribute."""
    named: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        if word == "-o":
            next(rest, "")
        elif not word.startswith("-"):
            name, equals, value = _unbraced(word).partition("=")
            if name.strip() == "argv":
                argv = tuple(_unbraced(each) for each in (value, *rest) if each)
                return _attributes(named, argv)
            if not equals:
                raise BadAttribute(f"bad attribute {word}: write name=value, and argv= last")
            named[name.strip()] = value.strip()
    raise BadAttribute("missing argv= command attribute")


def _unbraced(word: str) -> str:
    try:
        return unbrace(word) if word.startswith("{") else word
    except BraceError as error:
        raise BadAttribute(str(error)) from error


def _attributes(named: Mapping[str, str], argv: tuple[str, ...]) -> PipeAttributes:
    unknown = set(named) - {"flags", "user", "directory", "eol", "null_sender", "size"}
    if unknown:
        raise BadAttribute(f"attribute {min(unknown)}= is not supported: remove it")
    flags = frozenset(named.get("flags", ""))
    if flags - FLAGS:
        raise BadAttribute(f"unknown flag {min(flags - FLAGS)}: write some of BDFORXhqu.>")
    if not argv:
        raise BadAttribute("argv= names no command")
    for each in argv:
        for macro in _macros(each) - _OF_RECIPIENTS - _OF_MAIL:
            raise BadAttribute(f"unknown macro ${{{macro}}} in argv=: write $$ for a dollar sign")
    user, _, group = named.get("user", "").partition(":")
    if not user:
        raise BadAttribute("missing user= command attribute: name an unprivileged user")
    size = named.get("size", "0")
    if not size.isdigit():
        raise BadAttribute(f"bad size={size}: write a number of octets")
    made = PipeAttributes(user=user, argv=argv, group=group, flags=flags, size=int(size))
    return replace(
        made,
        directory=named.get("directory", ""),
        eol=_unescaped(named.get("eol", made.eol)),
        null_sender=named.get("null_sender", made.null_sender),
    )


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda found: _character(found[1], found[2]), text)


def _character(octal: str | None, letter: str) -> str:
    return chr(int(octal, 8) & 0xFF) if octal else _ESCAPED.get(letter, letter)


def _macros(text: str) -> frozenset[str]:
    return frozenset(found[2] or found[3] or found[4] for found in _MACRO.finditer(text) if not found[1])


def arguments_for(
    attributes: PipeAttributes, mail: Outgoing, split: Callable[[str], tuple[str, str]]
) -> tuple[str, ...]:
    """The command and its arguments; `split` gives a local-part's user and extension.

    Raises UnsafeArgument.
    """
    values = _of_mail(attributes, mail)
    of_each = [_of_recipient(attributes, recipient, split) for recipient in mail.recipients]
    return tuple(_expanded(attributes.argv, values, of_each))


def _expanded(
    argv: Sequence[str], values: Mapping[str, str], of_each: Sequence[Mapping[str, str]]
) -> Iterator[str]:
    for text in argv:
        if _macros(text) & _OF_RECIPIENTS:
            yield from (_safe(text, {**values, **own}) for own in of_each)
        else:
            yield _safe(text, values)


def _safe(text: str, values: Mapping[str, str]) -> str:
    argument = _MACRO.sub(lambda found: "$" if found[1] else values[found[2] or found[3] or found[4]], text)
    if "\0" in argument or (argument.startswith("-") and not text.startswith("-")):
        raise UnsafeArgument(f"bad address syntax: {argument!r} for {text}")
    return argument


def _of_mail(attributes: PipeAttributes, mail: Outgoing) -> Mapping[str, str]:
    client, sender = mail.envelope.client, mail.envelope.sender
    text = attributes.null_sender
    if sender is not None:
        text = _written(attributes, sender)
    elif text and "q" in attributes.flags:
        text = str(Address(text))
    return {
        "client_address": client.address,
        "client_helo": client.helo,
        "client_hostname": client.name,
        "client_port": "",
        "client_protocol": client.protocol,
        "nexthop": mail.nexthop.lower() if "h" in attributes.flags else mail.nexthop,
        "queue_id": mail.queue_id,
        "sasl_method": client.sasl_method,
        "sasl_sender": "",
        "sasl_username": client.login,
        "sender": text,
        "size": str(mail.content_length),
    }


def _of_recipient(
    attributes: PipeAttributes, recipient: Recipient, split: Callable[[str], tuple[str, str]]
) -> Mapping[str, str]:
    address = _folded(attributes, recipient.address)
    local, at, domain = recipient.original.rpartition("@")
    original = _folded(attributes, Address(local, domain) if at else Address(domain))
    user, extension = split(address.local)
    return {
        "domain": address.domain,
        "extension": extension,
        "mailbox": address.local,
        "original_recipient": _written(attributes, original if recipient.original else address),
        "recipient": _written(attributes, address),
        "user": user,
    }


def _folded(attributes: PipeAttributes, address: Address) -> Address:
    return Address(
        address.local.lower() if "u" in attributes.flags else address.local,
        address.domain.lower() if "h" in attributes.flags else address.domain,
    )


def _written(attributes: PipeAttributes, address: Address) -> str:
    """The address, its local-part quoted where that is wanted."""
    if "q" in attributes.flags:
        return str(address)
    return f"{address.local}@{address.domain}" if address.domain else address.local
