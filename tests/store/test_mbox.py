"""One mbox file, ours and everybody else's."""

from __future__ import annotations

import mailbox as stdlib_mailbox
import os
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.store.contract import (
    ANSWERED,
    DELETED,
    FLAGGED,
    SEEN,
    Flags,
    MailboxBusy,
    MessageGone,
    NewMessage,
)
from mailserver.store.format import Adopted, Delta, Found, Known
from mailserver.store.locking import LockRules
from mailserver.store.mbox import MboxFormat, deposit
from mailserver.store.mbox_fields import Fields, split_fields

FIRST = b"From: a@b\nSubject: first\n\nFrom the start\n"
SECOND = b"From: a@b\nSubject: second\n\nbody\n"
LONG = b"a line of a long message\r\n" * 1000
THIRD = b"From: a@b\nSubject: third\n\nbody\n"


class Index:
    """What the index does with a format: remembers what it is told, and hands it back."""

    def __init__(self, path: Path, **options: object) -> None:
        self.path = path
        self.options = options
        self.messages: dict[str, Found] = {}
        self.moved: dict[str, str] = {}  # places that wait for a token
        self.token = ""
        self.restart()

    def restart(self) -> None:
        """A new process opens the mailbox with what the last one remembered."""
        journals = self.path.parent / "state"
        journals.mkdir(exist_ok=True)
        self.format = MboxFormat(str(self.path), str(journals), **self.options)  # type: ignore[arg-type]
        known = [Known(key, found.place, found.flags) for key, found in self.messages.items()]
        self.moved = {}
        self.format.load(known, self.token)

    def take(self, delta: Delta | None, flags: Mapping[str, Flags] | None = None) -> Delta:
        """The delta is remembered; an empty one where there was none."""
        for key, value in (flags or {}).items():
            self._change(key, flags=value)
        if delta is None:
            return Delta()
        for key in delta.removed:
            del self.messages[key]
        for found in delta.added:
            assert found.key not in self.messages
            self.messages[found.key] = found
        for key, value in (delta.flags or {}).items():
            self._change(key, flags=value)
        self.moved.update(delta.places or {})
        if delta.token:
            for key in self.moved.keys() & self.messages.keys():
                self._change(key, place=self.moved[key])
            self.moved, self.token = {}, delta.token
        return delta

    def _change(self, key: str, **changes: object) -> None:
        old = self.messages[key]
        values = {name: getattr(old, name) for name in Found.__dataclass_fields__}
        self.messages[key] = Found(**{**values, **changes})  # type: ignore[arg-type]

    def poll(self) -> Delta:
        return self.take(self.format.poll())

    def append(self, *messages: NewMessage) -> list[str]:
        founds, delta = self.format.append(messages)
        self.take(delta)
        self.messages.update((found.key, found) for found in founds)
        return [found.key for found in founds]

    def flag(self, flags: dict[str, Flags]) -> Delta:
        return self.take(self.format.write_flags(flags), flags)

    def remove(self, *keys: str) -> Delta:
        delta = self.take(self.format.remove(keys))
        for key in keys:
            self.messages.pop(key, None)
        return delta

    def settle(self) -> Delta:
        return self.take(self.format.settle())

    def subjects(self) -> list[str]:
        """The subjects of all messages as they are read; sizes are checked on the way."""
        lines = []
        for key, found in self.messages.items():
            content = self.format.read(key)
            assert found.size == len(content)
            lines.append(content.partition(b"Subject: ")[2].partition(b"\r")[0].decode())
        return lines

    def flags(self) -> list[set[bytes]]:
        return [set(found.flags) for found in self.messages.values()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "alice"


@pytest.fixture
def index(path: Path) -> Index:
    return Index(path)


def put(path: Path, *messages: bytes) -> None:
    for message in messages:
        deposit(str(path), "a@b", [message])


def keys(index: Index) -> list[str]:
    return list(index.messages)


def rewrite_elsewhere(path: Path, change: bytes, to: bytes = b"") -> None:
    """Another program writes the file anew, in place, as mutt and mail do."""
    text = path.read_bytes()
    assert change in text
    path.write_bytes(text.replace(change, to))


# Seeing


def test_a_missing_mailbox_is_empty(index: Index) -> None:
    """Nothing is there, and nothing is made by looking."""
    assert index.poll() == Delta()
    assert not index.path.exists()


def test_delivered_mail_is_seen_once(path: Path, index: Index) -> None:
    """First all that is there, then only what is new; nothing, without reading, where nothing was done."""
    put(path, FIRST, SECOND)
    assert [found.key for found in index.poll().added] == keys(index)
    put(path, THIRD)
    (third,) = index.poll().added
    assert index.format.poll() is None
    assert index.subjects() == ["first", "second", "third"]
    assert third.internal_date == pytest.approx(time.time(), abs=60)
    assert index.format.read(third.key) == THIRD.replace(b"\n", b"\r\n")


def test_postfix_quoting_is_served_as_stored(path: Path, index: Index) -> None:
    """`>From ` on disk is `>From ` for the reader; with mboxrd the original comes back."""
    put(path, FIRST)
    index.poll()
    assert b"\r\n>From the start\r\n" in index.format.read(keys(index)[0])
    other = Index(path.with_name("bob"), mboxrd=True)
    (key,) = other.append(NewMessage(b"A: b\r\n\r\nFrom x\r\n>From y\r\n"))
    assert b"\n>From x\n>>From y\n" in other.path.read_bytes()
    assert other.format.read(key) == b"A: b\r\n\r\nFrom x\r\n>From y\r\n"
    assert other.messages[key].size == len(other.format.read(key))


def test_restart_needs_no_scan(path: Path, index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the token still fits, nothing is read but the message asked for."""
    put(path, FIRST, SECOND)
    index.poll()
    index.restart()
    monkeypatch.delattr("mailserver.store.mbox.scan")
    assert index.format.poll() is None
    assert index.subjects() == ["first", "second"]


def test_growth_reads_the_new_end_only(path: Path, index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """SPEED: delivery costs the same however large the mailbox is."""
    put(path, FIRST)
    index.poll()
    index.restart()
    put(path, SECOND)
    begins = []
    from mailserver.store import mbox

    real = mbox.scan
    monkeypatch.setattr(mbox, "scan", lambda fd, begin, *rest: begins.append(begin) or real(fd, begin, *rest))
    assert len(index.poll().added) == 1
    assert begins and begins[0] > len(FIRST)


def test_equal_messages_are_told_apart(path: Path, index: Index) -> None:
    """Two copies of one message are two messages; one of them can go."""
    put(path, FIRST, FIRST)
    index.poll()
    put(path, FIRST)
    assert len(index.poll().added) == 1
    first, second, third = keys(index)
    assert (second, third) == (f"{first}#2", f"{first}#3")
    index.remove(second)
    assert index.format.poll() is None
    assert path.read_bytes().count(b"Subject: first") == 2
    index.restart()
    assert index.append(NewMessage(FIRST.replace(b"\n", b"\r\n").replace(b"From the", b">From the"))) == [
        second
    ]
    index.remove(second)
    assert index.subjects() == ["first", "first"]


def test_second_of_two_equals_keeps_its_name(path: Path, index: Index) -> None:
    """P6: when the first is gone, a complete scan knows the second again."""
    put(path, FIRST, FIRST, SECOND)
    index.poll()
    one, two, three = keys(index)
    index.remove(one)
    rewrite_elsewhere(path, b"Subject: second\n", b"Subject: second\nStatus: RO\n")
    delta = index.poll()
    assert (list(delta.added), list(delta.removed)) == ([], [])
    assert keys(index) == [two, three]
    assert index.subjects() == ["first", "second"]


@pytest.mark.parametrize("act", ["append", "remove", "flag"])
def test_failed_write_hides_no_news(
    path: Path, index: Index, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    """What was noticed under the lock of a write that failed is reported by the next poll."""
    (one,) = index.append(NewMessage(b"Subject: one\r\n\r\n"))
    put(path, SECOND)
    call = {"append": "fdatasync", "remove": "fsync", "flag": "pwrite"}[act]
    real = getattr(os, call)

    def fail(*arguments: object) -> None:
        monkeypatch.setattr(os, call, real)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError):
        if act == "append":
            index.append(NewMessage(b"Subject: three\r\n\r\n"))
        elif act == "remove":
            index.remove(one)
        else:
            index.format.write_flags({one: frozenset({SEEN})})
    assert [found.size for found in index.poll().added] == [len(SECOND.replace(b"\n", b"\r\n"))]
    assert index.subjects() == ["one", "second"]


def test_removal_and_reordering_by_others(path: Path, index: Index) -> None:
    """Messages are known again by their content, wherever they went."""
    put(path, FIRST, SECOND, THIRD)
    index.poll()
    one, two, three = keys(index)
    messages = path.read_bytes().split(b"\n\nFrom a@b")
    path.write_bytes(b"From a@b" + messages[2].rstrip(b"\n") + b"\n\n" + messages[0] + b"\n\n")
    assert index.format.read(three) == THIRD.replace(b"\n", b"\r\n"), "read before it is polled"
    with pytest.raises(MessageGone):
        index.format.read(two)
    delta = index.poll()
    assert (delta.removed, list(delta.added)) == ([two], [])
    assert index.subjects() == ["first", "third"]
    assert one in index.messages


def test_rename_over_and_vanishing(path: Path, index: Index) -> None:
    """An editor renames over the file; mail(1) removes it when it is empty; it comes back with other mail."""
    put(path, FIRST, SECOND)
    index.poll()
    one, two = keys(index)
    fresh = path.with_name("new")
    fresh.write_bytes(path.read_bytes().partition(b"\n\nFrom a@b")[0] + b"\n\n")
    fresh.rename(path)
    assert index.poll().removed == [two]
    path.unlink()
    assert list(index.poll().removed) == [one]
    with pytest.raises(MessageGone):
        index.format.read(one)
    put(path, SECOND)
    assert [found.key for found in index.poll().added] == [two]


def test_truncation_empties(path: Path, index: Index) -> None:
    """`: > /var/mail/alice` while we have it open."""
    put(path, FIRST)
    index.poll()
    path.write_bytes(b"")
    assert len(index.poll().removed) == 1
    put(path, SECOND)
    assert len(index.poll().added) == 1


def test_flags_of_others_win(path: Path, index: Index) -> None:
    """A status that another program wrote is reported once; the message stays the same one."""
    put(path, FIRST, SECOND)
    index.poll()
    rewrite_elsewhere(path, b"Subject: first\n", b"Subject: first\nStatus: RO\nX-Status: A\n")
    delta = index.poll()
    assert (list(delta.added), list(delta.removed)) == ([], [])
    assert delta.flags == {keys(index)[0]: {SEEN, ANSWERED}}
    assert index.poll() == Delta()


def test_times_set_back_do_not_deceive(path: Path, index: Index) -> None:
    """mutt restores the modification time after a rewrite; a change of equal length is seen all the same."""
    path.write_bytes(b"From a@b  Tue Nov 24 02:22:04 2026\nSubject: x\nStatus: O \n\nbody\n\n")
    index.poll()
    before = path.stat()
    rewrite_elsewhere(path, b"Status: O ", b"Status: RO")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert index.poll().flags == {keys(index)[0]: {SEEN}}


@pytest.mark.parametrize("half", [b"bo", b"bo\n"])
def test_half_written_mail_is_not_reported(path: Path, index: Index, half: bytes) -> None:
    """P4: what a program writes that takes no lock is waited for; what was before it is news."""
    put(path, FIRST)
    with path.open("ab") as file:
        file.write(b"From a@b  Tue Nov 24 02:22:04 2026\nSubject: second\n\n" + half)
        file.flush()
        assert [len(found.place.split()) for found in index.poll().added] == [2]
        assert list(index.poll().added) == []
        file.write(b"dy\n\n")
    assert len(index.poll().added) == 1
    assert index.subjects() == ["first", "second"]


def test_a_stranger_gives_no_uids(path: Path, index: Index) -> None:
    """Nor does mail that another program delivered: none above the mailbox's own, none that leaves none."""
    stranger = b"From: a\nX-IMAPbase: 1275660208 4294967294\nX-UID: 4294967293\nStatus: RO\n\nbody\n"
    put(path, stranger)
    assert [(found.uid, found.flags) for found in index.poll().added] == [(0, frozenset())]
    assert index.format.adopted() == Adopted()
    path.write_bytes(b"From a@b  Tue Nov 24 02:22:04 2026\n" + stranger)
    assert Index(path).format.adopted() == Adopted()
    sane = stranger.replace(b" 4294967294", b" 5").replace(b"4294967293", b"3")
    path.write_bytes(
        b"".join(b"From a@b  Tue Nov 24 02:22:04 2026\n" + each + b"\n" for each in (sane, stranger))
    )
    assert [found.uid for found in Index(path).poll().added] == [3, 0]


def test_the_base_outlives_the_first_message(path: Path, index: Index) -> None:
    """Dovecot, sharing the mailbox, goes on with its UIDs when we remove the message that has X-IMAPbase."""
    numbered = b"From a@b  Tue Nov 24 02:22:04 2026\nSubject: %b\n%bX-UID: %d\n\nbody\n\n"
    base = b"X-IMAPbase: 1275660208 0000000042 Work\n"
    path.write_bytes(numbered % (b"x", base, 3) + numbered % (b"y", b"", 7) + numbered % (b"z", b"", 42))
    one, two, _ = index.poll().added
    index.remove(two.key)
    assert path.read_bytes().count(base) == 1
    index.remove(one.key)
    assert path.read_bytes().startswith(b"From a@b  Tue Nov 24 02:22:04 2026\n" + base)
    assert index.format.adopted() == Adopted(1275660208, 43, (b"Work",))
    assert index.subjects() == ["z"]


UNENDED = b"From a@b  Tue Nov 24 02:22:04 2026\nSubject: x\n\nbody"


def test_message_without_a_line_end_is_reported_at_once(path: Path, index: Index) -> None:
    """Where nobody has the mailbox open for writing nobody will go on with its last message."""
    path.write_bytes(UNENDED)
    assert index.poll().added[0].size == len(index.format.read(keys(index)[0]))
    assert index.format.read(keys(index)[0]).endswith(b"body\r\n")


def test_message_that_never_ends_is_reported_at_last(path: Path) -> None:
    """Nor for ever while somebody keeps the mailbox open for writing, as Dovecot does."""
    with path.open("wb") as file:
        file.write(UNENDED)
        file.flush()
        now = path.stat().st_mtime
        index = Index(path, now=lambda: now)
        assert list(index.poll().added) == []
        now += 11
        assert index.poll().added[0].size == len(index.format.read(keys(index)[0]))


def test_dotlock_of_others_holds_news_back(path: Path) -> None:
    """While somebody writes under a dotlock alone there is no news; at the first look we are busy."""
    put(path, FIRST)
    lock = path.with_name("alice.lock")
    lock.write_bytes(b"")
    index = Index(path, rules=LockRules(patience=0.05))
    with pytest.raises(MailboxBusy):
        index.poll()
    lock.unlink()
    index.poll()
    lock.write_bytes(b"")
    with path.open("ab") as file:
        file.write(b"From a@b  Tue Nov 24 02:22:04 2026\nSubject: x\n")
    assert index.poll() == Delta()
    with pytest.raises(MailboxBusy):
        index.append(NewMessage(b"A: b\r\n\r\n"))
    lock.unlink()
    assert len(index.poll().added) == 1


def test_crlf_and_text_before_the_first_message(path: Path, index: Index) -> None:
    """Files from other systems are read; what is no message stays in the file."""
    path.write_bytes(
        b"junk\r\n"
        b"From a@b  Tue Nov 24 02:22:04 2026\r\nSubject: one\r\n\r\nbody\r\n\r\n"
        b"From a@b  Tue Nov 24 02:22:04 2026\nSubject: two\n\nbody\n\n"
    )
    index.poll()
    assert index.subjects() == ["one", "two"]
    index.remove(keys(index)[0])
    assert path.read_bytes() == b"junk\r\nFrom a@b  Tue Nov 24 02:22:04 2026\nSubject: two\n\nbody\n\n"


def test_foreign_state_is_adopted_once(path: Path, index: Index) -> None:
    """Dovecot's X-IMAPbase and X-UID; the pseudo message of UW imapd is hidden and kept."""
    path.write_bytes(
        b"From M  Tue Nov 24 02:22:04 2026\nSubject: DON'T DELETE THIS MESSAGE -- FOLDER INTERNAL DATA\n"
        b"X-IMAP: 1100000000 0000000077 kw\nStatus: RO\n\nThis text is part of the internal format.\n\n"
        b"From a@b  Tue Nov 24 02:22:04 2026\nSubject: one\nX-UID: 55\nX-Keywords: kw\n\nbody\n\n"
        b"From a@b  Tue Nov 24 02:22:04 2026\nSubject: two\nX-UID: 50\n\nbody\n\n"
    )
    assert index.format.adopted() == Adopted(1100000000, 78, (b"kw",))
    assert [found.uid for found in index.poll().added] == [55, 0], "UIDs must ascend"
    assert index.flags() == [{b"kw"}, set()]
    index.remove(*keys(index))
    assert b"INTERNAL DATA" in path.read_bytes() and b"Subject: one" not in path.read_bytes()


@pytest.mark.parametrize("messages", [0, 2])
def test_uids_are_left_in_the_pseudo_message(path: Path, index: Index, messages: int) -> None:
    """UW imapd and Dovecot look at the first message alone: its X-IMAP is ours, no other is written."""
    pseudo = (
        b"From M  Tue Nov 24 02:22:04 2026\nSubject: DON'T DELETE THIS MESSAGE -- FOLDER INTERNAL DATA\n"
        b"X-IMAP: 1100000000 0000000077 kw\n more\nStatus: RO\n\nThis text is part of the format.\n\n"
    )
    own = b"From a@b  Tue Nov 24 02:22:04 2026\nSubject: %d\n\nbody\n\n"
    path.write_bytes(pseudo + b"".join(own % number for number in range(messages)))
    index.poll()
    uids = {key: 80 + number for number, key in enumerate(keys(index))}
    index.format.leave(1200000000, 90, uids, (b"kw", b"other"))
    content = path.read_bytes()
    assert b"\nX-IMAP: 1200000000 0000000089 kw other\nStatus: RO\n" in content
    assert b"X-IMAPbase" not in content and b" more" not in content
    assert content.count(b"X-UID: ") == messages
    assert index.format.adopted() == Adopted(1200000000, 90, (b"kw", b"other"))
    assert not index.poll().added


def test_nothing_to_adopt(path: Path, index: Index) -> None:
    """A delivered mailbox carries no UIDs."""
    assert index.format.adopted() == Adopted()
    put(path, FIRST)
    assert index.format.adopted() == Adopted()


# Writing


def test_append_is_a_proper_mbox(path: Path, index: Index) -> None:
    """Date, flags, keywords; clients' own status fields are not believed; another program reads it."""
    when = int(time.mktime((2001, 2, 3, 4, 5, 6, 0, 0, -1)))
    content = b"Subject: a\r\nStatus: RO\r\nX-UID: 7\r\n\r\nFrom me\r\n"
    first, second = index.append(
        NewMessage(content, frozenset({FLAGGED, b"kw"}), when), NewMessage(b"Subject: b\r\n\r\nx")
    )
    assert path.read_bytes().startswith(b"From MAILER-DAEMON  Sat Feb  3 04:05:06 2001\nSubject: a\n")
    assert index.format.read(first) == b"Subject: a\r\n\r\n>From me\r\n"
    assert index.messages[first].internal_date == when
    assert index.messages[second].size == len(b"Subject: b\r\n\r\nx\r\n")
    again = Index(path)
    again.poll()
    assert keys(again) == [first, second]
    assert again.flags() == [{FLAGGED, b"kw"}, set()]
    assert [message.get_flags().replace(" ", "") for message in stdlib_mailbox.mbox(path)] == ["OF", "O"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\r\n",
        b"no header at all",
        b"Subject: x",
        b"Subject: x\r\n",
        b"Subject: x\r\n\r\n",
        b"\r\nbody only\r\n",
        b"Subject: x\r\n\r\n\r\n\r\n",
        b"Subject: x\r\n\r\nFrom a@b  Tue Nov 24 02:22:04 2026\r\n",
        b"From a@b  Tue Nov 24 02:22:04 2026\r\n\r\nbody\r\n",
        b"Subject: x\r\n\r\nbare\rcr\r\r\nand\x00nul \xff\r\n",
    ],
)
def test_odd_messages_stay_one_message(index: Index, content: bytes) -> None:
    """Whatever a client appends is one message, and it is read as it was but for `From ` lines."""
    before, key, after = index.append(
        NewMessage(b"A: b\r\n\r\nx\r\n"), NewMessage(content), NewMessage(b"C: d\r\n\r\ny\r\n")
    )
    read = index.format.read(key)
    assert len(read) == index.messages[key].size
    assert index.format.read(before) == b"A: b\r\n\r\nx\r\n"
    assert index.format.read(after) == b"C: d\r\n\r\ny\r\n"
    assert read.replace(b"\r\n", b"").replace(b">From ", b"From ") == content.replace(b"\r\n", b"")
    again = Index(index.path)
    again.poll()
    assert keys(again) == [before, key, after]


@given(
    st.lists(
        st.lists(
            st.sampled_from(
                [
                    b"From ",
                    b"\r\n",
                    b"x",
                    b"Subject: a\r\n",
                    b"\r",
                    b"Status: RO\r\n",
                    b">",
                    b" y\r\n",
                    b"\r\n\r\n",
                ]
            ),
            max_size=12,
        ).map(b"".join),
        min_size=1,
        max_size=4,
    )
)
def test_any_content_round_trips(tmp_path_factory: pytest.TempPathFactory, contents: list[bytes]) -> None:
    """Numbers, sizes and keys agree between what append says, a fresh scan, and what is read."""
    index = Index(tmp_path_factory.mktemp("mbox") / "alice")
    added = index.append(*map(NewMessage, contents))
    again = Index(index.path)
    again.poll()
    assert keys(again) == added
    for key in added:
        assert again.messages[key].size == index.messages[key].size == len(index.format.read(key))
        assert index.format.read(key) == again.format.read(key)


def test_append_reports_what_it_met(path: Path, index: Index) -> None:
    """Mail that came since the last poll is reported, the appended not among it."""
    put(path, FIRST)
    founds, delta = index.format.append([NewMessage(b"Subject: mine\r\n\r\n")])
    assert delta is not None
    assert [found.key for found in delta.added] != [found.key for found in founds]
    assert (len(delta.added), len(founds)) == (1, 1)
    assert index.format.poll() is None


def test_file_without_final_line_end_is_completed(path: Path, index: Index) -> None:
    """An appended message never runs into one that a program left unfinished."""
    line = b"From a@b  Tue Nov 24 02:22:04 2026\n"
    for tail in (b"body", b"body\n", b"body\n\n"):
        path.write_bytes(line + b"Subject: one\n\n" + tail)
        put(path, SECOND)
        assert path.read_bytes().startswith(line + b"Subject: one\n\nbody\n\nFrom a@b")


def test_flags_in_place_where_there_is_room(path: Path, index: Index) -> None:
    """Appended messages have room: the file keeps its size and its inode."""
    one, two = index.append(NewMessage(b"Subject: a\r\n\r\n"), NewMessage(b"Subject: b\r\n\r\n"))
    before = path.stat()
    index.flag({one: frozenset({SEEN, FLAGGED, DELETED})})
    assert (path.stat().st_size, path.stat().st_ino) == (before.st_size, before.st_ino)
    assert b"Status: RO\nX-Status: FD  \n" in path.read_bytes()
    assert index.format.poll() is None
    again = Index(path)
    again.poll()
    assert again.flags() == [{SEEN, FLAGGED, DELETED}, set()]
    assert keys(again) == [one, two]


@pytest.mark.parametrize("keeps", [True, False], ids=["the file has them", "the file lost them"])
def test_flags_in_place_after_a_power_cut(path: Path, index: Index, keeps: bool) -> None:
    """P1: what was written in place and not synced may be lost: it is written again, and no flag is."""
    (one,) = index.append(NewMessage(b"Subject: a\r\n\r\n"))
    before = path.read_bytes()
    assert index.flag({one: frozenset({SEEN})}).token == ""
    if not keeps:
        path.write_bytes(before)
    index.restart()
    index.poll()
    assert index.flags() == [{SEEN}]
    index.settle()
    assert b"Status: RO\n" in path.read_bytes()
    index.restart()
    assert index.format.poll() is None


@pytest.mark.parametrize("act", ["settle", "append", "poll", "remove", "another process polls"])
def test_flags_in_place_are_synced_before_a_token(
    path: Path, index: Index, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    """A STORE waits for state.db alone; whoever learns durably what the file has syncs that before."""
    one, two = index.append(NewMessage(b"Subject: a\r\n\r\n"), NewMessage(b"Subject: b\r\n\r\n"))
    other = Index(path)
    other.poll()
    synced: list[int] = []
    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    index.flag({one: frozenset({SEEN})})
    assert synced == []
    inode = path.stat().st_ino
    if act == "settle":
        assert index.settle().token
    elif act == "append":
        index.append(NewMessage(b"Subject: c\r\n\r\n"))
    elif act == "remove":
        index.remove(two)
        inode = path.stat().st_ino
    else:
        os.utime(path, (0, 0))
        assert (other if act == "another process polls" else index).poll().token
    assert inode in synced


def test_flags_in_place_that_cannot_be_synced(
    path: Path, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F16: a sync that succeeds after one that failed promises nothing; the mailbox goes on."""
    (one,) = index.append(NewMessage(b"Subject: a\r\n\r\n"))
    index.flag({one: frozenset({SEEN})})
    real = os.fdatasync

    def fail(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(OSError):
        index.settle()
    monkeypatch.setattr(os, "fdatasync", real)
    put(path, SECOND)
    assert [found.size for found in index.poll().added] == [len(SECOND.replace(b"\n", b"\r\n"))]
    with pytest.raises(OSError):
        index.settle()
    index.restart()
    assert index.poll().token
    assert index.flags() == [{SEEN}, set()]
    index.settle()


def test_flags_that_others_set_beside_an_append_are_kept(path: Path, index: Index) -> None:
    """The file grew, so its start is not read again: yet what is written there leaves their flags."""
    one, _ = index.append(NewMessage(b"Subject: a\r\n\r\n"), NewMessage(b"Subject: b\r\n\r\n" + LONG))
    text = path.read_bytes()
    path.write_bytes(text.replace(b"X-Status:     ", b"X-Status: F   ", 1))
    put(path, SECOND)
    index.flag({one: frozenset({SEEN})})
    assert b"Status: RO\nX-Status: F   \n" in path.read_bytes()
    assert index.flags() == [{SEEN, FLAGGED}, set(), set()]
    assert index.format.poll() is None


@pytest.mark.parametrize("between", [b"", LONG], ids=["seen by a complete scan", "not seen"])
@pytest.mark.parametrize("act", ["settle", "remove"])
def test_waiting_flags_are_applied_to_those_of_others(
    path: Path, index: Index, act: str, between: bytes
) -> None:
    """Another program flags a message in place, beside an append: a rewrite leaves that and adds ours."""
    path.write_bytes(b"From a@b  Tue Nov 24 02:22:04 2026\nSubject: a\nX-Status:  \n\nbody\n\n")
    put(path, SECOND + between.replace(b"\r", b""))
    index.poll()
    one, two = keys(index)
    index.flag({one: frozenset({SEEN})})  # waits
    rewrite_elsewhere(path, b"X-Status:  \n", b"X-Status: F\n")
    put(path, THIRD)
    index.settle() if act == "settle" else index.remove(two)
    assert index.flags()[0] == {SEEN, FLAGGED}
    again = Index(path)
    again.poll()
    assert again.flags()[0] == {SEEN, FLAGGED}
    assert index.format.poll() is None


def test_the_old_file_is_empty_after_a_rewrite(path: Path, index: Index) -> None:
    """mutt, which has it open, finds no mail at its old end, and so reads all of the new file."""
    put(path, FIRST, SECOND)
    index.poll()
    with path.open("rb") as old:
        put(path, THIRD)
        index.remove(keys(index)[0])
        assert os.fstat(old.fileno()).st_size == 0
    assert index.subjects() == ["second", "third"]


def test_flags_are_compared_once_for_each_growth(
    path: Path, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message is looked at again before its flags are written only where the file grew since it was."""
    index.append(NewMessage(b"Subject: a\r\n\r\n"), NewMessage(b"Subject: b\r\n\r\n"))
    asked: list[int] = []

    def counted(header: bytes) -> tuple[bytes, Fields]:
        asked.append(1)
        return split_fields(header)

    monkeypatch.setattr("mailserver.store.mbox.split_fields", counted)
    index.restart()
    one, two = keys(index)
    index.flag({one: frozenset({SEEN}), two: frozenset({SEEN})})
    first = len(asked)
    index.flag({one: frozenset(), two: frozenset()})
    assert len(asked) == first
    put(path, THIRD)
    index.poll()
    asked.clear()
    index.flag({one: frozenset({SEEN})})
    assert len(asked) == 1


def test_flags_without_room_wait(path: Path, index: Index) -> None:
    """A delivered message has no status fields: written when the mailbox settles, known after a crash."""
    put(path, FIRST, SECOND)
    index.poll()
    one, _ = keys(index)
    text = path.read_bytes()
    index.flag({one: frozenset({SEEN})})
    assert path.read_bytes() == text
    index.restart()
    assert index.format.poll() is None
    index.settle()
    assert b"Subject: first\nStatus: RO\nX-Status:     \n\n" in path.read_bytes()
    assert path.read_bytes().endswith(SECOND + b"\n")
    assert index.format.poll() is None
    assert index.settle() == Delta()
    assert index.subjects() == ["first", "second"]


def test_many_flags_at_once_wait(path: Path, index: Index) -> None:
    """A STORE on all messages costs one rewrite, when the mailbox settles."""
    added = index.append(*(NewMessage(b"Subject: n%d\r\n\r\n" % number) for number in range(100)))
    text = path.read_bytes()
    index.flag({key: frozenset({SEEN}) for key in added})
    assert path.read_bytes() == text
    index.settle()
    assert path.read_bytes().count(b"Status: RO") == 100
    assert index.format.poll() is None


def test_waiting_flags_survive_a_foreign_rewrite(path: Path, index: Index) -> None:
    """Another program that rewrites the file does not undo our flags; they are added to what it set."""
    put(path, FIRST, SECOND)
    index.poll()
    one, two = keys(index)
    index.flag({one: frozenset({SEEN}), two: frozenset({SEEN})})
    index.restart()
    rewrite_elsewhere(path, b"Subject: second\n", b"Subject: second\nX-Status: F\n")
    assert index.poll().flags == {two: {FLAGGED, SEEN}}
    assert index.flags() == [{SEEN}, {FLAGGED, SEEN}]
    index.settle()
    assert path.read_bytes().count(b"Status: RO") == 2


def test_flags_of_both_are_merged(path: Path, index: Index) -> None:
    """What we change now is applied to what another program changed unseen."""
    put(path, FIRST)
    index.poll()
    (one,) = keys(index)
    rewrite_elsewhere(path, b"Subject: first\n", b"Subject: first\nX-Status: A\n")
    index.flag({one: frozenset({SEEN})})
    assert index.flags() == [{SEEN, ANSWERED}]


def test_remove_keeps_all_others_to_the_octet(path: Path, index: Index) -> None:
    """The other messages, owner, mode; no draft is left; what arrived unseen is reported."""
    put(path, FIRST, SECOND)
    path.chmod(0o660)
    index.poll()
    one, two = keys(index)
    put(path, THIRD)
    before = path.read_bytes()
    delta = index.remove(one)
    assert [found.key for found in delta.added] == keys(index)[1:]
    assert before.endswith(path.read_bytes())
    assert path.stat().st_mode & 0o777 == 0o660
    assert sorted(os.listdir(path.parent)) == ["alice", "state"]
    assert index.subjects() == ["second", "third"]
    assert index.format.poll() is None
    assert list(index.remove(one).removed) == [], "gone already is no error"
    index.restart()
    index.remove(*keys(index))
    assert path.read_bytes() == b""
    assert two not in index.messages


def test_you_have_new_mail(path: Path, index: Index) -> None:
    """mtime is above atime while there is unread mail, and only then: shells and mail(1) look at it."""

    def is_new() -> bool:
        return path.stat().st_mtime_ns > path.stat().st_atime_ns

    put(path, FIRST, SECOND)
    assert is_new()
    index.poll()
    index.subjects()
    assert is_new(), "reading by IMAP hides nothing from the shell"
    one, two = keys(index)
    index.flag({one: frozenset({SEEN})})
    index.settle()
    assert is_new()
    index.flag({two: frozenset({SEEN})})
    index.settle()
    assert not is_new()
    index.remove(one)
    assert not is_new()
    put(path, THIRD)
    assert is_new()
    index.poll()
    index.remove(*keys(index))
    (four,) = index.append(NewMessage(b"Subject: four\r\n\r\n"))
    assert is_new()
    index.flag({four: frozenset({SEEN})})
    index.settle()
    assert not is_new()
    assert index.format.poll() is None


def test_what_is_watched(path: Path, index: Index) -> None:
    """The file itself."""
    assert index.format.watched_paths() == (str(path),)


def test_a_time_that_cannot_be_set_is_no_failure(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message is durable by then: whoever heard of an error would deliver it again."""
    deposit(str(path), "a@b", [FIRST])
    os.utime(path, (2_000_000_000, 2_000_000_000))  # read later than written: the time is to be set

    def fail(*arguments: object, **named: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("mailserver.store.mbox_append.show_as_new", fail)
    deposit(str(path), "a@b", [SECOND])
    assert path.read_bytes().count(b"Subject: second\n") == 1
