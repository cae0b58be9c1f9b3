"""The messages of SCRAM, from octets to values and back. RFC 5802 §7.

Grammar only: the keys are `accounts.scram`'s. Optional extensions are passed over, a mandatory one
(`m=`) is refused, as RFC 5802 §5.1 wants it. What is malformed is a ScramSyntaxError.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Final

_PRINTABLE: Final = rb"[\x21-\x2b\x2d-\x7e]"  # all but the comma
_EXTENSIONS: Final = rb"(?:,[A-Za-z]=[^\x00,]+)*"
_CLIENT_FIRST: Final = re.compile(
    rb"(?P<flag>n|y|p=(?P<binding>[A-Za-z0-9.-]+)),(?:a=(?P<authorization>[^\x00,]+))?,"
    rb"(?P<bare>n=(?P<name>[^\x00,]+),r=(?P<nonce>" + _PRINTABLE + rb"+)" + _EXTENSIONS + rb")"
)
_CLIENT_FINAL: Final = re.compile(
    rb"(?P<without_proof>c=(?P<binding>[A-Za-z0-9+/=]+),r=(?P<nonce>"
    + _PRINTABLE
    + rb"+)"
    + _EXTENSIONS
    + rb")"
    rb",p=(?P<proof>[A-Za-z0-9+/=]+)"
)
_ESCAPE: Final = re.compile(rb"=(2C|3D)?")


class ScramSyntaxError(ValueError):
    """The message does not follow the grammar. The text is public."""


@dataclass(frozen=True, slots=True)
class ClientFirst:
    """`binding` is the channel binding's name after `p=`, else "".

    `knows_binding`: the client could bind the channel, and believes that we cannot (`y`).
    """

    name: str
    authorization: str
    nonce: bytes
    bare: bytes
    gs2_header: bytes
    binding: str
    knows_binding: bool


@dataclass(frozen=True, slots=True)
class ClientFinal:
    """`channel_binding` is the GS2 header and the binding's data behind it, decoded."""

    channel_binding: bytes
    nonce: bytes
    proof: bytes
    without_proof: bytes


def parse_client_first(message: bytes) -> ClientFirst:
    """The client's first message. Raises ScramSyntaxError."""
    match = _CLIENT_FIRST.fullmatch(message)
    if match is None:
        raise ScramSyntaxError("Invalid SCRAM message.")
    return ClientFirst(
        name=_name(match["name"]),
        authorization=_name(match["authorization"] or b""),
        nonce=match["nonce"],
        bare=match["bare"],
        gs2_header=message[: match.start("bare")],
        binding=(match["binding"] or b"").decode("ascii"),
        knows_binding=match["flag"] == b"y",
    )


def parse_client_final(message: bytes) -> ClientFinal:
    """The client's last message. Raises ScramSyntaxError."""
    match = _CLIENT_FINAL.fullmatch(message)
    if match is None:
        raise ScramSyntaxError("Invalid SCRAM message.")
    return ClientFinal(
        _base64(match["binding"]), match["nonce"], _base64(match["proof"]), match["without_proof"]
    )


def server_first(nonce: bytes, salt: bytes, iterations: int) -> bytes:
    """What tells the client how to make its proof."""
    return b"r=%b,s=%b,i=%d" % (nonce, base64.b64encode(salt), iterations)


def server_final(signature: bytes) -> bytes:
    """What shows the client that we know its password's verifier."""
    return b"v=" + base64.b64encode(signature)


def _name(escaped: bytes) -> str:
    """A saslname: UTF-8 in which `=2C` is a comma and `=3D` an equals sign."""

    def unescape(match: re.Match[bytes]) -> bytes:
        if match[1] is None:
            raise ScramSyntaxError("Invalid SCRAM user name.")
        return b"," if match[1] == b"2C" else b"="

    try:
        return _ESCAPE.sub(unescape, escaped).decode("utf-8")
    except UnicodeDecodeError:
        raise ScramSyntaxError("Invalid SCRAM user name.") from None


def _base64(text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ScramSyntaxError("Invalid base64 in SCRAM message.") from None
