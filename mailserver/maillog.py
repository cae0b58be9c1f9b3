"""The mail log: lines that Postfix's and Dovecot's log readers already understand.

A line is `Mon DD hh:mm:ss host ident[pid]: text`. Idents are `postfix/smtpd`,
`postfix/qmgr`, … for the transfer half and `dovecot` for the retrieval half, because
fail2ban and pflogsumm match on them; `syslog_name` and `retrieval_syslog_name` change them.
Control characters never reach the log: every text is made printable first.
A log that cannot be written never stops mail.
"""

from __future__ import annotations

import os
import re
import socket
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol

LONGEST_LINE: Final = 2000  # characters of text; log readers and syslog cut at 2 KiB
_AT_ONCE: Final = 16  # lines of usual length: a pipe takes 4096 octets without another process's between
_VARIABLE: Final = re.compile(r"%(?:\{([^{}]*)\}|(.))")
_UNSAFE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str, limit: int = 1000) -> str:
    """The text, at most `limit` characters, with `?` for control characters and those that turn direction."""
    return (text if text.isprintable() else _UNSAFE.sub("?", text))[:limit]


def filled(template: str, values: Mapping[str, object]) -> str:
    """The template with Dovecot's `%x`, `%{name}` and `%%` replaced; unknown names stay recognisable."""

    def value(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        return "%" if name == "%" else str(values.get(name, f"UNSUPPORTED_VARIABLE_{name}"))

    return _VARIABLE.sub(value, template)


class MailLog(Protocol):
    """Where a service writes its lines. `service` is smtpd, cleanup, qmgr, local, imap-login, …"""

    def write(self, service: str, text: str) -> None:
        """The line is on its way to the log; never raises, never blocks for long."""

    def write_all(self, lines: Iterable[tuple[str, str]]) -> None:
        """As `write`, for several lines (service, text) at once."""


def _ident(service: str, syslog_name: str, retrieval_name: str) -> str:
    if service.startswith(("imap", "pop3", "auth")):
        return f"{retrieval_name}: {service}"
    return f"{syslog_name}/{service}[{os.getpid()}]".removeprefix("/")


class FileLog:
    """Appends lines to a file, "/dev/stdout" included; `reopen` after it was rotated."""

    def __init__(
        self,
        path: str,
        syslog_name: str = "postfix",
        retrieval_name: str = "dovecot",
        clock: Callable[[], float] = time.time,
        host: str = "",
    ) -> None:
        self._path = path
        self._names = (syslog_name, retrieval_name)
        self._clock = clock
        self._host = host or socket.gethostname().split(".")[0]
        self._descriptor = -1
        self._second = (0, "")
        self._pid = 0
        self._idents: dict[str, str] = {}  # of this process's services
        self.reopen()

    def reopen(self) -> None:
        """The log is open under its name again; raises OSError where it cannot be."""
        if self._path == "/dev/stdout":
            self._descriptor = sys.stdout.fileno()
            return
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self._path, flags, 0o600)
        if self._descriptor >= 0:
            os.dup2(descriptor, self._descriptor, inheritable=False)
            os.close(descriptor)
        else:
            self._descriptor = descriptor

    @property
    def descriptor(self) -> int:
        """The open log. `adopt` takes it, in a process that may not open the file itself."""
        return self._descriptor

    def adopt(self, descriptor: int) -> None:
        """Lines go from now on where the descriptor leads; it stays the caller's to close."""
        os.dup2(descriptor, self._descriptor, inheritable=self._path == "/dev/stdout")

    def give_to(self, uid: int, gid: int) -> None:
        """The file belongs to whom this process will become, who can reopen it then. Raises OSError."""
        if self._path != "/dev/stdout":
            os.fchown(self._descriptor, uid, gid)

    def _stamp(self) -> str:
        now = int(self._clock())
        if self._second[0] != now:
            self._second = (now, time.strftime("%b %e %H:%M:%S", time.localtime(now)))
        return self._second[1]

    def _ident(self, service: str) -> str:
        """Host and name of the service, as every line of its has them in this process."""
        self._idents[service] = ident = f"{self._host} {_ident(service, *self._names)}"
        return ident

    def write(self, service: str, text: str) -> None:
        """See `MailLog.write`."""
        self.write_all(((service, text),))

    def write_all(self, lines: Iterable[tuple[str, str]]) -> None:
        """See `MailLog.write_all`."""
        stamp, pid = self._stamp(), os.getpid()
        if pid != self._pid:
            self._pid, self._idents = pid, {}
        idents = self._idents
        texts = [
            f"{stamp} {idents.get(service) or self._ident(service)}: {printable(text, LONGEST_LINE)}\n"
            for service, text in lines
        ]
        for first in range(0, len(texts), _AT_ONCE):
            text = "".join(texts[first : first + _AT_ONCE])
            try:
                os.write(self._descriptor, text.encode("utf-8", "replace"))
            except OSError:
                pass  # a full log disk must not stop mail: RELIABILITY F55


class SyslogLog:
    """Sends lines to syslog's mail facility."""

    def __init__(self, syslog_name: str = "postfix", retrieval_name: str = "dovecot") -> None:
        import syslog

        self._syslog = syslog
        self._names = (syslog_name, retrieval_name)

    def write(self, service: str, text: str) -> None:
        """See `MailLog.write`."""
        ident = _ident(service, *self._names)
        name, _, rest = ident.partition(": ")
        text = f"{rest}: {text}" if rest else text
        name = name.removesuffix(f"[{os.getpid()}]")
        self._syslog.openlog(name, self._syslog.LOG_PID, self._syslog.LOG_MAIL)
        self._syslog.syslog(self._syslog.LOG_INFO, printable(text, LONGEST_LINE))

    def write_all(self, lines: Iterable[tuple[str, str]]) -> None:
        """See `MailLog.write_all`."""
        for service, text in lines:
            self.write(service, text)


class ListLog:
    """Keeps lines as (service, text) pairs: for commands that show them, and for tests."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def write(self, service: str, text: str) -> None:
        """See `MailLog.write`."""
        self.lines.append((service, printable(text, LONGEST_LINE)))

    def write_all(self, lines: Iterable[tuple[str, str]]) -> None:
        """See `MailLog.write_all`."""
        for service, text in lines:
            self.write(service, text)
