"""A message to send, and the commands that its envelope is said in.

RFC 5321 §4.1.1, RFC 3461; XFORWARD_README.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from mailserver.wire.smtp import encode_utf8_address, encode_xtext

_UNAVAILABLE: Final = "[UNAVAILABLE]"
_ATTRIBUTES_AT_ONCE: Final = 2  # of XFORWARD: a line has 512 octets

Extensions = Mapping[str, str]  # what the server offers: keyword and parameters


@dataclass(frozen=True, slots=True)
class RemoteRecipient:
    """A recipient on the wire: `address` as in RCPT TO, without brackets."""

    address: str
    notify: frozenset[str] = frozenset()
    orcpt: str = ""


@dataclass(frozen=True, slots=True)
class Mail:
    """One message to send. `read(offset, length)` gives content with LF line ends, off the reactor.

    Of a probe nothing is sent but the envelope: whether the recipients would be taken. `client` are the
    attributes for servers that know XFORWARD, where they are to be told.
    """

    sender: str  # "" is the null sender
    recipients: tuple[RemoteRecipient, ...]
    octets: int
    read: Callable[[int, int], Awaitable[bytes]]
    is_8bit: bool = False
    smtputf8: bool = False
    ret: str = ""
    envid: str = ""
    is_probe: bool = False
    client: tuple[tuple[str, str], ...] = ()

    def mail_command(self, offered: Extensions) -> str:
        """MAIL, with those parameters that the server knows."""
        words = [f"MAIL FROM:<{self.sender}>"]
        if "SIZE" in offered:
            words.append(f"SIZE={self.octets}")
        if self.is_8bit and "8BITMIME" in offered:
            words.append("BODY=8BITMIME")
        if self.smtputf8:
            words.append("SMTPUTF8")
        if "DSN" in offered:
            words += [f"RET={self.ret}"] if self.ret else []
            words += [f"ENVID={encode_xtext(self.envid)}"] if self.envid else []
        return " ".join(words)

    def rcpt_commands(self, offered: Extensions) -> list[str]:
        """RCPT for each recipient, with those parameters that the server knows."""
        return [self._rcpt_command(recipient, "DSN" in offered) for recipient in self.recipients]

    def _rcpt_command(self, recipient: RemoteRecipient, with_dsn: bool) -> str:
        words = [f"RCPT TO:<{recipient.address}>"]
        if with_dsn and recipient.notify:
            words.append(f"NOTIFY={','.join(sorted(recipient.notify))}")
        if with_dsn and recipient.orcpt:
            words.append(f"ORCPT={_orcpt(recipient.orcpt, self.smtputf8)}")
        return " ".join(words)

    def xforward_commands(self, offered: Extensions) -> Iterator[str]:
        """XFORWARD, for what the server wants to know of the client."""
        wanted = offered.get("XFORWARD", "").upper().split()
        words = [
            f"{name}={encode_xtext(value) or _UNAVAILABLE}" for name, value in self.client if name in wanted
        ]
        for start in range(0, len(words), _ATTRIBUTES_AT_ONCE):
            yield " ".join(("XFORWARD", *words[start : start + _ATTRIBUTES_AT_ONCE]))


def _orcpt(original: str, is_utf8: bool) -> str:
    """`type;address` as it is written in a command. RFC 3461 §4.2, RFC 6533 §3."""
    kind, _, address = original.partition(";")
    if kind.lower() == "utf-8":
        return f"{kind};{encode_utf8_address(address, is_utf8)}"
    return f"{kind};{encode_xtext(address)}"
