"""Where an account's mail lies, from Dovecot's `mail_location` or from Postfix's words.

    maildir:~/Maildir                       Maildir++: INBOX in ~/Maildir, folders in ~/Maildir/.Name
    maildir:/var/mail/%u                    one maildir per user in the spool
    maildir:~/mail:LAYOUT=fs                folders are plain directories: ~/mail/Name
    mbox:~/mail:INBOX=/var/mail/%u          INBOX in the spool, folders are files below ~/mail

Keys after a further colon: INBOX=, LAYOUT=maildir++|fs, DIRNAME= (mbox), UTF-8 (names of folders on
disk are UTF-8, not modified UTF-7), and CONTROL=, INDEX=, VOLATILEDIR= and the like, which say where Dovecot
keeps its own files: CONTROL is where its `dovecot-uidlist` and `subscriptions` are looked for, the
rest is of no concern here.
Variables: those of `wire.user_variables`; `~/` is the home.

Where `mail_location` is empty: `home_mailbox` below the home, else `mail_spool_directory`/user;
a trailing slash means maildir. The other folders of an mbox spool lie in ~/mail, as Debian has it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from mailserver.accounts.account import Account
from mailserver.store.contract import StoreFailure
from mailserver.wire.user_variables import expand

MBOX_DIRNAME: Final = "mBoX-MeSsAgEs"


class BadLocation(ValueError):
    """The location cannot be understood. The text says why."""


class Kind(Enum):
    """A mailbox format."""

    MBOX = "mbox"
    MAILDIR = "maildir"


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the mailboxes of one account lie; paths are absolute.

    `inbox` is the path of INBOX, "" where there is none (a public namespace). `root` is the directory
    of the other folders: for Maildir++ it has them as `.Name`, else (`plain`) as directories or files.
    `dirname` is the file that holds the messages of an mbox with children. `control` is where Dovecot's
    own files lie. `utf8`: names of folders, and of subscriptions, are not in modified UTF-7 there.
    `separator` is what clients see between the levels of names, `prefix` ("" or `INBOX/`) before them.
    """

    inbox_kind: Kind
    inbox: str
    kind: Kind
    root: str
    plain: bool = False
    dirname: str = MBOX_DIRNAME
    control: str = ""
    separator: str = "/"
    prefix: str = ""
    utf8: bool = False


def _substitute(text: str, account: Account) -> str:
    if text == "~" or text.startswith("~/"):
        text = account.home.replace("%", "%%") + text[1:]
    try:
        return expand(text, account.name, account.home)
    except ValueError as error:
        raise BadLocation(f"{error} in mail_location") from error


def _path(text: str, account: Account) -> str:
    path = _substitute(text, account)
    if not path.startswith("/"):
        raise BadLocation(f"mail_location needs an absolute path, not {path!r}")
    return os.path.normpath(path)


def parse_location(location: str, account: Account) -> Layout:
    """The layout that a `mail_location` names for the account. Raises BadLocation."""
    kind_name, _, rest = location.strip().partition(":")
    try:
        kind = Kind(kind_name)
    except ValueError:
        raise BadLocation(f"mail_location must begin with maildir: or mbox:, not {location!r}")
    root_text, *pairs = rest.split(":")
    options: Mapping[str, str] = {
        key.upper(): value for key, _, value in (pair.partition("=") for pair in pairs)
    }
    root = _path(root_text, account)
    style = options.get("LAYOUT", "maildir++" if kind is Kind.MAILDIR else "fs").lower()
    if style not in ("maildir++", "fs") or (kind is Kind.MBOX and style != "fs"):
        raise BadLocation(f"LAYOUT={style} is not supported for {kind.value}")
    inbox = _path(options["INBOX"], account) if options.get("INBOX") else _default_inbox(kind, root)
    control = _path(options["CONTROL"], account) if options.get("CONTROL") else ""
    dirname = options.get("DIRNAME") or MBOX_DIRNAME
    if "/" in dirname:
        raise BadLocation("DIRNAME must be a plain name")
    return Layout(kind, inbox, kind, root, style == "fs", dirname, control, utf8="UTF-8" in options)


def _default_inbox(kind: Kind, root: str) -> str:
    return root if kind is Kind.MAILDIR else os.path.join(root, "inbox")


def with_dovecots_separator(layout: Layout) -> Layout:
    """The layout with the separator that Dovecot's clients see: `.` in Maildir++, else `/`."""
    return replace(layout, separator="/" if layout.plain else ".")


def layout_for(
    account: Account, mail_location: str, mail_spool_directory: str = "/var/mail", home_mailbox: str = ""
) -> Layout:
    """The layout of the account: its own (`userdb_mail`), `mail_location`, or Postfix's parameters.

    Raises StoreFailure where they cannot be understood: the configuration was checked at start.
    """
    location = account.mail or mail_location
    try:
        if location:
            return parse_location(location, account)
        return _postfix_layout(account, mail_spool_directory, home_mailbox)
    except BadLocation as error:
        raise StoreFailure("The mail of the account cannot be found") from error


def _postfix_layout(account: Account, spool: str, home_mailbox: str) -> Layout:
    inbox = os.path.join(account.home, home_mailbox) if home_mailbox else os.path.join(spool, account.name)
    is_maildir = (home_mailbox or spool).endswith("/")
    if not inbox.startswith("/"):
        raise BadLocation(f"{inbox!r} is no absolute path")
    return layout_at(os.path.normpath(inbox) + "/" * is_maildir, account)


def layout_at(inbox: str, account: Account) -> Layout:
    """The layout of an account whose INBOX is at that path, a maildir where it ends in a slash."""
    if inbox.endswith("/"):
        path = inbox.rstrip("/")
        return Layout(Kind.MAILDIR, path, Kind.MAILDIR, path)
    return Layout(Kind.MBOX, inbox, Kind.MBOX, os.path.join(account.home, "mail"), plain=True)
