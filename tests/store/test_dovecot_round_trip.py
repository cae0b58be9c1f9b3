"""From Dovecot to us, back to Dovecot, and to us again: no client downloads a message twice.

Debian's Dovecot and a whole server of ours serve one account by turns, over maildir and mbox. What
a client sees (UIDVALIDITY, UIDs, flags and keywords, content, subscriptions, POP3 UIDLs) stays,
and mbsync, which was there all the time, transfers nothing. DESIGN decision 4.
"""

from __future__ import annotations

import imaplib
import os
import poplib
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.end_to_end.server import DEADLINE, Server
from tests.store.dovecot import PASSWORD, Dovecot, give

pytestmark = pytest.mark.needs("dovecot", "mbsync")
OURS_ALONE: Final = {"Drafts", "Sent", "Trash", "Junk", "Archive"}
FOLDERS: Final = ("Lists/one", "Entw&APw-rfe")


@dataclass(frozen=True)
class Seen:
    """A mailbox as a client sees it: UIDVALIDITY, and flags and content by UID."""

    uidvalidity: str
    messages: Mapping[int, tuple[frozenset[str], bytes]]


def letter(number: int) -> bytes:
    fields = b"From: a@a.example\r\nMessage-ID: <%d@a.example>\r\nSubject: n%d\r\n\r\n"
    return fields % (number, number) + b"Body %d\r\nFrom here\r\n" % number


class Client:
    """An IMAP session that speaks of folders with `/` between levels."""

    def __init__(self, port: int, password: str) -> None:
        self.imap = imaplib.IMAP4("127.0.0.1", port, timeout=DEADLINE)
        self.imap.login("alice", password)
        self.separator = re.search(rb'"(.)"', self.imap.list('""', '""')[1][0])[1].decode()  # type: ignore

    def name(self, folder: str) -> str:
        return '"' + folder.replace("/", self.separator) + '"'

    def append(self, folder: str, number: int, flags: str = "") -> None:
        answer = self.imap.append(self.name(folder), f"({flags})", "", letter(number))
        assert answer[0] == "OK", answer

    def expunge(self, folder: str, uid: int) -> None:
        self.imap.select(self.name(folder))
        self.imap.uid("STORE", str(uid), "+FLAGS.SILENT", "(\\Deleted)")
        assert self.imap.expunge()[0] == "OK"
        self.imap.close()

    def flag(self, folder: str, uid: int, flags: str) -> None:
        self.imap.select(self.name(folder))
        assert self.imap.uid("STORE", str(uid), "+FLAGS", f"({flags})")[0] == "OK"
        self.imap.close()

    def names(self, verb: str) -> set[str]:
        self.imap._simple_command(verb, '""', '"*"')
        rows = self.imap._untagged_response("OK", [None], verb)[1]
        found = {
            re.search(rb'" "?([^"]+?)"?$', row)[1].decode().replace(self.separator, "/")  # type: ignore
            for row in rows
            if row and b"\\Noselect" not in row and b"\\NonExistent" not in row
        }
        return found - OURS_ALONE

    def see(self, folder: str) -> Seen:
        assert self.imap.select(self.name(folder), readonly=True)[0] == "OK"
        validity = self.imap.response("UIDVALIDITY")[1][0].decode()  # type: ignore[union-attr]
        _, rows = self.imap.uid("FETCH", "1:*", "(FLAGS BODY.PEEK[])")
        messages = {}
        for row in rows:
            if isinstance(row, tuple):
                uid = int(re.search(rb"UID (\d+)", row[0])[1])  # type: ignore[index]
                flags = re.search(rb"FLAGS \(([^)]*)\)", row[0])[1].decode().split()  # type: ignore[index]
                messages[uid] = (frozenset(flags) - {"\\Recent"}, row[1])
        self.imap.close()
        return Seen(validity, messages)

    def see_all(self) -> dict[str, Seen]:
        return {name: self.see(name) for name in sorted(self.names("LIST"))}


