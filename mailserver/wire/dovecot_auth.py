"""Dovecot's protocol between a service and whoever checks its logins: lines of fields, tabs between them.

Version 1, as Dovecot 2.3 and 2.4, Postfix (`smtpd_sasl_type = dovecot`) and Exim (`driver = dovecot`) speak
it. The server begins: VERSION, MECH for each mechanism, SPID, CUID, COOKIE, DONE; the client: VERSION, CPID.
Then `AUTH id mechanism parameters… resp=BASE64` and `CONT id BASE64` are answered by `CONT id BASE64`,
`OK id user=…` or `FAIL id …`. https://doc.dovecot.org, "Authentication Protocol".
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

MAJOR: Final = 1
MINOR: Final = 2
LONGEST_LINE: Final = 16_384  # octets
_ESCAPES: Final = (
    (b"\x01", b"\x011"),
    (b"\t", b"\x01t"),
    (b"\n", b"\x01n"),
    (b"\r", b"\x01r"),
    (b"\0", b"\x010"),
)


class AuthSyntaxError(Exception):
    """The line is none of the protocol's: the connection is to be closed."""


def line(*fields: bytes) -> bytes:
    """The fields as a line, escaped, without its end."""
    return b"\t".join(map(_escaped, fields))


def fields_of(octets: bytes) -> list[bytes]:
    """The fields of a line, at least one."""
    return [_unescaped(field) for field in octets.split(b"\t")]


def _escaped(field: bytes) -> bytes:
    for octet, escape in _ESCAPES:
        field = field.replace(octet, escape)
    return field


def _unescaped(field: bytes) -> bytes:
    if b"\x01" not in field:
        return field
    first, *rest = field.split(b"\x01")
    plain = {escape[1:]: octet for octet, escape in _ESCAPES}
    return first + b"".join([plain.get(piece[:1], piece[:1]) + piece[1:] for piece in rest])


@dataclass(frozen=True, slots=True)
class AuthRequest:
    """AUTH. A parameter that is a word alone has the value ""; `initial` is decoded, None where empty."""

    identifier: int
    mechanism: str
    parameters: Mapping[str, str]
    initial: bytes | None


def parse_request(fields: list[bytes]) -> AuthRequest:
    """The request. Raises AuthSyntaxError; BadResponse where `resp` is no base64."""
    if len(fields) < 3:
        raise AuthSyntaxError("AUTH without a mechanism")
    identifier, mechanism = number(fields[1]), fields[2].decode("ascii", "replace").upper()
    parameters: dict[str, str] = {}
    initial: bytes | None = None
    for field in fields[3:]:
        name, _, value = field.partition(b"=")
        if name == b"resp":
            initial = response(identifier, value) or None
        else:
            parameters[name.decode("utf-8", "replace")] = value.decode("utf-8", "replace")
    return AuthRequest(identifier, mechanism, parameters, initial)


class BadResponse(Exception):
    """A client's response is no base64: this login fails, the connection goes on."""

    def __init__(self, identifier: int) -> None:
        super().__init__("Invalid base64 data in response")
        self.identifier = identifier


def response(identifier: int, value: bytes) -> bytes:
    """The octets of a base64 response. Raises BadResponse."""
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise BadResponse(identifier) from error


def number(field: bytes) -> int:
    """An id, or part of a version. Raises AuthSyntaxError."""
    if not (field.isdigit() and len(field) <= 10):
        raise AuthSyntaxError("an id that is no number")
    return int(field)
