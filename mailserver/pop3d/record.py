"""What the log says of one connection, in the words of Dovecot 2.3.

fail2ban's stock filters and log readers match these lines: change none of the words.
Names that a client chose are made harmless first.
"""

from __future__ import annotations

import os
from typing import Final

from mailserver.accounts.login import Peer
from mailserver.maillog import MailLog, filled
from mailserver.pop3d.maildrop import Maildrop
from mailserver.pop3d.settings import LOGOUT_FORMAT

LOGGED_OUT_EARLY: Final = "Aborted login by logging out"


class ConnectionRecord:
    """See the module. `name` and `method` are those of the last attempt; `account` of the login."""

    def __init__(self, log: MailLog, session: str, logout_format: str = LOGOUT_FORMAT) -> None:
        self._log = log
        self._logout_format = logout_format
        self.octets_in = self.octets_out = 0
        self.session = session
        self.peer = Peer("local", 0, "local", 0, False, False)
        self.name = self.method = self.account = ""
        self.failures = 0
        self.was_plaintext_refused = False
        self.turned_away = ""  # why a login that was right is not taken
        self.reason = "Connection closed"

    def attempted(self, name: str, mechanism: str) -> None:
        """Somebody tries to log in."""
        self.name, self.method = name, mechanism

    def login(self, pid: int = 0) -> None:
        """The account is logged in; the process `pid` serves it, 0 is this one."""
        fields = connection_fields(self.peer, self.session, self.account, self.method, pid or os.getpid())
        self._log.write("pop3-login", f"Login: {fields}")

    def no_login(self, seconds: int) -> None:
        """The connection ended after so many seconds, without a login."""
        if self.turned_away:
            what = f"Disconnected: {self.turned_away}"
        elif self.failures:
            what = f"Disconnected: {self.reason} (auth failed, {self.failures} attempts in {seconds} secs)"
        elif self.was_plaintext_refused:
            what = "Aborted login (tried to use disallowed plaintext auth)"
        elif self.reason == LOGGED_OUT_EARLY:
            what = f"{self.reason} (no auth attempts in {seconds} secs)"
        else:
            what = f"Disconnected: {self.reason} (no auth attempts in {seconds} secs)"
        fields = connection_fields(self.peer, self.session, self.name, self.method)
        self._log.write("pop3-login", f"{what}: {fields}")

    def no_maildrop(self, reason: str) -> None:
        """The login was right and the mail could not be had."""
        self._write(f"Disconnected: {reason}")

    def trouble(self, text: str) -> None:
        """A command failed for a reason of ours."""
        self._write(f"Error: {text}")

    def session_ended(self, maildrop: Maildrop, is_updated: bool) -> None:
        """The session is over, with or without its deletions."""
        topped, retrieved = maildrop.topped, maildrop.retrieved
        deleted = maildrop.deleted if is_updated else set()
        facts = {
            ("i", "input"): self.octets_in,
            ("o", "output"): self.octets_out,
            ("t", "top_count"): topped.messages,
            ("p", "top_bytes"): topped.octets,
            ("r", "retr_count"): retrieved.messages,
            ("b", "retr_bytes"): retrieved.octets,
            ("d", "deleted_count"): len(deleted),
            ("", "deleted_bytes"): sum(map(maildrop.size, deleted)),
            ("m", "message_count"): len(maildrop.uids),
            ("s", "message_bytes"): sum(maildrop.sizes),
            ("", "session"): self.session,
        }
        values = {name: value for names, value in facts.items() for name in names}
        self._write(f"Disconnected: {self.reason} {filled(self._logout_format, values)}")

    def _write(self, text: str) -> None:
        self._log.write(f"pop3({loggable(self.account)})<{os.getpid()}><{self.session}>", text)


def loggable(name: str) -> str:
    """The name as log readers can take it: no `<`, `>` or control characters."""
    return "".join(["?" if letter in "<>" or not letter.isprintable() else letter for letter in name])[:255]


def connection_fields(peer: Peer, session: str, name: str = "", method: str = "", pid: int = 0) -> str:
    """`user=<…>, method=…, rip=…, …` as Dovecot's log readers know them."""
    fields = [f"user=<{loggable(name)}>"]
    if method:
        fields.append(f"method={method}")
    fields += [f"rip={peer.address}", f"lip={peer.local_address}"]
    if pid:
        fields.append(f"mpid={pid}")
    if peer.is_tls:
        fields.append("TLS")
    elif peer.is_secure:
        fields.append("secured")
    return ", ".join([*fields, f"session=<{session}>"])
