"""smtpd_proxy_filter: mail passes through a content filter before it is taken. SMTPD_PROXY_README.

The filter is an SMTP server that hands mail on to another listener of ours, or to nobody. It hears MAIL, RCPT
and DATA as the client said them, and what it answers is what the client hears: mail is acknowledged when the
filter has acknowledged it, which it does when the second listener has made it durable. Nothing is queued
here, so nothing is ours to lose. A filter that is not there, hangs up or talks nonsense is 451 (P5), and the
log says why.

With `speed_adjust` the filter is connected to when the whole message is here, and its refusal of a
recipient is the message's.
"""

from __future__ import annotations

import abc
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, Final, TypeVar

from twisted.internet.error import ConnectError

from mailserver.delivery.smtp_client import PIECE, Session, SessionFailed, SmtpClient, TimeLimits
from mailserver.service_endpoint import ServiceEndpoint
from mailserver.smtpd.verdict import Verdict
from mailserver.threads import Threads
from mailserver.wire.smtp import SmtpError, encode_xtext
from mailserver.wire.smtp_reply import Reply

_ATTRIBUTES: Final = ("NAME", "ADDR", "PORT", "HELO", "IDENT", "PROTO", "SOURCE")
_UNAVAILABLE: Final = "[UNAVAILABLE]"
_LONGEST_COMMAND: Final = 510  # octets without CRLF
_ENHANCED: Final = re.compile(r"([245]\.\d{1,3}\.\d{1,3}) (.*)", re.DOTALL)
_OK: Final = 2
_GO_ON: Final = 3


T = TypeVar("T")


def write_error() -> SmtpError:
    """What the client hears where the filter failed."""
    return SmtpError(451, "4.3.0", "Error: queue file write error")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyFilter:
    """The filter of a listener, under the names of smtpd_proxy_filter and its like.

    `directory` has room for a message that waits for its end. `warn` gets what is wrong with the filter.
    """

    endpoint: ServiceEndpoint
    reactor: Any
    ehlo: str
    timeout: float
    directory: str
    warn: Callable[[str], None]
    speed_adjust: bool = False

    @property
    def name(self) -> str:
        """As it is written in main.cf."""
        return self.endpoint.text

    def new_dialogue(self, threads: Threads, mail: str, client: Mapping[str, str]) -> Dialogue:
        """A dialogue for one message: `mail` is the MAIL command, `client` what XFORWARD says."""
        dialogue = DirectDialogue(self, mail, client)
        return ReplayedDialogue(dialogue, threads, self) if self.speed_adjust else dialogue


class Dialogue(abc.ABC):
    """What is said to a filter about one message. Methods raise SmtpError, which is for the client."""

    @abc.abstractmethod
    async def begin(self) -> None:
        """The filter has taken MAIL."""

    @abc.abstractmethod
    async def rcpt(self, line: str) -> None:
        """It has taken that RCPT command."""

    @abc.abstractmethod
    async def data(self) -> None:
        """It waits for content."""

    @abc.abstractmethod
    async def send(self, content: bytes) -> None:
        """The content (LF line ends) is on its way."""

    @abc.abstractmethod
    async def end(self) -> Verdict:
        """What it says to the whole message. The dialogue is over."""

    @abc.abstractmethod
    def close(self) -> None:
        """The dialogue is over; without `end` nothing comes of the message."""


