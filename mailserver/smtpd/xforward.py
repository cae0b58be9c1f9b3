"""XFORWARD: a content filter tells whose mail it gives back. Postfix's XFORWARD_README.

Only hosts of `smtpd_authorized_xforward_hosts` see and may use it; for others it does not exist. Unlike
XCLIENT it changes no decision: what it says is logged (`orig_client`, `orig_queue_id`), and SOURCE=LOCAL has
the header completed as that of local mail is. It counts to the end of the next transaction.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from mailserver.maillog import printable
from mailserver.smtpd.connection import Work
from mailserver.wire.smtp import SmtpError, decode_xtext

if TYPE_CHECKING:
    from mailserver.smtpd.session import Session

_ATTRIBUTES: Final = ("NAME", "ADDR", "PORT", "PROTO", "HELO", "IDENT", "SOURCE")
_UNKNOWN: Final = "[UNAVAILABLE]"
_SOURCES: Final = ("LOCAL", "REMOTE")


class Forwarded:
    """The XFORWARD command of one session, and what it said."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._values: dict[str, str] = {}

    @property
    def is_local(self) -> bool | None:
        """Whether the mail began on the filter's host; None where nothing was said of that."""
        source = self._values.get("SOURCE")
        return None if not source else source == "LOCAL"

    @property
    def log_words(self) -> str:
        """What follows `client=…` in the log."""
        words, values = "", self._values
        if ident := values.get("IDENT"):
            words += f", orig_queue_id={printable(ident, 100)}"
        if not {"NAME", "ADDR"}.isdisjoint(values):
            name, address = values.get("NAME") or "unknown", values.get("ADDR") or "unknown"
            words += f", orig_client={printable(name, 255)}[{address}]"
        return words

    @property
    def values(self) -> Mapping[str, str]:
        """What the attributes said, "" where that is not known; {} where nothing was said."""
        return self._values

    def extensions(self) -> list[str]:
        """The line of the EHLO reply, for those who may use it."""
        return [f"XFORWARD {' '.join(_ATTRIBUTES)}"] if self._is_allowed else []

    @property
    def _is_allowed(self) -> bool:
        return self._session.is_among(self._session.services.may_forward_client)

    def xforward(self, argument: bytes) -> Work:
        """What the attributes say counts for the next transaction, besides what was said before."""
        if not self._is_allowed:
            raise SmtpError(502, "5.5.1", "Error: command not implemented")
        if self._session.mail.is_open:
            raise SmtpError(503, "5.5.1", "Error: MAIL transaction in progress")
        values = dict(_attribute(word) for word in argument.decode("ascii", "replace").split())
        if not values:
            raise SmtpError(501, "5.5.4", "Syntax: XFORWARD attribute=value...")
        self._values |= values
        self._session.reply(250, "2.0.0", "Ok")
        return None

    def forget(self) -> None:
        """Nothing was said."""
        self._values = {}


def _attribute(word: str) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    name = name.upper()
    if not equals:
        raise SmtpError(501, "5.5.4", "Error: attribute=value expected")
    if name not in _ATTRIBUTES:
        raise SmtpError(501, "5.5.4", f"Bad XFORWARD attribute name: {printable(name, 100)}")
    if len(value) > 255:
        raise SmtpError(501, "5.5.4", "Error: attribute value too long")
    value = "" if value.upper() == _UNKNOWN else decode_xtext(value, "XFORWARD")
    if value and not _is_good(name, value):
        raise SmtpError(501, "5.5.4", f"Bad {name} syntax: {printable(value, 100)}")
    return name, _address(value) if name == "ADDR" else value.upper() if name == "SOURCE" else value


def _is_good(name: str, value: str) -> bool:
    if name == "ADDR":
        try:
            ipaddress.ip_address(_address(value))
        except ValueError:
            return False
        return True
    if name == "PORT":
        return value.isascii() and value.isdigit() and int(value) <= 65535
    return name != "SOURCE" or value.upper() in _SOURCES


def _address(value: str) -> str:
    return value[5:] if value.upper().startswith("IPV6:") else value
