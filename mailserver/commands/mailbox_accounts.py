"""Whose mailboxes a command is about, and touching them as their owner.

Run by root, each account's work is done in a child process that has become that user for good;
so nothing of a user's is ever followed or written with root's rights. The stores are the server's
own, beside a running one: both agree through state.db.
"""

from __future__ import annotations

import argparse
import os
import stat
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import IO, Final
from urllib.parse import quote

from mailserver.accounts.account import Account, TemporaryAccountFailure
from mailserver.commands.errors import CommandError
from mailserver.config.config import Config
from mailserver.config.read import ConfigError, read_config
from mailserver.durable import sync_directory
from mailserver.maillog import ListLog
from mailserver.rights.as_user import NOBODY, Identity, become
from mailserver.rights.zygote import make_state_directory
from mailserver.roles.parts import Parts, has_system_accounts
from mailserver.roles.public import groups_for
from mailserver.store.account import FileAccountStore
from mailserver.store.account_use import alone
from mailserver.store.contract import StoreError
from mailserver.store.format import MailboxFormat
from mailserver.store.layout import Layout
from mailserver.store.mbox import MboxFormat
from mailserver.store.namespaces import PUBLIC
from mailserver.store.registry import FileStoreRegistry

TEMPORARY: Final = 75  # EX_TEMPFAIL
NO_USER: Final = 67  # EX_NOUSER
NO_MAILBOX: Final = 68  # doveadm's EX_NOTFOUND
UNUSABLE: Final = 65  # EX_DATAERR: it exists already, or cannot be


def add_account_options(parser: argparse.ArgumentParser, many: bool = True) -> None:
    """-u USER, and where it makes sense for `many` -A, are understood; one of them must be given."""
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument("-u", dest="user", metavar="USER", help="the account")
    if many:
        chosen.add_argument(
            "-A", "--all", dest="everybody", action="store_true", help="all accounts, one by one"
        )


@dataclass(frozen=True)
class Work:
    """One account's mail, open to a command."""

    config: Config
    parts: Parts
    account: Account
    arguments: argparse.Namespace
    output: IO[bytes]
    has_many_owners: bool = False  # `has_system_accounts`, asked before anybody became somebody else

    @cached_property
    def mboxrd(self) -> bool:
        """How the account's mboxes are quoted."""
        return self.config.string("mbox_quoting") == "mboxrd"

    @property
    def state_parent(self) -> str:
        """The directory of all accounts' state."""
        return os.path.join(self.config.string("state_directory"), "accounts")

    @contextmanager
    def registry(
        self, layout: Layout | None = None, state_parent: str | None = None, is_alone: bool = False
    ) -> Iterator[FileStoreRegistry]:
        """The stores, closed afterwards; elsewhere than usual where that is said."""
        log = ListLog()
        registry = FileStoreRegistry(
            lambda account: layout or self.parts.store.layout_for(account),
            state_parent or self.state_parent,
            self.config.string("myhostname"),
            log=log,
            make_mbox=self._make_mbox,
            expunge_grace=self.config.seconds("expunge_grace"),
            is_alone=is_alone,
            quota_rules=self.config.string("quota_rule"),
        )
        try:
            yield registry
        finally:
            registry.shut()
            for _, text in log.lines:
                warn(text)

    @contextmanager
    def store(
        self, layout: Layout | None = None, state_parent: str | None = None, is_alone: bool = False
    ) -> Iterator[FileAccountStore]:
        """The account's store, as `registry`. `is_alone`: the caller has it alone (`store.account_use`)."""
        with self.registry(layout, state_parent, is_alone) as registry:
            store = registry.open(self.account)
            assert isinstance(store, FileAccountStore)
            yield store

    def _make_mbox(self, path: str, journals: str) -> MailboxFormat:
        return MboxFormat(path, journals, mboxrd=self.mboxrd, rules=self.parts.store.lock_rules)


def add_wait(parser: argparse.ArgumentParser) -> None:
    """--wait is understood, by a command that must have the account alone."""
    parser.add_argument(
        "--wait", metavar="SECONDS", type=float, default=90.0,
        help="how long to wait for sessions to end; nobody can log in meanwhile (default: 90)",
    )  # fmt: skip


@contextmanager
def only_user(work: Work) -> Iterator[str]:
    """Within, nobody else can open the account. The directory of its state. Raises CommandError."""
    directory = f"{work.state_parent}/{work.account.name}"
    with alone(directory, work.arguments.wait) as is_alone:
        if not is_alone:
            raise CommandError(
                f"{work.account.name}: sessions have the account open, or had a minute ago:"
                f" `mailserver kick {work.account.name}` ends them; or --wait longer",
                TEMPORARY,
            )
        yield directory


def warn(text: str, subcommand: str = "mailbox") -> None:
    """Whoever runs the command reads it."""
    print(f"mailserver {subcommand}: {text}", file=sys.stderr)


