"""`sendmail -bs`: SMTP on standard input and output, for mail programs that prefer it (alpine).

Each message goes the way that the sendmail command's own go. Whoever speaks here is a local user, so
there is nothing to authenticate and nothing to refuse but bad grammar. RFC 5321.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import BinaryIO, Final

from mailserver.wire.smtp import MailCommand, SmtpError, parse_helo, parse_mail, parse_rcpt, split_command

Fields = list[tuple[bytes, bytes]]
Submit = Callable[[Fields, bytes], None]

_LONGEST_LINE: Final = 4096
_SYNTAX: Final = "Error: command not recognized"


def converse(submit: Submit, size_limit: int, host: str) -> int:
    """The dialogue until QUIT or the end of input; the exit status. `submit` raises what ends it."""
    session = Session(sys.stdin.buffer, submit, size_limit, host)
    for reply in session.run():
        sys.stdout.write(reply + "\r\n")
        sys.stdout.flush()
    return 0


class Session:
    """One dialogue on a stream of commands."""

    def __init__(self, stream: BinaryIO, submit: Submit, size_limit: int, host: str) -> None:
        self._stream = stream
        self._submit = submit
        self._size_limit = size_limit
        self._host = host
        self._mail: MailCommand | None = None
        self._recipients: list[bytes] = []

    def run(self) -> Iterator[str]:
        """The replies, each a line or several without the last line end."""
        yield f"220 {self._host} ESMTP Postfix"
        while line := self._stream.readline(_LONGEST_LINE):
            verb, argument = split_command(line.rstrip(b"\r\n"))
            try:
                if verb == "DATA":
                    self._require_recipients()
                    yield "354 End data with <CR><LF>.<CR><LF>"
                yield self._answer(verb, argument)
            except SmtpError as error:
                yield f"{error.code} {error.dsn} {error.text}".replace("  ", " ")
            if verb == "QUIT":
                return

    def _answer(self, verb: str, argument: bytes) -> str:
        if verb == "EHLO":
            parse_helo(argument)
            lines = (self._host, "PIPELINING", f"SIZE {self._size_limit}", "8BITMIME", "SMTPUTF8")
            return "\r\n".join(f"250-{line}" for line in lines) + "\r\n250 ENHANCEDSTATUSCODES"
        if verb == "HELO":
            parse_helo(argument, "HELO")
            return f"250 {self._host}"
        if verb == "MAIL":
            if self._mail is not None:
                raise SmtpError(503, "5.5.1", "Error: nested MAIL command")
            self._mail = parse_mail(argument)
            return "250 2.1.0 Ok"
        if verb == "RCPT":
            if self._mail is None:
                raise SmtpError(503, "5.5.1", "Error: need MAIL command")
            recipient = parse_rcpt(argument, self._mail.smtputf8)
            self._recipients.append(str(recipient.address).encode("utf-8", "surrogateescape"))
            return "250 2.1.5 Ok"
        if verb == "DATA":
            return self._data()
        if verb in ("RSET", "NOOP", "VRFY", "QUIT"):
            return self._simple(verb)
        raise SmtpError(502, "5.5.2", _SYNTAX)

    def _simple(self, verb: str) -> str:
        if verb == "RSET":
            self._forget()
        return {"QUIT": "221 2.0.0 Bye", "VRFY": "252 2.0.0 Try it"}.get(verb, "250 2.0.0 Ok")

    def _require_recipients(self) -> None:
        if not self._recipients:
            raise SmtpError(503, "5.5.1", "Error: need RCPT command")

    def _forget(self) -> None:
        self._mail = None
        self._recipients = []

    def _data(self) -> str:
        assert self._mail is not None
        content, is_whole = self._content()
        mail, recipients = self._mail, self._recipients
        self._forget()
        if not is_whole:
            raise SmtpError(552, "5.3.4", "Error: message file too big")
        sender = b"" if mail.sender is None else str(mail.sender).encode("utf-8", "surrogateescape")
        fields = [(b"sender", sender), *((b"recipient", each) for each in recipients)]
        fields += [
            (name, value.encode()) for name, value in ((b"body", mail.body), (b"ret", mail.ret)) if value
        ]
        self._submit(fields, content)
        return "250 2.0.0 Ok: queued"

    def _content(self) -> tuple[bytes, bool]:
        """The lines up to the dot, LF line ends, dots unstuffed; whether none was left out for its size."""
        pieces: list[bytes] = []
        size, begins = 0, True
        while piece := self._stream.readline(1 << 16):
            if begins and piece in (b".\r\n", b".\n"):
                return b"".join(pieces).replace(
                    b"\r\n", b"\n"
                ), not self._size_limit or size <= self._size_limit
            if begins and piece.startswith(b"."):
                piece = piece[1:]
            begins = piece.endswith(b"\n")
            size += len(piece)
            if not self._size_limit or size <= self._size_limit:
                pieces.append(piece)
        raise SmtpError(451, "4.3.0", "Error: the message has no end")
