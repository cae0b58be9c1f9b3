"""Who is logged in: what `mailserver who` lists, `kick` ends, and mail_max_userip_connections counts.

The sessions of all listeners of a process, from a login to the end of its connection. Where session hosts
serve them the front keeps this, since it has the connections.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol


class Session(Protocol):
    """A connection on which somebody is logged in."""

    def kick(self) -> None:
        """The client is told that an administrator ends the session, and it ends; nothing is committed."""


@dataclass(frozen=True, slots=True)
class Login:
    """One session. `service` is imap, pop3 or smtp, `session` its id in the log.

    `pid` is the process that serves it; 0 is this one.
    """

    user: str
    service: str
    address: str
    pid: int
    session: str


class LoggedIn:
    """See the module. An account may have `most` sessions of a protocol from an address, 0 is any number.

    From an address of ours (`is_ours`) it may have any number: a webmail there speaks for everybody.
    """

    def __init__(
        self,
        most: int = 0,
        now: Callable[[], float] = time.time,
        is_ours: Callable[[str], bool] = lambda address: False,
    ) -> None:
        self.most = most
        self._now = now
        self._is_ours = is_ours
        self._logins: dict[Session, tuple[Login, float]] = {}
        self._counts: Counter[tuple[str, str, str]] = Counter()

    def enter(self, session: Session, login: Login, is_limited: bool = True) -> bool:
        """The session is counted and listed; false where the account has too many from there already."""
        self.leave(session)
        kind = _kind(login)
        is_full = bool(self.most) and self._counts[kind] >= self.most
        if is_limited and is_full and not self._is_ours(login.address):
            return False
        self._counts[kind] += 1
        self._logins[session] = login, self._now()
        return True

    def leave(self, session: Session) -> None:
        """The session is over, or never was one."""
        found = self._logins.pop(session, None)
        if found is not None:
            kind = _kind(found[0])
            self._counts[kind] -= 1
            if not self._counts[kind]:
                del self._counts[kind]

    def logins(self) -> list[tuple[Login, float]]:
        """All sessions and the times of their logins, in POSIX seconds; the oldest first."""
        return list(self._logins.values())

    def kick(self, sessions: Collection[str]) -> list[Login]:
        """The sessions with these ids are ending; they are the answer."""
        found = [
            (session, login) for session, (login, _) in self._logins.items() if login.session in sessions
        ]
        for session, _ in found:
            session.kick()
        return [login for _, login in found]


def _kind(login: Login) -> tuple[str, str, str]:
    return login.user, login.address, login.service
