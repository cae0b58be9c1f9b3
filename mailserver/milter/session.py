"""One milter and one SMTP session: it is told what happens, and answers.

What it decides about the connection counts to its end; about a message, to the message's end. Where it
cannot be asked, milter_default_action decides, for the rest of the session. A milter may leave
steps out, or leave answers out; it sees the content only when all of it is here, and what it wants changed
is changed before the message is durable.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from mailserver.milter.connection import Connect, Connection
from mailserver.milter.content import MilterContent
from mailserver.milter.rules import (
    REJECTED,
    SHUT_DOWN,
    TEMPFAILED,
    UNAVAILABLE,
    Discarded,
    MilterFailure,
    MilterRules,
    Refusal,
    Verdict,
)
from mailserver.threads import Threads
from mailserver.wire import milter
from mailserver.wire.milter import Edit, MilterError, Negotiated, Steps

Values = Callable[[], Mapping[str, str]]  # what macros stand for now

_REPLY: Final = re.compile(r"([45]\d\d)[ -](?:([45]\.\d{1,3}\.\d{1,3}) )?(.*)", re.DOTALL)
_COMMANDS: Final = {  # the stage, and the steps that leave the command or its answer out
    milter.CONNECT: ("connect", Steps.NO_CONNECT, Steps.SILENT_CONNECT),
    milter.HELO: ("helo", Steps.NO_HELO, Steps.SILENT_HELO),
    milter.MAIL: ("mail", Steps.NO_MAIL, Steps.SILENT_MAIL),
    milter.RCPT: ("rcpt", Steps.NO_RCPT, Steps.SILENT_RCPT),
    milter.DATA: ("data", Steps.NO_DATA, Steps.SILENT_DATA),
    milter.UNKNOWN: ("unknown_command", Steps.NO_UNKNOWN, Steps.SILENT_UNKNOWN),
    milter.HEADER: ("", Steps.NO_HEADERS, Steps.SILENT_HEADER),
    milter.END_OF_HEADER: ("end_of_header", Steps.NO_END_OF_HEADER, Steps.SILENT_END_OF_HEADER),
    milter.BODY: ("", Steps.NO_BODY, Steps.SILENT_BODY),
    milter.END_OF_BODY: ("end_of_data", Steps.NONE, Steps.NONE),
}
_OF_CONNECTION: Final = (milter.CONNECT, milter.HELO)
_ACCEPTED: Final = "accepted"
_SKIPPED: Final = "skipped"

_Latched = Verdict | str  # _ACCEPTED: nothing more is asked


class MilterSession:
    """See the module. `values` gives the macros' values, `warn` writes a line to the log."""

    def __init__(
        self, rules: MilterRules, connect: Connect, values: Values, warn: Callable[[str], None]
    ) -> None:
        self._rules = rules
        self._connect = connect
        self._values = values
        self._warn = warn
        self._connection: Connection | None = None
        self._agreed = Negotiated(milter.VERSION, milter.Allowed(0), Steps.NONE)
        self._for_session: _Latched = None
        self._for_message: _Latched = None
        self._has_message = False
        self._quarantines = False
        self._is_over = False

    # ------------------------------------------------------------ what happens

    async def connected(self, name: str, address: str, port: int) -> Verdict:
        """A client has connected: the first thing that is said."""
        rules = self._rules
        try:
            self._connection = await self._connect(rules.endpoint, rules.connect_timeout)
            await self._connection.send(milter.offer(rules.protocol), rules.command_timeout)
            answer = await self._connection.receive(rules.command_timeout)
            self._agreed = milter.negotiated(*answer, rules.protocol)
        except (MilterFailure, MilterError) as error:
            return self._failed(error)
        return await self._event(milter.CONNECT, milter.connect(name, address, port))

    async def command(self, command: bytes, *texts: str | bytes) -> Verdict:
        """HELO, MAIL, RCPT, DATA or UNKNOWN has been said, with those texts."""
        if command == milter.MAIL:
            self._for_message, self._has_message = None, True
        return await self._event(command, milter.packet(command, milter.strings(*texts)))

    async def content(self, content: MilterContent, threads: Threads) -> Verdict:
        """The content is here; what the milter changed in it is changed."""
        if self._quarantines:
            content.quarantine = content.quarantine or "a milter failed"
        if (latched := self._latched()) is not None:
            return _verdict(latched)
        try:
            return await self._content(content, threads)
        except (MilterFailure, MilterError) as error:
            verdict = self._failed(error)
            if self._quarantines:
                content.quarantine = content.quarantine or "a milter failed"
            return verdict

    def forget_message(self) -> None:
        """The message is over, however."""
        if self._has_message and self._connection is not None:
            self._connection.say(milter.packet(milter.ABORT))
        self._has_message, self._for_message = False, None

    def close(self) -> None:
        """The session is over."""
        self._is_over = True
        if self._connection is not None:
            self._connection.say(milter.packet(milter.QUIT))
            self._connection.close()
            self._connection = None

    # ------------------------------------------------------------ asking

    def _latched(self) -> _Latched:
        """What is decided already; what is no more to be asked."""
        if self._for_session is None and self._connection is None:
            return _ACCEPTED
        return self._for_session or self._for_message

    async def _event(self, command: bytes, octets: bytes) -> Verdict:
        if (latched := self._latched()) is not None:
            return _verdict(latched)
        try:
            latched = await self._ask(command, octets)
        except (MilterFailure, MilterError) as error:
            return self._failed(error)
        return _verdict(latched)

    async def _ask(self, command: bytes, octets: bytes) -> _Latched:
        """What the milter answers; what counts further is kept. Raises MilterFailure, MilterError."""
        connection, (stage, unwanted, silent) = self._connection, _COMMANDS[command]
        assert connection is not None
        if self._agreed.steps & unwanted:
            return None
        seconds = self._rules.content_timeout if not stage else self._rules.command_timeout
        await connection.send(self._macros(command, stage) + octets, seconds)
        if self._agreed.steps & silent:
            return None
        return self._decided(command, *await connection.receive(seconds))

    def _macros(self, command: bytes, stage: str) -> bytes:
        names = self._agreed.macros.get(stage) or self._rules.macros.get(stage, ())
        if not names:
            return b""
        values = {**self._rules.macro_defaults, **self._values()}
        plain = {name: values.get(name.strip("{}"), "") for name in names}
        known = {name: value for name, value in plain.items() if value}
        return milter.macros(command, known) if known else b""

    def _decided(self, command: bytes, answer: bytes, data: bytes) -> _Latched:
        decided: _Latched
        match answer:
            case milter.CONTINUE:
                return None
            case milter.SKIP:
                return _SKIPPED
            case milter.ACCEPT:
                decided = _ACCEPTED
            case milter.DISCARD if command not in _OF_CONNECTION:
                decided = Discarded()
            case milter.REJECT:
                decided = REJECTED
            case milter.TEMPFAIL:
                decided = TEMPFAILED
            case milter.REPLY_CODE:
                decided = _refusal(data)
            case milter.SHUTDOWN:
                decided = SHUT_DOWN
            case milter.CONNECTION_FAILED:
                raise MilterFailure("it gives up")
            case _:
                raise MilterError(f"it says {answer!r}")
        if command in _OF_CONNECTION or decided is SHUT_DOWN:
            self._for_session = decided
        elif command != milter.RCPT or decided == _ACCEPTED or isinstance(decided, Discarded):
            self._for_message, self._has_message = decided, False
        return decided

    def _failed(self, error: Exception) -> Verdict:
        """The milter is asked no more in this session; main.cf says what that means."""
        rules = self._rules
        if not self._is_over:
            self._warn(f"milter {rules.endpoint.text}: {error}")
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._has_message = False
        self._quarantines = rules.default_action == "quarantine"
        refusals = {"tempfail": TEMPFAILED, "reject": UNAVAILABLE}
        refusal = refusals.get(rules.default_action)
        self._for_session = refusal or _ACCEPTED
        return refusal

    # ------------------------------------------------------------ the content

    async def _content(self, content: MilterContent, threads: Threads) -> Verdict:
        has_space = bool(self._agreed.steps & Steps.LEADING_SPACE)
        for name, value in content.named():
            shown = value if has_space else value.removeprefix(b" ")
            texts = milter.packet(milter.HEADER, milter.strings(name, shown))
            if (decided := await self._ask(milter.HEADER, texts)) is not None:
                return self._ended(decided)
        ends = milter.packet(milter.END_OF_HEADER)
        if (decided := await self._ask(milter.END_OF_HEADER, ends)) is not None:
            return self._ended(decided)
        if (decided := await self._body(content, threads)) is not None:
            return self._ended(decided)
        return await self._end(content, has_space)

    async def _body(self, content: MilterContent, threads: Threads) -> _Latched:
        if self._agreed.steps & Steps.NO_BODY:
            return None
        packets = milter.body_packets(_with_crlf(content.body()))
        while (octets := await threads.run(next, packets, None)) is not None:
            decided = await self._ask(milter.BODY, octets)
            if decided is not None:
                return None if decided == _SKIPPED else decided
        return None

    async def _end(self, content: MilterContent, has_space: bool) -> Verdict:
        """The end of the body, and the changes up to the milter's last word."""
        connection, seconds = self._connection, self._rules.content_timeout
        assert connection is not None
        macros = self._macros(milter.END_OF_BODY, "end_of_data")
        await connection.send(macros + milter.packet(milter.END_OF_BODY), seconds)
        edits: list[Edit] = []
        size = 0
        while True:
            answer, data = await connection.receive(seconds)
            if answer in _FINAL:
                break
            if answer != milter.PROGRESS:
                edits.append(milter.edit(answer, data, self._agreed.allowed))
                size += len(data)
                if size > content.body_limit:
                    raise MilterError("its changes are too large")
        decided = self._decided(milter.END_OF_BODY, answer, data)
        verdict = self._ended(decided)
        if verdict is None:
            content.apply(edits, has_space)
        return verdict

    def _ended(self, decided: _Latched) -> Verdict:
        """The milter has nothing more to say about the message."""
        self._has_message = False
        self._for_message = None
        return _verdict(decided)


