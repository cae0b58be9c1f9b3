"""An account: somebody who can get mail here, and perhaps log in.

The same value stands for a system user (passwd), a passwd-file entry, and a virtual
`user@domain`. Where accounts come from is `AccountDirectory`'s business; whether a password
is right is `PasswordCheck`'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol


class TemporaryAccountFailure(Exception):
    """The account data base could not be read. Nobody may conclude that a user is unknown."""


@dataclass(frozen=True, slots=True)
class Account:
    """Somebody with a mailbox.

    `name` is lower case: `alice`, or `alice@example.org` for a virtual account. uid and gid own
    the mail. `mail` overrides `mail_location` where not empty (Dovecot's `userdb_mail`).
    `extra` holds the remaining passwd-file fields. `may_login` is false for accounts that get
    mail but have no network login (root, system accounts below first_valid_uid).
    """

    name: str
    uid: int
    gid: int
    home: str
    shell: str = ""
    gecos: str = ""
    mail: str = ""
    may_login: bool = True
    extra: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a login comes from: imap, pop3 or smtp ("" for none of them), and the client's address."""

    service: str = ""
    address: str = ""


NOWHERE: Final = Origin()


class AccountDirectory(Protocol):
    """Who exists. Blocking; safe to call from any thread."""

    def lookup(self, name: str) -> Account | None:
        """The account of that name (compared in lower case), or None where there is none.

        Raises TemporaryAccountFailure where that cannot be known.
        """

    def names(self) -> Iterator[str]:
        """All account names, in the order of their sources."""


class PasswordCheck(Protocol):
    """Whether a password is right. Blocking, for tens of milliseconds."""

    def verify(self, name: str, password: bytes, origin: Origin = NOWHERE) -> Account | None:
        """The account, where the password is right and it may log in; else None.

        App passwords are right for the protocols that they were made for.
        Takes as long for an unknown user as for a wrong password.
        Raises TemporaryAccountFailure where the data base cannot be read.
        """

    def vouched(self, name: str, origin: Origin = NOWHERE) -> Account | None:
        """The account of somebody who has proved his name otherwise, where it may log in; else None.

        Raises TemporaryAccountFailure where the data base cannot be read.
        """
