"""Mail addresses and SMTP paths: one parser, bytes in, `Address` out.

A path is what MAIL and RCPT carry: `<user@domain>`, with a source route that is dropped, or
`<>`. Every part of the server that reads an address reads it here, so that no two parts
disagree about where the local-part ends (RELIABILITY B11).

What is taken beyond RFC 5321 §4.1.2, as Postfix takes it: a path without angle brackets, blanks
before the path and just inside its brackets, dots anywhere in an unquoted local-part (some
providers give such addresses out), `_` in domain labels, one dot at the end of a domain. What is
refused though the grammar has it: an empty quoted local-part, general address literals, control
characters.

All regular expressions here are linear: alternatives begin with different octets and
quantifiers are possessive.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import Final

from mailserver.envelope import Address

LONGEST_PATH: Final = 256  # octets, RFC 5321 §4.5.3.1.3
LONGEST_LOCAL: Final = 64  # octets, RFC 5321 §4.5.3.1.1
LONGEST_DOMAIN: Final = 255  # octets, RFC 5321 §4.5.3.1.2

_ATOM: Final = rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.\x80-\xff-]++"
_QUOTED: Final = rb'"(?>(?:[^"\\\x00-\x1f\x7f]|\\[\x20-\x7e])*)"'
_DOMAIN: Final = rb"(?:\[[A-Za-z0-9.:]++\]|[A-Za-z0-9_.\x80-\xff-]++)"
_MAILBOX: Final = re.compile(
    rb"(?>(?:@" + _DOMAIN + rb"(?>(?:,@" + _DOMAIN + rb")*):)?)"
    rb"(" + _ATOM + rb"|" + _QUOTED + rb")"
    rb"(?>(?:@(" + _DOMAIN + rb"))?)"
)  # fmt: skip
_LABEL: Final = re.compile(
    r"[A-Za-z0-9_\u00a0-\U0010ffff](?:[A-Za-z0-9_\u00a0-\U0010ffff-]*[A-Za-z0-9_\u00a0-\U0010ffff])?"
)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_PLAIN_DOMAIN: Final = re.compile(r"[A-Za-z0-9]+(?>(?:[.-][A-Za-z0-9]+)*)")

_NUMERIC: Final = re.compile(r"[0-9.]+")
_NEVER_SPLIT: Final = frozenset({"postmaster", "mailer-daemon", "double-bounce"})
_WHITE_SPACE: Final = " \t\r\n"  # and no others: a no-break space may begin a local-part


class AddressError(ValueError):
    """The text is no address. Its message says what is wrong with it, in words safe to log."""


def scan_path(
    text: bytes, start: int = 0, *, longest_local: int = LONGEST_LOCAL
) -> tuple[Address | None, int]:
    """The path that begins at `start`, and the offset behind it; None is the null path `<>`.

    Whether a null path, a missing domain or a non-ASCII address may stand here is the caller's
    question. Raises AddressError. RFC 5321 §4.1.2, RFC 6531 §3.3.
    """
    while text[start : start + 1] == b" ":
        start += 1
    is_bracketed = text[start : start + 1] == b"<"
    begin = start + is_bracketed
    while is_bracketed and text[begin : begin + 1] == b" ":
        begin += 1
    if is_bracketed and text[begin : begin + 1] == b">":
        return None, begin + 1
    found = _MAILBOX.match(text, begin)
    if found is None:
        raise AddressError("no local-part")
    end = found.end()
    if is_bracketed:
        while text[end : end + 1] == b" ":
            end += 1
        if text[end : end + 1] != b">":
            raise AddressError("unexpected characters in the path")
        end += 1
    if text[end : end + 1] not in (b"", b" "):
        raise AddressError("unexpected characters behind the path")
    if end - start > LONGEST_PATH:
        raise AddressError("path too long")
    return _address(found[1], found[2], longest_local), end


def is_numeric(domain: str) -> bool:
    """Whether the domain is made of digits: an IP address that lacks its brackets, or a part of one."""
    return _NUMERIC.fullmatch(domain) is not None


def parse_lenient(text: str) -> Address:
    """The address in a word of an alias, a `.forward` or a header field.

    Takes `alice`, `bob@example.org`, `"x y"@d`, `<a@b>` and `Name <a@b>`; white space around
    it does not count, and a long local-part is no reason to refuse. Raises AddressError.
    """
    text = text.strip(_WHITE_SPACE)
    if text.endswith(">"):
        text = text[text.rfind("<") + 1 : -1].strip(_WHITE_SPACE)
    found = _MAILBOX.fullmatch(text.encode("utf-8", "surrogateescape"))
    if found is None:
        raise AddressError("not an address")
    return _address(found[1], found[2], LONGEST_PATH)


def split_extension(local: str, delimiters: str) -> tuple[str, str]:
    """The local-part before the first of the delimiters and the extension behind it; whole, "" without one.

    Some names stay whole, and where `-` is a delimiter owner-LIST and LIST-request too, as with Postfix's
    owner_request_special. No local-part is left empty.
    """
    lowered = local.lower()
    if lowered in _NEVER_SPLIT:
        return local, ""
    if "-" in delimiters and (lowered.startswith("owner-") or lowered.endswith("-request")):
        return local, ""
    for position, character in enumerate(local):
        if character in delimiters:
            return (local[:position], local[position + 1 :]) if position else (local, "")
    return local, ""


def parse_sender(text: str) -> Address | None:
    """The envelope sender of that text; None, the null sender, where it is empty or no address."""
    if not text:
        return None
    try:
        return parse_lenient(text)
    except AddressError:
        return None


@lru_cache(maxsize=1024)
def _address(local: bytes, domain: bytes | None, longest_local: int) -> Address:
    if local[:1] == b'"':
        local = re.sub(rb"\\(.)", rb"\1", local[1:-1]) if b"\\" in local else local[1:-1]
        if not local:
            raise AddressError("empty local-part")
    if len(local) > longest_local:
        raise AddressError("local-part too long")
    return Address(_text(local), _domain(domain) if domain is not None else "")


def _text(octets: bytes) -> str:
    if octets.isascii():
        return octets.decode("ascii")
    try:
        text = octets.decode("utf-8")
    except UnicodeDecodeError:
        raise AddressError("not UTF-8") from None
    if _CONTROL.search(text):
        raise AddressError("control character")
    return text


def _domain(octets: bytes) -> str:
    if octets[:1] == b"[":
        return _literal(octets.decode("ascii"))
    domain = _text(octets).removesuffix(".")
    if not is_domain(domain):
        raise AddressError("malformed domain")
    return domain


def is_domain(name: str) -> bool:
    """Whether the name is well formed: labels of 1 to 63 octets, 255 in all. RFC 1123 §2.1, RFC 5890."""
    if len(name) <= 63 and _PLAIN_DOMAIN.fullmatch(name):
        return True
    if len(name.encode()) > LONGEST_DOMAIN:
        return False
    return all(len(label.encode()) <= 63 and _LABEL.fullmatch(label) for label in name.split("."))


def _literal(text: str) -> str:
    inner = text[1:-1]
    try:
        if inner[:5].lower() == "ipv6:":
            ipaddress.IPv6Address(inner[5:])
        else:
            ipaddress.IPv4Address(inner)
    except ValueError:
        raise AddressError("malformed address literal") from None
    return text
