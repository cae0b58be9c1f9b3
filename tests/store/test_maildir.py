"""Maildirs beside other programs: names, flags, keywords, renames, races, damage."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.message.header import header_end
from mailserver.store import maildir, maildir_deposit
from mailserver.store.contract import (
    DELETED,
    FLAGGED,
    SEEN,
    MessageGone,
    NewMessage,
    StoreFailure,
    StoreMode,
    Uid,
)
from mailserver.store.format import Known
from mailserver.store.maildir import MaildirFormat, deposit, make_maildir
from mailserver.store.maildir_deposit import as_stored, with_crlf
from mailserver.store.maildir_names import Keywords, key_of, letters_of, unique_name, virtual_size
from tests.store.contract_suite import FIRST, SECOND, THIRD, append, contents, flags
from tests.store.harness import MaildirHarness


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[MaildirHarness]:
    harness = MaildirHarness(tmp_path)
    yield harness
    harness.registry.shut()


@pytest.fixture
def box(tmp_path: Path) -> Path:
    path = tmp_path / "box"
    make_maildir(str(path))
    return path


# Line ends.


@pytest.mark.parametrize(
    ("stored", "served"),
    [
        (b"", b""),
        (b"a\nb\n", b"a\r\nb\r\n"),
        (b"a\r\nb\r\n", b"a\r\nb\r\n"),
        (b"a\r\nb\nc", b"a\r\nb\r\nc"),
        (b"a\rb\n", b"a\rb\r\n"),
        (b"a\r\r\nb\r\r\n", b"a\r\r\nb\r\r\n"),
    ],
)
def test_with_crlf(stored: bytes, served: bytes) -> None:
    """Whatever is stored, each line ends with CRLF and no octet is lost. RFC 3501 §2.2."""
    assert with_crlf(stored) == served


@given(st.lists(st.sampled_from([b"a", b"\r", b"\r\n", b"\r\r\n", b"\r\n\r\n", b"."])).map(b"".join))
def test_what_is_stored_can_be_served(content: bytes) -> None:
    """Content without bare LF comes back to the octet."""
    assert with_crlf(as_stored(content)) == content


@given(st.lists(st.sampled_from([b"a", b"\r", b"\n", b"\r\n", b"\n\n"])).map(b"".join), st.integers(1, 12))
def test_header_in_a_block(content: bytes, size: int) -> None:
    """The header that a file's first octets hold is the message's, whatever the line ends, or unknown."""
    whole = with_crlf(content)
    assert maildir.header_in(content[:size]) in (None, whole[: header_end(whole)])


def test_only_headers_are_read_for_facts_of_headers(
    harness: MaildirHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ENVELOPE of a message with a large attachment costs no more than of another."""
    box = harness.store.open("INBOX")
    append(box, FIRST + b"a line\r\n" * 100_000)
    real, octets = os.read, []

    def counted(descriptor: int, most: int) -> bytes:
        octets.append(len(block := real(descriptor, most)))
        return block

    monkeypatch.setattr(os, "read", counted)
    header = FIRST[: header_end(FIRST)]
    assert box.facts([Uid(1)], lambda text: text, "header.test", of_header=True) == {1: header}
    assert sum(octets) < 10_000


# Deposit.


def test_deposit(box: Path) -> None:
    """A delivered message lies in new, whole, under Postfix's kind of name with Dovecot's sizes."""
    path = Path(deposit(str(box), [b"Subject: x\n", b"", b"\nbody\n"], "mx.example"))
    assert path.parent == box / "new"
    assert path.read_bytes() == b"Subject: x\n\nbody\n"
    assert re.fullmatch(r"[0-9]{10,}\.V[0-9a-f]+I[0-9a-f]+M[0-9]{6}\.mx\.example,S=17,W=20", path.name)
    assert path.stat().st_mode & 0o777 == 0o600
    assert list((box / "tmp").iterdir()) == []


