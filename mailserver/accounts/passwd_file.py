"""Dovecot's passwd-file as a source of accounts.

A line is `user:password:uid:gid:gecos:home:shell:extra`; fields at the end may be missing. The password
is `{SCHEME}text` or bare crypt(3) text; empty, `*` or `!…` means no login. uid and gid may be
names; where they are empty the mail belongs to the file's one `owner`. `#` begins a comment line. The first
line of a name counts. `extra` holds `key=value` words, of which these mean something:

    allow_nets=NET,…          logins from there only
    nologin                   mail, and no login
    nopassword                any password is right, where the password field is empty
    user=NAME                 the login is that account's
    userdb_mail=LOCATION      mail_location of this account
    userdb_uid, userdb_gid, userdb_home            for fields that are empty
    userdb_quota_rule, …2, …3                      quota

A line that cannot be understood makes that one account a temporary failure, with
`path:line` in the text: its mail waits, nobody is told that the user is unknown.
"""

from __future__ import annotations

import grp
import pwd
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from mailserver.accounts.account import Account, Origin, TemporaryAccountFailure
from mailserver.accounts.snapshot import FileSnapshot
from mailserver.accounts.source import ASK_AUTHORITY, NO_PASSWORD, Credential
from mailserver.wire.user_variables import expand

LOCKED: Final = ("!", "*")
_NOTHING: Final = ("", "{PLAIN}", "{CLEARTEXT}")


class Anybody:
    """An `Authority` to which every password is right."""

    def verify(self, password: bytes, origin: Origin) -> bool:
        """See `Authority.verify`."""
        return True

    def is_open(self, origin: Origin) -> bool:
        """See `Authority.is_open`."""
        return True


@dataclass(frozen=True, slots=True)
class MailOwner:
    """Who owns the mail of entries without uid and gid of their own."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One line: its fields as text, and its number (from 1)."""

    line: int
    fields: tuple[str, ...]


def parse(text: str) -> Mapping[str, Entry]:
    """The entries by name in lower case, in file order."""
    entries: dict[str, Entry] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        fields = line.split(":", 7)
        fields += [""] * (8 - len(fields))
        entries.setdefault(fields[0].strip().lower(), Entry(number, tuple(fields)))
    entries.pop("", None)
    return entries


def _extra_fields(text: str) -> dict[str, str]:
    words = (word.partition("=") for word in text.split())
    return {key: value for key, _, value in words}


class PasswdFile:
    """An `AccountSource` over one passwd-file.

    `home_template` is the home of entries without one, with `wire.user_variables`. `default_scheme` is
    that of passwords without one.
    """

    def __init__(
        self, path: str, owner: MailOwner, home_template: str = "", default_scheme: str = "CRYPT"
    ) -> None:
        self.name = f"passwd-file({path})"
        self._path = path
        self._owner = owner
        self._home_template = home_template
        self._default_scheme = default_scheme
        self._file = FileSnapshot(path, parse)

    def _entries(self) -> Mapping[str, Entry]:
        try:
            return self._file.get()
        except OSError as error:
            raise TemporaryAccountFailure(f"{self._path}: {error.strerror}") from error

    def credential(self, name: str) -> Credential | None:
        """See `AccountSource.credential`."""
        entry = self._entries().get(name.lower())
        if entry is None:
            return None
        account = self._account(entry)
        stored = entry.fields[1].strip()
        if stored.upper() in _NOTHING and "nopassword" in account.extra and account.may_login:
            return Credential(account, ASK_AUTHORITY, authority=Anybody())
        if not stored or stored.startswith(LOCKED):
            is_locked = stored not in NO_PASSWORD
            return Credential(account, reason="the password is empty or locked", is_closed=is_locked)
        if not account.may_login:
            return Credential(account, reason="the account has nologin", is_closed=True)
        named = self._with_scheme(stored)
        return Credential(account, named, file=self._path if named == stored else "")

    def _with_scheme(self, stored: str) -> str:
        if stored.startswith("{") or self._default_scheme.upper() == "CRYPT":
            return stored
        return f"{{{self._default_scheme}}}{stored}"

    def _account(self, entry: Entry) -> Account:
        name, _, uid, gid, gecos, home, shell, extra_text = entry.fields
        name = name.strip().lower()
        extra = _extra_fields(extra_text)
        try:
            return Account(
                name,
                self._uid(uid.strip() or extra.pop("userdb_uid", "")),
                self._gid(gid.strip() or extra.pop("userdb_gid", "")),
                home or extra.pop("userdb_home", "") or self._home(name),
                shell,
                gecos,
                mail=extra.pop("userdb_mail", ""),
                may_login="nologin" not in extra,
                extra=extra,
            )
        except (KeyError, ValueError) as error:
            raise TemporaryAccountFailure(f"{self._path}:{entry.line}: bad uid or gid for {name}") from error

    def _uid(self, text: str) -> int:
        if not text:
            return self._owner.uid
        return int(text) if text.isdecimal() else pwd.getpwnam(text).pw_uid

    def _gid(self, text: str) -> int:
        if not text:
            return self._owner.gid
        return int(text) if text.isdecimal() else grp.getgrnam(text).gr_gid

    def _home(self, name: str) -> str:
        try:
            return expand(self._home_template, name)
        except ValueError as error:
            raise TemporaryAccountFailure(f"mail_home: {error}") from error

    def lookup(self, name: str) -> Account | None:
        """See `AccountDirectory.lookup`."""
        entry = self._entries().get(name.lower())
        return None if entry is None else self._account(entry)

    def names(self) -> Iterator[str]:
        """See `AccountDirectory.names`."""
        return iter(tuple(self._entries()))

    def nobody(self) -> None:
        """See `AccountSource.nobody`."""

    def stored_passwords(self) -> Sequence[str]:
        """See `AccountSource.stored_passwords`."""
        stored = (entry.fields[1].strip() for entry in self._entries().values())
        return [self._with_scheme(text) for text in stored if text and not text.startswith(LOCKED)]
