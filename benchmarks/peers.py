"""Debian's Postfix and Dovecot as one server: Postfix delivers to the spool that Dovecot reads.

Private instances: configuration, queue, sockets and logs lie in a temporary directory, and
processes are ended by their pid. Tuned as their documentation says (TUNING_README; LoginProcess,
high-performance mode; auth cache; dirty syncs), durability left at its defaults. Only root can start them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.servers import ACCOUNTS, ALIAS, STORED_PASSWORD, Server
from tests.postfix_services import master_cf

_MAIN_CF: Final = """\
compatibility_level = 3.6
queue_directory = {directory}/queue
data_directory = {directory}/data
mail_owner = postfix
setgid_group = postdrop
myhostname = mail.example.org
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = loopback-only
inet_protocols = ipv4
maillog_file_prefixes = /var, /dev/stdout, {directory}
maillog_file = {directory}/mail.log
alias_maps =
relayhost = [127.0.0.1]:{sink}
virtual_alias_maps = texthash:{directory}/aliases
virtual_alias_expansion_limit = 20000
virtual_mailbox_domains = example.org
virtual_mailbox_base = {directory}/mail
virtual_mailbox_maps = texthash:{directory}/mailboxes
virtual_mailbox_limit = 0
mailbox_size_limit = 0
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
in_flow_delay = 0
message_size_limit = 52428800
"""
_MASTER_CF: Final = """\
pickup unix n - n 60 1 pickup
relay unix - - n - - smtp
virtual unix - n n - - virtual
"""
_DOVECOT_CONF: Final = """\
base_dir = {directory}/run
state_dir = {directory}/state
log_path = {directory}/dovecot.log
protocols = imap pop3
listen = 127.0.0.1
mail_location = {mail_location}
mail_max_userip_connections = 0
disable_plaintext_auth = no
ssl = yes
ssl_cert = <{directory}/certificate.pem
ssl_key = <{directory}/key.pem
auth_cache_size = 10M
maildir_very_dirty_syncs = yes
mbox_very_dirty_syncs = yes
default_process_limit = 2000
default_client_limit = 8000
first_valid_uid = 1
passdb {{
  driver = passwd-file
  args = {directory}/users
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={directory}/home/%u
}}
service imap-login {{
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = {imaps}
  }}
  service_count = 0
  process_min_avail = 2
}}
service pop3-login {{
  inet_listener pop3 {{
    port = {pop3}
  }}
  inet_listener pop3s {{
    port = 0
  }}
  service_count = 0
  process_min_avail = 2
}}
"""


def why_not() -> str:
    """Why the peers cannot run here; empty where they can."""
    missing = [name for name in ("postfix", "dovecot") if shutil.which(name) is None]
    if missing:
        return f"{' and '.join(missing)} not installed"
    return "" if os.geteuid() == 0 else "only root can start them"


class Peers(Server):
    """Postfix and Dovecot on one spool."""

    name = "postfix+dovecot"
    owner = (65534, 65534)

    def __init__(self, directory: Path, mail_format: str, certificate: Path, key: Path) -> None:
        super().__init__(directory, mail_format)
        directory.chmod(0o755)
        for name in ("config", "queue", "data", "mail", "home", "run", "state"):
            (directory / name).mkdir()
        shutil.chown(directory / "data", "postfix")
        self._give(directory / "mail")
        self._give(directory / "home")
        shutil.copy(certificate, directory / "certificate.pem")
        shutil.copy(key, directory / "key.pem")
        is_maildir = mail_format == "maildir"
        slash = "/" if is_maildir else ""
        location = f"maildir:{self.spool}/%u" if is_maildir else f"mbox:~/mail:INBOX={self.spool}/%u"
        values = {
            "directory": directory,
            "mail_location": location,
            "uid": self.owner[0],
            "gid": self.owner[1],
            **self.ports,
        }
        (directory / "config" / "main.cf").write_text(_MAIN_CF.format_map(values))
        (directory / "config" / "master.cf").write_text(master_cf(self.ports["smtp"]) + _MASTER_CF)
        (directory / "dovecot.conf").write_text(_DOVECOT_CONF.format_map(values))
        (directory / "mailboxes").write_text(
            "".join(f"{name}@example.org {name}{slash}\n" for name in ACCOUNTS)
        )
        (directory / "aliases").write_text(f"everybody@example.org {ALIAS}\n")
        (directory / "users").write_text("".join(f"{name}:{STORED_PASSWORD}\n" for name in ACCOUNTS))

    @property
    def spool(self) -> Path:
        """See `Server.spool`."""
        return self.directory / "mail"

    def start(self) -> None:
        """See `Server.start`."""
        subprocess.run(["dovecot", "-c", str(self.directory / "dovecot.conf")], check=True)
        subprocess.run(
            ["postfix", "-c", str(self.directory / "config"), "start"], check=True, capture_output=True
        )
        self._wait_until_it_answers()

    def _pid_files(self) -> Sequence[Path]:
        return self.directory / "run" / "master.pid", self.directory / "queue" / "pid" / "master.pid"

    def roots(self) -> Sequence[int]:
        """See `Server.roots`."""
        return [int(path.read_text()) for path in self._pid_files() if path.exists()]

    def stop(self) -> None:
        """See `Server.stop`."""
        pids = self.roots()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        end = time.monotonic() + 10
        while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < end:
            time.sleep(0.05)
