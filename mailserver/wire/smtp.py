"""The SMTP command grammar: bytes of one line in, values out.

A line has a verb and an argument; MAIL and RCPT have a path and parameters (RFC 5321
§4.1.1). Here is what RFC 1870 (SIZE), 6152 (BODY), 6531 (SMTPUTF8), 4954 (AUTH) and 3461 (RET, ENVID,
NOTIFY, ORCPT) add. Refusals carry Postfix's reply texts. No control character passes, raw or
xtext-encoded (RELIABILITY B12).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from mailserver.envelope import Address, Recipient
from mailserver.wire.address import LONGEST_PATH, AddressError, scan_path

LARGEST_SIZE: Final = 20  # digits of SIZE, RFC 1870 §6
LONGEST_ENVID: Final = 100  # characters, RFC 3461 §4.4
LONGEST_ORCPT: Final = 500  # characters, RFC 3461 §4.2
_XTEXT: Final = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*")
_HEX: Final = re.compile(r"\+([0-9A-F]{2})")
_UTF8_XTEXT: Final = re.compile(r"\\x\{([0-9A-F]{2,6})\}")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_KEYWORD: Final = re.compile(rb"[A-Za-z0-9][A-Za-z0-9-]*")
_HELO: Final = re.compile(rb"[!-~\x80-\xff]+")
_NOTIFY_WORDS: Final = frozenset(("NEVER", "SUCCESS", "FAILURE", "DELAY"))


class SmtpError(Exception):
    """A refusal: reply code, enhanced status code ("" for none, as after HELO) and text."""

    def __init__(self, code: int, dsn: str, text: str) -> None:
        super().__init__(code, dsn, text)
        self.code = code
        self.dsn = dsn
        self.text = text


@dataclass(frozen=True, slots=True)
class MailCommand:
    """A MAIL command. `sender` None is the null sender; `size` 0 means that none was declared."""

    sender: Address | None
    size: int = 0
    body: str = ""
    smtputf8: bool = False
    auth: str = ""
    ret: str = ""
    envid: str = ""


def split_command(line: bytes) -> tuple[str, bytes]:
    """The verb in upper case, "" where it is none, and the argument; blanks and tabs around them are gone."""
    verb, _, argument = line.replace(b"\t", b" ").strip(b" ").partition(b" ")
    if not verb.isalnum() or not verb.isascii():
        return "", argument
    return verb.decode("ascii").upper(), argument.strip(b" ")


def parse_helo(argument: bytes, verb: str = "EHLO") -> str:
    """The name that the client gives itself.

    Anything without blanks and control characters will do: Outlook sends bare NetBIOS names.
    Raises SmtpError.
    """
    name = argument.partition(b" ")[0]
    if _HELO.fullmatch(name) is None or len(name) > 255:
        raise SmtpError(501, "", f"Syntax: {verb} hostname")
    text = name.decode("utf-8", "replace")
    return _CONTROL.sub("?", text)


def parse_mail(argument: bytes) -> MailCommand:
    """The MAIL command with this argument. Raises SmtpError."""
    path = _after(argument, b"FROM:", "Syntax: MAIL FROM:<address>")
    try:
        sender, end = scan_path(path, longest_local=LONGEST_PATH)
    except AddressError:
        raise SmtpError(501, "5.1.7", "Bad sender address syntax") from None
    command = MailCommand(sender, **_mail_parameters(path, end))
    if sender is not None and not command.smtputf8 and not sender.is_ascii:
        raise SmtpError(553, "5.6.7", "Must declare SMTPUTF8 to send unicode address")
    return command


def parse_rcpt(argument: bytes, smtputf8: bool = False) -> Recipient:
    """The RCPT command with this argument, in a transaction with or without SMTPUTF8. Raises SmtpError."""
    path = _after(argument, b"TO:", "Syntax: RCPT TO:<address>")
    try:
        address, end = scan_path(path)
    except AddressError:
        address, end = None, 0
    if address is None:
        raise SmtpError(501, "5.1.3", "Bad recipient address syntax")
    if not smtputf8 and not address.is_ascii:
        raise SmtpError(553, "5.6.7", "Must declare SMTPUTF8 to send unicode address")
    if end == len(path):
        return Recipient(address, str(address))
    notify: frozenset[str] = frozenset()
    orcpt = ""
    for keyword, value in _parameters(path, end):
        if keyword == "NOTIFY":
            notify = _notify(value)
        elif keyword == "ORCPT":
            orcpt = _orcpt(value)
        else:
            _unsupported(keyword, value)
    return Recipient(address, str(address), notify, orcpt)


def parse_bdat(argument: bytes) -> tuple[int, bool]:
    """Octets of the chunk, and whether it is the last. RFC 3030 §2.

    Raises SmtpError 521: where the length is unknown, so is where the next command begins. One of 2^63
    octets or more is as good as unknown.
    """
    found = re.fullmatch(rb"([0-9]{1,20})( +LAST)?", argument, re.IGNORECASE)
    if found is None or int(found[1]) >= 2**63:
        raise SmtpError(521, "5.5.4", "Syntax: BDAT count [LAST]")
    return int(found[1]), found[2] is not None


def parse_burl(argument: bytes) -> tuple[bytes, bool]:
    """The URL, and whether what it names is the end of the message. RFC 4468 §3.5. Raises SmtpError."""
    found = re.fullmatch(rb"([!-~]+)( +LAST)?", argument, re.IGNORECASE)
    if found is None:
        raise SmtpError(501, "5.5.4", "Syntax: BURL url [LAST]")
    return found[1], found[2] is not None


def _after(argument: bytes, word: bytes, syntax: str) -> bytes:
    head, colon, path = argument.partition(b":")
    if not colon or (head.rstrip() + b":").upper() != word or not path:
        raise SmtpError(501, "5.5.4", syntax)
    return path.strip(b" ")


def _parameters(text: bytes, start: int) -> list[tuple[str, str]]:
    """The parameters behind a path as (KEYWORD, value) pairs. RFC 5321 §4.1.2."""
    pairs: list[tuple[str, str]] = []
    for word in filter(None, text[start:].split(b" ")):
        keyword, _, value = word.partition(b"=")
        if _KEYWORD.fullmatch(keyword) is None:
            raise SmtpError(501, "5.5.4", "Bad parameter syntax")
        try:
            decoded = value.decode("utf-8")
        except UnicodeDecodeError:
            raise SmtpError(501, "5.5.4", "Bad parameter syntax") from None
        if _CONTROL.search(decoded):
            raise SmtpError(501, "5.5.4", "Bad parameter syntax")
        pairs.append((keyword.decode("ascii").upper(), decoded))
    return pairs


def _unsupported(keyword: str, value: str) -> NoReturn:
    shown = f"{keyword}={value}" if value else keyword
    raise SmtpError(555, "5.5.4", f"Unsupported option: {shown[:100]}")


def _size(value: str) -> int:
    if not value.isascii() or not value.isdecimal() or len(value) > LARGEST_SIZE:
        raise SmtpError(501, "5.5.4", "Bad message size syntax")
    return int(value)


def _body(value: str) -> str:
    if value.upper() not in ("7BIT", "8BITMIME"):
        _unsupported("BODY", value)
    return value.upper()


def _flag(value: str) -> bool:
    if value:
        _unsupported("SMTPUTF8", value)
    return True


def _auth(value: str) -> str:
    if value == "<>":
        return value
    if not value:
        raise SmtpError(501, "5.5.4", "Bad AUTH parameter syntax")
    return decode_xtext(value, "AUTH")


def _ret(value: str) -> str:
    if value.upper() not in ("FULL", "HDRS"):
        raise SmtpError(501, "5.5.4", "Bad RET parameter syntax")
    return value.upper()


def _envid(value: str) -> str:
    if not value or len(value) > LONGEST_ENVID:
        raise SmtpError(501, "5.5.4", "Bad ENVID parameter syntax")
    return decode_xtext(value, "ENVID")


_MAIL_PARAMETERS: Final[dict[str, tuple[str, Callable[[str], object]]]] = {
    "SIZE": ("size", _size),
    "BODY": ("body", _body),
    "SMTPUTF8": ("smtputf8", _flag),
    "AUTH": ("auth", _auth),
    "RET": ("ret", _ret),
    "ENVID": ("envid", _envid),
}


def _mail_parameters(path: bytes, start: int) -> dict[str, Any]:
    """The parameters behind the path, by the names of MailCommand's fields."""
    values: dict[str, Any] = {}
    for keyword, value in _parameters(path, start):
        if keyword not in _MAIL_PARAMETERS:
            _unsupported(keyword, value)
        name, parse = _MAIL_PARAMETERS[keyword]
        if name in values and keyword in ("RET", "ENVID"):  # RFC 3461 §4.3, §4.4
            raise SmtpError(501, "5.5.4", f"Bad {keyword} parameter syntax")
        values[name] = parse(value)
    return values


