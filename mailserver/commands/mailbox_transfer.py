"""`mailserver mailbox import | export | backup | restore | move-format`: mail in and out, as it was.

What is brought in keeps its date, flags and keywords, and its UIDs where the mailbox is empty and never
gave one. A message that is there already (same content) is left out, so everything can be repeated.
A backup is a tar of maildirs with dovecot-uidlist, and a snapshot of state.db, made of one moment's
list of messages: other programs can read it, and `restore` brings back UIDs and modseqs too.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import sqlite3
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import IO, Final

from mailserver.commands.errors import CommandError
from mailserver.commands.mailbox_accounts import NO_MAILBOX, UNUSABLE, Work, warn
from mailserver.commands.progress import Progress
from mailserver.store import archive
from mailserver.store.account import FileAccountStore
from mailserver.store.adopt import read_subscriptions
from mailserver.store.contract import Mailbox, MailboxExists, MessageGone, NewMessage, NoSuchMailbox, Uid
from mailserver.store.layout import BadLocation, Kind, Layout, parse_location
from mailserver.store.mailbox import IndexedMailbox
from mailserver.store.names import checked_name

_BATCH: Final = 100  # messages stored together
_BATCH_OCTETS: Final = 16 << 20
_QUOTED_FROM: Final = re.compile(rb"^>+(?=From )", re.MULTILINE)
_IDENTITY: Final = "identity.1"

Register = Callable[..., argparse.ArgumentParser]


def register(action: Register) -> None:
    """Add the parsers of these actions."""
    parser = action("import", "bring mail in from a maildir, an mbox or a tar of either", _import, False)
    parser.add_argument("source", metavar="SOURCE", nargs="?", default="-", help="path, or - for stdin")
    parser.add_argument("--into", metavar="MAILBOX", default="", help="the mailbox for what is INBOX there")
    _dry_run(parser)
    parser = action("export", "write mailboxes as maildirs or mboxes", _export, False)
    parser.add_argument("mailboxes", metavar="MAILBOX", nargs="*", help="default: all")
    parser.add_argument("--format", choices=("maildir", "mbox"), default="maildir")
    parser.add_argument("-o", dest="output", metavar="FILE", default="-", help="default: standard output")
    parser = action("backup", "write everything, the databases included, as one tar", _backup)
    parser.add_argument("-o", dest="output", metavar="FILE", default="-", help="default: standard output")
    parser.add_argument("-d", dest="directory", metavar="DIR", help="USER.tar in this directory, for -A")
    parser = action("restore", "bring back what a backup holds", _restore, False)
    parser.add_argument("source", metavar="SOURCE", nargs="?", default="-", help="path, or - for stdin")
    _dry_run(parser)
    parser = action("move-format", "copy all mail into another format, UIDs kept", _move_format)
    parser.add_argument("location", metavar="LOCATION", help="as mail_location: maildir:~/Maildir, mbox:…")
    _dry_run(parser)


def _dry_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, do nothing")


# Into a store.


@dataclass
class Source:
    """One mailbox that is brought in. `read` raises MessageGone."""

    name: str
    uidvalidity: int
    letters: Sequence[archive.Letter]
    read: Callable[[archive.Letter], NewMessage]
    uidnext: int = 0
    modseq: int = 0


def identity(content: bytes) -> bytes:
    """Equal for what is the same message, whatever mbox quoting did to it."""
    plain = _QUOTED_FROM.sub(b"", content) if b"\n>" in content else content
    return hashlib.sha256(plain.rstrip(b"\r\n")).digest()[:20]


def bring_in(store: FileAccountStore, source: Source, is_dry: bool) -> int:
    """The messages that were not there are there; how many, or would be."""
    try:
        mailbox = store.open(source.name)
    except NoSuchMailbox:
        if is_dry:
            return len(source.letters)
        store.create(source.name)
        store.set_subscribed(source.name, True)
        mailbox = store.open(source.name)
    assert isinstance(mailbox, IndexedMailbox)
    try:
        brought = sum(_brought_in(mailbox, source, is_dry))
        if not is_dry and mailbox.uidvalidity == source.uidvalidity:
            mailbox.raise_to(source.uidnext, source.modseq)
    finally:
        store.close(mailbox)
    return brought


def _brought_in(mailbox: IndexedMailbox, source: Source, is_dry: bool) -> Iterator[int]:
    there = set(mailbox.facts(mailbox.uids, identity, _IDENTITY).values()) if mailbox.uids else set()
    progress = Progress(source.name, len(source.letters))
    batch: list[tuple[Uid, NewMessage]] = []
    octets = 0
    for letter in source.letters:
        progress.advance()
        try:
            message = source.read(letter)
        except MessageGone:
            continue
        if there and identity(message.content) in there:
            continue
        batch.append((Uid(letter.uid), message))
        octets += len(message.content)
        if len(batch) >= _BATCH or octets >= _BATCH_OCTETS:
            yield _stored(mailbox, batch, source.uidvalidity, is_dry)
            batch, octets = [], 0
    yield _stored(mailbox, batch, source.uidvalidity, is_dry)
    progress.finish()


def _stored(
    mailbox: IndexedMailbox, batch: Sequence[tuple[Uid, NewMessage]], uidvalidity: int, is_dry: bool
) -> int:
    if batch and not is_dry:
        mailbox.restore(batch, uidvalidity if batch[0][0] else 0)
    return len(batch)


def _from_archive(box: archive.Box, name: str) -> Source:
    letters = archive.letters(box)
    uids = [letter.uid for letter in letters]
    has_uids = 0 not in uids and uids == sorted(set(uids))
    return Source(
        name,
        box.uidvalidity if has_uids else 0,
        letters if has_uids else [archive.Letter(o.key, o.flags, o.internal_date) for o in letters],
        lambda letter: archive.message(box, letter),
        box.uidnext,
    )


@contextmanager
def _unpacked(source: str) -> Iterator[str]:
    """The path of what is to be read: the source itself, or where a tar or stdin was unpacked."""
    if os.path.isdir(source):
        yield source
        return
    with ExitStack() as stack:
        stream = sys.stdin.buffer if source == "-" else stack.enter_context(open(source, "rb"))
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="mailserver-import-"))
        start = stream.read(5)
        if start == b"From ":
            path = os.path.join(directory, "mbox")
            with open(path, "xb") as file:
                file.write(start)
                while block := stream.read(1 << 20):
                    file.write(block)
            yield path
        else:
            archive.unpack(_Rejoined(start, stream), directory)
            yield directory


class _Rejoined:
    """A stream, the start of which was read already."""

    def __init__(self, start: bytes, rest: IO[bytes]) -> None:
        self._start = start
        self._rest = rest

    def read(self, size: int) -> bytes:
        """The next octets."""
        start, self._start = self._start[:size], self._start[size:]
        return start + self._rest.read(size - len(start))


def _boxes(work: Work, path: str) -> Sequence[archive.Box]:
    try:
        return archive.boxes_in(path, mboxrd=work.mboxrd)
    except archive.NoMail as error:
        raise CommandError(str(error), UNUSABLE) from error


def _import(work: Work) -> int:
    arguments = work.arguments
    into = checked_name(arguments.into) if arguments.into else ""
    try:
        with _unpacked(arguments.source) as path, work.store() as store:
            for box in _boxes(work, path):
                name = into if into and box.name == "INBOX" else box.name
                _report(work, name, bring_in(store, _from_archive(box, name), arguments.dry_run))
    except tarfile.TarError as error:
        raise CommandError(f"{arguments.source}: neither mbox nor tar: {error}", UNUSABLE) from error
    return 0


def _report(work: Work, name: str, count: int) -> None:
    would = "would be " if work.arguments.dry_run else ""
    print(f"{name}: {count} message{'' if count == 1 else 's'} {would}brought in")


# Out of a store.


def _copies(mailbox: Mailbox, label: str) -> Iterator[archive.Copied]:
    """The messages of the mailbox as it is now; those that vanish meanwhile are left out."""
    messages = [mailbox.messages[uid] for uid in mailbox.uids]
    progress = Progress(label, len(messages))
    for message in messages:
        progress.advance()
        try:
            content = mailbox.read(message.uid)
        except MessageGone:
            continue
        yield archive.Copied(message.uid, message.flags, message.internal_date, content)
    progress.finish()


@contextmanager
def _output(path: str) -> Iterator[IO[bytes]]:
    """A file that bears its name only when it is whole, or standard output."""
    if path == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    partial = path + ".partial"
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    os.rename(partial, path)


def _export(work: Work) -> int:
    arguments = work.arguments
    with work.store() as store:
        known = [folder.name for folder in store.folders() if folder.selectable]
        names = [checked_name(name) for name in arguments.mailboxes] or known
        for name in names:
            if name not in known:
                warn(f"{name}: no such mailbox: `mailserver mailbox list` shows them")
                return NO_MAILBOX
        with _output(arguments.output) as stream:
            if arguments.format == "mbox" and len(arguments.mailboxes) == 1:
                for piece in _mbox(store, names[0], work.mboxrd):
                    stream.write(piece)
                return 0
            tar = archive.TarWriter(stream, time.time())
            for name in names:
                if arguments.format == "mbox":
                    content = b"".join(_mbox(store, name, work.mboxrd))
                    tar.add(archive.mbox_name(name, names), content)
                else:
                    _write_maildir(tar, "Maildir", store, name)
            tar.close()
    return 0


def _mbox(store: FileAccountStore, name: str, mboxrd: bool) -> Iterator[bytes]:
    mailbox = store.open(name)
    try:
        copies = _copies(mailbox, name)
        yield from archive.mbox_pieces(mailbox.uidvalidity, mailbox.uidnext, copies, mboxrd)
    finally:
        store.close(mailbox)


def _write_maildir(tar: archive.TarWriter, root: str, store: FileAccountStore, name: str) -> int:
    mailbox = store.open(name)
    try:
        return archive.write_maildir(
            tar, root, name, mailbox.uidvalidity, mailbox.uidnext, _copies(mailbox, name)
        )
    finally:
        store.close(mailbox)


def _backup(work: Work) -> int:
    arguments, name = work.arguments, work.account.name
    output = os.path.join(arguments.directory, f"{name}.tar") if arguments.directory else arguments.output
    if getattr(arguments, "everybody", False) and not arguments.directory:
        raise CommandError("-A writes one file per account: say where with -d DIR", 64)
    with work.store() as store, _output(output) as stream:
        tar = archive.TarWriter(stream, time.time())
        tar.add(f"{name}/state.db", store.snapshot())
        subscribed = b"".join(b"%b\n" % _levels(each) for each in store.subscriptions())
        tar.add(f"{name}/Maildir/subscriptions", b"V\t2\n\n" + subscribed)
        count = 0
        for folder in store.folders():
            if folder.selectable:
                try:
                    count += _write_maildir(tar, f"{name}/Maildir", store, folder.name)
                except NoSuchMailbox:
                    continue  # deleted meanwhile
        tar.close()
    print(f"{name}: {count} messages backed up", file=sys.stderr)
    return 0


def _levels(name: str) -> bytes:
    from mailserver.wire.imap_mailbox import encode_modified_utf7

    return b"\t".join(encode_modified_utf7(level) for level in name.split("/"))


def _restore(work: Work) -> int:
    arguments = work.arguments
    try:
        with _unpacked(arguments.source) as path, work.store() as store:
            modseqs = _modseqs(path)
            for box in _boxes(work, path):
                source = _from_archive(box, box.name)
                source.modseq = modseqs.get(box.name, 0)
                _report(work, box.name, bring_in(store, source, arguments.dry_run))
            if not arguments.dry_run:
                _restore_subscriptions(store, path)
    except tarfile.TarError as error:
        raise CommandError(f"{arguments.source}: no backup: {error}", UNUSABLE) from error
    return 0


def _find(path: str, name: str) -> str:
    for directory, _, files in os.walk(path):
        if name in files:
            return os.path.join(directory, name)
    return ""


def _modseqs(path: str) -> Mapping[str, int]:
    """HIGHESTMODSEQ by mailbox, from the state.db in a backup."""
    database = _find(path, "state.db")
    if not database:
        return {}
    db = sqlite3.connect(f"file:{database}?mode=ro&immutable=1", uri=True)
    try:
        return dict(db.execute("SELECT name, modseq FROM mailbox").fetchall())
    except sqlite3.Error as error:
        raise CommandError(f"state.db in the backup: {error}", UNUSABLE) from error
    finally:
        db.close()


def _restore_subscriptions(store: FileAccountStore, path: str) -> None:
    found = _find(path, "subscriptions")
    if found:
        root = os.path.dirname(found)
        for name in read_subscriptions(Layout(Kind.MAILDIR, root, Kind.MAILDIR, root)):
            store.set_subscribed(name, True)


# Another format.


def _move_format(work: Work) -> int:
    """The mail is copied; the new state takes the old one's place; the old mail stays where it was."""
    arguments, account = work.arguments, work.account
    old = work.parts.layout_for(account)
    try:
        new = parse_location(arguments.location, account)
    except BadLocation as error:
        raise CommandError(str(error), UNUSABLE) from error
    if new.inbox == old.inbox:
        raise CommandError(f"{account.name}: the mail lies in {old.inbox} already", UNUSABLE)
    moving = f"{work.state_parent}/{account.name}/moving"
    os.makedirs(moving, mode=0o700, exist_ok=True)
    with work.store() as source, work.store(new, moving) as target:
        release = source.lock_maildrop()
        for folder in source.folders():
            if folder.selectable:
                _report(work, folder.name, _moved(source, target, folder.name, arguments.dry_run))
        for name in source.subscriptions():
            target.set_subscribed(name, True)
        if release is not None:
            release()
    if not arguments.dry_run:
        _swap_state(work, moving)
        print(f"{account.name}: now set mail_location (or userdb_mail) to {arguments.location}")
    return 0


