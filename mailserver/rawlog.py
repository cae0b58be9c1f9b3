"""Transcripts of an account's IMAP and POP3 sessions, while an administrator wants them: `mailserver rawlog`.

The switch is the file `rawlog/until` in the account's state directory, with the POSIX time at which it
ends; a session that logs in meanwhile writes `rawlog/TIME-SERVICE-SESSION`, mode 0600, owned by whoever
serves the account, until the switch is gone or over, or the file is full. The log says so for each. What is
written has passed `wire.redaction`, and begins after the login, so that no password is near it. A
crash leaves the files; `mailserver rawlog USER --stop` removes them.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import quote

from mailserver.maillog import MailLog
from mailserver.wire.redaction import Redaction

LARGEST: Final = 1_048_576  # octets of a transcript
MOST: Final = 100  # transcripts of an account
SWITCH: Final = "until"


def directory_of(accounts_directory: str, name: str) -> str:
    """Where the account's transcripts lie."""
    return os.path.join(accounts_directory, quote(name, safe="@+"), "rawlog")


def deadline(directory: str) -> float:
    """The POSIX time at which the switch ends; 0 where it is off."""
    try:
        with open(os.open(f"{directory}/{SWITCH}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            return float(file.read(32))
    except (OSError, ValueError):
        return 0.0


class Transcript:
    """One session's. Nothing here raises: where it cannot be written it ends."""

    def __init__(self, descriptor: int, switch: str, until: float, service: str) -> None:
        self._descriptor = descriptor
        self._switch = switch
        self._until = until
        is_imap = service == "imap"
        self._said = {"C": Redaction(is_imap, True), "S": Redaction(is_imap, False)}
        self._room = LARGEST

    def client(self, data: bytes) -> None:
        """The client has said this."""
        self._add("C", self._said["C"].feed(data))

    def server(self, data: bytes) -> None:
        """The server has said this."""
        self._add("S", self._said["S"].feed(data))

    def content(self, response: bytes) -> None:
        """The server has said this POP3 response, of which only the first line is no content."""
        first, _, rest = response.partition(b"\n")
        self._add("S", [*self._said["S"].feed(first + b"\n"), b"[%d octets]" % len(rest)])

    def close(self) -> None:
        """Nothing more is written."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _add(self, who: str, lines: list[bytes]) -> None:
        if self._descriptor < 0 or not lines:
            return
        now = time.time()
        if now > self._until or not os.path.exists(self._switch):
            self.close()
            return
        stamp = time.strftime("%H:%M:%S", time.localtime(now)) + f".{int(now * 1000) % 1000:03d} {who}: "
        text = b"".join(stamp.encode() + line + b"\n" for line in lines)
        if len(text) > self._room:
            text = b"[the transcript is full]\n"
        with contextlib.suppress(OSError):
            os.write(self._descriptor, text)
        self._room -= len(text)
        if text.startswith(b"["):
            self.close()


class RawLog:
    """Begins the transcripts of accounts whose state lies under `accounts_directory`."""

    def __init__(self, accounts_directory: str, log: MailLog, now: Callable[[], float] = time.time) -> None:
        self._accounts_directory = accounts_directory
        self._log = log
        self._now = now

    def begin(self, name: str, service: str, session: str, address: str) -> Transcript | None:
        """The transcript of a session that begins, where one is wanted. *Blocking*; never raises OSError."""
        directory = directory_of(self._accounts_directory, name)
        until = deadline(directory)
        if until <= self._now():
            return None
        when = time.strftime("%Y%m%d-%H%M%S", time.localtime(self._now()))
        path = f"{directory}/{when}-{service}-{session}"
        try:
            if len(os.listdir(directory)) > MOST:
                raise OSError(f"{MOST} transcripts are there already")
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(path, flags, 0o600)
        except OSError as error:
            self._log.write(service, f"warning: rawlog: no transcript for {name}: {error}")
            return None
        self._log.write(service, f"rawlog: the session <{session}> of {name} from {address} goes to {path}")
        return Transcript(descriptor, f"{directory}/{SWITCH}", until, service)
