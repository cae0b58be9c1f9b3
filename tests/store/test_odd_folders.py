"""Odd names of folders, in each of Dovecot's layouts: what it made we serve, and the other way round."""

from __future__ import annotations

import imaplib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

import pytest

from mailserver.store.contract import NewMessage
from mailserver.wire.imap_mailbox import decode_modified_utf7, encode_modified_utf7
from tests.store.dovecot import imap_over_pipes, letters
from tests.store.harness import FileHarness

pytestmark = pytest.mark.needs("dovecot")
OURS_ALONE = {"INBOX", "Drafts", "Sent", "Trash", "Junk", "Archive"}
LETTER = b"Subject: %b\r\n\r\nbody\r\n"
# Levels that Dovecot makes in every layout.
LEVELS = (
    *(
        "plain",
        " sp ace ",
        "tilde~",
        "Entw\u00fcrfe",
        "\u65e5\u672c\u8a9e",
        "\U0001d11emusic",
        "A&B",
        "&",
        "&AC8-",
    ),
    *(
        'quo"te',
        "back\\slash",
        "\\x",
        "\\",
        "per%cent",
        "sta*r",
        "paren(s)",
        "{brace",
        "#hash",
        "'single",
        "-dash",
    ),
    *("a,b=c:d", "Inbox2", "mBoX-MeSsAgEs-2", "subscriptions-2"),
)


@dataclass(frozen=True)
class Layout:
    """A location below the home, what Dovecot puts between levels, and names odd in this layout alone."""

    location: str
    separator: str
    names: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()  # what other programs spelt otherwise, on disk


LAYOUTS = {
    "maildir": Layout(
        "maildir:~/Maildir", ".", ("cur", "tmp", "Lists/one/two"), (".Geb\u00fchren", ".C&A", ".Cafe\u0301.x")
    ),
    "maildir-utf-8": Layout("maildir:~/Maildir:UTF-8", ".", ("cur", "Lists/one/&"), (".C&-A",)),
    "maildir-fs": Layout(
        "maildir:~/Maildir:LAYOUT=fs", "/", ("a.b", "dot.", "x.y/z.", "maildirfolder", "INBOX/Sub")
    ),
    "mbox": Layout(
        "mbox:~/mail:INBOX=~/inbox",
        "/",
        ("a.b", "cur", "new/tmp", "x.y/z.", "INBOX/Sub"),
        ("Geb\u00fchren", "C&A"),
    ),
    "mbox-utf-8": Layout("mbox:~/mail:INBOX=~/inbox:UTF-8", "/", ("new", "tmp/\u00e9"), ("C&-A",)),
}


class Client:
    """Dovecot's IMAP, with names as text and `/` between levels."""

    def __init__(self, imap: imaplib.IMAP4, separator: str) -> None:
        self.imap = imap
        self._separator = separator.encode()

    def spelt(self, name: str) -> str:
        raw = self._separator.join(map(encode_modified_utf7, name.split("/")))
        return '"' + raw.replace(b"\\", b"\\\\").replace(b'"', b'\\"').decode() + '"'

    def listed(self, verb: str) -> set[str]:
        """The mailboxes that there are, or those subscribed to."""
        self.imap._simple_command(verb, '""', '"*"')
        rows = self.imap._untagged_response("OK", [None], verb)[1]
        found = (re.fullmatch(rb'\(([^)]*)\) "." (?:"(.*)"|(\S+))', row) for row in rows if row)
        # composed, as they are here; Dovecot lists what it finds
        return {
            normalize("NFC", self._name(each))
            for each in found
            if each and not re.search(rb"Noselect|NonExistent", each[1])
        }

    def _name(self, row: re.Match[bytes]) -> str:
        raw = re.sub(rb"\\(.)", rb"\1", row[2]) if row[3] is None else row[3]
        return "/".join(map(decode_modified_utf7, raw.split(self._separator)))

    def make(self, name: str) -> None:
        """The mailbox is there, with one message, and subscribed to."""
        assert self.imap.create(self.spelt(name))[0] == "OK", name
        assert self.imap.append(self.spelt(name), "", "", LETTER % name.encode())[0] == "OK", name
        assert self.imap.subscribe(self.spelt(name))[0] == "OK", name

    def see(self, name: str) -> list[tuple[int, bytes]]:
        return [(each.uid, each.content) for each in letters(self.imap, self.spelt(name)[1:-1])]


@contextmanager
def by_dovecot(home: Path, layout: Layout) -> Iterator[Client]:
    with imap_over_pipes(home, layout.location) as imap:
        yield Client(imap, layout.separator)


def make_foreign(home: Path, layout: Layout) -> None:
    """What other programs wrote there."""
    kind, path = layout.location.split(":")[:2]
    root = home / path.removeprefix("~/")
    for spelling in layout.foreign:
        if kind == "maildir":
            for part in ("cur", "new", "tmp"):
                (root / spelling / part).mkdir(parents=True)
            (root / spelling / "new" / "1.a.host").write_bytes(b"Subject: foreign\n\nbody\n")
        else:
            root.mkdir(exist_ok=True)
            (root / spelling).write_bytes(b"From a@b Tue Nov 24 02:22:04 2026\nSubject: foreign\n\nbody\n\n")


def seen_by_us(harness: FileHarness, name: str) -> list[tuple[int, bytes]]:
    with harness.store.borrow(name) as box:
        return [(int(uid), box.read(uid)) for uid in box.uids]


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_there_and_back(tmp_path: Path, layout: Layout) -> None:
    """The same names, subscriptions, UIDs and messages for both, whoever made the mailbox."""
    with tempfile.TemporaryDirectory(prefix="folders-") as directory:
        os.chmod(directory, 0o755)
        home = Path(directory) / "home"
        home.mkdir()
        make_foreign(home, layout)
        made = {*LEVELS, *layout.names, "above/" + LEVELS[3]}
        with by_dovecot(home, layout) as client:
            for name in made:
                client.make(name)
            names, subscribed = client.listed("LIST"), client.listed("LSUB")
            seen = {name: client.see(name) for name in made}
        assert made < names

        harness = FileHarness(Path(directory), layout.location)
        ours = {folder.name for folder in harness.store.folders() if harness.store.exists(folder.name)}
        assert ours - OURS_ALONE == names - OURS_ALONE
        assert set(harness.store.subscriptions()) - OURS_ALONE == subscribed - OURS_ALONE
        assert {name: seen_by_us(harness, name) for name in made} == seen
        foreign = names - made - OURS_ALONE
        assert len(foreign) >= len(layout.foreign)
        assert all(b"foreign" in seen_by_us(harness, name)[0][1] for name in foreign)

        for name in made:
            harness.store.create(name + " of ours")
            with harness.store.borrow(name + " of ours") as box:
                box.append([NewMessage(LETTER % name.encode())])
            harness.store.set_subscribed(name + " of ours", True)
        harness.store.rename("plain", "renamed &")
        harness.store.delete("tilde~")
        harness.registry.shut()
        with by_dovecot(home, layout) as client:
            new = {name + " of ours" for name in made}
            assert client.listed("LIST") - OURS_ALONE >= new | (made - {"plain", "tilde~"}) | {"renamed &"}
            assert client.listed("LSUB") >= new | (made - {"plain", "tilde~"})
            for name in made:
                assert client.see(name + " of ours") == [(1, LETTER % name.encode())]
                if name not in ("plain", "tilde~"):
                    assert client.see(name) == seen[name]
            assert client.see("renamed &") == seen["plain"]