def _moved(source: FileAccountStore, target: FileAccountStore, name: str, is_dry: bool) -> int:
    mailbox = source.open(name)
    try:
        known = [mailbox.messages[uid] for uid in mailbox.uids]
        letters = [archive.Letter("", each.flags, each.internal_date, each.uid) for each in known]

        def read(letter: archive.Letter) -> NewMessage:
            return NewMessage(mailbox.read(Uid(letter.uid)), letter.flags, letter.internal_date)

        return bring_in(
            target,
            Source(name, mailbox.uidvalidity, letters, read, mailbox.uidnext, mailbox.highest_modseq + 1),
            is_dry,
        )
    except MailboxExists:
        return 0
    finally:
        source.close(mailbox)


def _swap_state(work: Work, moving: str) -> None:
    """The account's state is that of the new place; the old state is kept beside it."""
    own = os.path.join(work.state_parent, work.account.name)
    made = os.path.join(moving, work.account.name)
    kept = os.path.join(own, f"before-move-{int(time.time())}")
    os.mkdir(kept, 0o700)
    for name in ("state.db", "state.db-wal", "state.db-shm", "cache.db", "cache.db-wal", "cache.db-shm"):
        if os.path.lexists(os.path.join(own, name)):
            os.rename(os.path.join(own, name), os.path.join(kept, name))
    for name in os.listdir(made):
        os.rename(os.path.join(made, name), os.path.join(own, name))
    os.rmdir(made)
    os.rmdir(moving)
