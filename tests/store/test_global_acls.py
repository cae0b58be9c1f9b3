"""The administrator's ACLs, `acl = vfile:FILE`, as Dovecot's ACL page has them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mailserver.store.acl import BadAcl, Person, parse_acl, render_rights
from mailserver.store.global_acls import GlobalAcls

RULES = """\
# comment
*               user=secretary lr
Invoices        owner lr
"Public/Old *"  anyone lr
Public/??       -user=carol r
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "global-acls"
    path.write_text(RULES)
    return path


def rights(acls: GlobalAcls, name: str, person: str, own: str = "", is_owner: bool = False) -> str:
    return render_rights(parse_acl(own).under(acls.of(name)).rights_of(Person(person), is_owner))


def test_patterns(file: Path) -> None:
    """`*` and `?` stand for anything, a `/` too; a quoted pattern may have spaces."""
    acls = GlobalAcls(str(file))
    assert rights(acls, "shared/bob/INBOX", "secretary") == "lr"
    assert rights(acls, "Public/Old News", "dave") == "lr"
    assert rights(acls, "Public/Older News", "dave") == ""
    assert not acls.of("Public").withheld
    assert acls.of("Public/AB").withheld
    assert not GlobalAcls().of("anything")


def test_they_count_before_the_mailbox_s_own(file: Path) -> None:
    """Where one names the person, nothing of the mailbox's own counts; what one withholds is withheld."""
    acls = GlobalAcls(str(file))
    assert rights(acls, "Public/Old News", "dave", "user=dave lrswi\n") == "lr"
    assert rights(acls, "Public/Old News", "dave", "-user=dave r\n") == "lr"
    assert rights(acls, "Public/AB", "carol", "user=carol lrs\n") == "ls"
    assert rights(acls, "Elsewhere", "dave", "user=dave lrs\n") == "lrs"


def test_the_owner_too(file: Path) -> None:
    """Invoices can be read and no more: not even `a` stays."""
    acls = GlobalAcls(str(file))
    assert rights(acls, "Invoices", "bob", "owner lrswipkxtea\n", is_owner=True) == "lr"
    assert rights(acls, "Sent", "bob", is_owner=True) == "lrswipkxtea"


def test_changes(file: Path) -> None:
    """A changed file counts at once; a bad one leaves the entries as they were, and is told once."""
    told: list[str] = []
    acls = GlobalAcls(str(file), told.append)
    file.write_text("* user=secretary lrs\n")
    os.utime(file, ns=(1, 1))
    assert rights(acls, "X", "secretary") == "lrs"
    file.write_text("* nobody lrs\n")
    os.utime(file, ns=(2, 2))
    assert rights(acls, "X", "secretary") == "lrs"
    assert rights(acls, "X", "secretary") == "lrs"
    assert len(told) == 1
    assert "line 1: nobody" in told[0]


@pytest.mark.parametrize("text", ["*", "* user=bob q", "* whoever lr", '"unended lr'])
def test_what_is_no_entry(tmp_path: Path, text: str) -> None:
    """At the start it is an error that names the line."""
    path = tmp_path / "global-acls"
    path.write_text(f"\n{text}\n")
    with pytest.raises(BadAcl, match="line 2"):
        GlobalAcls(str(path))
    with pytest.raises(FileNotFoundError):
        GlobalAcls(str(tmp_path / "none"))