_FINAL: Final = (
    milter.CONTINUE,
    milter.ACCEPT,
    milter.REJECT,
    milter.TEMPFAIL,
    milter.DISCARD,
    milter.REPLY_CODE,
    milter.SHUTDOWN,
    milter.CONNECTION_FAILED,
)


def _verdict(decided: _Latched) -> Verdict:
    return None if isinstance(decided, str) else decided


def _refusal(data: bytes) -> Refusal:
    """A reply in the milter's own words: `550 5.7.1 text`. Raises MilterError."""
    text = data.removesuffix(b"\0").decode("utf-8", "replace")
    found = _REPLY.fullmatch(text)
    if found is None:
        raise MilterError(f"its reply is {text!r}")
    code, dsn, rest = found.groups()
    lines = " ".join(re.sub(r"[\r\n]+(?:\d{3}[ -](?:[45]\.\d{1,3}\.\d{1,3} )?)?", " ", rest).split())
    clean = re.sub(r"[\x00-\x1f\x7f]", "?", lines).replace("%%", "%")
    return Refusal(int(code), dsn or f"{code[0]}.0.0", clean, code == "421")


def _with_crlf(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """LF line ends become CRLF; whole pieces."""
    for piece in pieces:
        yield piece.replace(b"\n", b"\r\n")
