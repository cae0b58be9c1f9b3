"""Workloads of accounts that are users of the system, as root: our session hosts, Dovecot's imap processes.

Our server runs for them in a mount namespace of its own, where /etc/passwd, shadow and group are copies with
our accounts as users. Dovecot's account is one user for all, which makes its processes no dearer.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.measure import Sample, Workload, once
from benchmarks.processes import memory
from benchmarks.servers import ACCOUNTS, STORED_PASSWORD, Ours, Server, running
from mailserver.roles.python_home import unreachable_path

_USERS: Final = 60
_FIRST_UID: Final = 64_200
_LOGINS: Final = 20
_REPEATED: Final = 200


class SystemAccounts(Ours):
    """This project's server with users of the system, each with a uid of its own."""

    def __init__(self, directory: Path, mail_format: str) -> None:
        super().__init__(directory, mail_format)
        directory.chmod(0o755)
        self._unused = self._unused[-_USERS:]
        self._etc = directory / "etc"
        self._etc.mkdir()
        for name in ("passwd", "shadow", "group"):
            shutil.copy(f"/etc/{name}", self._etc / name)
        for number, name in enumerate(ACCOUNTS[:_USERS]):
            self._add(name, _FIRST_UID + number)
        self.spool.mkdir(parents=True, exist_ok=True)
        shutil.chown(self.spool, "root", "mail")
        self.spool.chmod(0o2775)
        self.spool.parent.chmod(0o755)
        (directory / "home").chmod(0o755)
        with (directory / "main.cf").open("a") as main:
            main.write("account_sources = system\nmail_owner = mail\n")

    def _add(self, name: str, uid: int) -> None:
        home = self.directory / "home" / name
        lines = {
            "passwd": f"{name}:x:{uid}:{uid}::{home}:/bin/sh\n",
            "group": f"{name}:x:{uid}:\n",
            "shadow": f"{name}:{STORED_PASSWORD}:20000:0:99999:7:::\n",
        }
        for file, line in lines.items():
            with (self._etc / file).open("a") as out:
                out.write(line)
        os.chown(home, uid, uid)

    def _give(self, path: Path) -> None:
        """See `Server`: mail is its account's."""
        if path.name in ACCOUNTS[:_USERS]:
            uid = _FIRST_UID + ACCOUNTS.index(path.name)
            for each in (path, *path.rglob("*")):
                os.chown(each, uid, uid)

    def start(self) -> None:
        """See `Server.start`."""
        paths = [str(Path(__file__).parent.parent), *(path for path in sys.path if "site-packages" in path)]
        python = sys.executable if unreachable_path() is None else "/usr/bin/python3"
        mounts = [f"mount --bind {self._etc}/{name} /etc/{name}" for name in ("passwd", "shadow", "group")]
        run = f"exec {python} -m mailserver.commands.main -c {self.directory} run"
        with (self.directory / "output").open("ab") as output:
            self._process = subprocess.Popen(
                ["unshare", "--mount", "--propagation", "private", "sh", "-c", " && ".join([*mounts, run])],
                stdout=output,
                stderr=output,
                env=os.environ | {"PYTHONPATH": ":".join(paths)},
            )
        self._wait_until_it_answers()


@contextmanager
def _with_users(server: Server) -> Iterator[Server]:
    """Ours with users of the system in the place of ours; the peers as they are."""
    if not isinstance(server, Ours):
        yield server
        return
    if os.geteuid() != 0:
        raise OSError("only root can have system accounts")
    directory = Path(tempfile.mkdtemp(prefix="benchmark-users-"))
    with running(SystemAccounts(directory, server.mail_format)) as ours:
        yield ours


def _log_in(server: Server, accounts: list[str], times: int = 1) -> Callable[[], int]:
    def act() -> int:
        for _ in range(times):
            for account in accounts:
                client = server.imap(account)
                client.command("SELECT INBOX")
                client.command("LOGOUT")
                client.close()
        return len(accounts) * times

    return act


def _first(server: Server) -> Sample:
    """Logins of accounts for which no process lives yet, whose passwords nobody remembers."""
    with _with_users(server) as ours:
        log_in = _log_in(ours, [ours.new_account(10) for _ in range(_LOGINS)])
        ours.imap(ours.new_account(10)).command("LOGOUT")
        return once(ours, log_in)


def _later(server: Server) -> Sample:
    """Logins of one account after another."""
    with _with_users(server) as ours:
        accounts = [ours.new_account(10)]
        _log_in(ours, accounts)()
        return once(ours, _log_in(ours, accounts, _REPEATED))


def _memory(server: Server) -> Sample:
    """KiB of memory (PSS) for each account with an idle session."""
    with _with_users(server) as ours:
        accounts = [ours.new_account(100, is_mixed=False) for _ in range(_LOGINS + 1)]
        clients = [ours.imap(accounts.pop())]
        time.sleep(1)
        before = memory(ours.roots())
        for account in accounts:
            client = ours.imap(account)
            client.command("SELECT INBOX")
            client.idle()
            clients.append(client)
        time.sleep(1)
        used = memory(ours.roots()) - before
        for client in clients:
            client.close()
    return Sample(_LOGINS, figure=used / _LOGINS / 1024)


WORKLOADS: Final = (
    Workload("host-first", "system accounts: first login, SELECT, logout", _first, 1.0),
    Workload("host-later", "system accounts: the same, repeated", _later, 5.0),
    Workload("host-memory", "system accounts: memory of one with an idle session, KiB", _memory, 1.0, True),
)