def _notify(value: str) -> frozenset[str]:
    words = value.upper().split(",")
    notify = frozenset(words)
    if not notify <= _NOTIFY_WORDS or len(notify) != len(words) or ("NEVER" in notify and len(notify) > 1):
        raise SmtpError(501, "5.5.4", "Error: Bad NOTIFY parameter syntax")
    return notify


def _orcpt(value: str) -> str:
    kind, semicolon, address = value.partition(";")
    if not semicolon or not kind or not address or len(value) > LONGEST_ORCPT:
        raise SmtpError(501, "5.5.4", "Error: Bad ORCPT parameter syntax")
    if _KEYWORD.fullmatch(kind.encode()) is None:
        raise SmtpError(501, "5.5.4", "Error: Bad ORCPT parameter syntax")
    if kind.lower() == "utf-8":
        return f"{kind};{_decode_utf8_address(address)}"
    return f"{kind};{decode_xtext(address, 'ORCPT')}"


def _decode_utf8_address(text: str) -> str:
    """The address behind `utf-8;`, with \\x{HEX} decoded. RFC 6533 §3."""
    try:
        decoded = _UTF8_XTEXT.sub(lambda found: chr(int(found[1], 16)), text)
        decoded.encode("utf-8")
    except (ValueError, OverflowError):
        raise SmtpError(501, "5.5.4", "Error: Bad ORCPT parameter syntax") from None
    if decoded == text and text.isascii():  # RFC 3461's own encoding, or none
        return decode_xtext(text, "ORCPT")
    return _checked(decoded, "ORCPT")


