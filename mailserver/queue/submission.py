"""What the envelope of a drop file says, as an `Envelope`. On values: no file is touched here.

Nothing is believed: what is no address as a sender is replaced by the user whom the file
belongs to, what is no address as a recipient becomes a name that nobody has, so that it bounces
and its sender hears of it.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Iterator
from typing import Final

from mailserver.envelope import Address, Client, Envelope, Recipient
from mailserver.message import header
from mailserver.message.addresses import MISSING_DOMAIN, MISSING_MAILBOX, parse_addresses
from mailserver.message.fields import encoded
from mailserver.queue.drop_file import Malformed
from mailserver.wire.address import AddressError, parse_lenient

_TO: Final = (b"to", b"cc", b"bcc")
_LONGEST_ENVID: Final = 100
_ATOMS: Final = frozenset(f"{string.ascii_letters}{string.digits}!#$%&'*+-/=?^_`{{|}}~ ")


class Submission:
    """What the envelope of a drop file says. Raises Malformed."""

    def __init__(self, fields: Iterable[tuple[bytes, bytes]], uid: int, owner: str, my_origin: str) -> None:
        self._uid = uid
        self._owner = owner
        self._my_origin = my_origin
        self._recipients: list[str] = []
        self.sender_text = owner
        self.full_name = ""
        self._extracts = False
        self._values: dict[bytes, str] = {}
        for name, octets in fields:
            value = octets.decode("utf-8", "surrogateescape")
            if name == b"recipient":
                self._recipients.append(value)
            elif name == b"sender":
                self.sender_text = "" if value.strip() == "<>" else value.strip()
            elif name == b"full_name":
                self.full_name = value
            elif name == b"extract":
                self._extracts = True
            else:
                self._values[name] = value

    def envelope(self, head: bytes) -> Envelope:
        """The envelope; with -t the header at the start of the content names recipients too."""
        values = self._values
        notify = frozenset(filter(None, values.get(b"notify", "").split(",")))
        if not (notify <= {"SUCCESS", "FAILURE", "DELAY"} or notify == {"NEVER"}):
            raise Malformed("its notify field is unknown")
        ret, body, envid = values.get(b"ret", ""), values.get(b"body", ""), values.get(b"envid", "")
        trace = values.get(b"trace", "")
        if ret not in ("", "FULL", "HDRS") or body not in ("", "7BIT", "8BITMIME"):
            raise Malformed("its ret or body field is unknown")
        if trace not in ("", "verify", "record"):
            raise Malformed("its trace field is unknown")
        if len(envid) > _LONGEST_ENVID or not (envid.isascii() and envid.isprintable()):
            raise Malformed("its envid field is unknown")
        texts = [*self._recipients, *(extracted(head) if self._extracts else ())]
        recipients = tuple(
            Recipient(self._address(text), _one_line(text), notify) for text in dict.fromkeys(texts)
        )
        addresses = [each.address for each in recipients]
        sender = self._sender()
        is_utf8 = not all(each.is_ascii for each in (*addresses, *([sender] if sender else ())))
        client = Client(name="", uid=self._uid)
        return Envelope(sender, recipients, client, body, is_utf8, ret, envid, trace=trace)

    def _sender(self) -> Address | None:
        """The sender; the file's owner where the text is no address."""
        if not self.sender_text:
            return None
        try:
            sender = parse_lenient(self.sender_text)
        except AddressError:
            sender = Address(self._owner)
        self.sender_text = str(sender)  # for the log: nothing but an address
        return self._with_origin(sender)

    def _address(self, text: str) -> Address:
        """The recipient; what is no address becomes a name that nobody has, so that it bounces."""
        try:
            return self._with_origin(parse_lenient(text))
        except AddressError:
            printable = _one_line(text).encode("ascii", "replace").decode()
            return self._with_origin(Address(printable[:64].replace("@", "?") or "?"))

    def _with_origin(self, address: Address) -> Address:
        return address if address.domain else Address(address.local, self._my_origin)


def extracted(head: bytes) -> Iterator[str]:
    """The recipients that a header names: of the Resent- fields where there are any. RFC 5322 §3.6.6."""
    end = head.find(b"\n\n")
    pairs = header.scan(head[: end + 1].replace(b"\n", b"\r\n") if end >= 0 else head.replace(b"\n", b"\r\n"))
    named = [(name.strip().lower(), body) for name, body in pairs]
    is_resent = any(name.removeprefix(b"resent-") in _TO and name.startswith(b"resent-") for name, _ in named)
    wanted = {(b"resent-" if is_resent else b"") + name for name in _TO}
    for name, body in named:
        if name in wanted:
            for address in parse_addresses(header.unfold(body)):
                if address.host is None or not address.mailbox or address.mailbox == MISSING_MAILBOX:
                    continue
                domain = "" if address.host == MISSING_DOMAIN else _decoded(address.host)
                yield str(Address(_decoded(address.mailbox), domain))


def _decoded(octets: bytes) -> str:
    return octets.decode("utf-8", "surrogateescape")


def _one_line(text: str) -> str:
    return "".join(each if each.isprintable() else "?" for each in text)


def named(name: str, address: Address) -> str:
    """`Full Name <address>`. RFC 5322 §3.4."""
    name = _one_line(name.encode("utf-8", "replace").decode("utf-8")).strip()
    if not name:
        return str(address)
    if not name.isascii():
        return f"{encoded(name)} <{address}>"
    if not _ATOMS.issuperset(name):
        name = '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return f"{name} <{address}>"
