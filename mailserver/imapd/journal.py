"""The log lines of one connection, in the words that Dovecot's log readers know.

`imap-login: Login: user=<…>, method=…, rip=…` when somebody is in, `imap-login: Disconnected:
… (auth failed, 2 attempts in 4 secs): …` for who never was, `imap(alice)<pid><session>:
Disconnected: … in=… out=…` at the end. No password and no content ever gets here.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from typing import Any

from mailserver.accounts.account import Account
from mailserver.accounts.login import Peer
from mailserver.imapd.session import Session
from mailserver.imapd.settings import ImapSettings
from mailserver.maillog import MailLog, filled


class Journal:
    """What is known of a connection for the log. `reason` says why it will have ended.

    `session` is the session that began on it, kept when it has ended.
    """

    __slots__ = (
        "_clock", "_log", "_name", "_settings", "_started", "_was_turned_away", "attempts", "id", "method",
        "octets_in", "octets_out", "peer", "reason", "session",
    )  # fmt: skip

    def __init__(self, log: MailLog, clock: Any, settings: ImapSettings) -> None:
        self.peer = Peer("", 0, "", 0, False, False)
        self.id = secrets.token_urlsafe(9)
        self.reason = "Connection closed"
        self.session: Session | None = None
        self.attempts = 0
        self.method = ""
        self.octets_in = 0
        self.octets_out = 0  # what another process said before us
        self._name = ""
        self._log = log
        self._settings = settings
        self._clock = clock
        self._started = clock.seconds()
        self._was_turned_away = False

    def attempted(self, name: str, mechanism: str) -> None:
        """Somebody tries to log in."""
        self.attempts += 1
        self._name, self.method = name, mechanism

    def logged_in(self, account: Account, pid: int = 0) -> None:
        """The line of a login; the process `pid` serves it, 0 is this one."""
        self._log.write("imap-login", f"Login: {self._fields(account.name, pid or os.getpid())}")

    def turned_away(self, reason: str) -> None:
        """The password was right, and the session is not taken for that reason."""
        self.reason, self._was_turned_away = reason, True

    def left(self, octets_out: int) -> None:
        """The last line of a session whose connection goes on without it."""
        reason, self.reason = self.reason, "Unauthenticated"
        self.ended(octets_out)
        self.reason, self.session, self.method, self._name = reason, None, "", ""
        self.attempts = 0

    def ended(self, octets_out: int) -> None:
        """The last line."""
        session = self.session
        if session is None:
            self._ended_before_login()
            return
        counts, octets_out = session.counts, self.octets_out + octets_out
        values = {
            "i": self.octets_in, "input": self.octets_in, "o": octets_out, "output": octets_out,
            "deleted": counts.deleted, "expunged": counts.expunged, "trashed": counts.trashed,
            "fetch_hdr_count": counts.hdr_count, "fetch_hdr_bytes": counts.hdr_bytes,
            "fetch_body_count": counts.body_count, "fetch_body_bytes": counts.body_bytes,
            "session": self.id, "autoexpunged": 0,
        }  # fmt: skip
        summary = filled(self._settings.logout_format, values)
        self._log.write(self._session_ident(session), f"Disconnected: {self.reason} {summary}")

    def _session_ident(self, session: Session) -> str:
        return f"imap({loggable(session.account.name)})<{os.getpid()}><{self.id}>"

    def identified(self, fields: Sequence[tuple[bytes, bytes]]) -> None:
        """The client says what it is; those fields are logged that imap_id_log names."""
        wanted = self._settings.id_log
        texts = [[text.decode("utf-8", "replace") for text in pair] for pair in fields]
        said = ", ".join(
            f"{name.lower()}={value}" for name, value in texts if "*" in wanted or name.lower() in wanted
        )
        if not said:
            return
        if self.session is not None:
            self._log.write(self._session_ident(self.session), f"ID sent: {said}")
        else:
            self._log.write("imap-login", f"ID sent: {said}: {self._fields(self._name)}")

    def _ended_before_login(self) -> None:
        seconds = int(self._clock.seconds() - self._started)
        if self._was_turned_away:
            what = ""
        elif self.attempts:
            what = f" (auth failed, {self.attempts} attempts in {seconds} secs)"
        else:
            what = f" (no auth attempts in {seconds} secs)"
        self._log.write("imap-login", f"Disconnected: {self.reason}{what}: {self._fields(self._name)}")

    def _fields(self, name: str, pid: int = 0) -> str:
        fields = [f"user=<{loggable(name)}>"]
        if self.method:
            fields.append(f"method={self.method}")
        fields += [f"rip={self.peer.address}", f"lip={self.peer.local_address}"]
        if pid:
            fields.append(f"mpid={pid}")
        if self.peer.is_tls:
            fields.append("TLS")
        elif self.peer.is_secure:
            fields.append("secured")
        return ", ".join([*fields, f"session=<{self.id}>"])


def loggable(name: str) -> str:
    """The name as log readers can take it: no `<`, `>`, no control characters."""
    return "".join("?" if letter in "<>" or not letter.isprintable() else letter for letter in name)[:255]
