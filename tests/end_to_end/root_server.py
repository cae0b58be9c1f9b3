"""A server with system accounts, run by root in a mount namespace with users of its own.

/etc/passwd, shadow and group are replaced there by copies with a few more users, so the machine's
own are never touched; the mail spool, homes and state lie in one temporary directory.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from mailserver.accounts.hashing import hash_password
from mailserver.roles.python_home import unreachable_path
from tests.end_to_end.server import DEADLINE, free_ports, wait_for

USERS = {"ursula": 64101, "viktor": 64102}
MAIL_OWNER = ("mailserver-t", 64100)
PASSWORD = "correct horse"


def interpreter() -> tuple[str, Mapping[str, str]]:
    """A Python that unprivileged users can reach, and the environment that gives it our modules."""
    paths = [path for path in sys.path if path]
    root = str(Path(__file__).parent.parent.parent)
    environment = {"PYTHONPATH": ":".join([root, *paths])}
    if unreachable_path() is None:
        return sys.executable, environment
    packages = [path for path in paths if path.endswith("site-packages")]
    return "/usr/bin/python3", {"PYTHONPATH": ":".join([root, *packages])}


class RootServer:
    """The server, its directory and its ports."""

    def __init__(self, mail_format: str = "mbox") -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="mailserver-root-"))
        self.directory.chmod(0o755)
        names = ("smtp", "submission", "pop3", "imap", "imaps")
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        self.process: subprocess.Popen[bytes] | None = None
        self.log = self.directory / "mail.log"
        self.spool = self.directory / "mail"
        self._write_accounts()
        self._write_configuration(mail_format)

    def _write_accounts(self) -> None:
        etc = self.directory / "etc"
        etc.mkdir()
        for name in ("passwd", "shadow", "group"):
            shutil.copy(f"/etc/{name}", etc / name)
        owner, owner_uid = MAIL_OWNER
        with (etc / "passwd").open("a") as passwd, (etc / "shadow").open("a") as shadow:
            passwd.write(f"{owner}:x:{owner_uid}:{owner_uid}::/nonexistent:/usr/sbin/nologin\n")
            for name, uid in USERS.items():
                home = self.directory / "home" / name
                home.mkdir(parents=True)
                os.chown(home, uid, uid)
                passwd.write(f"{name}:x:{uid}:{uid}::{home}:/bin/sh\n")
                stored = hash_password(PASSWORD.encode()).partition("}")[2]
                shadow.write(f"{name}:{stored}:20000:0:99999:7:::\n")
        with (etc / "group").open("a") as group:
            for name, number in (MAIL_OWNER, *USERS.items()):
                group.write(f"{name}:x:{number}:\n")
        (etc / "shadow").chmod(0o640)

    def _write_configuration(self, mail_format: str) -> None:
        config = self.directory / "config"
        program, environment = interpreter()
        subprocess.run(
            [program, "-m", "mailserver.commands.main", "init", str(config), "--format", mail_format],
            env={**os.environ, **environment},
            check=True,
            capture_output=True,
        )
        self.spool.mkdir()
        shutil.chown(self.spool, "root", "mail")
        self.spool.chmod(0o2775)
        lines = {
            "myhostname": "mail.example.org",
            "mydomain": "example.org",
            "mydestination": "$myhostname, $mydomain, localhost",
            "myorigin": "$mydomain",
            "inet_interfaces": "loopback-only",
            "inet_protocols": "ipv4",
            "mail_owner": MAIL_OWNER[0],
            "account_sources": "system",
            "queue_directory": str(self.directory / "queue"),
            "state_directory": str(self.directory / "state"),
            "maillog_file": str(self.log),
            "mail_spool_directory": f"{self.spool}{'/' if mail_format == 'maildir' else ''}",
            "mail_location": f"maildir:{self.spool}/%u"
            if mail_format == "maildir"
            else f"mbox:~/mail:INBOX={self.spool}/%u",
        }
        with (config / "main.cf").open("a") as main:
            main.writelines(f"{name} = {value}\n" for name, value in lines.items())
        rows = {
            "smtp": "smtpd",
            "submission": "smtpd\n    -o smtpd_sasl_auth_enable=yes",
            "pop3": "pop3d",
            "imap": "imapd",
            "imaps": "imapd\n    -o smtpd_tls_wrappermode=yes",
        }
        (config / "master.cf").write_text(
            "".join(f"127.0.0.1:{self.ports[name]} inet n - n - - {row}\n" for name, row in rows.items())
        )

    def configure(self, *lines: str) -> None:
        """The lines are added to main.cf, where the last one of a name wins."""
        with (self.directory / "config" / "main.cf").open("a") as file:
            file.write("".join(f"{line}\n" for line in lines))

    def start(self) -> None:
        """The server answers; it runs in a mount namespace of its own."""
        program, environment = interpreter()
        etc = self.directory / "etc"
        mounts = "; ".join(f"mount --bind {etc}/{name} /etc/{name}" for name in ("passwd", "shadow", "group"))
        run = f"{program} -m mailserver.commands.main -c {self.directory}/config run"
        with (self.directory / "output").open("ab") as output:
            self.process = subprocess.Popen(
                ["unshare", "--mount", "--propagation", "private", "sh", "-c", f"{mounts} && exec {run}"],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                start_new_session=True,
            )
        wait_for(self._answers, "the server to listen")

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.directory / "output").read_text()
        return self.log.exists() and "daemon started" in self.log.read_text()

    def stop(self) -> None:
        """Supervisor and roles are gone."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(DEADLINE)
        self.process = None

    def remove(self) -> None:
        """The server is stopped and its directory gone."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def log_text(self) -> str:
        """The mail log so far."""
        return self.log.read_text("utf-8", "replace")

    def roles(self) -> Mapping[str, int]:
        """The pids of the roles by what the log and /proc tell: direct children of the supervisor."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return {Path(f"/proc/{pid}/comm").read_text().strip(): int(pid) for pid in children}
