"""The system's users as a source of accounts: passwd through the name service, shadow(5) from its file.

Everybody in passwd gets mail. Root and users below `first_valid_uid` (or above
`last_valid_uid`) have no network login; nor has an expired account, an expired password, or one
that is locked or empty. Only root can read shadow: where it cannot be read, checking a
password is a temporary failure, and looking up who exists still works.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from mailserver.accounts.account import Account, TemporaryAccountFailure
from mailserver.accounts.passwd_database import PasswdEntry, passwd_entry
from mailserver.accounts.passwd_users import PasswdUsers, ValidUids, system_names
from mailserver.accounts.snapshot import FileSnapshot
from mailserver.accounts.source import NO_PASSWORD, Credential

_DAY: Final = 86_400  # seconds
_LOCKED: Final = ("!", "*", "x")
_NEVER: Final = 10_000  # days; a maximum age from here on is none (login.defs' 99999)


@dataclass(frozen=True, slots=True)
class ShadowEntry:
    """A line of shadow(5). Days are since 1970-01-01; None where the field is empty."""

    stored: str = field(repr=False)
    changed: int | None
    maximum_age: int | None
    inactive: int | None
    expires: int | None

    def refusal(self, today: int) -> str:
        """Why nobody may log in with this entry; "" where nothing speaks against it.

        A password older than its maximum is accepted for the `inactive` days, as shadow(5)
        says; after them, or where none are given, it is refused: mail cannot change it.
        """
        if not self.stored or self.stored.startswith(_LOCKED):
            return "the password is empty or locked"
        return self.expiry(today)

    def expiry(self, today: int) -> str:
        """Why the account or its password is over; "" where it is not."""
        if self.expires is not None and self.expires >= 0 and today >= self.expires:
            return "the account has expired"
        if self.changed == 0:
            return "the password must be changed first"
        if self.changed is None or self.maximum_age is None or not 0 <= self.maximum_age < _NEVER:
            return ""
        last_day = self.changed + self.maximum_age + max(self.inactive or 0, 0)
        return "the password has expired" if today > last_day else ""


def _day(text: str) -> int | None:
    return int(text) if re.fullmatch(r"-?\d{1,9}", text) else None


def parse_shadow(text: str) -> Mapping[str, ShadowEntry]:
    """The entries of a shadow file by name."""
    entries: dict[str, ShadowEntry] = {}
    for line in text.splitlines():
        fields = line.split(":") + [""] * 9
        entry = ShadowEntry(fields[1], _day(fields[2]), _day(fields[4]), _day(fields[6]), _day(fields[7]))
        entries.setdefault(fields[0], entry)
    entries.pop("", None)
    return entries


class SystemAccounts(PasswdUsers):
    """An `AccountSource` over passwd and shadow."""

    def __init__(
        self,
        uids: ValidUids,
        shadow_path: str = "/etc/shadow",
        find: Callable[[str], PasswdEntry | None] = passwd_entry,
        list_names: Callable[[], Iterator[str]] = system_names,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(uids, find, list_names)
        self.name = "system"
        self._clock = clock
        self._shadow = FileSnapshot(shadow_path, parse_shadow)

    def _credential(self, entry: PasswdEntry, account: Account) -> Credential:
        shadow = self._shadow_entry(entry)
        today = int(self._clock()) // _DAY
        reason = shadow.refusal(today)
        if not reason:
            return Credential(account, shadow.stored)
        is_locked = shadow.stored.startswith(_LOCKED) and shadow.stored not in NO_PASSWORD
        return Credential(account, reason=reason, is_closed=is_locked or bool(shadow.expiry(today)))

    def _shadow_entry(self, entry: PasswdEntry) -> ShadowEntry:
        if entry.password not in ("x", "*", "!", ""):
            return ShadowEntry(entry.password, None, None, None, None)  # a system without shadow
        return self._shadows().get(entry.name, ShadowEntry("", None, None, None, None))

    def _shadows(self) -> Mapping[str, ShadowEntry]:
        try:
            return self._shadow.get()
        except OSError as error:
            raise TemporaryAccountFailure(f"{self._shadow.path}: {error.strerror}") from error

    def nobody(self) -> None:
        """See `AccountSource.nobody`."""

    def stored_passwords(self) -> Sequence[str]:
        """See `AccountSource.stored_passwords`."""
        stored = (entry.stored for entry in self._shadows().values())
        return [text for text in stored if text and not text.startswith(_LOCKED)]
