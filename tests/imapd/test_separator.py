"""Another separator of names than `/`, as Dovecot has it in Maildir++. RFC 3501 §5.1.1, RFC 2342."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mailserver.accounts.account import Account
from mailserver.store.layout import Layout, layout_for, with_dovecots_separator
from mailserver.store.registry import FileStoreRegistry
from tests.imapd.harness import Client, Server


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    os.makedirs(tmp_path / "home")

    def place(account: Account) -> Layout:
        return with_dovecots_separator(layout_for(account, f"maildir:{tmp_path}/home/Maildir"))

    files = FileStoreRegistry(place, str(tmp_path / "state"), "host.example")
    yield Server(registry=files).log_in()
    files.shut()


def told(answer: bytes) -> list[bytes]:
    return [line for line in answer.split(b"\r\n") if line.startswith(b"* ")]


def test_names_have_it_in_and_out(client: Client, tmp_path: Path) -> None:
    """CREATE, LIST, LSUB, STATUS, SELECT, RENAME; on the disk all is as it ever was."""
    assert b"OK" in client.ask(b"1 CREATE Work.2024.May")
    assert b"OK" in client.ask(b"2 SUBSCRIBE Work.2024")
    assert (tmp_path / "home" / "Maildir" / ".Work.2024.May").is_dir()
    assert told(client.ask(b'3 LIST "" "Work.%"')) == [b'* LIST (\\Noselect \\HasChildren) "." "Work.2024"']
    assert told(client.ask(b'4 LIST "Work." "*"'))[-1] == b'* LIST (\\HasNoChildren) "." "Work.2024.May"'
    assert told(client.ask(b'5 LSUB "" "Work*"')) == [b'* LSUB () "." "Work.2024"']
    assert told(client.ask(b'6 LIST "" ""')) == [b'* LIST (\\Noselect) "." ""']
    assert told(client.ask(b"7 STATUS work.2024 (MESSAGES)")) == []
    assert told(client.ask(b"8 STATUS Work.2024.May (MESSAGES)")) == [
        b'* STATUS "Work.2024.May" (MESSAGES 0)'
    ]
    assert b"8b OK" in client.ask(b"8b SELECT Work.2024.May")
    assert b"9 OK" in client.ask(b"9 RENAME Work.2024.May Work.2025")
    assert b"Work.2025" in client.ask(b'10 LIST "" Work.2025')
    assert told(client.ask(b"11 NAMESPACE")) == [b'* NAMESPACE (("" ".")) NIL NIL']


def test_levels_with_the_separator_in_them(client: Client, tmp_path: Path) -> None:
    """The slash stands for a dot within a level, so that no folder is out of reach; INBOX is INBOX."""
    os.makedirs(tmp_path / "home" / "Maildir" / ".v1\\2e2.notes" / "cur")
    assert told(client.ask(b'1 LIST "" "v1*"'))[-1] == b'* LIST (\\HasNoChildren) "." "v1/2.notes"'
    assert b"2 OK" in client.ask(b"2 SELECT v1/2.notes")
    assert b"3 OK" in client.ask(b"3 CREATE inbox.Child")
    assert told(client.ask(b'4 LIST "" "INBOX.*"'))[-1].endswith(b'"INBOX.Child"')
    assert b"5 NO" in client.ask(b"5 CREATE a..b")


@pytest.mark.parametrize(
    ("location", "separator"),
    [("maildir:~/Maildir", "."), ("maildir:~/mail:LAYOUT=fs", "/"), ("mbox:~/mail", "/")],
)
def test_dovecots_own(location: str, separator: str) -> None:
    """A dot in Maildir++ only."""
    layout = layout_for(Account("alice", 1, 1, "/home/alice"), location)
    assert with_dovecots_separator(layout).separator == separator
    assert replace(layout, separator="/") == layout
