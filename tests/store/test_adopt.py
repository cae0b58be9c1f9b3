"""First contact with what Dovecot left: UIDs, UIDVALIDITY, keywords, subscriptions; and the way back."""

from __future__ import annotations

import os
import pwd
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailserver.store.adopt import read_subscriptions
from mailserver.store.contract import SEEN, StoreMode, Uid
from mailserver.store.format import Adopted
from mailserver.store.layout import Kind, Layout
from mailserver.store.maildir import deposit, make_maildir
from mailserver.store.uidlist import read_uidlist
from tests.store.contract_suite import FIRST, SECOND, THIRD, append, contents, flags
from tests.store.harness import MaildirHarness, MboxHarness

UIDLIST = (
    b"3 V1275660208 N25022 G3085f01b7f11094c501100008c4a11c1\n"
    b"25006 W1294 :1276528487.M364837P9451.kurkku,S=1355,W=1394:2,\n"
    b"25017 :1276533073.M242911P3632.kurkku:2,F\n"
    b"25019 W20 S12 :1276533079.M1P1.kurkku\n"
)
NAMES = [
    "1276533073.M242911P3632.kurkku:2,Sa",
    "1276528487.M364837P9451.kurkku,S=1355,W=1394:2,",
    "1276533079.M1P1.kurkku:2,",
    "1276540000.M1P1.kurkku:2,",
]


def make_dovecots(root: Path) -> Path:
    maildir = root / "home" / "Maildir"
    maildir.parent.mkdir()
    make_maildir(str(maildir))
    for number, name in enumerate(NAMES):
        (maildir / "cur" / name).write_bytes(b"message %d\n" % number)
    (maildir / "dovecot-keywords").write_bytes(b"0 $MDNSent\n1 Junk\n")
    (maildir / "dovecot-uidlist").write_bytes(UIDLIST)
    (maildir / "subscriptions").write_bytes(b"V\t2\n\nLists\tone\nEntw&APw-rfe\n../x\nINBOX\n")
    return maildir


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[MaildirHarness]:
    make_dovecots(tmp_path)
    harness = MaildirHarness(tmp_path)
    yield harness
    harness.registry.shut()


def test_uids_are_taken_over(harness: MaildirHarness) -> None:
    """Same UIDVALIDITY, same UIDs; what the list lacks comes after them. DESIGN decision 4."""
    box = harness.store.open("INBOX")
    assert box.uidvalidity == 1275660208
    texts = [b"message 1\r\n", b"message 0\r\n", b"message 2\r\n", b"message 3\r\n"]
    assert contents(box) == dict(zip([25006, 25017, 25019, 25022], texts, strict=True))
    assert box.uidnext == 25023
    assert box.messages[Uid(25017)].flags == flags(SEEN, b"$MDNSent")
    assert list(box.keywords) == [b"$MDNSent", b"Junk"]
    assert list(append(box, FIRST)) == [25023]


def test_an_older_list_counts_for_nothing(harness: MaildirHarness) -> None:
    """A list with a lower UIDVALIDITY is older than our own memory."""
    before = contents(harness.store.open("INBOX"))
    (harness.inbox_path / "dovecot-uidlist").write_bytes(b"3 V5 N6\n")
    box = harness.restart().open("INBOX")
    assert (box.uidvalidity, contents(box)) == (1275660208, before)


def dovecot_was_here(harness: MaildirHarness, *entries: bytes, header: bytes = b"") -> None:
    """Between two runs of ours Dovecot changes its list: the entries come after ours."""
    harness.registry.shut()
    path = harness.inbox_path / "dovecot-uidlist"
    first, _, rest = path.read_bytes().partition(b"\n")
    path.write_bytes((header or first) + b"\n" + rest + b"".join(entry + b"\n" for entry in entries))