@given(st.lists(st.sampled_from([b"\r", b"\n", b"x", b"\r\n", b"line\n"]), max_size=8))
def test_deposit_knows_both_sizes(tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes]) -> None:
    """S is the file's size, W the size as served, however the pieces are cut."""
    box = tmp_path_factory.mktemp("box")
    content = Path(deposit(str(box), pieces, "h"))
    assert f",S={content.stat().st_size}," in content.name
    assert virtual_size(content.name) == len(with_crlf(content.read_bytes()))


def test_deposit_makes_a_missing_maildir(tmp_path: Path) -> None:
    """tmp, new and cur are made on the fly; so is the maildir in an existing directory."""
    deposit(str(tmp_path / "Maildir"), [b"x\n"], "h")
    assert sorted(path.name for path in (tmp_path / "Maildir").iterdir()) == ["cur", "new", "tmp"]


def test_deposit_that_fails_leaves_nothing(box: Path) -> None:
    """A failed write is undone; the caller gets the OSError. RELIABILITY P4."""

    def pieces() -> Iterator[bytes]:
        yield b"half"
        raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        deposit(str(box), pieces(), "h")
    with pytest.raises(OSError, match="too large"):
        deposit(str(box), [b"x" * 11], "h", size_limit=10)
    assert [list((box / name).iterdir()) for name in ("tmp", "new", "cur")] == [[], [], []]


