"""What a source of accounts gives: who exists, and the stored password of each.

A credential never leaves the process that checks passwords: not by message, not in a log.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from mailserver.accounts.account import Account, AccountDirectory, Origin

# What stands where there never was a password; behind a `!` or `*` there is one that was locked.
NO_PASSWORD: Final = frozenset({"", "*", "!", "!!", "!*", "x"})


# What `stored` says where the password is another program's to check.
ASK_AUTHORITY: Final = "{PAM}"


class Authority(Protocol):
    """Another program that knows one user's password. Blocking. Both raise TemporaryAccountFailure."""

    def verify(self, password: bytes, origin: Origin) -> bool:
        """Whether the password is right, and the account open to a login from there."""

    def is_open(self, origin: Origin) -> bool:
        """Whether the account is open to a login from there, by whatever secret."""


@dataclass(frozen=True, slots=True)
class Credential:
    """An account and its stored password. `stored` "" means that nobody can log in with one; `reason` is why.

    `is_closed`: an administrator or its time closed the account, so that no other secret is good either.
    `file` is the passwd-file in which it stands, "" where it stands in none. `authority` is there where
    `stored` says to ask it. `entry` is the name under which it stands, where that is not the account's.
    """

    account: Account
    stored: str = field(default="", repr=False)
    reason: str = ""
    is_closed: bool = False
    file: str = ""
    authority: Authority | None = None
    entry: str = ""

    @property
    def name(self) -> str:
        """The name under which it stands."""
        return self.entry or self.account.name


class AccountSource(AccountDirectory, Protocol):
    """One data base of accounts. Blocking; safe to call from any thread."""

    name: str  # for the log: "passwd-file(/etc/mailserver/users)", "system"

    def credential(self, name: str) -> Credential | None:
        """The credential of that name (in lower case); None where there is no such account.

        Raises TemporaryAccountFailure where that cannot be known.
        """

    def stored_passwords(self) -> Sequence[str]:
        """Every usable stored password, for checks that must take as long as a real one."""

    def nobody(self) -> Authority | None:
        """The authority asked about nobody, for the same reason; None where there is none to ask."""
