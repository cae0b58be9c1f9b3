"""`mailserver mailbox undelete`: expunged messages of maildirs, as long as `expunge_grace` kept them."""

from __future__ import annotations

import argparse
import os
import re
import time
from collections.abc import Callable, Sequence
from typing import Final

from mailserver.commands.mailbox_accounts import Work
from mailserver.commands.mailbox_bring_in import Source, add_dry_run, bring_in, report
from mailserver.maillog import printable
from mailserver.message.header import scan
from mailserver.message.text import field_text
from mailserver.store.archive import Letter
from mailserver.store.contract import DELETED, NewMessage
from mailserver.store.graveyard import Buried
from mailserver.store.maildir import with_crlf
from mailserver.store.maildir_names import Keywords, letters_of
from mailserver.store.names import checked_name

_AGE: Final = re.compile(r"([0-9]{1,9})([smhdw])")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def register(action: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the parser of this action."""
    parser = action("undelete", "bring back expunged messages of maildirs", _undelete, False)
    parser.add_argument("mailboxes", metavar="MAILBOX", nargs="*", help="default: all")
    parser.add_argument("--since", type=_age, default=None, metavar="AGE", help="expunged within 30m, 2d, …")
    parser.add_argument("--into", metavar="MAILBOX", default="", help="default: where they were")
    parser.add_argument("--list", action="store_true", help="show what could be brought back")
    add_dry_run(parser)


def _age(text: str) -> int:
    """The seconds that a text like 30m, 12h or 2d means."""
    found = _AGE.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text}: write it as 30m, 12h or 2d")
    return int(found[1]) * _UNITS[found[2]]


def _undelete(work: Work) -> int:
    """New UIDs: the old ones were expunged before the clients' eyes."""
    arguments = work.arguments
    wanted = {checked_name(name) for name in arguments.mailboxes}
    oldest = time.time() - arguments.since if arguments.since is not None else 0
    with work.store() as store:
        chosen: dict[str, list[Buried]] = {}
        for each in store.buried():
            if each.expunged_at >= oldest and (not wanted or each.folder in wanted):
                chosen.setdefault(each.folder, []).append(each)
        for folder, buried in chosen.items():
            if arguments.list:
                _list_buried(folder, buried)
                continue
            name = checked_name(arguments.into) if arguments.into else folder
            report(work, name, bring_in(store, _exhumed(name, buried), arguments.dry_run))
            if not arguments.dry_run:
                for each in buried:
                    os.unlink(each.path)
    if not chosen:
        print("nothing to bring back")
    return 0


def _list_buried(folder: str, buried: Sequence[Buried]) -> None:
    for each in buried:
        with open(each.path, "rb") as file:
            header = file.read(1 << 16)
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(each.expunged_at))
        subject = next((field_text(body) for name, body in scan(header) if name.lower() == b"subject"), "")
        print(f"{when} {folder}: {printable(subject.strip())}")


def _exhumed(name: str, buried: Sequence[Buried]) -> Source:
    files = {each.path: each for each in buried}

    def read(letter: Letter) -> NewMessage:
        with open(letter.key, "rb") as file:
            return NewMessage(with_crlf(file.read()), letter.flags, letter.internal_date)

    known = Keywords("")
    letters = [
        Letter(path, known.flags(letters_of(each.name)) - {DELETED}, int(os.stat(path).st_mtime))
        for path, each in files.items()
    ]
    return Source(name, 0, letters, read)
