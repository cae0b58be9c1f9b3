"""`mailserver mailbox check | leave | downgrade`: verify and repair, and prepare the way back.

Back to Dovecot, or to an older release of ours.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from mailserver.commands.mailbox_accounts import TEMPORARY, Work, add_wait, only_user, warn
from mailserver.commands.progress import Progress
from mailserver.store.account import FileAccountStore
from mailserver.store.contract import MessageGone, StoreError
from mailserver.store.mailbox import IndexedMailbox
from mailserver.store.state_downgrade import downgrade

Register = Callable[..., argparse.ArgumentParser]


def register(action: Register) -> None:
    """Add the parsers of these actions."""
    action("check", "verify the databases against the mail, and repair", _check)
    action("index", "make the text index that searches use", _index)
    parser = action(
        "downgrade", "make the state readable for an older release, before it takes over", _downgrade
    )
    add_wait(parser)
    action("leave", "leave our UIDs where Dovecot looks for them, before it takes over", _leave)


def _downgrade(work: Work) -> int:
    """What could be damaged is looked for first: afterwards nothing tells it any more."""
    with only_user(work) as directory:
        with work.store(is_alone=True) as store:
            for problem in store.check_databases():
                print(f"{work.account.name}: {problem}")
        downgrade(directory)
    print(
        f"{work.account.name}: an older release can read the state; this one raises it again when it opens it"
    )
    return 0


def _check(work: Work) -> int:
    """Everything is read once: what other programs did is known, sizes are right, damage is told."""
    with work.store() as store:
        problems = list(store.check_databases())
        for problem in problems:
            print(f"{work.account.name}: {problem}")
        unreadable = 0
        for name in [folder.name for folder in store.folders() if folder.selectable]:
            unreadable += _check_mailbox(store, work.account.name, name)
    return TEMPORARY if unreadable else 0


def _check_mailbox(store: FileAccountStore, user: str, name: str) -> int:
    """How many messages cannot be read; told, with what was repaired."""
    mailbox = store.open(name)
    assert isinstance(mailbox, IndexedMailbox)
    unreadable = repaired = 0
    try:
        repaired += mailbox.rescan()
        progress = Progress(name, len(mailbox.uids))
        for uid in list(mailbox.uids):
            progress.advance()
            try:
                size = mailbox.sizes([uid]).get(uid)
                if len(mailbox.read(uid)) != size:
                    repaired += 1  # read() has put it right
            except MessageGone:
                repaired += 1
            except StoreError as error:
                warn(f"{user}: {name}: UID {uid}: {error}")
                unreadable += 1
        progress.finish()
        mailbox.refresh()
        print(f"{user}: {name}: {len(mailbox.uids)} messages, {repaired} repaired, {unreadable} unreadable")
    finally:
        store.close(mailbox)
    return unreadable


def _index(work: Work) -> int:
    with work.store() as store:
        for name in [folder.name for folder in store.folders() if folder.selectable]:
            mailbox = store.open(name)
            assert isinstance(mailbox, IndexedMailbox)
            progress = Progress(f"{work.account.name}: {name}", len(mailbox.uids))
            try:
                count = mailbox.index_texts(progress.advance)
            finally:
                progress.finish()
                store.close(mailbox)
            print(f"{work.account.name}: {name}: {count} messages indexed")
    return 0


def _leave(work: Work) -> int:
    with work.store() as store:
        for name in [folder.name for folder in store.folders() if folder.selectable]:
            mailbox = store.open(name)
            assert isinstance(mailbox, IndexedMailbox)
            try:
                mailbox.leave()
            finally:
                store.close(mailbox)
        store.leave_subscriptions()
    return 0
