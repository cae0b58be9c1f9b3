"""Messages from anywhere into a mailbox, each once, with what is known of them."""

from __future__ import annotations

import argparse
import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from mailserver.commands.mailbox_accounts import Work
from mailserver.commands.progress import Progress
from mailserver.store.account import FileAccountStore
from mailserver.store.archive import Letter
from mailserver.store.contract import MessageGone, NewMessage, NoSuchMailbox, Uid
from mailserver.store.mailbox import IndexedMailbox
from mailserver.store.state_readers import Said

_BATCH: Final = 100  # messages stored together
_BATCH_OCTETS: Final = 16 << 20
_QUOTED_FROM: Final = re.compile(rb"^>+(?=From )", re.MULTILINE)
_IDENTITY: Final = "identity.1"


def add_dry_run(parser: argparse.ArgumentParser) -> None:
    """--dry-run is understood."""
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, do nothing")


@dataclass
class Source:
    """One mailbox that is brought in. `read` raises MessageGone."""

    name: str
    uidvalidity: int
    letters: Sequence[Letter]
    read: Callable[[Letter], NewMessage]
    uidnext: int = 0
    modseq: int = 0
    said: Said = field(default_factory=dict)


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
            mailbox.restore_seen(source.said)
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


def report(work: Work, name: str, count: int) -> None:
    """How many messages were brought into the mailbox, or would be, is printed."""
    would = "would be " if work.arguments.dry_run else ""
    print(f"{name}: {count} message{'' if count == 1 else 's'} {would}brought in")