@dataclass
class Site:
    """An account that two servers serve by turns, and the mbsync of its owner."""

    root: Path
    dovecot: Dovecot
    ours: Server

    @contextmanager
    def by_dovecot(self) -> Iterator[Client]:
        with self.dovecot.running():
            client = Client(self.dovecot.imap_port, PASSWORD)
            yield client
            client.imap.logout()

    @contextmanager
    def by_us(self) -> Iterator[Client]:
        self.ours.start()
        try:
            client = Client(self.ours.ports["imap"], self.ours.passwords["alice"])
            yield client
            client.imap.logout()
        finally:
            self.ours.stop()

    def uidls(self, client: Client) -> list[bytes]:
        is_ours = client.imap.port == self.ours.ports["imap"]
        pop3 = poplib.POP3("127.0.0.1", self.ours.ports["pop3"] if is_ours else self.dovecot.pop3_port)
        pop3.user("alice")
        pop3.pass_(self.ours.passwords["alice"] if is_ours else PASSWORD)
        lines = pop3.uidl()[1]
        pop3.quit()
        return lines

    def mbsync(self, client: Client) -> int:
        """How many messages mbsync has transferred from the server."""
        is_ours = client.imap.port == self.ours.ports["imap"]
        near = self.root / "near"
        near.mkdir(exist_ok=True)
        (self.root / ".mbsyncrc").write_text(
            f"IMAPStore far\nHost 127.0.0.1\nPort {client.imap.port}\nUser alice\n"
            f'Pass "{self.ours.passwords["alice"] if is_ours else PASSWORD}"\n'
            "SSLType None\nAuthMechs LOGIN\n\n"
            f"MaildirStore near\nPath {near}/\nInbox {near}/INBOX\nSubFolders Verbatim\n\n"
            "Channel all\nFar :far:\nNear :near:\nPatterns *\nCreate Near\nExpunge Near\nSync Pull\n"
            "SyncState *\n"
        )
        before = self._stored(near)
        done = subprocess.run(
            ["mbsync", "-a"],
            env={"HOME": str(self.root), "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return len(self._stored(near) - before)

    def _stored(self, near: Path) -> set[str]:
        return {path.name.partition(":")[0] for path in near.glob("**/[cn]*/*") if path.is_file()}


@pytest.fixture(params=["maildir", "mbox"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix="round-trip-") as name:
        root = Path(name)
        os.chmod(root, 0o755)
        home, spool = root / "home", root / "home" / "spool"
        spool.mkdir(parents=True)
        location = f"maildir:{spool}/%u"
        if request.param == "mbox":
            location = f"mbox:{home}/mail:INBOX={spool}/%u"
            (home / "mail").mkdir()
            (spool / "alice").touch()
        ours = Server(root / "ours", request.param)
        slash = "/" if request.param == "maildir" else ""
        ours.configure(f"mail_location = {location}", f"mail_spool_directory = {spool}{slash}")
        who = ours.directory.stat()
        give(home, who.st_uid, who.st_gid)
        yield Site(root, Dovecot(root, location), ours)


def populate(client: Client) -> None:
    """A mailbox with a past: gaps in the UIDs, flags, keywords, folders, subscriptions."""
    for folder in FOLDERS:
        client.imap.create(client.name(folder))
        client.append(folder, 50, "\\Seen")
        client.append(folder, 51, "$Forwarded")
    for number in range(1, 7):
        client.append("INBOX", number, "\\Seen \\Answered Urgent" if number % 2 else "")
    for uid in (2, 5):
        client.expunge("INBOX", uid)
    client.expunge("Lists/one", 1)
    client.imap.subscribe(client.name("Lists/one"))
    client.imap.subscribe("INBOX")


def rows(mailboxes: dict[str, Seen]) -> list[tuple[object, ...]]:
    """One per message, so that a failure is short."""
    return [
        (name, seen.uidvalidity, uid, sorted(flags), content)
        for name, seen in mailboxes.items()
        for uid, (flags, content) in seen.messages.items()
    ]


def check(site: Site, client: Client, before: dict[str, Seen], uidls: list[bytes]) -> None:
    """The server shows what the other one showed, and mbsync finds nothing new."""
    assert rows(client.see_all()) == rows(before)
    assert "Lists/one" in client.names("LSUB")
    assert site.uidls(client) == uidls
    assert site.mbsync(client) == 0


def test_there_and_back_and_there_again(site: Site) -> None:
    """Each server continues where the other stopped."""
    with site.by_dovecot() as client:
        populate(client)
        seen, uidls = client.see_all(), site.uidls(client)
        assert site.mbsync(client) == 7
    with site.by_us() as client:
        check(site, client, seen, uidls)
        client.append("INBOX", 7, "\\Seen Later")
        client.append("INBOX", 8)
        client.append("INBOX", 9)
        client.expunge("INBOX", 8)
        client.expunge("INBOX", 3)
        client.flag("INBOX", 4, "\\Flagged")
        client.append("Lists/one", 52)
        client.imap.subscribe(client.name("Entw&APw-rfe"))
        seen, uidls = client.see_all(), site.uidls(client)
        assert list(seen["INBOX"].messages) == [1, 4, 6, 7, 9]
        assert site.mbsync(client) == 3
    site.ours.command("mailbox", "leave", "-u", "alice")
    with site.by_dovecot() as client:
        check(site, client, seen, uidls)
        assert "Entw&APw-rfe" in client.names("LSUB")
        client.append("INBOX", 10, "Urgent")
        client.append("INBOX", 11)
        client.expunge("INBOX", 10)
        client.append("INBOX", 12)
        client.flag("INBOX", 6, "\\Draft")
        client.imap.unsubscribe(client.name("Entw&APw-rfe"))
        seen, uidls = client.see_all(), site.uidls(client)
        assert list(seen["INBOX"].messages) == [1, 4, 6, 7, 9, 11, 12]
        assert site.mbsync(client) == 2
    with site.by_us() as client:
        check(site, client, seen, uidls)
        assert "Entw&APw-rfe" not in client.names("LSUB")