def test_uids_that_dovecot_gave_meanwhile_are_taken_over(harness: MaildirHarness) -> None:
    """Same UIDVALIDITY: its new messages keep the UIDs that its clients saw. DESIGN decision 4."""
    harness.store.open("INBOX")
    for name in (b"1276600001.a.h", b"1276600002.b.h"):
        (harness.inbox_path / "cur" / (name + b":2,").decode()).write_bytes(name)
    dovecot_was_here(
        harness,
        *(b"25024 :1276600002.b.h", b"25030 :1276600001.a.h"),
        header=b"3 V1275660208 N25040 G3085f01b7f11094c501100008c4a11c1",
    )
    box = harness.crash().open("INBOX")
    assert box.uidvalidity == 1275660208
    assert list(box.uids) == [25006, 25017, 25019, 25022, 25024, 25030]
    assert box.read(Uid(25024)) == b"1276600002.b.h"
    assert box.uidnext == 25040
    assert list(append(box, FIRST)) == [25040]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (b"25017 :1276533073.M242911P3632.kurkku", b"25017 :new.h"),
        (b"25022 :1276540000.M1P1.kurkku", b"25099 :1276540000.M1P1.kurkku"),
    ],
)
def test_a_conflict_raises_uidvalidity(harness: MaildirHarness, ours: bytes, theirs: bytes) -> None:
    """A UID of ours on another message, another UID on a message of ours: some client saw each."""
    harness.store.open("INBOX")
    (harness.inbox_path / "cur" / "new.h:2,").write_bytes(b"new")
    harness.registry.shut()
    uidlist = harness.inbox_path / "dovecot-uidlist"
    assert ours in uidlist.read_bytes()
    uidlist.write_bytes(uidlist.read_bytes().replace(ours, theirs))
    box = harness.crash().open("INBOX")
    assert box.uidvalidity > 1275660208
    assert len(box.uids) == 5


def test_a_higher_uidvalidity_of_dovecots_is_adopted(harness: MaildirHarness) -> None:
    """It numbered the mailbox anew, and its clients know that."""
    harness.store.open("INBOX")
    dovecot_was_here(harness, header=b"3 V1275660999 N25023")
    box = harness.crash().open("INBOX")
    assert box.uidvalidity == 1275660999
    assert list(box.uids) == [25006, 25017, 25019, 25022]


def test_a_list_that_changed_meanwhile_is_not_overwritten(harness: MaildirHarness) -> None:
    """Dovecot ran beside us: what it gave is looked at, at the next open, before we write."""
    box = harness.store.open("INBOX")
    append(box, FIRST)
    path = harness.inbox_path / "dovecot-uidlist"
    path.write_bytes(path.read_bytes() + b"25023 :other\n")
    before = path.read_bytes()
    harness.registry.shut()
    assert path.read_bytes() == before
    harness.crash()


def test_nothing_is_adopted_after_our_state_was_lost(harness: MaildirHarness) -> None:
    """The list may be older than what clients saw of us: a higher UIDVALIDITY."""
    harness.store.open("INBOX")
    harness.registry.shut()
    (harness.state_path / "state.db").unlink()
    assert harness.crash().open("INBOX").uidvalidity > 1275660208


def test_subscriptions_are_taken_over(harness: MaildirHarness) -> None:
    """With ours; names that cannot be are left out."""
    subscribed = set(harness.store.subscriptions())
    assert {"Lists/one", "Entw\u00fcrfe", "INBOX", "Sent"} <= subscribed
    assert not any(".." in name for name in subscribed)


def test_control_directory(tmp_path: Path) -> None:
    """CONTROL= says where Dovecot's own files lie."""
    maildir = make_dovecots(tmp_path)
    control = tmp_path / "control"
    control.mkdir()
    for name in ("dovecot-uidlist", "subscriptions"):
        (maildir / name).rename(control / name)
    harness = MaildirHarness(tmp_path, f"maildir:~/Maildir:CONTROL={control}")
    assert harness.store.open("INBOX").uidvalidity == 1275660208
    assert "Lists/one" in harness.store.subscriptions()
    harness.registry.shut()


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b"\n", b"junk", b"3\n", b"3 V0 N1\n", b"3 N5\n", b"4 V1 N2\n", b"3 V99999999999 N1\n"),
        *(b"\xff" * 99, UIDLIST[:20], b"3 Vabc N5\n25 :x\n"),
    ],
)
def test_a_damaged_uidlist_is_none(tmp_path: Path, text: bytes) -> None:
    """It is taken for absent: clients download again, and nothing else happens."""
    (tmp_path / "dovecot-uidlist").write_bytes(text)
    adopted, uids = read_uidlist(str(tmp_path))
    assert (adopted, dict(uids)) == (Adopted(), {})