def decode_xtext(text: str, parameter: str) -> str:
    """The decoded value of an xtext parameter. Raises SmtpError, naming the parameter. RFC 3461 §4."""
    if _XTEXT.fullmatch(text) is None:
        raise SmtpError(501, "5.5.4", f"Bad {parameter} parameter syntax")
    if "+" not in text:
        return text
    return _checked(_HEX.sub(lambda found: chr(int(found[1], 16)), text), parameter)


def _checked(text: str, parameter: str) -> str:
    if _CONTROL.search(text):
        raise SmtpError(501, "5.5.4", f"Bad {parameter} parameter syntax")
    return text


def encode_xtext(text: str) -> str:
    """ASCII text as xtext. RFC 3461 §4."""
    return "".join(c if "!" <= c <= "~" and c not in "+=" else f"+{ord(c):02X}" for c in text)


def encode_utf8_address(text: str, is_utf8: bool = False) -> str:
    """An address as ORCPT and delivery reports have it behind `utf-8;`. RFC 6533 §3.

    In ASCII alone (utf-8-addr-xtext), or where `is_utf8` with UTF-8 as it stands (utf-8-addr-unitext).
    """
    return "".join(
        c if ("!" <= c <= "~" and c not in "\\+=") or (is_utf8 and c > "\x7f") else f"\\x{{{ord(c):02X}}}"
        for c in text
    )
