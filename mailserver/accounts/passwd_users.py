"""Users of passwd(5): who they are, and which may log in; their passwords are for each source to check."""

from __future__ import annotations

import abc
import pwd
from collections.abc import Callable, Iterator

from mailserver.accounts.account import Account
from mailserver.accounts.passwd_database import PasswdEntry, passwd_entry
from mailserver.accounts.source import Credential


def system_names() -> Iterator[str]:
    """All names in passwd. *Blocking.*"""
    return (entry.pw_name for entry in pwd.getpwall())


class ValidUids:
    """Which users may log in: those from `first` to `last`, 0 for no end; never root."""

    def __init__(self, first: int = 1000, last: int = 0) -> None:
        self._first = max(first, 1)
        self._last = last

    def account(self, entry: PasswdEntry) -> Account:
        """The user's account."""
        may_login = entry.uid >= self._first and not 0 < self._last < entry.uid
        gecos = entry.gecos.partition(",")[0]
        return Account(
            entry.name.lower(), entry.uid, entry.gid, entry.home, entry.shell, gecos, may_login=may_login
        )

    def refusal(self, entry: PasswdEntry) -> str:
        """Why the others may not."""
        return f"uid {entry.uid} is outside first_valid_uid … last_valid_uid"


class PasswdUsers(abc.ABC):
    """The half of an `AccountSource` that passwd answers."""

    def __init__(
        self,
        uids: ValidUids,
        find: Callable[[str], PasswdEntry | None] = passwd_entry,
        list_names: Callable[[], Iterator[str]] = system_names,
    ) -> None:
        self._uids = uids
        self._find = find
        self._list_names = list_names

    def lookup(self, name: str) -> Account | None:
        """See `AccountDirectory.lookup`."""
        entry = self._find(name.lower())
        return None if entry is None else self._uids.account(entry)

    def names(self) -> Iterator[str]:
        """See `AccountDirectory.names`."""
        return (name.lower() for name in self._list_names())

    def credential(self, name: str) -> Credential | None:
        """See `AccountSource.credential`."""
        entry = self._find(name.lower())
        if entry is None:
            return None
        account = self._uids.account(entry)
        if not account.may_login:
            return Credential(account, reason=self._uids.refusal(entry), is_closed=True)
        return self._credential(entry, account)

    @abc.abstractmethod
    def _credential(self, entry: PasswdEntry, account: Account) -> Credential:
        """That of a user who may log in."""
