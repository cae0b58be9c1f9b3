"""`mailserver mailbox`: what goes in comes out again, and may be put in twice."""

from __future__ import annotations

import io
import json
import mailbox as standard_mailbox
import os
import signal
import sqlite3
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from mailserver.accounts.account import Account
from mailserver.commands.main import main
from mailserver.store.account import FileAccountStore
from mailserver.store.account_use import alone
from mailserver.store.contract import FLAGGED, SEEN, NewMessage, Reader, StoreFailure, StoreMode, Uid
from mailserver.store.layout import layout_for
from mailserver.store.maildir import make_maildir
from mailserver.store.registry import FileStoreRegistry
from tests.end_to_end.server import wait_for

KEYWORD = b"Urgent"
BOB = Reader("bob", starts_with_common=True)


def content(number: int) -> bytes:
    return b"Message-ID: <%d@a.example>\r\nSubject: n%d\r\n\r\nBody\r\nFrom here %d\r\n" % ((number,) * 3)


def unquoted(octets: bytes) -> bytes:
    """Without the quoting that an mbox keeps for ever. DESIGN decision 6."""
    return octets.replace(b"\r\n>From ", b"\r\nFrom ")


class Site:
    """A configuration with one account, and what its mailboxes hold."""

    def __init__(self, root: Path, capfdbinary: Any, kind: str = "maildir") -> None:
        self.root = root
        self._captured = capfdbinary
        self.directory = root / "etc"
        self.directory.mkdir(parents=True)
        slash = "/" if kind == "maildir" else ""
        (root / "spool").mkdir()
        self.location = (
            f"maildir:{root}/spool/%u" if slash else f"mbox:{root}/home/mail:INBOX={root}/spool/%u"
        )
        (self.directory / "main.cf").write_text(
            f"myhostname = mx.example.org\nmail_location = {self.location}\n"
            f"mail_spool_directory = {root}/spool{slash}\naccount_sources = passwd-file\n"
            f"state_directory = {root}/state\nqueue_directory = {root}/queue\nmail_owner = root\n"
            "compatibility_level = 3.6\n"
        )
        owner = f"{os.getuid()}:{os.getgid()}"
        (self.directory / "users").write_text(f"alice:*:{owner}::{root}/home::\n")

    def run(self, *words: str, status: int = 0) -> bytes:
        """What the command prints."""
        self._captured.readouterr()
        assert main(["-c", str(self.directory), "mailbox", words[0], "-u", "alice", *words[1:]]) == status
        captured = self._captured.readouterr()
        self.complaints: bytes = captured.err
        out: bytes = captured.out
        return out

    @contextmanager
    def store(self) -> Iterator[FileAccountStore]:
        account = Account("alice", os.getuid(), os.getgid(), f"{self.root}/home")
        registry = FileStoreRegistry(
            lambda account: layout_for(account, self.location),
            f"{self.root}/state/accounts",
            "mx.example.org",
        )
        store = registry.open(account)
        assert isinstance(store, FileAccountStore)
        yield store
        registry.shut()

    def fill(self) -> None:
        """INBOX with a gap, a folder below a folder, a subscription."""
        with self.store() as store:
            inbox = store.open("INBOX")
            inbox.append([NewMessage(content(n), internal_date=1_700_000_000 + n) for n in range(1, 5)])
            inbox.remove([Uid(2)])
            inbox.change_flags([Uid(1)], frozenset({SEEN, KEYWORD}), StoreMode.ADD)
            inbox.change_flags([Uid(4)], frozenset({FLAGGED}), StoreMode.ADD)
            bobs = inbox.seen_by(BOB)
            bobs.change_flags([Uid(1), Uid(3)], frozenset({SEEN}), StoreMode.ADD)
            bobs.change_flags([Uid(1)], frozenset({SEEN}), StoreMode.REMOVE)
            store.create("Work")
            store.create("Work/Ünïcode 2024")
            store.set_subscribed("Work/Ünïcode 2024", True)
            work = store.open("Work/Ünïcode 2024")
            work.append([NewMessage(content(9), frozenset({SEEN}), 1_600_000_000)])
            store.close(work)
            store.close(inbox)

    def seen(self) -> dict[str, Any]:
        """UIDVALIDITY, UIDNEXT, each message, and what bob has seen, of the mailboxes that hold any."""
        found: dict[str, Any] = {}
        with self.store() as store:
            for folder in store.folders():
                if not folder.selectable:
                    continue
                box = store.open(folder.name)
                if box.uids:
                    known = [box.messages[uid] for uid in box.uids]
                    messages = [
                        (m.uid, sorted(m.flags), m.internal_date, unquoted(box.read(m.uid))) for m in known
                    ]
                    bobs = box.seen_by(BOB).messages
                    his = [uid for uid in box.uids if SEEN in bobs[uid].flags]
                    found[folder.name] = (box.uidvalidity, box.uidnext, messages, his)
                store.close(box)
        return found


