"""StoreRegistry over files: one store per account with sessions, in `state_directory`/USER.

A store that no session uses is kept for IDLE seconds, so that a client that comes back finds
it warm; `sweep`, called now and then from a thread, closes those that waited longer.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Final
from urllib.parse import quote

from mailserver.accounts.account import Account
from mailserver.maillog import MailLog
from mailserver.store.account import FileAccountStore
from mailserver.store.contract import AccountStore, StoreFailure, StoreRegistry
from mailserver.store.folders import make_directories
from mailserver.store.format import MailboxFormat
from mailserver.store.layout import Layout
from mailserver.store.mbox import MboxFormat
from mailserver.store.namespaces import PUBLIC
from mailserver.store.open_mailboxes import Unwatched, Watcher
from mailserver.store.quota import QuotaKeeper, Usage
from mailserver.store.quota_rules import QuotaWarning, Rules, parse_rules, rules_of

IDLE: Final = 60.0  # seconds


class FileStoreRegistry(StoreRegistry):
    """See `StoreRegistry`. `layout_for` says where an account's mail lies; it may raise StoreFailure.

    `expunge_grace` is how many seconds expunged mail of a maildir can be brought back.
    `quota_rules` hold where an account has none of its own (`store.quota_rules`).
    `make_mbox(path, journals)` makes the mbox format of a file, with the account's directory for journals.
    """

    def __init__(
        self,
        layout_for: Callable[[Account], Layout],
        state_directory: str,
        hostname: str,
        watcher: Watcher | None = None,
        log: MailLog | None = None,
        make_mbox: Callable[[str, str], MailboxFormat] = MboxFormat,
        clock: Callable[[], float] = time.monotonic,
        expunge_grace: int = 0,
        is_alone: bool = False,
        quota_rules: str = "",
        quota_warnings: Sequence[QuotaWarning] = (),
    ) -> None:
        self._layout_for = layout_for
        self._state_directory = state_directory
        self._hostname = hostname
        self._watcher = watcher or Unwatched()
        self._log = log
        self._make_mbox = make_mbox
        self._clock = clock
        self._expunge_grace = expunge_grace
        self._is_alone = is_alone
        self._quota_rules = quota_rules
        self._quota_warnings = quota_warnings
        self._lock = threading.Lock()
        self._opening: dict[str, threading.Lock] = {}
        self._stores: dict[str, FileAccountStore] = {}
        self._users: dict[FileAccountStore, int] = {}
        self._idle_since: dict[FileAccountStore, float] = {}

    def open(self, account: Account) -> AccountStore:
        """See `StoreRegistry.open`."""
        with self._lock:
            opening = self._opening.setdefault(account.name, threading.Lock())
        with opening:  # the slow first opening of one account holds up nobody else
            store = self._stores.get(account.name)
            if store is None or store.is_damaged:
                store = self._make(account)
            with self._lock:
                self._stores[account.name] = store
                self._users[store] = self._users.get(store, 0) + 1
                self._idle_since.pop(store, None)
            return store

    def is_known(self, account: Account) -> bool:
        """See `StoreRegistry.is_known`."""
        return os.path.exists(os.path.join(self._state_directory, state_name(account), "state.db"))

    def _make(self, account: Account) -> FileAccountStore:
        name = state_name(account)
        if name in ("", ".", ".."):
            raise StoreFailure("The account has no name that could be a directory")
        directory = os.path.join(self._state_directory, name)

        warn = partial(self._warn, account)
        try:
            make_directories(directory)
        except OSError as error:
            warn(str(error))
            raise StoreFailure("The state of the account cannot be written") from error
        layout = layout_of(account, self._layout_for)
        return FileAccountStore(
            layout,
            directory,
            self._hostname,
            self._make_mbox,
            self._watcher,
            warn,
            lambda usage: self._keeper(account, usage, warn),
            self._expunge_grace,
            self._is_alone,
        )

    def _keeper(self, account: Account, usage: Usage, warn: Callable[[str], None]) -> QuotaKeeper:
        rules = _rules(account, self._quota_rules, warn)
        return QuotaKeeper(rules, usage, warn, self._quota_warnings, account.name, account.home)

    def _warn(self, account: Account, text: str) -> None:
        if self._log is not None:
            self._log.write("imap", f"Error: user={account.name}: {text}")

    def relimit(self, account: Account) -> None:
        """The account's quota rules, which were changed, count for mailboxes that are opened from now on."""
        with self._lock:
            store = self._stores.get(account.name)
        if store is not None:
            store.keeper.rules = _rules(account, self._quota_rules, partial(self._warn, account))

    def close(self, store: AccountStore) -> None:
        """See `StoreRegistry.close`."""
        assert isinstance(store, FileAccountStore)
        with self._lock:
            if store not in self._users:
                return  # `shut` was faster
            self._users[store] -= 1
            if self._users[store] == 0:
                self._idle_since[store] = self._clock()

    def sweep(self) -> None:
        """The stores that were idle for long are closed. *Blocking.*"""
        limit = self._clock() - IDLE
        self._shut(lambda store: self._idle_since.get(store, limit + 1) <= limit)

    def shut(self) -> None:
        """All stores are closed, used or not: the process stops. *Blocking.*"""
        self._shut(lambda store: True)

    def _shut(self, is_due: Callable[[FileAccountStore], bool]) -> None:
        with self._lock:
            due = [store for store in self._users if is_due(store)]
            for store in due:
                self._users.pop(store)
                self._idle_since.pop(store, None)
            self._stores = {name: store for name, store in self._stores.items() if store not in due}
        for store in due:
            store.shut()


def state_name(account: Account) -> str:
    """The name of the account's directory below the state directory."""
    return quote(account.name, safe="@+")


def layout_of(account: Account, layout_for: Callable[[Account], Layout]) -> Layout:
    """Where the account's mail lies; a public namespace has no INBOX. Raises StoreFailure."""
    layout = layout_for(account)
    return replace(layout, inbox="") if PUBLIC in account.extra else layout


def _rules(account: Account, common: str, warn: Callable[[str], None]) -> Rules:
    """The account's quota rules; one that nobody understands limits nothing, and is told."""
    try:
        return parse_rules(rules_of(account.extra, common))
    except ValueError as error:
        warn(f"quota rule {error}")
        return Rules()
