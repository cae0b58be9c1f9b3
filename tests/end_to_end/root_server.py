"""A server with system accounts, run by root in a mount namespace with users of its own.

/etc/passwd, shadow and group are replaced there by copies with a few more users, so the machine's
own are never touched; the mail spool, homes and state lie in one temporary directory.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from mailserver.accounts.hashing import hash_password
from mailserver.roles.python_home import unreachable_path
from tests.end_to_end.server import DEADLINE, free_ports, wait_for

USERS = {"ursula": 64101, "viktor": 64102}
SYSTEM_USER = ("robot", 199)
# Field 2 and the days of shadow(5): what keeps each of them out.
SHUT_OUT = {
    "locked": (64110, "!{hash}:20000:0:99999:7:::"),
    "empty": (64111, ":20000:0:99999:7:::"),
    "expired": (64112, "{hash}:20000:0:99999:7::20001:"),
    "stale": (64113, "{hash}:10000:0:30:7:::"),
    "mustchange": (64114, "{hash}:0:0:99999:7:::"),
}
MAIL_OWNER = ("mailserver-t", 64100)
PASSWORD = "correct horse"
# PASSWORD as Debian stores it by default: yescrypt, which is viktor's scheme here; the others have sha512.
YESCRYPT = "$y$j75$feh2Zgp2/bWXpW6EMEQ4U/$IculvWqp54wsyNYeYWV1jf3WZ2W/Wz7KxFvMibSpsTD"


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
        names = ("smtp", "submission", "submissions", "pop3", "pop3s", "imap", "imaps")
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        self.process: subprocess.Popen[bytes] | None = None
        self._starts = 0
        self.wrapper = ""  # a command that runs the server
        self.mounted = ["passwd", "shadow", "group"]  # what stands in /etc in its namespace
        self.log = self.directory / "mail.log"
        self.spool = self.directory / "mail"
        self._write_accounts()
        self._write_configuration(mail_format)

    def _write_accounts(self) -> None:
        self.etc = self.directory / "etc"
        self.etc.mkdir()
        for name in ("passwd", "shadow", "group"):
            shutil.copy(f"/etc/{name}", self.etc / name)
        sha512 = hash_password(PASSWORD.encode()).partition("}")[2]
        self._shadow("root", f"{sha512}:20000:0:99999:7:::", replace=True)
        self._account(*MAIL_OWNER, "*:20000:0:99999:7:::", home="/nonexistent")
        self._account(*SYSTEM_USER, f"{sha512}:20000:0:99999:7:::")
        for name, uid in USERS.items():
            stored = YESCRYPT if name == "viktor" else sha512
            self._account(name, uid, f"{stored}:20000:0:99999:7:::")
        for name, (uid, line) in SHUT_OUT.items():
            self._account(name, uid, line.format(hash=sha512))
        (self.etc / "shadow").chmod(0o640)

    def _account(self, name: str, uid: int, shadow: str, home: str = "") -> None:
        home = home or str(self.home(name))
        with (self.etc / "passwd").open("a") as passwd, (self.etc / "group").open("a") as group:
            passwd.write(f"{name}:x:{uid}:{uid}::{home}:/bin/sh\n")
            group.write(f"{name}:x:{uid}:\n")
        self._shadow(name, shadow)
        if home == str(self.home(name)):
            self.home(name).mkdir(parents=True)
            os.chown(home, uid, uid)

    def _shadow(self, name: str, fields: str, replace: bool = False) -> None:
        lines = (self.etc / "shadow").read_text().splitlines()
        kept = [line for line in lines if not (replace and line.startswith(f"{name}:"))]
        (self.etc / "shadow").write_text("\n".join([*kept, f"{name}:{fields}", ""]))

    def home(self, name: str) -> Path:
        """The account's home directory."""
        return self.directory / "home" / name

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
            "submissions": "smtpd\n    -o smtpd_tls_wrappermode=yes -o smtpd_sasl_auth_enable=yes",
            "pop3": "pop3d",
            "pop3s": "pop3d\n    -o smtpd_tls_wrappermode=yes",
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
        run = f"{self.wrapper} {program} -m mailserver.commands.main -c {self.directory}/config run"
        self._starts += 1
        with (self.directory / "output").open("ab") as output:
            self.process = subprocess.Popen(
                self.in_namespace(run),
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                start_new_session=True,
            )
        wait_for(self._answers, "the server to listen")

    def in_namespace(self, command: str) -> list[str]:
        """A command line that runs the shell's command with these accounts."""
        mounts = " && ".join(f"mount --bind {self.etc}/{name} /etc/{name}" for name in self.mounted)
        script = f"{mounts} && exec {command}"
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]

    def command(self, *words: str) -> str:
        """What a `mailserver` subcommand prints there; it must succeed."""
        done = self._run(words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def command_of(self, user: str, *words: str) -> tuple[int, str]:
        """Exit status, and output or errors, of a `mailserver` subcommand that the user types there."""
        done = self._run(words, "setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups")
        return done.returncode, done.stdout if done.returncode == 0 else done.stderr

    def _run(self, words: Sequence[str], *wrapper: str) -> subprocess.CompletedProcess[str]:
        program, environment = interpreter()
        line = [*wrapper, program, "-m", "mailserver.commands.main", "-c", str(self.directory / "config")]
        return subprocess.run(
            self.in_namespace(shlex.join([*line, *words])),
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )

    def pam_service(self, name: str, *lines: str) -> None:
        """The server's machine has that file in /etc/pam.d; called before `start`."""
        if "pam.d" not in self.mounted:
            shutil.copytree("/etc/pam.d", self.etc / "pam.d")
            self.mounted.append("pam.d")
        (self.etc / "pam.d" / name).write_text("".join(f"{line}\n" for line in lines))

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.directory / "output").read_text()
        return self.log.exists() and self.log_text().count("daemon started") == self._starts

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
        """The pids of the roles by their names: direct children of the supervisor."""
        assert self.process is not None
        return {name.removeprefix("mail-"): pid for pid, name in children(self.process.pid)}

    def hosts(self) -> Mapping[int, int]:
        """The pids of the session hosts by uid: children of the zygote."""
        return {uids(pid)[0]: pid for pid, _ in children(self.roles()["zygote"])}

    def processes(self) -> list[int]:
        """Every process of this server, wherever it hangs in the tree."""
        return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if self._is_ours(pid)]

    def _is_ours(self, pid: int) -> bool:
        try:
            return str(self.directory).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return False


def children(pid: int) -> list[tuple[int, str]]:
    """Pid and name of each child process that has not ended meanwhile."""
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found.append((int(child), Path(f"/proc/{child}/comm").read_text().strip()))
    return found


def status(pid: int) -> Mapping[str, str]:
    """The lines of /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def uids(pid: int) -> list[int]:
    """Real, effective, saved and file system uid."""
    return [int(word) for word in status(pid)["Uid"].split()]
