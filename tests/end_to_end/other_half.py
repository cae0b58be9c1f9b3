"""Debian's Postfix and Dovecot as the other half of a `RootServer`: private instances, with its users.

Their configurations, queues, sockets and logs lie in the server's directory; they run in a mount namespace
where /etc/passwd, shadow and group are the server's. Each is ended by the pid of its master.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import subprocess
from pathlib import Path

from tests.end_to_end.root_server import RootServer, children
from tests.end_to_end.server import free_ports, wait_for
from tests.postfix_services import master_cf

_MAIN_CF = """\
compatibility_level = 3.6
queue_directory = {home}/queue
data_directory = {home}/data
mail_owner = postfix
setgid_group = postdrop
myhostname = mx.example.org
mydestination = example.org
mynetworks = 192.0.2.1/32
inet_interfaces = loopback-only
inet_protocols = ipv4
maillog_file_prefixes = /var, /dev/stdout, {home}
maillog_file = {home}/mail.log
mail_spool_directory = {spool}
mailbox_delivery_lock = fcntl, dotlock
alias_maps =
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = private/auth
smtpd_relay_restrictions = permit_sasl_authenticated, reject_unauth_destination
"""
_DOVECOT_CONF = """\
base_dir = {home}/run
state_dir = {home}/state
log_path = {home}/dovecot.log
protocols = imap
listen = 127.0.0.1
ssl = no
first_valid_uid = 1000
mail_location = {location}
mail_privileged_group = mail
auth_mechanisms = plain login
auth_failure_delay = 0
passdb {{
  driver = shadow
}}
userdb {{
  driver = passwd
}}
service imap-login {{
  inet_listener imap {{
    port = {port}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
service auth {{
  unix_listener {home}/private/auth {{
    mode = 0600
    user = root
  }}
}}
"""


class _OtherHalf:
    """A program with a master process and a directory of its own."""

    name: str

    def __init__(self, server: RootServer) -> None:
        self.server = server
        self.home = server.directory / self.name
        self.home.mkdir()
        self.home.chmod(0o755)
        (self.port,) = free_ports(1)

    @property
    def pid_file(self) -> Path:
        """Where the master's pid stands."""
        raise NotImplementedError

    def command(self, *words: str) -> None:
        """The command succeeds, with the server's users."""
        etc, names = self.server.directory / "etc", ("passwd", "shadow", "group")
        mounts = "".join(f"mount --bind {etc}/{name} /etc/{name} && " for name in names)
        private = ("unshare", "--mount", "--propagation", "private", "sh", "-c", f'{mounts} exec "$@"', "sh")
        output = self.home / "output"  # a daemon keeps it open: a pipe would never end
        with output.open("wb") as file:
            done = subprocess.run([*private, *words], stdout=file, stderr=file, check=False, timeout=60)
        assert done.returncode == 0, output.read_text()

    def stop(self) -> None:
        """The master and its children are gone."""
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            pid = int(self.pid_file.read_text())
            others = children(pid)
            os.kill(pid, signal.SIGTERM)
            wait_for(lambda: not Path(f"/proc/{pid}").exists(), f"{self.name} to end")
            for other, _ in others:  # as a service manager does: Dovecot's auth stays for its clients
                with contextlib.suppress(ProcessLookupError):
                    os.kill(other, signal.SIGKILL)


class Postfix(_OtherHalf):
    """SMTP with logins at `private/auth` of its queue, and local delivery into the server's spool."""

    name = "postfix"

    def start(self) -> None:
        """It answers."""
        for name in ("config", "queue", "data"):
            (self.home / name).mkdir(exist_ok=True)
        os.chown(self.home / "data", *_owner("postfix"))
        values = {"home": self.home, "spool": self.server.spool}
        (self.home / "config" / "main.cf").write_text(_MAIN_CF.format_map(values))
        (self.home / "config" / "master.cf").write_text(master_cf(self.port))
        self.command("postfix", "-c", str(self.home / "config"), "start")

    @property
    def pid_file(self) -> Path:
        """See `_OtherHalf.pid_file`."""
        return self.home / "queue" / "pid" / "master.pid"

    @property
    def auth_socket(self) -> Path:
        """Where it looks for whoever checks logins."""
        return self.home / "queue" / "private" / "auth"


class Dovecot(_OtherHalf):
    """IMAP over what the server delivers, and logins at a socket that only root can reach."""

    name = "dovecot"

    def start(self, location: str) -> None:
        """It answers."""
        for name in ("run", "state", "private"):
            (self.home / name).mkdir(exist_ok=True)
        (self.home / "private").chmod(0o700)
        values = {"home": self.home, "location": location, "port": self.port}
        (self.home / "dovecot.conf").write_text(_DOVECOT_CONF.format_map(values))
        self.command("dovecot", "-c", str(self.home / "dovecot.conf"))

    @property
    def pid_file(self) -> Path:
        """See `_OtherHalf.pid_file`."""
        return self.home / "run" / "master.pid"

    @property
    def auth_socket(self) -> Path:
        """Where it checks logins for others."""
        return self.home / "private" / "auth"


def _owner(name: str) -> tuple[int, int]:
    entry = pwd.getpwnam(name)
    return entry.pw_uid, entry.pw_gid
