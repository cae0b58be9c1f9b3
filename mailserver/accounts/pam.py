"""The system's users with their passwords checked by PAM, as Dovecot's `passdb { driver = pam }` does it.

Who exists is passwd's to say, as everywhere. A password is asked of the service's modules, and so
is whether the account is open (expired, nologin, pam_access). Each question has a process of its own and
a time limit (`pam_child`): a module that hangs or crashes costs that login. PAM keeps no hash that we could
look at, so good logins are not remembered and no SCRAM verifier is kept: a changed password could
not be noticed. No session is opened and no credentials are set.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from mailserver.accounts.account import Account, Origin, TemporaryAccountFailure
from mailserver.accounts.passwd_database import PasswdEntry, passwd_entry
from mailserver.accounts.passwd_users import PasswdUsers, ValidUids, system_names
from mailserver.accounts.source import ASK_AUTHORITY, Credential

SECONDS: Final = 20.0  # for one question
_CHILD: Final = str(Path(__file__).with_name("pam_child.py"))
_ENVIRONMENT: Final = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
_NOBODY: Final = "nobody-of-that-name"
_SUCCESS: Final = 0
# pam(3) RETURN VALUES: PERM_DENIED, AUTH_ERR, CRED_INSUFFICIENT, USER_UNKNOWN, MAXTRIES, NEW_AUTHTOK_REQD,
# ACCT_EXPIRED, CRED_EXPIRED, AUTHTOK_EXPIRED. All others mean that PAM could not tell.
_REFUSALS: Final = frozenset({6, 7, 8, 10, 11, 12, 13, 16, 27})


class Pam:
    """One service's modules. *Blocking*; safe in threads. `seconds` is the limit of one question."""

    def __init__(self, service: str, seconds: float = SECONDS) -> None:
        self._service = service
        self._seconds = seconds

    def admits(self, name: str, password: bytes | None, address: str) -> bool:
        """Whether the password is right and the account open; with None, whether it is open.

        Raises TemporaryAccountFailure where PAM cannot tell.
        """
        if password is not None and b"\0" in password:
            return False
        question = {
            "service": self._service,
            "name": name,
            "password": None if password is None else password.decode("latin-1"),
            "address": address,
        }
        try:
            answer = self._answer(json.dumps(question))
        except OSError as error:
            raise TemporaryAccountFailure(f"pam({self._service}): {error}") from error
        status, phase = answer["status"], answer["phase"]
        if status in (_SUCCESS, *_REFUSALS):
            return bool(status == _SUCCESS)
        raise TemporaryAccountFailure(f"pam({self._service}): {phase}: status {status} of pam(3)")

    def _answer(self, question: str) -> dict[str, int | str]:
        with subprocess.Popen(
            [sys.executable, "-I", "-S", _CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_ENVIRONMENT,
            cwd="/",
            text=True,
        ) as child:
            try:
                output, errors = child.communicate(question, timeout=self._seconds)
            except subprocess.TimeoutExpired:
                _kill(child.pid)
                raise TemporaryAccountFailure(
                    f"pam({self._service}): no answer within {self._seconds:.0f} s"
                ) from None
        try:
            answer: dict[str, int | str] = json.loads(output)
        except ValueError:
            last = errors.strip().rpartition("\n")[2]
            raise TemporaryAccountFailure(
                f"pam({self._service}): a module ended with status {child.returncode}: {last}"
            ) from None
        return answer


def _kill(pid: int) -> None:
    """The process and all that descends from it are killed: pam_exec's command has a session of its own."""
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            _kill(int(child))
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


class PamUser:
    """An `Authority`: PAM, asked about one user."""

    def __init__(self, pam: Pam, name: str) -> None:
        self._pam = pam
        self._name = name

    def verify(self, password: bytes, origin: Origin) -> bool:
        """See `Authority.verify`."""
        return self._pam.admits(self._name, password, origin.address)

    def is_open(self, origin: Origin) -> bool:
        """See `Authority.is_open`."""
        return self._pam.admits(self._name, None, origin.address)


class PamAccounts(PasswdUsers):
    """An `AccountSource` over passwd and PAM."""

    def __init__(
        self,
        pam: Pam,
        uids: ValidUids,
        find: Callable[[str], PasswdEntry | None] = passwd_entry,
        list_names: Callable[[], Iterator[str]] = system_names,
    ) -> None:
        super().__init__(uids, find, list_names)
        self.name = "pam"
        self._pam = pam

    def _credential(self, entry: PasswdEntry, account: Account) -> Credential:
        return Credential(account, ASK_AUTHORITY, authority=PamUser(self._pam, entry.name))

    def stored_passwords(self) -> Sequence[str]:
        """See `AccountSource.stored_passwords`."""
        return [ASK_AUTHORITY]

    def nobody(self) -> PamUser:
        """See `AccountSource.nobody`."""
        return PamUser(self._pam, _NOBODY)
