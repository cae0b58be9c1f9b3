"""Debian's Dovecot, private: one account, loopback, a free port, all its files below one directory.

With `lmtp` it takes mail too, over the socket `lmtp_socket`, for every user name.

It refuses to serve root's mail, so where the tests run as root the mail is nobody's while it runs.
"""

from __future__ import annotations

import calendar
import contextlib
import imaplib
import os
import pwd
import re
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.end_to_end.server import DEADLINE, free_ports, wait_for

USER = "alice"
PASSWORD = "secret"
_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
_CONFIGURATION = """\
base_dir = {root}/run
state_dir = {root}/run
log_path = {root}/dovecot.log
protocols = imap pop3 {lmtp}
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain login
default_internal_user = {owner}
default_internal_group = {group}
default_login_user = {owner}
first_valid_uid = 0
first_valid_gid = 0
mail_uid = {uid}
mail_gid = {gid}
mail_location = {location}
mbox_write_locks = dotlock fcntl
service anvil {{
  chroot =
}}
service imap-login {{
  chroot =
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
service lmtp {{
  unix_listener {root}/lmtp {{
    mode = 0666
  }}
}}
protocol lmtp {{
  auth_username_format = %Ln
}}
service pop3-login {{
  chroot =
  inet_listener pop3 {{
    port = {pop3}
  }}
  inet_listener pop3s {{
    port = 0
  }}
}}
passdb {{
  driver = static
  args = password={password}
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={home}
}}
"""


def owner() -> pwd.struct_passwd:
    """Whose mail Dovecot serves."""
    return pwd.getpwnam("nobody") if os.getuid() == 0 else pwd.getpwuid(os.getuid())


def give(path: Path, uid: int, gid: int) -> None:
    """The tree belongs to that user; run by anybody but root it does already."""
    if os.getuid() == 0:
        for each in (path, *path.rglob("*")):
            with contextlib.suppress(FileNotFoundError):  # a lock that was there a moment ago
                os.chown(each, uid, gid, follow_symlinks=False)


class Dovecot:
    """See the module. `location` is a mail_location over `root`/home."""

    def __init__(self, root: Path, location: str, lmtp: bool = False) -> None:
        self.home = root / "home"
        self._root = root
        self._owner = owner()
        self.imap_port, self.pop3_port = free_ports(2)
        self.lmtp_socket = root / "lmtp"
        (root / "run").mkdir(exist_ok=True)
        self._configuration = root / "dovecot.conf"
        self._configuration.write_text(
            _CONFIGURATION.format(
                root=root,
                lmtp="lmtp" if lmtp else "",
                owner=self._owner.pw_name,
                group=pwd_group(self._owner.pw_gid),
                uid=self._owner.pw_uid,
                gid=self._owner.pw_gid,
                location=location,
                imap=self.imap_port,
                pop3=self.pop3_port,
                password=PASSWORD,
                home=self.home,
            )
        )

    @contextmanager
    def running(self) -> Iterator[None]:
        """It serves the account; afterwards it is gone, and the files are whose they were."""
        before = self.home.stat()
        give(self.home, self._owner.pw_uid, self._owner.pw_gid)
        process = subprocess.Popen(
            ["dovecot", "-F", "-c", str(self._configuration)], env={"PATH": _PATH}, start_new_session=True
        )
        try:
            wait_for(lambda: self._answers(process), "Dovecot to listen")
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(DEADLINE)
            give(self.home, before.st_uid, before.st_gid)

    def _answers(self, process: subprocess.Popen[bytes]) -> bool:
        assert process.poll() is None, (self._root / "dovecot.log").read_text()
        try:
            for port in (self.imap_port, self.pop3_port):
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            return False
        return True


def pwd_group(gid: int) -> str:
    """The group's name."""
    import grp

    return grp.getgrgid(gid).gr_name


class Letter(NamedTuple):
    """A message as a client sees it. `date` is POSIX seconds; content has CRLF line ends."""

    uid: int
    flags: frozenset[bytes]
    date: int
    size: int
    content: bytes


@contextmanager
def imap_over_pipes(root: Path, location: str) -> Iterator[imaplib.IMAP4]:
    """A session of alice's, whose home is `root`, with Dovecot's imap alone.

    Afterwards the files are whose they were.
    """
    who, before = owner(), root.stat()
    (root / "run").mkdir(exist_ok=True)
    configuration = root / "imap.conf"
    configuration.write_text(
        f"base_dir = {root}/run\nstate_dir = {root}/run\nlog_path = {root}/dovecot.log\n"
        f"mail_location = {location}\nmail_uid = {who.pw_uid}\nmail_gid = {who.pw_gid}\n"
        f"first_valid_uid = 0\nfirst_valid_gid = 0\nmbox_write_locks = dotlock fcntl\n"
        f"default_internal_user = {who.pw_name}\ndefault_internal_group = {pwd_group(who.pw_gid)}\n"
        f"default_login_user = {who.pw_name}\n"
    )
    give(root, who.pw_uid, who.pw_gid)
    words = ["env", f"HOME={root}", "USER=alice", "/usr/lib/dovecot/imap", "-c", str(configuration)]
    if os.getuid() == 0:
        words = ["setpriv", f"--reuid={who.pw_uid}", f"--regid={who.pw_gid}", "--clear-groups", *words]
    client = imaplib.IMAP4_stream(f"{shlex.join(words)} 2>>{root}/errors")
    try:
        yield client
        client.logout()
    finally:
        print((root / "errors").read_text())
        give(root, before.st_uid, before.st_gid)


def letters(client: imaplib.IMAP4, mailbox: str) -> list[Letter]:
    """The mailbox's messages; none where it cannot be opened."""
    if client.select(f'"{mailbox}"', readonly=True)[0] != "OK":
        return []
    rows = client.uid("FETCH", "1:*", "(UID FLAGS INTERNALDATE RFC822.SIZE BODY.PEEK[])")[1]
    found = []
    for row in rows:
        if isinstance(row, tuple):
            uid, size = (int(re.search(word + rb" (\d+)", row[0])[1]) for word in (b"UID", b"SIZE"))  # type: ignore
            flags = re.search(rb"FLAGS \(([^)]*)\)", row[0])[1].split()  # type: ignore[index]
            date = calendar.timegm(imaplib.Internaldate2tuple(row[0]) or time.gmtime(0))
            found.append(Letter(uid, frozenset(flags) - {b"\\Recent"}, date, size, row[1]))
    client.unselect()
    return found