def test_deposit_undoes_itself_when_the_directory_cannot_be_synced(
    box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fsync failure is final: the message is not delivered, and not there. RELIABILITY §2.6."""

    def fails(path: str) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(maildir_deposit, "sync_directory", fails)
    with pytest.raises(OSError, match="Input/output"):
        deposit(str(box), [b"x\n"], "h")
    assert list((box / "new").iterdir()) == []


def test_names_are_never_given_twice(box: Path) -> None:
    """A thousand deliveries in a moment have a thousand names."""
    names = {deposit(str(box), [b"x\n"], "h") for _ in range(300)}
    assert len(names) == 300


def test_host_names_cannot_break_file_names(box: Path) -> None:
    """`/` and `:` in the host name are written in octal. maildir(5)."""
    name = unique_name(1, 2, os.stat(box), "a/b:c,d")
    assert "/" not in name and ":" not in name and name.endswith(".a\\057b\\072c\\054d")


# Names and letters.


def test_parts_of_a_name() -> None:
    """Key, sizes and letters."""
    name = "1700000000.V801I2aM123456.host,S=1024,W=1050:2,FSa"
    assert key_of(name) == "1700000000.V801I2aM123456.host,S=1024,W=1050"
    assert virtual_size(name) == 1050
    assert letters_of(name) == "FSa"
    assert letters_of("123.host") == letters_of("123.host:1,S") == ""
    assert virtual_size("123.host:2,W=7") is None


def test_letters_are_in_ascii_order(harness: MaildirHarness) -> None:
    """DFPRST and a-z, sorted; $Forwarded is P. maildir(5)."""
    box = harness.store.open("INBOX")
    everything = flags(b"\\Draft", b"\\Flagged", b"\\Answered", SEEN, DELETED, b"$Forwarded", b"Work")
    append(box, FIRST, with_flags=everything)
    assert letters_of(harness.files()[0].name) == "DFPRSTa"
    assert (harness.inbox_path / "dovecot-keywords").read_bytes() == b"0 Work\n"


def test_dovecots_keywords_are_used(harness: MaildirHarness) -> None:
    """Letters mean what dovecot-keywords says; $Forwarded keeps its letter where it has one."""
    (harness.inbox_path / "dovecot-keywords").write_bytes(b"0 $Forwarded\n3 Junk\nnonsense\n99 x\n")
    (harness.inbox_path / "cur" / "1.a.h:2,Sad").write_bytes(b"x\n")
    box = harness.store.open("INBOX")
    assert box.messages[Uid(1)].flags == flags(SEEN, b"$Forwarded", b"Junk")
    box.change_flags([Uid(1)], flags(b"New"), StoreMode.ADD)
    assert harness.files()[0].name == "1.a.h:2,Sabd"
    text = (harness.inbox_path / "dovecot-keywords").read_bytes()
    assert text == b"0 $Forwarded\n1 New\n3 Junk\n"


def test_more_keywords_than_letters(harness: MaildirHarness) -> None:
    """The 27th keyword lives in state.db alone, and outlives a flag change by another program."""
    box = harness.store.open("INBOX")
    words = flags(*(b"word%02d" % number for number in range(30)))
    append(box, FIRST, with_flags=words)
    assert len(letters_of(harness.files()[0].name)) == 26
    path = harness.files()[0]
    path.rename(path.with_name(path.name.replace(":2,", ":2,S")))
    box.refresh()
    assert box.messages[Uid(1)].flags == words | {SEEN}


def test_a_locked_keyword_file_stops_nothing(harness: MaildirHarness) -> None:
    """Another program holds dovecot-keywords.lock: STORE succeeds, the keyword is in state.db."""
    box = harness.store.open("INBOX")
    append(box, FIRST)
    (harness.inbox_path / "dovecot-keywords.lock").touch()
    box.change_flags([Uid(1)], flags(b"Work", SEEN), StoreMode.ADD)
    assert letters_of(harness.files()[0].name) == "S"
    assert harness.restart().open("INBOX").messages[Uid(1)].flags == flags(SEEN, b"Work")


def test_a_stale_keyword_lock_is_broken(box: Path) -> None:
    """A lock that a crash left is removed after two minutes."""
    lock = box / "dovecot-keywords.lock"
    lock.touch()
    os.utime(lock, (1, 1))
    keywords = Keywords(str(box))
    keywords.provide([b"Work"])
    assert keywords.letters(flags(b"Work")) == "a"
    assert not lock.exists()


def test_strange_letters_are_kept(harness: MaildirHarness) -> None:
    """A flag letter that we do not know survives our flag changes."""
    (harness.inbox_path / "cur" / "1.a.h:2,XZ").write_bytes(b"x\n")
    box = harness.store.open("INBOX")
    box.change_flags([Uid(1)], flags(SEEN), StoreMode.ADD)
    assert harness.files()[0].name == "1.a.h:2,SXZ"


# Other programs.


def test_reading_leaves_new_alone_until_settled(harness: MaildirHarness) -> None:
    """A delivered message is served from new, and in cur when the last session has gone."""
    harness.deliver(FIRST)
    box = harness.store.open("INBOX")
    assert box.read(Uid(1)) == FIRST
    assert harness.files()[0].parent.name == "new"
    harness.store.close(box)
    (path,) = harness.files()
    assert (path.parent.name, path.name[-3:]) == ("cur", ":2,")
    assert contents(harness.restart().open("INBOX")) == {1: FIRST}


def test_another_program_moves_and_flags(harness: MaildirHarness) -> None:
    """mutt moves new to cur and sets flags: the same message, with new flags. RELIABILITY F34."""
    harness.deliver(FIRST)
    box = harness.store.open("INBOX")
    (path,) = harness.files()
    path.rename(harness.inbox_path / "cur" / (path.name + ":2,FS"))
    assert box.read(Uid(1)) == FIRST
    box.refresh()
    assert list(box.uids) == [1]
    assert box.messages[Uid(1)].flags == flags(FLAGGED, SEEN)
    path = harness.files()[0]
    path.rename(path.with_name(path.name.replace(":2,FS", ":2,")))
    box.refresh()
    assert box.messages[Uid(1)].flags == flags()


def test_another_programs_flags_survive_ours(harness: MaildirHarness) -> None:
    """We set one flag while another program sets another: the file ends up somewhere, whole."""
    box = harness.store.open("INBOX")
    append(box, FIRST)
    path = harness.files()[0]
    path.rename(path.with_name(path.name + "F"))
    box.change_flags([Uid(1)], flags(SEEN), StoreMode.ADD)
    box.refresh()
    assert contents(box) == {1: FIRST}
    assert SEEN in box.messages[Uid(1)].flags


def test_renames_between_every_two_reads(harness: MaildirHarness) -> None:
    """A partner that renames everything makes no message vanish. RELIABILITY F34."""
    box = harness.store.open("INBOX")
    append(box, *[FIRST] * 20)
    for uid in list(box.uids):
        for path in harness.files():
            path.rename(path.with_name(path.name + "F" if path.name.endswith(",") else path.name[:-1]))
        assert box.read(uid) == FIRST
    box.refresh()
    assert len(box.uids) == 20


def test_a_message_missed_by_readdir_is_looked_for_again(
    harness: MaildirHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file renamed during readdir(3) may not be listed: it is not expunged for that."""
    box = harness.store.open("INBOX")
    append(box, FIRST, SECOND)
    path = harness.files()[0]
    path.rename(path.with_name(path.name + "S"))
    listed = os.listdir
    blind = [True]

    def misses_one(directory: str) -> list[str]:
        names = listed(directory)
        return names[1:] if directory.endswith("cur") and blind and blind.pop() else names

    monkeypatch.setattr(os, "listdir", misses_one)
    box.refresh()
    assert list(box.uids) == [1, 2]


def test_a_change_in_the_same_tick_is_seen(box: Path) -> None:
    """A directory's mtime that is young when read is not trusted: it may not move again."""
    deposit(str(box), [b"one\n"], "h")
    form = MaildirFormat(str(box), "h")
    form.load([], "")
    first = form.poll()
    assert first is not None and len(first.added) == 1
    stamp = os.stat(box / "new").st_mtime_ns
    deposit(str(box), [b"two\n"], "h")
    os.utime(box / "new", ns=(stamp, stamp))  # as a coarse clock would have it
    second = form.poll()
    assert second is not None and len(second.added) == 1


def test_an_old_mtime_is_trusted(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing changed: poll costs two stats, and no listing."""
    form = MaildirFormat(str(box), "h", clock=lambda: time.time() + 10)
    form.load([], "")
    form.poll()
    monkeypatch.setattr(os, "listdir", lambda path: pytest.fail("listed"))
    assert form.poll() is None


def test_a_delivery_does_not_scan_cur(harness: MaildirHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """New mail costs a listing of new alone, also after our own flag changes."""
    form = MaildirFormat(str(harness.inbox_path), "h", clock=lambda: time.time() + 10)
    form.load([], "")
    (found,), _ = form.append([NewMessage(FIRST)])
    form.poll()
    form.write_flags({found.key: flags(SEEN)})
    listed = os.listdir
    monkeypatch.setattr(
        os, "listdir", lambda path: pytest.fail("listed") if path.endswith("cur") else listed(path)
    )
    harness.deliver(SECOND)
    delta = form.poll()
    assert delta is not None and len(delta.added) == 1 and not delta.removed


def test_cur_is_verified_after_our_own_writes(box: Path) -> None:
    """A foreign change in the very moment of ours is found a little later."""
    now = [time.time() + 10]
    form = MaildirFormat(str(box), "h", clock=lambda: now[0])
    form.load([], "")
    form.poll()
    (found,), _ = form.append([NewMessage(FIRST)])
    stamp = os.stat(box / "cur").st_mtime_ns
    (box / found.place).rename(box / (found.place + "F"))
    os.utime(box / "cur", ns=(stamp, stamp))
    assert form.poll() is None
    now[0] += maildir.VERIFY
    delta = form.poll()
    assert delta is not None and delta.flags == {found.key: flags(FLAGGED)}


def test_changes_in_quick_succession_cost_no_scan(box: Path) -> None:
    """Our own flag changes never make the directory be read again, however young its mtime is."""
    scans: list[str] = []

    class Counting(MaildirFormat):
        def _list(self, subdirectory: str) -> dict[str, str]:
            scans.append(subdirectory)
            return super()._list(subdirectory)

    os.utime(box / "new", (1, 1))
    form = Counting(str(box), "h")
    form.load([], "")
    (found,), _ = form.append([NewMessage(FIRST)])
    form.poll()
    scans.clear()
    for number in range(6):
        form.write_flags({found.key: flags(SEEN) if number % 2 else flags(FLAGGED)})
        assert not form.has_news()
        assert form.poll() is None
    assert not scans
    os.rename(box / f"cur/{found.key}:2,S", box / f"cur/{found.key}:2,SF")
    assert form.has_news()


def test_a_delivery_during_our_own_write_is_found_when_it_is_told(box: Path) -> None:
    """The mtime that our rename out of new leaves may be the delivery's as well: inotify tells them apart."""
    os.utime(box / "new", (1, 1))
    deposit(str(box), [b"one\n"], "h")
    form = MaildirFormat(str(box), "h", clock=lambda: time.time() + 10)
    form.load([], "")
    delta = form.poll()
    assert delta is not None
    form.write_flags({delta.added[0].key: flags(SEEN)})
    stamp = os.stat(box / "new").st_mtime_ns
    deposit(str(box), [b"two\n"], "h")
    os.utime(box / "new", ns=(stamp, stamp))
    assert form.poll() is None
    form.expect_news(f"{box}/new")
    assert form.has_news()
    delta = form.poll()
    assert delta is not None and len(delta.added) == 1
    assert form.poll() is None


def test_a_token_that_fits_saves_the_scan(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a restart an unchanged maildir is not listed; a changed one is."""
    deposit(str(box), [b"one\n"], "h")
    form = MaildirFormat(str(box), "h", clock=lambda: time.time() + 10)
    form.load([], "")
    delta = form.poll()
    assert delta is not None and delta.token
    known = [Known(found.key, found.place, found.flags) for found in delta.added]
    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", lambda path: pytest.fail("listed"))
        form.load(known, delta.token)
        assert form.poll() is None
    deposit(str(box), [b"two\n"], "h")
    form.load(known, delta.token)
    again = form.poll()
    assert again is not None and len(again.added) == 1


def test_order_of_arrival(harness: MaildirHarness) -> None:
    """New messages are numbered by the time in their names, not as readdir(3) has them."""
    for name, text in (("12.M5.h", b"c"), ("9.M1.h", b"a"), ("12.M4.h", b"b"), ("strange", b"0")):
        (harness.inbox_path / "new" / name).write_bytes(text)
    box = harness.store.open("INBOX")
    assert list(contents(box).values()) == [b"0", b"a", b"b", b"c"]


def test_dotfiles_and_directories_are_no_messages(harness: MaildirHarness, tmp_path: Path) -> None:
    """Nor are symbolic links: nobody reads other people's files through them."""
    cur = harness.inbox_path / "cur"
    (cur / ".nfs0001").write_bytes(b"x")
    (cur / "directory:2,S").mkdir()
    (cur / "link:2,S").symlink_to("/etc/passwd")
    os.mkfifo(cur / "fifo:2,S")
    assert list(harness.store.open("INBOX").uids) == []


def test_a_message_replaced_by_a_link_is_not_followed(harness: MaildirHarness) -> None:
    """The link's target is never read."""
    box = harness.store.open("INBOX")
    append(box, FIRST)
    path = harness.files()[0]
    path.unlink()
    path.symlink_to("/etc/passwd")
    with pytest.raises(StoreFailure):
        box.read(Uid(1))


def test_names_that_are_not_utf8(harness: MaildirHarness) -> None:
    """Any octets may be a file name, also after a restart."""
    directory = os.fsencode(harness.inbox_path)
    with open(directory + b"/cur/1.\xff\xfe.h:2,S", "wb") as file:
        file.write(b"x\n")
    assert contents(harness.store.open("INBOX")) == {1: b"x\r\n"}
    box = harness.restart().open("INBOX")
    assert contents(box) == {1: b"x\r\n"}
    box.change_flags([Uid(1)], flags(FLAGGED), StoreMode.ADD)
    assert os.listdir(directory + b"/cur") == [b"1.\xff\xfe.h:2,FS"]


def test_a_lying_size_is_corrected(harness: MaildirHarness) -> None:
    """W= is believed until the message is read; then STAT and the octets agree."""
    (harness.inbox_path / "cur" / "1.a.h,W=999:2,").write_bytes(b"x\n")
    box = harness.store.open("INBOX")
    box.read(Uid(1))
    assert dict(box.sizes([Uid(1)])) == {1: 3}


def test_removed_directories_are_made_again(harness: MaildirHarness) -> None:
    """Somebody removed cur and new: the mailbox is empty, and takes mail again."""
    box = harness.store.open("INBOX")
    append(box, FIRST)
    harness.files()[0].unlink()
    for name in ("cur", "new", "tmp"):
        (harness.inbox_path / name).rmdir()
    box.refresh()
    assert list(box.uids) == []
    append(box, SECOND)
    harness.deliver(THIRD)
    box.refresh()
    assert contents(box) == {2: SECOND, 3: THIRD}


def test_old_files_leave_tmp(harness: MaildirHarness) -> None:
    """Files in tmp older than 36 hours are left-overs of crashes. maildir(5)."""
    tmp = harness.inbox_path / "tmp"
    (tmp / "young").write_bytes(b"x")
    (tmp / "old").write_bytes(b"x")
    form = MaildirFormat(str(harness.inbox_path), "h", clock=lambda: time.time() + maildir.ABANDONED - 100)
    form.load([], "")
    form.settle()
    assert len(list(tmp.iterdir())) == 2
    form = MaildirFormat(str(harness.inbox_path), "h", clock=lambda: time.time() + maildir.ABANDONED + 100)
    form.load([], "")
    form.settle()
    assert list(tmp.iterdir()) == []


def test_copies_share_the_file(harness: MaildirHarness) -> None:
    """COPY between maildirs of one file system makes a hard link; nothing is written twice."""
    box, other = harness.store.open("INBOX"), harness.store.open("Archive")
    append(box, FIRST)
    box.copy([Uid(1)], other)
    assert harness.files()[0].stat().st_nlink == 2
    assert dict(other.sizes([Uid(1)])) == {1: len(FIRST)}


def test_copy_where_links_are_not_to_be_had(harness: MaildirHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another file system: the message is written anew."""

    def refuse(*args: object, **options: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    box, other = harness.store.open("INBOX"), harness.store.open("Archive")
    append(box, FIRST, SECOND, with_flags=flags(SEEN))
    assert list(box.copy([Uid(1), Uid(2)], other)) == [(1, 1), (2, 2)]
    assert contents(other) == {1: FIRST, 2: SECOND}


def test_copy_of_a_vanished_message_copies_none(harness: MaildirHarness) -> None:
    """All or none. RFC 3501 §6.4.7."""
    box, other = harness.store.open("INBOX"), harness.store.open("Archive")
    append(box, FIRST, SECOND)
    harness.vanish(Uid(2))
    with pytest.raises(MessageGone):
        box.copy([Uid(1), Uid(2)], other)
    other.refresh()
    assert list(other.uids) == []


@pytest.mark.parametrize("call", ["fsync", "rename", "write", "open"])
def test_a_failed_append_leaves_nothing(
    harness: MaildirHarness, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Disk full at any step: a temporary failure, no message, session usable. RELIABILITY F15."""
    box = harness.store.open("INBOX")

    def full(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(StoreFailure):
            append(box, FIRST, SECOND)
    assert harness.files() == [] and list((harness.inbox_path / "tmp").iterdir()) == []
    assert append(box, THIRD)
    assert list(contents(box).values()) == [THIRD]
