"""The helper: root's part of a login, and the secrets that a front may ask for.

Requests, over a `ChannelService`: `{"challenge": name}` gives what SCRAM shows a client of that name, and
`{"attempt": …}` gives `{"account": …}` or `{"refused": …}`; for POP3
and IMAP a granted one brings a stream whose other end is at the account's session host already, so that a
front gets to a mailbox only with a right password. `{"secret": path}` gives the file's content and
`{"stamp": path}` a mark that changes with it, for the paths named at construction and no others (TLS
keys, read again when they change). `{"lookup": name}`
and `{"names": true}` say who exists, since the passwd-file with its hashes is not a front's to read.
`{"auth-socket": path}` brings a connection to a Dovecot that checks logins, at a path named likewise.
`{"penalties": true}` lists what is held against which place, `{"forgive": place}` ends it, `{"leave": true}`
leaves it to the helper of the next configuration.
A crash costs the attempts under way: their fronts answer "temporary".
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Container
from typing import Final

from mailserver.accounts.account import Account, AccountDirectory, TemporaryAccountFailure
from mailserver.accounts.codec import (
    account_message,
    attempt_from,
    challenge_message,
    refused_message,
)
from mailserver.accounts.dovecot_logins import connect
from mailserver.accounts.login import Refused
from mailserver.accounts.verdict import Judge
from mailserver.maillog import MailLog
from mailserver.rights.handed_down import HandedDown
from mailserver.rights.messages import Message, close_all, to_text
from mailserver.rights.service import Answer

_WITH_HOST: Final = frozenset({"imap", "pop3"})
_LARGEST_SECRET: Final = 32_768  # octets: it travels in one packet


class Helper:
    """Handles the requests of fronts. `attach(account, stream)` gives a stream to the account's host."""

    def __init__(
        self,
        judge: Judge,
        accounts: AccountDirectory,
        attach: Callable[[Message, int], int],
        log: MailLog,
        secrets: Container[object] = frozenset(),
        auth_sockets: Container[object] = frozenset(),
        heritage: HandedDown | None = None,
        leaves: Callable[[], None] = lambda: None,
    ) -> None:
        """`heritage` is what helpers leave to each other: the penalties. `leaves` is called then."""
        self._judge = judge
        self._accounts = accounts
        self._attach = attach
        self._log = log
        self._secrets = secrets
        self._auth_sockets = auth_sockets
        self._heritage = heritage
        self._leaves = leaves

    def handle(self, message: Message, descriptors: list[int]) -> Answer:
        """The answer to one request. Blocking; for worker threads. Raises ValueError."""
        close_all(descriptors)  # nobody sends us any
        self._take_over()
        if "secret" in message:
            return self._secret(message["secret"])
        if "stamp" in message:
            return self._stamp(message["stamp"])
        if "lookup" in message or "names" in message:
            return self._who_exists(message)
        if message.get("auth-socket") in self._auth_sockets:
            return Answer({"connected": True}, (connect(str(message["auth-socket"])),))
        if "penalties" in message:
            return Answer({"penalties": self._judge.throttle.penalties()})
        if "forgive" in message:
            return Answer({"forgiven": self._judge.throttle.forgive(str(message["forgive"]))})
        if "leave" in message:
            if self._heritage is not None:
                self._heritage.leave(self._judge.throttle.exported())
            self._leaves()
            return Answer({"left": True})
        if "challenge" in message:
            return self._challenge(str(message["challenge"]))
        attempt = attempt_from(message.get("attempt", {}))
        verdict = self._judge.judge(attempt)
        if isinstance(verdict.answer, Refused):
            return Answer({"refused": refused_message(verdict.answer)}, delay=verdict.delay)
        attached = self._streams(attempt.service, verdict.answer)
        if attached is None:
            return Answer({"refused": refused_message(Refused(True, "no session host"))})
        streams, pid = attached
        signature = to_text(verdict.signature)
        granted = {"account": account_message(verdict.answer), "pid": pid, "signature": signature}
        return Answer(granted, streams, verdict.delay)

    def _challenge(self, name: str) -> Answer:
        challenge = self._judge.challenge(name)
        if isinstance(challenge, Refused):
            return Answer({"refused": refused_message(challenge)})
        return Answer({"challenge": challenge_message(challenge)})

    def _streams(self, service: str, account: Account) -> tuple[tuple[int, ...], int] | None:
        """The front's end of a stream to the host and the host's pid; none for SMTP, None without a host."""
        if service not in _WITH_HOST:
            return (), 0
        front, host = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with host:
            try:
                pid = self._attach(account_message(account), host.fileno())
            except OSError as error:
                front.close()
                self._log.write("auth", f"Error: {service}({account.name}): {error}")
                return None
        return (front.detach(),), pid

    def _who_exists(self, message: Message) -> Answer:
        try:
            if "names" in message:
                return Answer({"names": list(self._accounts.names())})
            account = self._accounts.lookup(str(message["lookup"]))
        except TemporaryAccountFailure as failure:
            return Answer({"temporary": str(failure)})
        return Answer({"found": None if account is None else account_message(account)})

    def _stamp(self, path: object) -> Answer:
        if path not in self._secrets:
            return Answer({"error": "no such secret"})
        mark = os.stat(str(path))
        return Answer({"stamp": [mark.st_dev, mark.st_ino, mark.st_mtime_ns]})

    def _take_over(self) -> None:
        """What another helper left is held here too."""
        left = self._heritage.take() if self._heritage is not None else None
        if left is not None:
            self._judge.throttle.adopt(left)

    def _secret(self, path: object) -> Answer:
        if path not in self._secrets:
            return Answer({"error": "no such secret"})
        with open(str(path), "rb") as file:
            return Answer({"content": to_text(file.read(_LARGEST_SECRET))})