@pytest.mark.parametrize(
    "line", [b"junk\n", b"-5 :x\n", b"25020 :a/b\n", b"\n", b"25019 :x\n", b"4294967295 :x\n"]
)
def test_a_damaged_line_makes_it_none(tmp_path: Path, line: bytes) -> None:
    """As for Dovecot: who knows what else is wrong with it. One that was cut short at the end is left out."""
    (tmp_path / "dovecot-uidlist").write_bytes(UIDLIST + line + b"25021 :ok.h\n")
    assert read_uidlist(str(tmp_path)) == (Adopted(), {})
    (tmp_path / "dovecot-uidlist").write_bytes(UIDLIST + b"25021 :a b.h\n25022 :o")
    _, uids = read_uidlist(str(tmp_path))
    assert uids["a b.h"] == 25021 and len(uids) == 4


def test_uids_out_of_order_are_given_anew(tmp_path: Path) -> None:
    """Two messages with one UID: who knows which had it. All have new ones, under another UIDVALIDITY."""
    maildir = tmp_path / "home" / "Maildir"
    maildir.parent.mkdir()
    make_maildir(str(maildir))
    for name in ("1.a.h", "2.b.h", "3.c.h"):
        (maildir / "cur" / f"{name}:2,").write_bytes(name.encode())
    (maildir / "dovecot-uidlist").write_bytes(b"3 V7 N9\n5 :1.a.h\n5 :2.b.h\n6 :3.c.h\n")
    harness = MaildirHarness(tmp_path)
    box = harness.store.open("INBOX")
    assert box.uidvalidity > 7 and list(box.uids) == [1, 2, 3]
    harness.registry.shut()


def test_old_uidlist_and_subscriptions(tmp_path: Path) -> None:
    """Version 1 of both files."""
    (tmp_path / "dovecot-uidlist").write_bytes(b"1 1200000000 10\n3 1.a.h:2,S\n7 2.b.h\n")
    adopted, uids = read_uidlist(str(tmp_path))
    assert (adopted.uidvalidity, adopted.uidnext, dict(uids)) == (1200000000, 10, {"1.a.h": 3, "2.b.h": 7})
    (tmp_path / "subscriptions").write_bytes(b"Lists.one\nWork\n")
    layout = Layout(Kind.MAILDIR, str(tmp_path), Kind.MAILDIR, str(tmp_path))
    assert list(read_subscriptions(layout)) == ["Lists/one", "Work"]


def test_mbox_subscriptions(tmp_path: Path) -> None:
    """.subscriptions in the root of the folders."""
    (tmp_path / "home" / "mail").mkdir(parents=True)
    (tmp_path / "home" / "mail" / ".subscriptions").write_bytes(b"Lists/one\n")
    harness = MboxHarness(tmp_path)
    assert "Lists/one" in harness.store.subscriptions()
    harness.registry.shut()


def test_the_way_back(harness: MaildirHarness) -> None:
    """When we stop, the uidlist holds our UIDs, under the GUID that Dovecot gave."""
    box = harness.store.open("INBOX")
    (uid,) = append(box, FIRST)
    before = contents(box)
    harness.registry.shut()
    text = (harness.inbox_path / "dovecot-uidlist").read_bytes()
    assert text.startswith(b"3 V1275660208 N25024 G3085f01b7f11094c501100008c4a11c1\n")
    _, uids = read_uidlist(str(harness.inbox_path))
    assert sorted(uids.values()) == sorted(before) and uid in uids.values()
    harness.crash()


