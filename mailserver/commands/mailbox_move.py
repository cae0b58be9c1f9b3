"""`mailserver mailbox move-format`: all mail of an account in another format, under the same UIDs.

Nobody has the account open meanwhile: who logs in is told to come back. Mail that is delivered meanwhile
stays in the old place, from where it can be imported.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

from mailserver.commands.errors import CommandError
from mailserver.commands.mailbox_accounts import UNUSABLE, Work, add_wait, only_user
from mailserver.commands.mailbox_bring_in import Source, add_dry_run, bring_in, report
from mailserver.store.account import FileAccountStore
from mailserver.store.archive import Letter
from mailserver.store.contract import NewMessage, Uid
from mailserver.store.layout import BadLocation, parse_location
from mailserver.store.state_readers import Said


def register(action: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the parser of this action."""
    parser = action("move-format", "copy all mail into another format, UIDs kept", _move_format)
    parser.add_argument("location", metavar="LOCATION", help="as mail_location: maildir:~/Maildir, mbox:…")
    add_wait(parser)
    add_dry_run(parser)


def _move_format(work: Work) -> int:
    """The mail is copied; the new state takes the old one's place; the old mail stays where it was."""
    arguments, account = work.arguments, work.account
    old = work.parts.store.layout_for(account)
    try:
        new = parse_location(arguments.location, account)
    except BadLocation as error:
        raise CommandError(str(error), UNUSABLE) from error
    if new.inbox == old.inbox:
        raise CommandError(f"{account.name}: the mail lies in {old.inbox} already", UNUSABLE)
    moving = f"{work.state_parent}/{account.name}/moving"
    os.makedirs(moving, mode=0o700, exist_ok=True)
    with only_user(work):
        with work.store(is_alone=True) as source, work.store(new, moving) as target:
            said = source.said()
            for folder in source.folders():
                if folder.selectable:
                    count = _moved(source, target, folder.name, said.get(folder.name, {}), arguments.dry_run)
                    report(work, folder.name, count)
            for name in source.subscriptions():
                target.set_subscribed(name, True)
        if not arguments.dry_run:
            _swap_state(work, moving)
    if not arguments.dry_run:
        print(
            f"{account.name}: now set mail_location (or userdb_mail) to {arguments.location};"
            f" for mail that comes before that: mailserver mailbox import -u {account.name} {old.inbox}"
        )
    return 0


def _moved(source: FileAccountStore, target: FileAccountStore, name: str, said: Said, is_dry: bool) -> int:
    mailbox = source.open(name)
    try:
        known = [mailbox.messages[uid] for uid in mailbox.uids]
        letters = [Letter("", each.flags, each.internal_date, each.uid) for each in known]

        def read(letter: Letter) -> NewMessage:
            return NewMessage(mailbox.read(Uid(letter.uid)), letter.flags, letter.internal_date)

        return bring_in(
            target,
            Source(
                name, mailbox.uidvalidity, letters, read, mailbox.uidnext, mailbox.highest_modseq + 1, said
            ),
            is_dry,
        )
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
