"""Odd uidlists in a maildir, read by Debian's Dovecot and by us: the same UIDs, or a new UIDVALIDITY."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.store.dovecot import imap_over_pipes, letters
from tests.store.harness import FileHarness

pytestmark = pytest.mark.needs("dovecot")
_VALIDITY: Final = 1275660208
_HEADER: Final = b"3 V1275660208 N25022 G3085f01b7f11094c501100008c4a11c1\n"
_FILES: Final = ("1000000001.M1P1.host", "1000000002.M2P1.host,S=20,W=23", "1000000003.M3P1.host")
_ONE, _TWO, _THREE = (name.encode() for name in _FILES)

UIDLISTS: Final[dict[str, bytes]] = {
    "in-order": _HEADER + b"3 :%b\n9 W23 S20 :%b\n25017 :%b:2,F\n" % (_ONE, _TWO, _THREE),
    "version-1": b"1 1275660208 25022\n3 %b\n9 %b:2,S\n25017 %b\n" % (_ONE, _TWO, _THREE),
    "files-missing": _HEADER
    + b"1 :gone.1\n3 :%b\n4 :gone.2\n9 :%b\n10 :%b\n25021 :gone.3\n" % (_ONE, _TWO, _THREE),
    "lines-missing": _HEADER + b"3 :%b\n10 :%b\n" % (_ONE, _THREE),
    "nothing-listed": _HEADER,
    "line-twice": _HEADER + b"3 :%b\n3 :%b\n9 :%b\n10 :%b\n" % (_ONE, _ONE, _TWO, _THREE),
    "uid-twice": _HEADER + b"3 :%b\n3 :%b\n10 :%b\n" % (_ONE, _TWO, _THREE),
    "file-twice": _HEADER + b"3 :%b\n7 :%b\n9 :%b\n10 :%b\n" % (_ONE, _ONE, _TWO, _THREE),
    "falling": _HEADER + b"9 :%b\n3 :%b\n10 :%b\n" % (_ONE, _TWO, _THREE),
    "zero": _HEADER + b"0 :%b\n3 :%b\n10 :%b\n" % (_ONE, _TWO, _THREE),
    "above-the-next": b"3 V1275660208 N5\n3 :%b\n9 :%b\n10 :%b\n" % (_ONE, _TWO, _THREE),
    "garbage-between": _HEADER + b"3 :%b\ngarbage\n9 :%b\n10 :%b\n" % (_ONE, _TWO, _THREE),
    "truncated": _HEADER + b"3 :%b\n9 :%b\n10 :%b" % (_ONE, _TWO, _THREE[:9]),
    "unknown-version": b"7 V1275660208 N25022\n3 :%b\n9 :%b\n10 :%b\n" % (_ONE, _TWO, _THREE),
    "no-validity": b"3 N25022\n3 :%b\n9 :%b\n10 :%b\n" % (_ONE, _TWO, _THREE),
    "garbage": b"\0\xff nothing of it\n",
    "empty": b"",
}

Seen = tuple[int, dict[int, bytes]]  # UIDVALIDITY, messages by UID


@pytest.fixture(scope="module")
def seen() -> Iterator[dict[str, tuple[Seen, Seen]]]:
    """What Dovecot sees, and what we see, in a folder with that uidlist."""
    with tempfile.TemporaryDirectory(prefix="uidlists-") as name:
        root = Path(name)
        os.chmod(root, 0o755)
        for box, text in UIDLISTS.items():
            folder = root / "dovecot" / "Maildir" / f".{box}"
            for part in ("cur", "new", "tmp"):
                (folder / part).mkdir(parents=True)
            for number, file in enumerate(_FILES):
                (folder / "cur" / f"{file}:2,").write_bytes(b"Subject: %04d\n\n%b\n" % (number, b"body"))
            (folder / "dovecot-uidlist").write_bytes(text)
        shutil.copytree(root / "dovecot", root / "ours" / "home")
        theirs: dict[str, Seen] = {}
        with imap_over_pipes(root / "dovecot", "maildir:~/Maildir") as client:
            for box in UIDLISTS:
                messages = {each.uid: each.content for each in letters(client, box)}
                theirs[box] = (int(client.response("UIDVALIDITY")[1][0] or 0), messages)
        harness = FileHarness(root / "ours", "maildir:~/Maildir")
        ours: dict[str, Seen] = {}
        for name in UIDLISTS:
            with harness.store.borrow(name) as mailbox:
                ours[name] = (mailbox.uidvalidity, {int(uid): mailbox.read(uid) for uid in mailbox.uids})
        yield {name: (theirs[name], ours[name]) for name in UIDLISTS}


@pytest.mark.parametrize("name", UIDLISTS)
def test_uids(seen: dict[str, tuple[Seen, Seen]], name: str) -> None:
    """No UID that a client of Dovecot's knows shows other content here."""
    (theirs, their_messages), (ours, our_messages) = seen[name]
    assert (ours == _VALIDITY) == (theirs == _VALIDITY)
    assert our_messages == their_messages
