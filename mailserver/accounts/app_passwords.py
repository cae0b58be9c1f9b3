"""App passwords: one for each device of an account, made here, good for some protocols, and revocable.

`abcd-efgh-ijkl-mnop-qrst`: 20 random letters and digits of base32, 100 bits. Nobody can guess that many,
so a fast keyed digest (HMAC-SHA256, with the name in it) is as good as a slow hash here, and it finds the
device at once. Hyphens, spaces and capitals make no difference. Each has a SCRAM verifier too, of the text
as it is shown.

An app password belongs to the account with that name and that uid: whoever gets the name of a deleted
user does not get its devices. It counts where the account has no password of its own, and does
not count where an administrator locked the account or it expired.
"""

from __future__ import annotations

import hmac
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from mailserver.accounts.account import Account, Origin
from mailserver.accounts.login_database import LoginDatabase
from mailserver.accounts.scram import Challenge, Proof, make_verifier, read_verifier

PROTOCOLS: Final = ("imap", "pop3", "smtp")
NEVER: Final = 0
_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz234567"
_LENGTH: Final = 20
_LETTERS: Final = re.compile(rb"[a-z2-7]{20}")
_DEVICE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_USE_IS_NOTED_AFTER: Final = 300  # seconds
_COLUMNS: Final = "name, device, protocols, created, expires, used, address"


class AppPasswordError(Exception):
    """It cannot be done, and nothing was changed. The text says why."""


@dataclass(frozen=True, slots=True)
class AppPassword:
    """What is known of one; times are POSIX seconds, `expires` and `used` 0 for never."""

    name: str
    device: str
    protocols: tuple[str, ...]
    created: int
    expires: int
    used: int
    address: str


class AppPasswords:
    """The app passwords in the data base. Safe in threads; *blocking*. Raises TemporaryAccountFailure.

    `inform` gets a line for each login with one, and for each that is right and does not count.
    """

    def __init__(
        self,
        database: LoginDatabase,
        inform: Callable[[str], None] = lambda text: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._inform = inform
        self._clock = clock

    def add(
        self, account: Account, device: str, protocols: tuple[str, ...], expires: int, challenge: Challenge
    ) -> str:
        """The new app password, to be shown once: nobody can read it later. Raises AppPasswordError."""
        if not _DEVICE.fullmatch(device):
            raise AppPasswordError(
                f"{device!r} is no name of a device: use letters, digits, . _ - and no spaces"
            )
        letters = "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))
        shown = "-".join(letters[start : start + 4] for start in range(0, _LENGTH, 4))
        verifier = str(make_verifier(shown.encode("ascii"), challenge))
        row = (
            account.name, device, account.uid, self._digest(account.name, letters.encode("ascii")),
            " ".join(protocols), verifier, int(self._clock()), expires,
        )  # fmt: skip
        with self._database.transaction() as connection:
            found = connection.execute(
                "SELECT 1 FROM app_password WHERE name = ? AND device = ?", (account.name, device)
            )
            if found.fetchone():
                raise AppPasswordError(
                    f"{account.name} has an app password for {device} already: revoke it first"
                )
            connection.execute("INSERT INTO app_password VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, '')", row)
        return shown

    def find(self, name: str | None = None) -> list[AppPassword]:
        """All of them, or those of one account, by name and device."""
        if not self._database.exists:
            return []
        query = f"SELECT {_COLUMNS} FROM app_password WHERE ? IS NULL OR name = ? ORDER BY name, device"
        with self._database.transaction() as connection:
            rows = connection.execute(query, (name, name)).fetchall()
        return [AppPassword(row[0], row[1], tuple(row[2].split()), *row[3:]) for row in rows]

    def revoke(self, name: str, device: str | None = None) -> int:
        """How many there were: that of the device, or all of the account; none of them counts any more."""
        if not self._database.exists:
            return 0
        query = "DELETE FROM app_password WHERE name = ? AND (? IS NULL OR device = ?)"
        with self._database.transaction() as connection:
            return int(connection.execute(query, (name, device, device)).rowcount)

    def is_right(self, account: Account, password: bytes, origin: Origin) -> bool:
        """Whether the password is an app password of the account that is good for this login."""
        letters = re.sub(rb"[- ]", b"", password).lower()
        if not _LETTERS.fullmatch(letters) or not self._database.exists:
            return False
        rows = self._rows("digest = ?", account, self._digest(account.name, letters))
        return any(self._is_good(row, account, origin) for row in rows)

    def signature(self, account: Account, challenge: Challenge, proof: Proof, origin: Origin) -> bytes | None:
        """The answer to a proof of an app password that is good for this login; else None."""
        if not self._database.exists:
            return None
        for row in self._rows("digest IS NOT NULL", account):
            verifier = read_verifier(row[3])
            signature = verifier.signature(proof) if verifier and verifier.challenge == challenge else None
            if signature is not None:
                return signature if self._is_good(row, account, origin) else None
        return None

    def _rows(self, condition: str, account: Account, *values: object) -> list[tuple[Any, ...]]:
        query = f"""SELECT device, protocols, expires, verifier, used FROM app_password
            WHERE name = ? AND uid = ? AND {condition}"""
        with self._database.transaction() as connection:
            return connection.execute(query, (account.name, account.uid, *values)).fetchall()

    def _is_good(self, row: tuple[Any, ...], account: Account, origin: Origin) -> bool:
        device, protocols, expires, _, used = row
        now = int(self._clock())
        who = f"{origin.service}({account.name},{origin.address}): app password {device}"
        if NEVER < expires <= now:
            self._inform(f"Info: {who} has expired")
            return False
        if origin.service not in protocols.split():
            self._inform(f"Info: {who} is good for {protocols} only")
            return False
        self._inform(f"Info: {who} is right")
        if now - used >= _USE_IS_NOTED_AFTER:
            self._note_use(account.name, device, now, origin)
        return True

    def _note_use(self, name: str, device: str, now: int, origin: Origin) -> None:
        with self._database.transaction() as connection:
            connection.execute(
                "UPDATE app_password SET used = ?, address = ? WHERE name = ? AND device = ?",
                (now, f"{origin.service} {origin.address}", name, device),
            )

    def _digest(self, name: str, letters: bytes) -> bytes:
        return hmac.digest(
            self._database.secret(), b"app password\0" + name.encode() + b"\0" + letters, "sha256"
        )
