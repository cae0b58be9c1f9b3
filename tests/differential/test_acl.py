"""ACLs on Debian's Dovecot and on ours: the same answers, and each reads what the other wrote."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailserver.store.global_acls import GlobalAcls
from tests.differential.servers import IMAP, open_directory
from tests.imapd.harness import Client
from tests.imapd.sharing import NAMES, SharingServer

pytestmark = [pytest.mark.needs("dovecot")]

_MAIL_USER = 8  # Debian's `mail`: Dovecot's imap refuses to run as root
_CONFIGURATION = """\
base_dir = {root}/run
state_dir = {root}/run
mail_location = maildir:{root}/home/%u/Maildir
mail_uid = {uid}
mail_gid = {uid}
first_valid_uid = 1
first_valid_gid = 1
ssl = no
mail_plugins = acl
protocol imap {{
  mail_plugins = acl imap_acl
}}
userdb {{
  driver = static
  args = uid={uid} gid={uid} home={root}/home/%u
}}
namespace inbox {{
  inbox = yes
  separator = /
}}
namespace shared {{
  type = shared
  separator = /
  prefix = shared/%%u/
  location = maildir:{root}/home/%%u/Maildir
  subscriptions = no
  list = children
}}
namespace public {{
  type = public
  separator = /
  prefix = Public/
  location = maildir:{root}/public
  subscriptions = no
  list = children
}}
plugin {{
  acl = vfile
  acl_anyone = allow
  acl_shared_dict = file:{root}/shared-mailboxes
}}
"""

DIALOGUE = [
    ("bob", "CREATE Team"), ("bob", "CREATE Team/Sub"), ("bob", "GETACL INBOX"), ("bob", "GETACL Team"),
    ("bob", "SETACL Team alice lrsw"), ("bob", "SETACL Team anyone l"), ("bob", "SETACL Team $staff +lc"),
    ("bob", "SETACL Team -carol w"), ("bob", "CREATE Team/New"), ("bob", "GETACL Team/New"),
    ("bob", "SETACL Team owner lrwi"), ("bob", "GETACL Team"),
    ("bob", "MYRIGHTS Team"), ("bob", "LISTRIGHTS Team dave"), ("bob", "LISTRIGHTS Team anyone"),
    ("bob", "SETACL Team carol lrq"), ("bob", "SETACL Team carol LR"), ("bob", 'SETACL Team "" lr'),
    ("bob", "DELETEACL Team $staff"), ("bob", "DELETEACL Team nobody"), ("bob", "GETACL Nix"),
    ("alice", "NAMESPACE"), ("alice", "MYRIGHTS shared/bob/Team"), ("alice", "GETACL shared/bob/Team"),
    ("alice", "SELECT shared/bob/Team"), ("alice", "CREATE shared/bob/Team/X"),
    ("alice", "SELECT shared/bob/Sub"), ("alice", "GETACL shared/bob/Sub"),
    ("alice", "STATUS shared/bob/Nix (MESSAGES)"),
    ("dave", "MYRIGHTS shared/bob/Team"), ("dave", "SELECT shared/bob/Team"),
    ("dave", "DELETE shared/bob/Team"),
    ("alice", "CREATE Public/News"), ("alice", "GETACL Public/News"), ("alice", "SETACL Public/News dave lr"),
    ("dave", "MYRIGHTS Public/News"), ("dave", "SELECT Public/News"), ("dave", "CREATE Public/News/X"),
    ("dave", "CREATE Public/Other"), ("dave", "SETACL Public/News dave lra"), ("dave", "EXPUNGE"),
    ("alice", "RENAME Public/News Public/Newer"), ("dave", "MYRIGHTS Public/Newer"),
    ("alice", "DELETE Public/Newer"),
    ("bob", "SETACL Team/Sub alice lrit"), ("alice", "SELECT shared/bob/Team/Sub"), ("alice", "CLOSE"),
    ("bob", "SETACL Team/Sub alice l"), ("alice", "EXAMINE shared/bob/Team/Sub"),
]  # fmt: skip
_HIDDEN = "ours names no mailbox that cannot be seen, and always with [NONEXISTENT]"
DIFFERENCES = {
    "SELECT shared/bob/Sub": _HIDDEN,
    "STATUS shared/bob/Nix (MESSAGES)": _HIDDEN,
    "EXPUNGE": "without `e` RFC 4314 §4 refuses; Dovecot expunges nothing and says OK",
    "EXAMINE shared/bob/Team/Sub": "Dovecot trusts for a moment what its session has read",
}


class DovecotSession:
    """Dovecot's imap program, logged in as somebody."""

    def __init__(self, root: Path, name: str) -> None:
        self._process = subprocess.Popen(
            [IMAP, "-c", str(root / "dovecot.conf")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env={"USER": name, "HOME": str(root / "home" / name), "PATH": os.environ["PATH"]},
        )  # fmt: skip
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def ask(self, line: bytes) -> bytes:
        """The answer up to its tagged line; no literals are expected."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(line + b"\r\n")
        self._process.stdin.flush()
        said = b""
        while not said.split(b"\r\n")[-2:-1] or not said.split(b"\r\n")[-2].startswith(b"x "):
            answer = self._process.stdout.readline()
            assert answer, said
            said += answer
        return said

    def close(self) -> None:
        """The program has ended."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


class Both:
    """Two sites, or one, with the same accounts."""

    def __init__(self, root: Path, private_seen: bool = False) -> None:
        self.root = root
        self.ours = SharingServer(root, private_seen=private_seen)
        self._uid = os.geteuid() or _MAIL_USER
        (root / "run").mkdir()
        configuration = _CONFIGURATION.format(root=root, uid=self._uid)
        if private_seen:
            for location in (f"{root}/home/%%u/Maildir\n  sub", f"{root}/public\n  sub"):
                place, _, rest = location.partition("\n")
                kind = place.rpartition("/")[2]
                private = f"{place}:INDEXPVT={root}/home/%u/private/{kind}/%%u"
                configuration = configuration.replace(location, f"{private}\n{rest}")
        (root / "dovecot.conf").write_text(configuration)

    def dovecot(self, name: str) -> DovecotSession:
        """A session of Dovecot's, after our process has let go of everything."""
        self.ours.files.shut()
        if os.geteuid() == 0:
            for directory, _, files in os.walk(self.root):
                for each in ("", *files):
                    os.chown(os.path.join(directory, each), self._uid, self._uid)
        return DovecotSession(self.root, name)


@pytest.fixture
def sites() -> Iterator[tuple[Both, Both]]:
    """One for each server."""
    with open_directory() as theirs, open_directory() as ours:
        both = Both(theirs), Both(ours)
        yield both
        for each in both:
            each.ours.close()


def comparable(said: bytes) -> list[str]:
    """Tagged lines without their text, rights and attributes without an order."""
    found = []
    for line in said.decode().splitlines():
        words = shlex.split(line.replace("\\", "\\\\").replace("'", ""))
        if words[0] == "x":
            code = re.match(r"\[(\S+)[^]]*\]", " ".join(words[2:]))
            found.append(f"{words[1]} {code[1] if code and code[1] != 'MAILBOXID' else ''}".strip())
        elif words[1] == "ACL":
            pairs = zip(words[3::2], words[4::2], strict=False)
            found.append(f"ACL {words[2]} {sorted((who, ''.join(sorted(rights))) for who, rights in pairs)}")
        elif words[1] == "MYRIGHTS":
            found.append(f"MYRIGHTS {words[2]} {''.join(sorted(words[3]))}")
        elif words[1] == "LISTRIGHTS":
            found.append(f"LISTRIGHTS {words[2:4]} {sorted(words[4:])}")
        elif words[1] == "NAMESPACE":
            found.append(line)
        elif "PERMANENTFLAGS" in line:
            found.append(" ".join(sorted(re.findall(r"\\[A-Za-z*]+", line))))
    return found


def test_the_same_answers(sites: tuple[Both, Both]) -> None:
    """The dialogue, but for the differences that are meant."""
    theirs, ours = sites
    dovecot: dict[str, DovecotSession] = {}
    clients: dict[str, Client] = {}
    wrong = []
    for name, command in DIALOGUE:
        if name not in dovecot:
            dovecot[name], clients[name] = theirs.dovecot(name), ours.ours.log_in(name)
        line = b"x " + command.encode()
        expected, found = comparable(dovecot[name].ask(line)), comparable(clients[name].ask(line))
        if (expected != found) != (command in DIFFERENCES):
            wrong.append((name, command, expected, found))
    for session in dovecot.values():
        session.close()
    assert not wrong, "\n".join(map(str, wrong))


def test_each_reads_what_the_other_wrote(sites: tuple[Both, Both]) -> None:
    """Files, defaults and the index of who shares with whom, there and back."""
    _, site = sites
    bob = site.ours.log_in("bob")
    for command in (
        b"CREATE Team",
        b"SETACL Team alice lrs",
        b'SETACL Team "two words" lr',
        b"SETACL Team -dave r",
    ):
        assert b"x OK" in bob.ask(b"x " + command)
    alice = site.dovecot("alice")
    assert b"shared/bob/Team" in alice.ask(b'x LIST "" shared/*')
    assert comparable(alice.ask(b"x MYRIGHTS shared/bob/Team"))[0] == "MYRIGHTS shared/bob/Team lrs"
    alice.close()
    theirs = site.dovecot("bob")
    assert comparable(theirs.ask(b"x GETACL Team")) == comparable(
        site.ours.log_in("bob").ask(b"x GETACL Team")
    )
    for command in (b"CREATE New", b"SETACL New alice lrw", b"SETACL Team alice li", b"SETACL New -alice w"):
        assert b"x OK" in theirs.ask(b"x " + command)
    theirs.close()
    ours = site.ours.log_in("alice")
    assert b"shared/bob/New" in ours.ask(b'x LIST "" shared/*')
    assert b'* MYRIGHTS "shared/bob/New" lr\r\n' in ours.ask(b"x MYRIGHTS shared/bob/New")
    assert b'* MYRIGHTS "shared/bob/Team" li\r\n' in ours.ask(b"x MYRIGHTS shared/bob/Team")
    assert b"x OK" in site.ours.log_in("bob").ask(b"x SETACL New alice l")
    again = site.dovecot("alice")
    assert comparable(again.ask(b"x MYRIGHTS shared/bob/New"))[0] == "MYRIGHTS shared/bob/New l"
    again.close()


assert set(NAMES) >= {name for name, _ in DIALOGUE}


def test_global_acls(sites: tuple[Both, Both]) -> None:
    """`acl = vfile:FILE`: which entries count, for the owner and for others."""
    theirs, ours = sites
    for site in sites:
        (site.root / "global-acls").write_text(
            "Invoices owner lria\nReadable owner lr\n"
            "shared/bob/Invoices user=dave lr\nshared/bob/Invoices -user=carol r\n"
            "shared/*/T??m anyone l\n"
        )
        site.ours.sharing.global_acls = GlobalAcls(str(site.root / "global-acls"))
    configuration = theirs.root / "dovecot.conf"
    configuration.write_text(
        configuration.read_text().replace("acl = vfile\n", f"acl = vfile:{theirs.root}/global-acls\n")
    )
    wrong = []
    for name, command in (
        ("bob", "CREATE Invoices"), ("bob", "CREATE Team"), ("bob", "MYRIGHTS Invoices"),
        ("bob", "SETACL Invoices carol lrs"), ("bob", "SETACL Invoices dave lrswi"),
        ("bob", "SETACL Team carol lrs"), ("bob", "SETACL Team dave lr"),
        ("carol", "MYRIGHTS shared/bob/Invoices"), ("dave", "MYRIGHTS shared/bob/Invoices"),
        ("carol", "MYRIGHTS shared/bob/Team"), ("dave", "SELECT shared/bob/Team"),
        ("dave", "EXAMINE shared/bob/Invoices"), ("bob", "MYRIGHTS Team"), ("bob", "GETACL Team"),
        ("bob", "GETACL Invoices"), ("bob", "SETACL Invoices #dave lrs"), ("bob", "DELETEACL Invoices #dave"),
        ("bob", "CREATE Readable"), ("bob", "MYRIGHTS Readable"), ("bob", "SETACL Readable owner lra"),
    ):  # fmt: skip
        session, client = theirs.dovecot(name), ours.ours.log_in(name)
        line = b"x " + command.encode()
        expected, found = comparable(session.ask(line)), comparable(client.ask(line))
        session.close()
        if expected != found:
            wrong.append((name, command, expected, found))
    assert not wrong, "\n".join(map(str, wrong))
