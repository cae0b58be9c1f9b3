"""Where ACLs lie, and what becomes of damaged ones."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from mailserver.accounts.account import Account
from mailserver.store.acl import Acl, BadAcl, Identifier, Kind, Person, parse_acl
from mailserver.store.acl_files import UNREADABLE, AclFiles
from mailserver.store.contract import StoreFailure
from mailserver.store.layout import layout_for
from mailserver.store.locked_file import LockHeld, update_under_lock
from mailserver.store.shared_boxes import SharedBoxes

ALICE = Person("alice", frozenset({"staff"}))


class Files:
    def __init__(self, root: Path, location: str) -> None:
        self.warnings: list[str] = []
        self.account = Account("bob", os.getuid(), os.getgid(), str(root))
        self.acls = AclFiles(lambda account: layout_for(account, location), self.warnings.append)

    def give(self, name: str, text: str) -> None:
        self.acls.update(self.account, name, lambda before: parse_acl(text))


@pytest.mark.parametrize(
    ("location", "name", "path"),
    [
        ("maildir:~/Maildir", "INBOX", "Maildir/dovecot-acl"),
        ("maildir:~/Maildir", "Work/2024", "Maildir/.Work.2024/dovecot-acl"),
        ("maildir:~/Maildir", "a.b", "Maildir/.a\\2eb/dovecot-acl"),
        ("maildir:~/mail:LAYOUT=fs", "Work/2024", "mail/Work/2024/dovecot-acl"),
        ("maildir:~/mail:LAYOUT=fs:INBOX=~/in", "INBOX", "in/dovecot-acl"),
        ("mbox:~/mail:INBOX=~/inbox", "INBOX", "mail/.imap/INBOX/dovecot-acl"),
        ("mbox:~/mail:INBOX=~/inbox", "Work", "mail/.imap/Work/dovecot-acl"),
        ("mbox:~/mail:INBOX=~/inbox", "Work/2024", "mail/Work/.imap/2024/dovecot-acl"),
    ],
)
def test_place(tmp_path: Path, location: str, name: str, path: str) -> None:
    """Each lies where Dovecot's vfile backend has it."""
    files = Files(tmp_path, location)
    files.give(name, "user=alice lr\n")
    assert (tmp_path / path).read_text() == "user=alice lr\n"
    assert not list(tmp_path.rglob("*.lock"))
    assert files.acls.read(files.account, name) == parse_acl("user=alice lr\n")


def test_what_another_program_writes(tmp_path: Path) -> None:
    """A file that another program changed counts at once; Dovecot's own list of them is dropped by us."""
    files = Files(tmp_path, "maildir:~/Maildir")
    files.give("Work", "user=alice lr\n")
    path = tmp_path / "Maildir/.Work/dovecot-acl"
    path.write_text("user=alice l\n")
    assert files.acls.read(files.account, "Work").rights_of(ALICE, is_owner=False) == {"l"}
    path.unlink()
    assert not files.acls.read(files.account, "Work")
    (tmp_path / "Maildir/dovecot-acl-list").write_text("1 Work\n")
    files.give("Work", "user=alice lr\n")
    assert not (tmp_path / "Maildir/dovecot-acl-list").exists()


@pytest.mark.parametrize("content", [b"user=alice lrQ\n", b"\xff\xfe lr\n", b"who knows\n"])
def test_damaged(tmp_path: Path, content: bytes) -> None:
    """A file that cannot be understood gives nobody but the owner rights, is told, and is not overwritten."""
    files = Files(tmp_path, "maildir:~/Maildir")
    files.give("Work", "user=alice lr\n")
    path = tmp_path / "Maildir/.Work/dovecot-acl"
    path.write_bytes(content)
    acl = files.acls.read(files.account, "Work")
    assert acl is files.acls.read(files.account, "Work") is UNREADABLE
    assert not acl.rights_of(ALICE, is_owner=False)
    assert len(files.warnings) == 1 and str(path) in files.warnings[0]
    with pytest.raises(BadAcl):
        files.give("Work", "user=alice lr\n")
    assert path.read_bytes() == content and not list(tmp_path.rglob("*.lock"))


def test_symbolic_links_are_not_followed(tmp_path: Path) -> None:
    """A link in an ACL's place is no ACL."""
    files = Files(tmp_path, "maildir:~/Maildir")
    files.give("Work", "user=alice lr\n")
    path = tmp_path / "Maildir/.Work/dovecot-acl"
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert not files.acls.read(files.account, "Work")


def test_without_room(tmp_path: Path) -> None:
    """A directory that cannot be made is a local fault."""
    files = Files(tmp_path, "maildir:~/Maildir")
    (tmp_path / "Maildir").write_text("")
    with pytest.raises(StoreFailure):
        files.give("Work", "user=alice lr\n")


def test_one_at_a_time(tmp_path: Path) -> None:
    """Changes made at once are all there afterwards."""
    sources = [Files(tmp_path, "maildir:~/Maildir") for _ in range(4)]

    def add(files: Files, number: int) -> None:
        identifier = Identifier(Kind.USER, f"user{number}")
        files.acls.update(
            files.account, "Work", lambda acl: acl.changed(identifier, lambda b: frozenset("l"))
        )

    threads = [threading.Thread(target=add, args=(files, n)) for n, files in enumerate(sources)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(sources[0].acls.read(sources[0].account, "Work").granted) == 4


def test_a_lock_that_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program's lock is respected, one left behind long ago is not."""
    monkeypatch.setattr("mailserver.store.locked_file.PATIENCE", 0.1)
    path, lock = tmp_path / "file", tmp_path / "file.lock"
    lock.write_text("")
    with pytest.raises(LockHeld):
        update_under_lock(str(path), lambda before: b"new")
    os.utime(lock, (1, 1))
    update_under_lock(str(path), lambda before: before + b"new")
    assert path.read_bytes() == b"new" and not lock.exists()


def test_index(tmp_path: Path) -> None:
    """Who shares with whom, in the file of Dovecot's acl_shared_dict."""
    boxes = SharedBoxes(str(tmp_path / "dict"))
    assert not boxes.owners_for(ALICE)
    boxes.set("bob", [parse_acl("user=alice lr\nuser=carol r\ngroup=x/y l\n"), Acl()])
    boxes.set("dave", [parse_acl("anyone lr\nowner l\n")])
    boxes.set("eve", [parse_acl("group=staff l\n-user=carol l\n")])
    assert boxes.owners_for(ALICE) == ["bob", "dave", "eve"]
    assert boxes.owners_for(Person("carol")) == ["dave"]
    assert boxes.owners_for(Person("dave", frozenset({"x/y"}))) == ["bob"]
    assert (tmp_path / "dict").read_text() == (
        "shared/shared-boxes/group/x\\|y/bob\n1\nshared/shared-boxes/user/alice/bob\n1\n"
        "shared/shared-boxes/anyone/dave\n1\nshared/shared-boxes/group/staff/eve\n1\n"
    )
    boxes.set("bob", [])
    assert SharedBoxes(str(tmp_path / "dict")).owners_for(ALICE) == ["dave", "eve"]