@pytest.fixture
def make_site(tmp_path: Path, capfdbinary: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Site]:
    monkeypatch.delenv("MAIL_CONFIG", raising=False)

    def make(name: str, kind: str = "maildir") -> Site:
        return Site(tmp_path / name, capfdbinary, kind)

    return make


@pytest.fixture(params=["maildir", "mbox"])
def site(request: pytest.FixtureRequest, make_site: Callable[..., Site]) -> Site:
    site = make_site("first", request.param)
    site.fill()
    return site


def feed(monkeypatch: pytest.MonkeyPatch, octets: bytes) -> None:
    """Standard input holds these."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(octets)))


def test_list_and_status(site: Site) -> None:
    """One line a mailbox; with --json one object a line."""
    assert b"Work/" in site.run("list")
    row = next(json.loads(line) for line in site.run("status", "--json", "INBOX").splitlines())
    assert (row["messages"], row["uidnext"], row["unseen"], row["mailbox"]) == (3, 5, 2, "INBOX")
    site.run("status", "Nowhere", status=68)


def test_create_and_delete(site: Site) -> None:
    """65 where it exists already, 68 where there is none. ECOSYSTEM §10."""
    site.run("create", "Lists/one")
    site.run("create", "Lists/one", status=65)
    assert b"Lists/one" in site.run("list")
    site.run("delete", "Lists/one")
    site.run("delete", "Lists/one", status=68)
    site.run("delete", "INBOX", status=65)


def test_unknown_account(site: Site, capfdbinary: Any) -> None:
    """67, and how to find out."""
    assert main(["-c", str(site.directory), "mailbox", "list", "-u", "nobody-here"]) == 67
    assert b"no such account" in capfdbinary.readouterr().err


@pytest.mark.parametrize("kind", ["maildir", "mbox"])
def test_backup_and_restore(
    site: Site, make_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Everything is as it was, UIDs and HIGHESTMODSEQ too, in either format. Twice is once."""
    before = site.seen()
    backup = site.run("backup")
    second = make_site("second", kind)
    feed(monkeypatch, backup)
    assert b"would be" in second.run("restore", "--dry-run")
    assert second.seen() == {}
    for _ in range(2):
        feed(monkeypatch, backup)
        second.run("restore")
        assert second.seen() == before
    with second.store() as store, site.store() as old:
        assert "Work/Ünïcode 2024" in store.subscriptions()
        assert store.status("INBOX").highest_modseq >= old.status("INBOX").highest_modseq


def test_a_backup_is_a_maildir_and_a_data_base(site: Site, tmp_path: Path) -> None:
    """Other programs can read both."""
    with tarfile.open(fileobj=io.BytesIO(site.run("backup"))) as tar:
        tar.extractall(tmp_path / "out")
    maildir = standard_mailbox.Maildir(tmp_path / "out" / "alice" / "Maildir", create=False)
    assert sorted(message["Subject"] for message in maildir) == ["n1", "n3", "n4"]
    db = sqlite3.connect(tmp_path / "out" / "alice" / "state.db")
    assert db.execute("SELECT uidnext FROM mailbox WHERE name='INBOX'").fetchone() == (5,)
    db.close()


def test_export_mbox(site: Site, tmp_path: Path) -> None:
    """One mailbox as an mbox on standard output, that the standard library reads."""
    path = tmp_path / "inbox"
    path.write_bytes(site.run("export", "--format", "mbox", "INBOX"))
    found = standard_mailbox.mbox(path)
    assert [message["Subject"] for message in found] == ["n1", "n3", "n4"]
    assert [message["Status"].strip() for message in found] == ["RO", "O", "O"]