def for_accounts(arguments: argparse.Namespace, act: Callable[[Work], int]) -> int:
    """The act is done for each account that was named; the worst exit status. Raises CommandError."""
    try:
        config = read_config(arguments.config_directory, os.environ)
        parts = Parts(config, ListLog())
        accounts = _accounts(arguments, parts)
    except ConfigError as error:
        raise CommandError(str(error)) from error
    except TemporaryAccountFailure as error:
        raise CommandError(f"{error}: try again later", TEMPORARY) from error
    worst = 0
    for account in accounts:
        work = Work(
            config, parts, account, arguments, sys.stdout.buffer, has_many_owners=has_system_accounts(config)
        )
        path = _output_path(arguments, account)
        worst = max(worst, _into_file(path, work, act) if path else _as_owner(work, act))
    return worst


def _output_path(arguments: argparse.Namespace, account: Account) -> str:
    """The file that the command writes for the account, "" for standard output."""
    directory, path = getattr(arguments, "directory", None), getattr(arguments, "output", "-")
    if directory:
        return os.path.join(directory, f"{quote(account.name, safe='@+')}.tar")
    return "" if path == "-" else path


def _into_file(path: str, work: Work, act: Callable[[Work], int]) -> int:
    """The act, writing a file of the caller's, not the account's; its name comes last, and is durable."""
    partial = path + ".partial"
    try:
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            status = _as_owner(replace(work, output=file), act)
            file.flush()
            os.fsync(file.fileno())
        if status == 0:
            os.rename(partial, path)
            sync_directory(os.path.dirname(path))
        else:
            os.unlink(partial)
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}: name a place that can be written") from error
    return status


def _accounts(arguments: argparse.Namespace, parts: Parts) -> Sequence[Account]:
    if getattr(arguments, "everybody", False):
        found = (parts.accounts.lookup(name) for name in parts.accounts.names())
        return [account for account in found if account is not None and account.may_login]
    if arguments.user is None:
        return [_namespace(arguments.mailbox, parts)]
    account = parts.accounts.lookup(arguments.user)
    if account is None:
        raise CommandError(f"{arguments.user}: no such account: `mailserver user list` shows them", NO_USER)
    return [account]


def _namespace(mailbox: str, parts: Parts) -> Account:
    """The account that stands for the public namespace that the mailbox lies in. Raises CommandError."""
    found = parts.store.namespace_rules.public_of(mailbox)
    if found is None:
        raise CommandError(
            f"{mailbox}: lies in no public namespace (public_namespaces): name the owner with -u USER",
            NO_USER,
        )
    account = found.account()
    root = parts.store.layout_for(account).root
    if not has_system_accounts(parts.config):
        return replace(account, uid=parts.mail_owner.uid, gid=parts.mail_owner.gid)
    try:
        owner = os.stat(root)
    except OSError as error:
        raise CommandError(f"{root}: {error.strerror}: make the directory of the namespace") from error
    if not owner.st_gid:
        raise CommandError(f"{root}: has the group root: give it to the group that shares it (chgrp)")
    return replace(account, uid=owner.st_uid or NOBODY, gid=owner.st_gid)


def _as_owner(work: Work, act: Callable[[Work], int]) -> int:
    account = work.account
    if os.geteuid() != 0 or account.uid == 0:
        return _guarded(work, act)
    if PUBLIC in account.extra:
        identity = Identity(account.name, account.uid, account.gid)
    else:
        inbox = work.parts.store.layout_for(account).inbox
        groups = {*_spool_group(work.config, inbox), *groups_for(work.parts, account)}
        identity = Identity(account.name, account.uid, account.gid, tuple(groups))
        os.makedirs(work.state_parent, mode=0o711, exist_ok=True)
        make_state_directory(work.state_parent, identity)
    sys.stdout.flush()
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 0xFF
    status = 70
    try:
        become(identity)
        status = _guarded(work, act)
        sys.stdout.flush()
        work.output.flush()
    except CommandError as error:
        warn(str(error), work.arguments.subcommand)
        status = error.status
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _spool_group(config: Config, inbox: str) -> tuple[int, ...]:
    """The spool's group where INBOX lies there and the group may write: then locks need it."""
    directory = os.path.dirname(inbox)
    if directory != config.string("mail_spool_directory").rstrip("/"):
        return ()
    found = os.stat(directory)
    return (found.st_gid,) if found.st_mode & stat.S_IWGRP and found.st_gid else ()


def _guarded(work: Work, act: Callable[[Work], int]) -> int:
    try:
        return act(work)
    except StoreError as error:
        warn(f"{work.account.name}: {error}")
        return TEMPORARY
    except OSError as error:
        warn(f"{work.account.name}: {error}")
        return TEMPORARY
