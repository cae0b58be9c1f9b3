"""`mailserver mailbox import | export | backup | restore`: mail in and out, as it was.

What is brought in keeps its date, flags and keywords, and its UIDs where the mailbox is empty and never
gave one. A message that is there already (same content) is left out, so everything can be repeated.
A backup is a tar of maildirs with dovecot-uidlist, and of state.db, all of one moment (`store.moment`): other
programs can read it, and `restore` brings back UIDs and modseqs too.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import IO

from mailserver.commands.errors import CommandError
from mailserver.commands.mailbox_accounts import NO_MAILBOX, UNUSABLE, Work, warn
from mailserver.commands.mailbox_bring_in import Source, add_dry_run, bring_in, report
from mailserver.commands.progress import Progress
from mailserver.store import archive
from mailserver.store.account import FileAccountStore
from mailserver.store.adopt import read_subscriptions
from mailserver.store.contract import (
    Mailbox,
    MessageGone,
)
from mailserver.store.layout import Kind, Layout
from mailserver.store.moment import Moment, PastMailbox
from mailserver.store.names import checked_name
from mailserver.store.state_readers import SAID, Said, by_mailbox

Register = Callable[..., argparse.ArgumentParser]


def register(action: Register) -> None:
    """Add the parsers of these actions."""
    parser = action("import", "bring mail in from a maildir, an mbox or a tar of either", _import, False)
    parser.add_argument("source", metavar="SOURCE", nargs="?", default="-", help="path, or - for stdin")
    parser.add_argument("--into", metavar="MAILBOX", default="", help="the mailbox for what is INBOX there")
    add_dry_run(parser)
    parser = action("export", "write mailboxes as maildirs or mboxes", _export, False)
    parser.add_argument("mailboxes", metavar="MAILBOX", nargs="*", help="default: all")
    parser.add_argument("--format", choices=("maildir", "mbox"), default="maildir")
    parser.add_argument("-o", dest="output", metavar="FILE", default="-", help="default: standard output")
    parser = action("backup", "write everything, the databases included, as one tar", _backup)
    parser.add_argument("-o", dest="output", metavar="FILE", default="-", help="default: standard output")
    parser.add_argument("-d", dest="directory", metavar="DIR", help="USER.tar in this directory, for -A")
    parser = action("restore", "bring back what a backup holds", _restore, False)
    parser.add_argument("source", metavar="SOURCE", nargs="?", default="-", help="path, or - for stdin")
    add_dry_run(parser)


# Into a store.


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
                report(work, name, bring_in(store, _from_archive(box, name), arguments.dry_run))
    except tarfile.TarError as error:
        raise CommandError(f"{arguments.source}: neither mbox nor tar: {error}", UNUSABLE) from error
    return 0


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


def _as_it_was(moment: Moment, box: PastMailbox) -> Iterator[archive.Copied]:
    """The messages of the mailbox at the moment; those that are gone for good are left out."""
    progress = Progress(box.name, len(box.messages))
    for message, content in moment.contents(box):
        progress.advance()
        if content is not None:
            yield archive.Copied(message.uid, message.flags, message.internal_date, content)
    progress.finish()


def _export(work: Work) -> int:
    arguments = work.arguments
    with work.store() as store:
        known = [folder.name for folder in store.folders() if folder.selectable]
        names = [checked_name(name) for name in arguments.mailboxes] or known
        for name in names:
            if name not in known:
                warn(f"{name}: no such mailbox: `mailserver mailbox list` shows them")
                return NO_MAILBOX
        if arguments.format == "mbox" and len(arguments.mailboxes) == 1:
            for piece in _mbox(store, names[0], work.mboxrd):
                work.output.write(piece)
            return 0
        tar = archive.TarWriter(work.output, time.time())
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
    if getattr(arguments, "everybody", False) and not arguments.directory:
        raise CommandError("-A writes one file per account: say where with -d DIR", 64)
    with work.store() as store:
        moment = Moment(store)
        tar = archive.TarWriter(work.output, time.time())
        tar.add(f"{name}/state.db", moment.state)
        subscribed = b"".join(b"%b\n" % _levels(each) for each in store.subscriptions())
        tar.add(f"{name}/Maildir/subscriptions", b"V\t2\n\n" + subscribed)
        count = sum(
            archive.write_maildir(
                tar, f"{name}/Maildir", box.name, box.uidvalidity, box.uidnext, _as_it_was(moment, box)
            )
            for box in moment.mailboxes
        )
        tar.close()
    gone = sum(len(box.messages) for box in moment.mailboxes) - count
    if gone:
        print(f"{name}: {gone} messages were expunged meanwhile, and are gone", file=sys.stderr)
    print(f"{name}: {count} messages backed up", file=sys.stderr)
    return 0


def _levels(name: str) -> bytes:
    from mailserver.wire.imap_mailbox import encode_modified_utf7

    return b"\t".join(encode_modified_utf7(level) for level in name.split("/"))


def _restore(work: Work) -> int:
    arguments = work.arguments
    try:
        with _unpacked(arguments.source) as path, work.store() as store:
            modseqs, said = _remembered(path)
            for box in _boxes(work, path):
                source = _from_archive(box, box.name)
                source.modseq, source.said = modseqs.get(box.name, 0), said.get(box.name, {})
                report(work, box.name, bring_in(store, source, arguments.dry_run))
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


def _remembered(path: str) -> tuple[Mapping[str, int], Mapping[str, Said]]:
    """HIGHESTMODSEQ and what readers have seen, by mailbox, from the state.db in a backup."""
    database = _find(path, "state.db")
    if not database:
        return {}, {}
    db = sqlite3.connect(f"file:{database}?mode=ro&immutable=1", uri=True)
    try:
        modseqs = dict(db.execute("SELECT name, modseq FROM mailbox").fetchall())
        is_of_today = db.execute("SELECT 1 FROM sqlite_master WHERE name='own_seen'").fetchone()
        return modseqs, by_mailbox(db.execute(SAID).fetchall()) if is_of_today else {}
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
