"""Odd mboxes, read by Debian's Dovecot and by us, changed by us, and read again by Dovecot, mutt and s-nail.

What is read must be the same: messages, UIDs, flags, dates, sizes, content (`odd_mboxes` states where
not, and why). What is changed leaves every octet of the messages that it is not about. RELIABILITY P7.
"""

from __future__ import annotations

import contextlib
import imaplib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from mailserver.store.contract import FLAGGED, NewMessage, StoreMode
from mailserver.store.mbox import deposit
from tests.faults.test_everybody import on_a_terminal
from tests.store.dovecot import Letter, imap_over_pipes, letters
from tests.store.harness import FileHarness
from tests.store.odd_mboxes import BELIEVED_AT_LAST, DIFFERENCES, ODD, REFUSED, UNSEEN_BY_MUTT

pytestmark = pytest.mark.needs("dovecot", "mutt", "s-nail")
_CHANGEABLE = re.compile(rb"^(?:Status|X-Status|X-Keywords|X-IMAPbase): .*\n", re.MULTILINE)
_NEW = b"From: a@a.example\nSubject: %b\n\nFrom here\n"


@dataclass
class Sight:
    """What a program reads in each mailbox, before our changes and after."""

    before: dict[str, Sequence[Letter]]
    after: dict[str, Sequence[Letter]]


@dataclass
class World:
    """What everybody saw. The others' are subjects, or as many as they listed."""

    dovecot: Sight
    ours: Sight
    old: dict[str, bytes]
    new: dict[str, bytes]
    mutt: dict[str, list[bytes]]
    s_nail: dict[str, list[str]]


def seen_by_us(harness: FileHarness, name: str) -> Sequence[Letter]:
    box = harness.store.open(name)
    found = [
        Letter(
            int(uid),
            frozenset(box.messages[uid].flags),
            box.messages[uid].internal_date,
            box.sizes([uid])[uid],
            box.read(uid),
        )
        for uid in box.uids
    ]
    harness.store.close(box)
    return found


def seen_by_dovecot(root: Path) -> dict[str, Sequence[Letter]]:
    """It ends a session where a message is longer than it remembers, by a line end say; then it forgets."""
    found: dict[str, Sequence[Letter]] = {}
    for _ in range(5):
        with (
            contextlib.suppress(imaplib.IMAP4.abort),
            imap_over_pipes(root, "mbox:~/mail:INBOX=~/inbox") as client,
        ):
            for name in ODD.keys() - found.keys():
                found[name] = letters(client, name)
    assert found.keys() == ODD.keys(), (root / "errors").read_text()
    return found


def change(harness: FileHarness, name: str) -> None:
    """The last message is flagged, one is delivered, one appended, the first is gone."""
    box = harness.store.open(name)
    uids = list(box.uids)
    box.change_flags(uids[-1:], frozenset({FLAGGED}), StoreMode.ADD)
    deposit(str(Path(harness.layout.root) / name), "a@a.example", [_NEW % b"delivered"])
    box.append([NewMessage((_NEW % b"appended").replace(b"\n", b"\r\n"))])
    if len(uids) > 1:
        box.remove(uids[:1])
    harness.store.close(box)


def seen_by_mutt(root: Path, names: Sequence[str]) -> dict[str, list[bytes]]:
    """The subjects that it finds: it copies all messages of each mailbox elsewhere."""
    (root / "copies").mkdir()
    keys = "".join(
        f"<change-folder-readonly><kill-line>{root}/mail/{name}<enter><tag-pattern>~A<enter>"
        f"<tag-prefix><copy-message><kill-line>{root}/copies/{name}<enter>"
        for name in names
    )
    settings = "move=no quit=yes folder=~ confirmappend=no confirmcreate=no sleep_time=0 sort=mailbox-order"
    words = [word for setting in settings.split() for word in ("-e", f"set {setting}")]
    words = ["mutt", "-n", "-F", "/dev/null", *words, "-e", f"push '{keys}<exit>'"]
    on_a_terminal([*words, "-f", f"{root}/mail/in-order"], root, b"", 120)
    return {
        path.name: re.findall(rb"^Subject: (.*?)\r?$", path.read_bytes(), re.MULTILINE)
        for path in (root / "copies").iterdir()
    }


