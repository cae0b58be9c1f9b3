"""What is done with app passwords: by root for everybody, by users of the system for themselves.

Users ask the helper, through a channel that tells it who asks:

    {"ask": "add", "name": NAME, "device": DEVICE, "protocols": [..], "expires": POSIX seconds or 0}
                                      -> {"name": …, "password": …, "closed": …}
    {"ask": "list", "name": NAME}     -> {"found": [{…}, …]}
    {"ask": "revoke", "name": NAME, "device": DEVICE or null for all}
                                      -> {"name": …, "revoked": how many}

or {"error": text, "status": exit status}. NAME "" is the user that asks. An account is a user's own where it
has the user's name and uid; the user of the server's own processes has none, nor has nobody.
"""

from __future__ import annotations

import dataclasses
import pwd
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from mailserver.accounts.account import Account, TemporaryAccountFailure
from mailserver.accounts.app_passwords import NEVER, PROTOCOLS, AppPassword, AppPasswordError, AppPasswords
from mailserver.accounts.scram_check import ScramCheck
from mailserver.maillog import MailLog
from mailserver.rights.messages import Message

MOST_OF_AN_ACCOUNT: Final = 100  # that its user can make: each is tried at a SCRAM login
NO_USER: Final = 67  # EX_NOUSER, EX_NOPERM of sysexits(3)
NOT_PERMITTED: Final = 77
_LONGEST_WORD: Final = 255
_LATEST: Final = 2**40


class NoSuchAccount(AppPasswordError):
    """There is no account of that name."""


@dataclass(frozen=True, slots=True)
class Made:
    """A new app password. `closed` says why the account is closed meanwhile, "" where it is not."""

    name: str
    password: str
    closed: str


class AppPasswordAdmin:
    """App passwords of any account. Safe in threads; *blocking*. Raises TemporaryAccountFailure."""

    def __init__(self, known: AppPasswords, scram: ScramCheck) -> None:
        self._known = known
        self._scram = scram

    def account(self, name: str) -> Account | None:
        """The account that logs in with that name."""
        credential = self._scram.credential(name)
        return None if credential is None else credential.account

    def add(self, name: str, device: str, protocols: tuple[str, ...], expires: int) -> Made:
        """A new one, to be shown once. Raises AppPasswordError."""
        credential = self._scram.credential(name)
        if credential is None:
            raise NoSuchAccount(f"{name}: no such account: `mailserver user list`, passwd(5)")
        account = credential.account
        if not account.may_login:
            raise AppPasswordError(f"{account.name} may not log in ({credential.reason}), by no password")
        password = self._known.add(account, device, protocols, expires, self._scram.challenge_of(credential))
        return Made(account.name, password, credential.reason if credential.is_closed else "")

    def find(self, name: str | None) -> list[AppPassword]:
        """Those of the account, or all."""
        return self._known.find(name.lower() if name else None)

    def revoke(self, name: str, device: str | None) -> tuple[str, int]:
        """The account, and how many it had for that device, or at all: none of them counts any more."""
        return name.lower(), self._known.revoke(name.lower(), device)


class _Refusal(Exception):
    """What was asked is not done; the text is for the user who asked."""


class OwnAppPasswords:
    """Answers users of the system. Safe in threads; *blocking*.

    `may` says whether the user of a uid may do so at all; `nobodys` are the uids that own no account.
    """

    def __init__(
        self, admin: AppPasswordAdmin, may: Callable[[int], bool], nobodys: Collection[int], log: MailLog
    ) -> None:
        self._admin = admin
        self._may = may
        self._nobodys = frozenset(nobodys)
        self._log = log

    def handle(self, uid: int, question: Message) -> Message:
        """The answer to one question of the user with that uid. Raises ValueError where it is none."""
        try:
            return self._carry_out(uid, question)
        except _Refusal as refusal:
            return {"error": str(refusal), "status": NOT_PERMITTED}
        except NoSuchAccount as error:
            return {"error": str(error), "status": NO_USER}
        except AppPasswordError as error:
            return {"error": str(error), "status": 1}
        except TemporaryAccountFailure as failure:
            self._log.write("auth", f"Error: app passwords of uid {uid}: {failure}")
            return {"error": "not now: try again later, the log has more", "status": 75}  # EX_TEMPFAIL

    def _carry_out(self, uid: int, question: Message) -> Message:
        account = self._own(uid, _word(question.get("name", "")))
        asked = question.get("ask")
        if asked == "list":
            return {"found": [dataclasses.asdict(each) for each in self._admin.find(account.name)]}
        if asked == "add":
            return dataclasses.asdict(self._add(account, question))
        if asked == "revoke":
            device = question["device"]
            name, count = self._admin.revoke(account.name, None if device is None else _word(device))
            if count:
                what = f"app password {device}" if device else "all app passwords"
                self._log.write("auth", f"Info: {name} revoked {what}")
            return {"name": name, "revoked": count}
        raise ValueError("unknown question")

    def _add(self, account: Account, question: Message) -> Made:
        device, protocols = _word(question["device"]), tuple(question["protocols"])
        expires = question["expires"]
        if not protocols or len(protocols) > len(PROTOCOLS) or not set(PROTOCOLS).issuperset(protocols):
            raise ValueError("unknown protocol")
        if type(expires) is not int or not (expires == NEVER or time.time() < expires < _LATEST):
            raise ValueError("no time at which it could end")
        if len(self._admin.find(account.name)) >= MOST_OF_AN_ACCOUNT:
            raise AppPasswordError(
                f"{account.name} has {MOST_OF_AN_ACCOUNT} app passwords: revoke one that is not needed"
            )
        made = self._admin.add(account.name, device, protocols, expires)
        self._log.write("auth", f"Info: {account.name} made app password {device} for {','.join(protocols)}")
        return made

    def _own(self, uid: int, name: str) -> Account:
        """The account, which is the user's own. Others', and those that there are not, get one answer."""
        try:
            user = pwd.getpwuid(uid).pw_name
        except KeyError:
            raise _Refusal(f"uid {uid} is no user of this system") from None
        if uid in self._nobodys:
            raise _Refusal(f"{user} has no account of its own: ask root")
        if not self._may(uid):
            raise _Refusal(f"{user} is not allowed to manage app passwords: authorized_app_password_users")
        account = self._admin.account(name or user)
        if account is not None and (account.name, account.uid) == (user.lower(), uid):
            return account
        if name in ("", user):
            raise NoSuchAccount(f"{user} has no account here")
        raise _Refusal(f"only root may do that for others than {user}")


def _word(value: object) -> str:
    if not isinstance(value, str) or len(value) > _LONGEST_WORD:
        raise ValueError("no name")
    return value
