"""Whether a password is right: `PasswordCheck` over the sources of accounts.

An unknown, locked or forbidden name costs the same as a wrong password: the given password
is checked against somebody else's stored one, always the same for a name, and the result is thrown
away (RELIABILITY B14). A good login is remembered for a few minutes under a keyed digest of name, password
and stored password, so that the next one skips the hash; a changed password, a locked or
a removed account is noticed at once, since the stored one is looked up each time.
"""

from __future__ import annotations

import hmac
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from mailserver.accounts import hashing
from mailserver.accounts.account import NOWHERE, Account, Origin, TemporaryAccountFailure
from mailserver.accounts.app_passwords import AppPasswords
from mailserver.accounts.directory import SourceDirectory
from mailserver.accounts.names import login_name, spellings
from mailserver.accounts.source import ASK_AUTHORITY, Credential

LONGEST_MEMORY: Final = 600.0  # seconds
_MOST_REMEMBERED: Final = 10_000
# The password of nobody (its salt and digest are arbitrary), where the data base has none to borrow.
_NOBODY: Final = "$6$rounds=100000$nobodynobodynobo$" + "x" * 86


class GoodLogins:
    """Which (name, password, stored password) were right lately. Safe to use from any thread."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds = min(seconds, LONGEST_MEMORY)
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._until: OrderedDict[bytes, float] = OrderedDict()

    def digest(self, *parts: bytes) -> bytes:
        """A keyed digest in which no two different tuples of parts collide."""
        framed = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        return hmac.digest(self._key, framed, "sha256")

    def __contains__(self, digest: bytes) -> bool:
        with self._lock:
            return self._until.get(digest, 0.0) > self._clock()

    def add(self, digest: bytes) -> None:
        """The login is remembered; the oldest one goes where there are too many."""
        with self._lock:
            self._until[digest] = self._clock() + self._seconds
            self._until.move_to_end(digest)
            if len(self._until) > _MOST_REMEMBERED:
                self._until.popitem(last=False)


class SourcePasswordCheck:
    """`PasswordCheck` over a directory. `local_domains`: name@domain also logs in as name there."""

    def __init__(
        self,
        directory: SourceDirectory,
        local_domains: Iterable[str] = (),
        remember: float = LONGEST_MEMORY,
        clock: Callable[[], float] = time.monotonic,
        app_passwords: AppPasswords | None = None,
        app_passwords_only: bool = False,
    ) -> None:
        """`app_passwords_only`: the account's own password lets nobody in."""
        self._directory = directory
        self._local_domains = frozenset(domain.lower() for domain in local_domains)
        self.app_passwords = app_passwords
        self.app_passwords_only = app_passwords_only
        self._good = GoodLogins(remember, clock)
        # What follows a right password; each gives the credential on as it is stored then.
        self.after_login: list[Callable[[Credential, bytes], Credential]] = []

    def verify(self, name: str, password: bytes, origin: Origin = NOWHERE) -> Account | None:
        """See `PasswordCheck.verify`."""
        credential = self.credential(name)
        if credential is not None and self._is_app_password(credential, password, origin):
            return credential.account
        if credential is None or not self.takes_password_of(credential):
            self._waste_as_much_time(name, password, origin)
            return None
        if credential.authority is not None:
            return credential.account if credential.authority.verify(password, origin) else None
        return credential.account if self._is_right(credential, password) else None

    def vouched(self, name: str, origin: Origin = NOWHERE) -> Account | None:
        """See `PasswordCheck.vouched`."""
        credential = self.credential(name)
        return credential.account if credential is not None and self.is_open(credential, origin) else None

    def takes_password_of(self, credential: Credential) -> bool:
        """Whether the account's own password counts."""
        is_usable = bool(credential.stored) and credential.account.may_login
        return is_usable and not self.app_passwords_only

    def _is_app_password(self, credential: Credential, password: bytes, origin: Origin) -> bool:
        known = self.app_passwords
        is_right = known is not None and known.is_right(credential.account, password, origin)
        return is_right and self.is_open(credential, origin)

    def is_open(self, credential: Credential, origin: Origin) -> bool:
        """Whether another secret than the account's password may open it."""
        if credential.is_closed or not credential.account.may_login:
            return False
        return credential.authority is None or credential.authority.is_open(origin)

    def credential(self, name: str) -> Credential | None:
        """The account that somebody means who logs in with that name. Raises TemporaryAccountFailure."""
        lowered = login_name(name)
        if lowered is None:
            return None
        found = (self._directory.credential(spelling) for spelling in spellings(lowered, self._local_domains))
        credential = next((credential for credential in found if credential is not None), None)
        return credential and self._of_user(credential)

    def _of_user(self, credential: Credential) -> Credential:
        """The credential of the account that `user=` names, with the networks and prohibitions of both."""
        entry = credential.account
        user = entry.extra.get("user", "").lower()
        if not user or user == entry.name:
            return credential
        account = self._directory.lookup(user)
        if account is None:
            raise TemporaryAccountFailure(f"{entry.name}: user={user}: there is no such account")
        own = {key: value for key, value in entry.extra.items() if key != "user"}
        may_login = entry.may_login and account.may_login
        return replace(
            credential,
            account=replace(account, may_login=may_login, extra={**account.extra, **own}),
            entry=entry.name,
        )

    def _is_right(self, credential: Credential, password: bytes) -> bool:
        stored = credential.stored
        digest = self._good.digest(
            credential.name.encode(), password, stored.encode("utf-8", "surrogateescape")
        )
        if digest in self._good:
            return True
        try:
            is_right = hashing.verify(stored, password, credential.name)
        except hashing.UnknownScheme as error:
            raise TemporaryAccountFailure(f"the password of {credential.account.name}: {error}") from error
        if is_right:
            self._good.add(digest)
            for follow in self.after_login:
                credential = follow(credential, password)
        return is_right

    def borrowed(self, seed: bytes) -> str:
        """Somebody's stored password, always the same for a seed of eight octets or more."""
        choices = [stored for source in self._directory.sources for stored in source.stored_passwords()]
        return choices[int.from_bytes(seed[:8], "big") % len(choices)] if choices else _NOBODY

    def _waste_as_much_time(self, name: str, password: bytes, origin: Origin) -> None:
        borrowed = self.borrowed(self._good.digest(name.encode("utf-8", "replace")))
        if borrowed == ASK_AUTHORITY:
            asked = (source.nobody() for source in self._directory.sources)
            nobody = next((authority for authority in asked if authority is not None), None)
            if nobody is not None:
                nobody.verify(password, origin)
                return
        try:
            hashing.verify(borrowed, password, name)
        except hashing.UnknownScheme:
            hashing.verify(_NOBODY, password)
