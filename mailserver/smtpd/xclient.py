"""XCLIENT: a trusted proxy or test says whose connection this really is.

Only hosts of `smtpd_authorized_xclient_hosts` see and may use it; for others it does not exist
(RELIABILITY B31). The session begins anew, with the client that was named. Postfix's XCLIENT_README.
"""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from mailserver.smtpd.connection import Work
from mailserver.wire.smtp import SmtpError, decode_xtext

if TYPE_CHECKING:
    from mailserver.smtpd.session import Session

_ATTRIBUTES: Final = (
    "NAME",
    "ADDR",
    "PORT",
    "PROTO",
    "HELO",
    "LOGIN",
    "DESTADDR",
    "DESTPORT",
    "REVERSE_NAME",
)
_UNKNOWN: Final = ("[UNAVAILABLE]", "[TEMPUNAVAIL]")


class ClientOverride:
    """The XCLIENT command of one session."""

    def __init__(self, session: Session) -> None:
        self._session = session

    @property
    def _is_allowed(self) -> bool:
        hosts = self._session.services.may_override_client
        return hosts is not None and hosts.find(self._session.peer_address) is not None

    def extensions(self) -> list[str]:
        """The line of the EHLO reply, for those who may use it."""
        return [f"XCLIENT {' '.join(_ATTRIBUTES)}"] if self._is_allowed else []

    def xclient(self, argument: bytes) -> Work:
        """The session begins anew as the named client's."""
        session = self._session
        if not self._is_allowed:
            raise SmtpError(502, "5.5.1", "Error: command not implemented")
        if session.mail.is_open:
            raise SmtpError(503, "5.5.1", "Error: MAIL transaction in progress")
        values = dict(self._attribute(word) for word in argument.decode("ascii", "replace").split())
        if not values:
            raise SmtpError(501, "5.5.4", "Syntax: XCLIENT attribute=value...")
        session.forget_session()
        return self._begin_anew(values)

    def _attribute(self, word: str) -> tuple[str, str]:
        name, equals, value = word.partition("=")
        name = name.upper()
        if not equals:
            raise SmtpError(501, "5.5.4", "Error: attribute=value expected")
        if name not in _ATTRIBUTES:
            raise SmtpError(501, "5.5.4", f"Bad XCLIENT attribute name: {name}")
        if len(value) > 255:
            raise SmtpError(501, "5.5.4", "Error: attribute value too long")
        value = "" if value.upper() in _UNKNOWN else decode_xtext(value, "XCLIENT")
        if name == "ADDR" and value:
            value = value.removeprefix("IPV6:").removeprefix("IPv6:")
            try:
                value = str(ipaddress.ip_address(value))
            except ValueError:
                raise SmtpError(501, "5.5.4", f"Bad ADDR syntax: {value}") from None
        return name, value

    async def _begin_anew(self, values: dict[str, str]) -> None:
        session = self._session
        request = session.request
        if "ADDR" in values:
            request = await session.admission.identified(type(request)(values["ADDR"] or "unknown"))
        if "NAME" in values:
            request = replace(request, client_name=values["NAME"] or "unknown")
        if "NAME" in values or "REVERSE_NAME" in values:
            reverse_name = values.get("REVERSE_NAME") or values.get("NAME") or "unknown"
            request = replace(request, reverse_name=reverse_name)
        session.request = request
        session.helo = values.get("HELO", "")
        session.login = values.get("LOGIN", "")
        session.is_esmtp = values.get("PROTO", "").upper() == "ESMTP"
        await session.admission.greet()
