"""`mailserver acl`: what it says and does, beside the server's own files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from mailserver.commands.main import main


class Site:
    """Accounts bob and alice with maildirs, and a public namespace."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root = root
        self._capsys = capsys
        (root / "etc").mkdir()
        (root / "home").mkdir()
        (root / "etc/main.cf").write_text(
            f"myhostname = mx.example.org\nmail_location = maildir:{root}/home/%u\n"
            f"mail_spool_directory = {root}/home/\naccount_sources = passwd-file\n"
            f"state_directory = {root}/state\nqueue_directory = {root}/queue\n"
            f"mail_owner = root\ncompatibility_level = 3.6\n"
            f"public_namespaces = {{ Public/=maildir:{root}/public }}\n"
        )
        owner = f"{os.getuid()}:{os.getgid()}"
        (root / "etc/users").write_text(f"alice:*:{owner}::{root}/home::\nbob:*:{owner}::{root}/home::\n")
        self("mailbox", "create", "-u", "bob", "Team")

    def __call__(self, *words: str) -> tuple[int, str, str]:
        status = main(["-c", str(self.root / "etc"), *words])
        said = self._capsys.readouterr()
        return status, said.out, said.err


@pytest.fixture
def site(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Site:
    return Site(tmp_path, capsys)


def test_giving_and_taking(site: Site) -> None:
    """set, add, remove, delete; negative entries; names and letters; the file is Dovecot's."""
    file = site.root / "home/bob/.Team/dovecot-acl"
    assert site("acl", "set", "-u", "bob", "Team", "user=alice", "lookup", "read", "s") == (0, "", "")
    assert file.read_text() == "user=alice lrs\n"
    assert site("acl", "add", "-u", "bob", "Team", "user=alice", "insert")[0] == 0
    assert site("acl", "remove", "-u", "bob", "Team", "user=alice", "s")[0] == 0
    assert site("acl", "set", "-u", "bob", "Team", "--negative", "user=carol", "w")[0] == 0
    assert site("acl", "set", "-u", "bob", "Team", "anyone", "l")[0] == 0
    assert file.read_text() == "user=alice lri\nanyone l\n-user=carol w\n"
    assert site("acl", "get", "-u", "bob", "Team")[1] == (
        "ID                               Rights\n"
        "owner                            lookup read write write-seen write-deleted"
        " insert post expunge create delete admin\n"
        "user=alice                       lookup read insert\n"
        "anyone                           lookup\n"
        "-user=carol                      write\n"
    )
    assert json.loads(site("acl", "get", "-u", "bob", "Team", "--json")[1])[1] == {
        "id": "user=alice", "rights": "lookup read insert",
    }  # fmt: skip
    assert site("acl", "list", "-A")[1].splitlines() == [
        "bob Team user=alice lookup read insert", "bob Team anyone lookup", "bob Team -user=carol write",
    ]  # fmt: skip
    assert json.loads(site("acl", "list", "-u", "bob", "--json")[1].splitlines()[0])["mailbox"] == "Team"
    assert site("acl", "delete", "-u", "bob", "Team", "user=alice")[0] == 0
    assert "user=alice" not in file.read_text()


def test_the_other_side(site: Site) -> None:
    """`rights` says what a user may do, by the user's name for the mailbox; the index knows the sharer."""
    assert site("acl", "rights", "-u", "alice", "shared/bob/Team")[0] == 68
    site("acl", "set", "-u", "bob", "Team", "user=alice", "lrs")
    assert site("acl", "rights", "-u", "alice", "shared/bob/Team")[1] == "lookup read write-seen\n"
    assert json.loads(site("acl", "rights", "--json", "-u", "bob", "Team")[1])["rights"][0] == "lookup"
    index = site.root / "state/accounts/.shared-mailboxes"
    assert index.read_text() == "shared/shared-boxes/user/alice/bob\n1\n"
    index.unlink()
    assert site("acl", "recalc", "-A")[0] == 0
    assert index.read_text() == "shared/shared-boxes/user/alice/bob\n1\n"


def test_a_public_namespace(site: Site) -> None:
    """It has an ACL of its own, and needs no owner."""
    assert site("acl", "set", "Public", "user=alice", "all") == (0, "", "")
    assert (site.root / "public/dovecot-acl").read_text() == "user=alice lrswipkxtea\n"
    assert site("acl", "get", "Public")[1].splitlines()[1].startswith("user=alice ")
    status, _, said = site("acl", "get", "Public/None")
    assert status == 68 and "None: no such mailbox" in said


def test_errors(site: Site) -> None:
    """They say what, where, and how to mend it; nothing is changed."""
    for words, status, text in (
        (["set", "-u", "bob", "Nix", "user=a", "l"], 68, "no such mailbox"),
        (["set", "-u", "bob", "Team", "alice", "l"], 65, "write user=NAME"),
        (["set", "-u", "bob", "Team", "user=a", "lookie"], 65, "Invalid ACL right"),
        (["get", "-u", "nobody", "Team"], 67, "no such account"),
        (["get", "Team"], 67, "-u USER"),
    ):
        found, out, said = site("acl", *words)
        assert (found, out) == (status, "") and text in said, words
    assert not (site.root / "home/bob/.Team/dovecot-acl").exists()
    (site.root / "home/bob/.Team/dovecot-acl").write_text("who knows\n")
    status, _, said = site("acl", "set", "-u", "bob", "Team", "user=a", "l")
    assert status == 65 and "line 1" in said