@pytest.mark.parametrize("kind", ["maildir", "mbox"])
def test_export_and_import(
    site: Site, make_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A tar of either format; flags, keywords, dates and UIDs come along, and nothing comes twice."""
    before = site.seen()
    exported = site.run("export", "--format", kind)
    second = make_site("second")
    for count in (b"INBOX: 3", b"INBOX: 0"):
        feed(monkeypatch, exported)
        assert count in second.run("import")
    after = second.seen()
    assert after.keys() == before.keys()
    for name, (validity, _, messages, _) in before.items():
        assert after[name][0] == validity
        assert [row[:3] for row in after[name][2]] == [row[:3] for row in messages]


def test_import_into_a_mailbox_that_is_used(site: Site, tmp_path: Path) -> None:
    """New UIDs, since the old ones may be known to clients; a plain maildir will do."""
    source = tmp_path / "old"
    make_maildir(str(source))
    (source / "cur" / "1500000000.M1P1.h:2,RS").write_bytes(b"Subject: old\n\nx\n")
    site.run("import", str(source), "--into", "INBOX")
    messages = site.seen()["INBOX"][2]
    assert [row[0] for row in messages] == [1, 3, 4, 5]
    assert messages[-1][1] == [b"\\Answered", SEEN]


def test_import_refuses_what_is_no_mail(site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """65, nothing is stored."""
    feed(monkeypatch, b"junk" * 1000)
    site.run("import", status=65)
    (tmp_path / "empty").mkdir()
    site.run("import", str(tmp_path / "empty"), status=65)


def test_a_tar_cannot_leave_its_directory(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names with .. or a leading slash, links and devices are left out."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name in ("../evil", "/evil", "a/../../evil"):
            member = tarfile.TarInfo(name)
            member.size = 4
            tar.addfile(member, io.BytesIO(b"evil"))
        link = tarfile.TarInfo("cur")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        tar.addfile(link)
    feed(monkeypatch, packed.getvalue())
    site.run("import", status=65)
    assert not list(site.root.parent.rglob("evil"))


def test_downgrade_hands_the_state_to_an_older_release(site: Site) -> None:
    """F59: the schema is the first one's afterwards, and the next open raises it, UIDs as they were."""
    before = site.seen()
    with site.store():
        site.run("downgrade", "--wait", "0.3", status=75)
    site.run("downgrade")
    with closing(sqlite3.connect(site.root / "state" / "accounts" / "alice" / "state.db")) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (1,)
    assert site.seen() == before


def test_move_format(site: Site) -> None:
    """All mail in the other format, under the same UIDs; the old mail stays where it was."""
    before, root = site.seen(), site.root
    assert before["INBOX"][3] == [3]
    if site.location.startswith("mbox"):
        new = f"maildir:{root}/home/Maildir"
    else:
        new = f"mbox:{root}/home/boxes:INBOX={root}/home/inbox"
    site.run("move-format", "--dry-run", new)
    assert site.seen() == before
    site.run("move-format", new)
    site.location = new
    assert site.seen() == before


def test_move_format_of_an_account_in_use(site: Site) -> None:
    """It waits for the sessions to end, then gives up, and says who can help; nothing is changed."""
    before = site.seen()
    new = f"maildir:{site.root}/home/Elsewhere"
    with site.store() as store:
        box = store.open("INBOX")
        site.run("move-format", "--wait", "0.3", new, status=75)
        assert b"mailserver kick alice" in site.complaints
        box.append([NewMessage(content(5))])
        site.run("list")
        store.close(box)
    assert len(site.seen()["INBOX"][2]) == len(before["INBOX"][2]) + 1
    assert not (site.root / "home" / "Elsewhere").exists()


def test_nobody_opens_an_account_that_is_moved(site: Site, tmp_path: Path) -> None:
    """Whoever comes meanwhile is told to come back, and can, when it is over or its command was killed."""
    directory = f"{site.root}/state/accounts/alice"
    child = os.fork()
    if child == 0:
        with alone(directory, 30) as is_mine:
            (tmp_path / "has-it").write_text(str(is_mine))
            signal.pause()
    try:
        wait_for(lambda: (tmp_path / "has-it").exists(), "the child")
        with pytest.raises(StoreFailure, match="worked on"), site.store():
            pass
        site.run("list", status=75)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert site.seen()


def test_check_repairs(site: Site) -> None:
    """A damaged cache is dropped; what is gone is known to be gone; the rest is sound."""
    assert b"INBOX: 3 messages, 0 repaired, 0 unreadable" in site.run("check")
    cache = site.root / "state" / "accounts" / "alice" / "cache.db"
    cache.write_bytes(b"junk" * 4096)
    assert b"0 unreadable" in site.run("check")
    assert b"INBOX: 3 messages, 0 repaired" in site.run("check")


def test_undelete(make_site: Callable[..., Site]) -> None:
    """Expunged mail comes back, with its flags, once; --list shows it; --since chooses."""
    site = make_site("first")
    site.fill()
    site.run("delete", "Work/Ünïcode 2024")
    with_age = site.run("undelete", "--list", "--since", "1h")
    assert b"Work/\xc3\x9cn\xc3\xafcode 2024: n9" in with_age
    assert b"1 message would be" in site.run("undelete", "--dry-run")
    assert b"1 message brought in" in site.run("undelete", "Work/Ünïcode 2024")
    assert b"nothing" in site.run("undelete")
    ((_, flags, date, text),) = site.seen()["Work/Ünïcode 2024"][2]
    assert (flags, date, text) == ([SEEN], 1_600_000_000, content(9))


def test_index(site: Site) -> None:
    """The text index is made beforehand; twice is once."""
    assert b"INBOX: 3 messages indexed" in site.run("index")
    assert b"INBOX: 0 messages indexed" in site.run("index")


def test_output_files(site: Site, tmp_path: Path) -> None:
    """-o and -d write a file that bears its name only when it is whole."""
    site.run("backup", "-d", str(tmp_path))
    site.run("export", "-o", str(tmp_path / "out.tar"))
    for name in ("alice.tar", "out.tar"):
        with tarfile.open(tmp_path / name) as tar:
            assert any("/cur/" in member for member in tar.getnames())
    site.run("export", "-o", str(tmp_path / "none.tar"), "Nowhere", status=68)
    assert not list(tmp_path.glob("none*"))