def seen_by_s_nail(root: Path, names: Sequence[str]) -> dict[str, list[str]]:
    """The lines in which it lists the messages."""
    commands = "".join(f"File {root}/mail/{name}\necho @@{name}\nfrom *\n" for name in names)
    environment = {"HOME": str(root), "PATH": os.environ["PATH"], "LC_ALL": "C", "TERM": "dumb"}
    words = ["s-nail", "-:/", "-R", "-#", "-Snoheader", "-Sshowlast"]
    done = subprocess.run(words, input=commands.encode(), env=environment, capture_output=True, timeout=60)
    blocks = done.stdout.decode("latin-1").split("@@")[1:]
    return {block.partition("\n")[0]: re.findall(r"(?m)^[> ]\w? +\d.*", block) for block in blocks}


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with tempfile.TemporaryDirectory(prefix="odd-") as name:
        root = Path(name)
        os.chmod(root, 0o755)
        for part in ("dovecot/mail", "ours/home/mail", "others/mail"):
            (root / part).mkdir(parents=True)
        mail = root / "ours" / "home" / "mail"
        for box, content in ODD.items():
            (mail / box).write_bytes(content)
            (root / "dovecot" / "mail" / box).write_bytes(content)
        dovecot = Sight(seen_by_dovecot(root / "dovecot"), {})
        harness = FileHarness(root / "ours", "mbox:~/mail:INBOX=~/inbox")
        ours = Sight({box: seen_by_us(harness, box) for box in ODD}, {})
        for box in ODD:
            change(harness, box)
        harness.restart()
        ours.after = {box: seen_by_us(harness, box) for box in ODD}
        harness.registry.shut()
        for box in ODD:
            shutil.copyfile(mail / box, root / "dovecot" / "mail" / box)
            shutil.copyfile(mail / box, root / "others" / "mail" / box)
        dovecot.after = seen_by_dovecot(root / "dovecot")
        new = {box: (mail / box).read_bytes() for box in ODD}
        readable = [box for box in ODD if new[box].lstrip(b"\n").startswith(b"From ")]
        others = root / "others"
        yield World(
            dovecot, ours, ODD, new, seen_by_mutt(others, readable), seen_by_s_nail(others, list(ODD))
        )


def comparable(letter: Letter) -> Letter:
    """Without what is never the same.

    Every message ends with a line end here. To Dovecot the last of a message that no empty line follows
    belongs to the From_ line behind it. IMAP's literals hold no NUL: `imapd` shows it as Dovecot does.
    """
    content = letter.content.replace(b"\0", b"\x80")
    missing = b"" if content.endswith(b"\r\n") or not content else b"\r\n"
    return letter._replace(size=letter.size + len(missing), content=content + missing)


@pytest.mark.parametrize("name", ODD)
def test_read_as_dovecot_reads_it(world: World, name: str) -> None:
    """The same messages, UIDs, flags, dates, sizes and content."""
    theirs = [comparable(each) for each in world.dovecot.before[name]]
    ours = [comparable(each) for each in world.ours.before[name]]
    if name in DIFFERENCES:
        assert ours != theirs, "the difference is no more: take it out of the table"
    elif name in REFUSED:
        assert not theirs
        assert len(ours) == ODD[name].count(b"\nSubject: ")
    else:
        assert ours == theirs


@pytest.mark.parametrize("name", ODD)
def test_what_is_not_changed_stays(world: World, name: str) -> None:
    """No octet, UID or flag of another message changes; what is delivered and appended stands by itself."""
    before, after = world.ours.before[name], world.ours.after[name]
    kept = list(before[1:] if len(before) > 1 else before)
    if kept:
        kept[-1] = kept[-1]._replace(flags=kept[-1].flags | {FLAGGED})
    assert after[: len(kept)] == kept
    delivered, appended = after[len(kept) :]
    assert [delivered.content, appended.content] == [
        (_NEW % each).replace(b"\n", b"\r\n").replace(b"\r\nFrom", b"\r\n>From")
        for each in (b"delivered", b"appended")
    ]
    assert max((each.uid for each in before), default=0) < delivered.uid < appended.uid
    # and in the file: the old text, one piece of it left out, and the two messages behind it
    old, new = (_CHANGEABLE.sub(b"", text) for text in (world.old[name], world.new[name]))
    text = re.split(rb"(?m)^From a@a.example  \w+ \w+ .*\nFrom: a@a.example\nSubject: delivered", new)[0]
    same = next((at for at, (a, b) in enumerate(zip(old, text, strict=False)) if a != b), len(text))
    assert old.rstrip(b"\n").endswith(text[same:].rstrip(b"\n"))
    gone = len(old.rstrip(b"\n")) - len(text.rstrip(b"\n"))
    assert len(before) > 1 or gone <= 0, "nothing was to be removed"
    lost = old[same : same + max(gone, 0)].count(b"\nSubject: ")
    assert lost <= (before[0].content.count(b"\nSubject: ") if before else 0)


@pytest.mark.parametrize("name", ODD)
def test_dovecot_reads_on(world: World, name: str) -> None:
    """Dovecot, which knew the mailbox before, sees our changes and nothing else: the same UIDs."""
    before, after = world.dovecot.before[name], world.dovecot.after[name]
    if name in REFUSED:
        assert not after
    elif name not in DIFFERENCES and name not in BELIEVED_AT_LAST:
        kept = [comparable(each) for each in (before[1:] if len(before) > 1 else before)]
        if kept:
            kept[-1] = kept[-1]._replace(flags=kept[-1].flags | {FLAGGED})
        assert [comparable(each) for each in after[: len(kept)]] == kept
    if name not in REFUSED and name not in DIFFERENCES:
        assert [each.content[-80:].split(b"\r\n")[-4] for each in after[-2:]] == [
            b"Subject: delivered",
            b"Subject: appended",
        ]


@pytest.mark.parametrize("name", ODD)
def test_mutt_and_s_nail_read_on(world: World, name: str) -> None:
    """They find every message that we left, the new ones apart from the old."""
    subjects = re.findall(rb"(?m)^Subject: (.*?)\r?$", world.new[name])
    if name in world.mutt:
        assert world.mutt[name] == subjects[1 if name in UNSEEN_BY_MUTT else 0 :]
    listed = world.s_nail[name]
    assert [line.split()[-1] for line in listed[-2:]] == ["delivered", "appended"]