def test_a_locked_uidlist_is_left_alone(harness: MaildirHarness) -> None:
    """Dovecot holds its lock: nothing is written, nothing fails."""
    append(harness.store.open("INBOX"), FIRST)
    (harness.inbox_path / "dovecot-uidlist.lock").touch()
    harness.registry.shut()
    assert (harness.inbox_path / "dovecot-uidlist").read_bytes() == UIDLIST
    harness.crash()


# Debian's Dovecot itself. It refuses to serve root: run by root, the mail is nobody's meanwhile.


@pytest.fixture
def common_ground() -> Iterator[Path]:
    """A directory that Dovecot's user can reach."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


def doveadm(root: Path, *words: str) -> str:
    user = pwd.getpwnam("nobody") if os.getuid() == 0 else pwd.getpwuid(os.getuid())
    if os.getuid() == 0:
        for path in (root / "home", *(root / "home").rglob("*")):
            os.chown(path, user.pw_uid, user.pw_gid)
    (root / "run").mkdir(exist_ok=True)
    configuration = root / "dovecot.conf"
    configuration.write_text(
        f"base_dir = {root}/run\nmail_location = maildir:{root}/home/Maildir\nlog_path = /dev/stderr\n"
        f"mail_uid = {user.pw_uid}\nmail_gid = {user.pw_gid}\nfirst_valid_uid = 0\nfirst_valid_gid = 0\n"
        f"ssl = no\ndefault_internal_user = {user.pw_name}\ndefault_login_user = {user.pw_name}\n"
    )
    done = subprocess.run(
        ["doveadm", "-c", str(configuration), *words],
        capture_output=True,
        text=True,
        env={
            "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin",
            "USER": user.pw_name,
            "HOME": str(root / "home"),
        },
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def seen_by_dovecot(root: Path) -> dict[int, str]:
    """Flags by UID."""
    fetched = doveadm(root, "-f", "tab", "fetch", "uid flags", "mailbox", "INBOX", "ALL")
    rows = [line.split("\t") for line in fetched.splitlines()[1:]]
    return {int(uid): " ".join(sorted(set(names.split()) - {"\\Recent"})) for uid, names in rows}


@pytest.mark.needs("doveadm")
def test_with_dovecot_itself(common_ground: Path) -> None:
    """There and back: same UIDVALIDITY, same UIDs, same flags and keywords. Nothing is downloaded again."""
    maildir = common_ground / "home" / "Maildir"
    (common_ground / "home").mkdir()
    make_maildir(str(maildir))
    for content in (FIRST, SECOND, THIRD):
        deposit(str(maildir), [content.replace(b"\r\n", b"\n")], "h")
    doveadm(common_ground, "flags", "add", "\\Seen Junk", "mailbox", "INBOX", "2")
    doveadm(common_ground, "expunge", "mailbox", "INBOX", "1")
    theirs = seen_by_dovecot(common_ground)
    validity = doveadm(common_ground, "-f", "flow", "mailbox", "status", "uidvalidity", "INBOX")

    harness = MaildirHarness(common_ground)
    box = harness.store.open("INBOX")
    assert f"uidvalidity={box.uidvalidity}" in validity
    assert contents(box) == {2: SECOND, 3: THIRD}
    assert {uid: b" ".join(sorted(box.messages[uid].flags)).decode() for uid in box.uids} == theirs
    append(box, FIRST, with_flags=flags(b"Work"))
    box.change_flags([Uid(3)], flags(b"\\Flagged"), StoreMode.ADD)
    ours = {uid: b" ".join(sorted(box.messages[uid].flags)).decode() for uid in box.uids}
    harness.registry.shut()

    assert seen_by_dovecot(common_ground) == ours
    assert doveadm(common_ground, "-f", "flow", "mailbox", "status", "uidvalidity", "INBOX") == validity