class DirectDialogue(Dialogue):
    """A dialogue while the client talks."""

    def __init__(self, proxy: ProxyFilter, mail: str, client: Mapping[str, str]) -> None:
        self._proxy = proxy
        self._mail = mail
        self._forwarded = client
        limits = TimeLimits(**dict.fromkeys(TimeLimits.__dataclass_fields__, proxy.timeout))
        session = Session(proxy.ehlo, limits, line_length_limit=0)
        name = f"proxy {proxy.name}"
        self._client = SmtpClient(name, name, session, proxy.reactor)
        self._is_connected = self._is_closed = False
        self._has_content = False

    async def begin(self) -> None:
        """See `Dialogue.begin`."""
        proxy = self._proxy
        try:
            await proxy.endpoint.connect(proxy.reactor, self._client, proxy.timeout)
        except (ConnectError, OSError) as error:
            proxy.warn(f"connect to proxy filter {proxy.name}: {error}")
            raise write_error() from error
        self._is_connected = True
        if self._is_closed:
            self._client.abort()
            raise write_error()
        try:
            await self._client.open()
        except SessionFailed as failure:
            raise self._failed(failure) from failure
        offered = self._client.session.extensions.get("XFORWARD", "").upper().split()
        for line in _xforward(self._forwarded, offered):
            await self._say(line, _OK, is_ours=True)
        await self._say(self._mail, _OK)

    async def rcpt(self, line: str) -> None:
        """See `Dialogue.rcpt`."""
        await self._say(line, _OK)

    async def data(self) -> None:
        """See `Dialogue.data`."""
        await self._say("DATA", _GO_ON)
        self._has_content = True
        self._client.begin_content()

    async def send(self, content: bytes) -> None:
        """See `Dialogue.send`."""
        try:
            await self._client.send_piece(content)
        except SessionFailed as failure:
            raise self._failed(failure) from failure

    async def end(self) -> Verdict:
        """See `Dialogue.end`."""
        try:
            reply = await self._client.end_content()
        except SessionFailed as failure:
            raise self._failed(failure) from failure
        self._has_content = False
        self.close()
        if reply.code // 100 == _GO_ON:
            self._proxy.warn(f'proxy {self._proxy.name} rejected "message content": "{_last(reply)}"')
            raise write_error()
        return _verdict(reply)

    async def _say(self, line: str, expected: int, is_ours: bool = False) -> None:
        """The filter takes the command. A refusal is the client's; an answer that makes no sense is not."""
        try:
            reply = await self._client.command(line)
        except SessionFailed as failure:
            raise self._failed(failure) from failure
        if reply.code // 100 == expected:
            return
        self._proxy.warn(f'proxy {self._proxy.name} rejected "{line}": "{_last(reply)}"')
        if is_ours or reply.is_positive:
            raise write_error()
        verdict = _verdict(reply)
        raise SmtpError(verdict.code, verdict.dsn, verdict.text)

    def _failed(self, failure: SessionFailed) -> SmtpError:
        if failure.remote:
            self._proxy.warn(f'proxy {self._proxy.name} rejected "connection request": "{failure.remote}"')
        else:
            self._proxy.warn(str(failure))
        return write_error()

    def close(self) -> None:
        """See `Dialogue.close`."""
        self._is_closed = True
        if not self._is_connected:
            return
        if self._has_content:
            self._client.abort()  # what it has by now is no message
        else:
            self._client.close()


class ReplayedDialogue(Dialogue):
    """The same, all at once when the message is whole; until then all is well. It waits in a file."""

    def __init__(self, dialogue: DirectDialogue, threads: Threads, proxy: ProxyFilter) -> None:
        self._dialogue = dialogue
        self._threads = threads
        self._warn = proxy.warn
        self._recipients: list[str] = []
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(PIECE, dir=proxy.directory)  # noqa: SIM115

    async def begin(self) -> None:
        """See `Dialogue.begin`."""

    async def rcpt(self, line: str) -> None:
        """See `Dialogue.rcpt`."""
        self._recipients.append(line)

    async def data(self) -> None:
        """See `Dialogue.data`."""

    async def send(self, content: bytes) -> None:
        """See `Dialogue.send`."""
        await self._run(self._file.write, content)

    async def end(self) -> Verdict:
        """See `Dialogue.end`."""
        dialogue = self._dialogue
        await dialogue.begin()
        for line in self._recipients:
            await dialogue.rcpt(line)
        await dialogue.data()
        await self._run(self._file.seek, 0)
        while piece := await self._run(self._file.read, PIECE):
            await dialogue.send(piece)
        return await dialogue.end()

    async def _run(self, function: Callable[[Any], T], argument: Any) -> T:
        try:
            return await self._threads.run(function, argument)
        except OSError as error:
            self._warn(f"queue file write error: {error}")
            raise write_error() from error

    def close(self) -> None:
        """See `Dialogue.close`."""
        self._dialogue.close()
        self._threads.run(self._file.close)


def _xforward(client: Mapping[str, str], offered: Sequence[str]) -> Sequence[str]:
    """The XFORWARD commands, as few as fit. XFORWARD_README."""
    lines: list[str] = []
    for name in filter(offered.__contains__, _ATTRIBUTES):
        word = f"{name}={encode_xtext(client.get(name, '')) or _UNAVAILABLE}"
        if lines and len(lines[-1]) + 1 + len(word) <= _LONGEST_COMMAND:
            lines[-1] += f" {word}"
        else:
            lines.append(f"XFORWARD {word}")
    return lines


def _last(reply: Reply) -> str:
    return f"{reply.code} {reply.lines[-1]}".strip()


def _verdict(reply: Reply) -> Verdict:
    """The reply's last line, for the client."""
    match = _ENHANCED.fullmatch(reply.lines[-1])
    return Verdict(reply.code, match[1], match[2]) if match else Verdict(reply.code, "", reply.lines[-1])
