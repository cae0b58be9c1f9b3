"""What expansion asks: aliases, accounts, .forward files, included files, mailboxes.

`Lookups` is the question; `LiveLookups` answers from the tables, the account data base and,
with each owner's rights, the file system. Everything here blocks.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from mailserver.accounts.account import Account
from mailserver.delivery.job import Agents, Forward, Owner
from mailserver.delivery.routing import Routing, find_first
from mailserver.tables.table import Entry, Table, TableError

FORWARD_PATH: Final = "$home/.forward${recipient_delimiter}${extension}, $home/.forward"


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalRules:
    """Parameters of local(8), each under its main.cf name.

    `default_privs` is the user for commands and files of aliases, `virtual_owner` the one of virtual
    mailboxes that have no account. `inbox_of` says where accounts with a place of their own are read
    (userdb_mail, mail_location), a trailing slash for maildir.
    """

    default_privs: Owner
    allow_mail_to_commands: frozenset[str] = frozenset({"alias", "forward"})
    allow_mail_to_files: frozenset[str] = frozenset({"alias", "forward"})
    forward_path: str = FORWARD_PATH
    mailbox_transport: str = ""
    mailbox_transport_maps: Sequence[Table] = ()
    mailbox_command: str = ""
    mailbox_command_maps: Sequence[Table] = ()
    home_mailbox: str = ""
    mail_spool_directory: str = "/var/mail"
    virtual_mailbox_base: str = ""
    virtual_owner: Owner | None = None
    inbox_of: Callable[[Account], str] | None = None
    fallback_transport: str = ""
    fallback_transport_maps: Sequence[Table] = ()
    luser_relay: str = ""
    expand_owner_alias: bool = False
    reset_owner_alias: bool = False
    virtual_alias_recursion_limit: int = 1000
    virtual_alias_expansion_limit: int = 1000
    virtual_alias_address_length_limit: int = 1000
    duplicate_filter_limit: int = 1000

    @property
    def tables(self) -> tuple[Table, ...]:
        """Every table among them."""
        return (*self.mailbox_transport_maps, *self.mailbox_command_maps, *self.fallback_transport_maps)


class Lookups(Protocol):
    """Everything that `expand` must know about the world. Each method blocks.

    Raises TableError, TemporaryAccountFailure or OSError where the answer cannot be known now.
    """

    def alias(self, name: str) -> Entry | None:
        """The right-hand side of that name in alias_maps."""

    def account(self, name: str) -> Account | None:
        """The account of that name."""

    def forward(self, account: Account, paths: tuple[str, ...]) -> tuple[Forward | None, Sequence[str]]:
        """The account's .forward, the first usable of `paths`, and warnings about unusable ones."""

    def include(self, path: str, owner: Owner) -> bytes:
        """The text of an `:include:` file, read as that owner."""

    def mailbox(self, account: Account) -> tuple[str, str]:
        """The path of the account's mailbox, with a trailing slash for maildir; the deciding parameter."""


def virtual_mailbox(tables: Sequence[Table], base: str, name: str) -> tuple[str, str] | None:
    """Path and source of a virtual mailbox, a trailing slash for maildir. *Blocking.* virtual(8).

    None where virtual_mailbox_maps do not place it, or there is no virtual_mailbox_base. A value may
    not lead out of the base. Raises TableError.
    """
    if not base or not tables:
        return None
    entry = find_first(tables, name) or find_first(tables, f"@{name.rpartition('@')[2]}")
    if entry is None:
        return None
    value = entry.value.strip()
    if ".." in value.split("/") or not value.strip("/"):
        raise TableError(f"{entry.source}: {name}: {value!r} is no path below virtual_mailbox_base")
    return f"{base.rstrip('/')}/{value.lstrip('/')}", entry.source


def owner_of(account: Account) -> Owner:
    """Whose rights a delivery to that account has."""
    return Owner(account.name, account.uid, account.gid, account.home, account.shell)


def owner_named(name: str) -> Owner:
    """The system's user of that name (default_privs). Raises KeyError."""
    entry = pwd.getpwnam(name)
    return Owner(entry.pw_name, entry.pw_uid, entry.pw_gid, entry.pw_dir, entry.pw_shell)


class LiveLookups:
    """`Lookups` over the running server's tables, accounts and agents."""

    def __init__(self, routing: Routing, rules: LocalRules, agents: Agents) -> None:
        self._routing = routing
        self._rules = rules
        self._agents = agents

    def alias(self, name: str) -> Entry | None:
        """See `Lookups.alias`."""
        return find_first(self._routing.alias_maps, name)

    def account(self, name: str) -> Account | None:
        """See `Lookups.account`. A virtual mailbox without an account has one that nobody logs in to."""
        found = self._routing.accounts.lookup(name)
        owner = self._rules.virtual_owner
        if found is not None or owner is None or "@" not in name:
            return found
        place = virtual_mailbox(self._routing.virtual_mailbox_maps, self._rules.virtual_mailbox_base, name)
        if place is None:
            return None
        return Account(
            name.lower(), owner.uid, owner.gid, os.path.dirname(place[0].rstrip("/")), may_login=False
        )

    def forward(self, account: Account, paths: tuple[str, ...]) -> tuple[Forward | None, Sequence[str]]:
        """See `Lookups.forward`."""
        return self._agents.read_forward(owner_of(account), paths) if paths else (None, ())

    def include(self, path: str, owner: Owner) -> bytes:
        """See `Lookups.include`."""
        return self._agents.read_include(owner, path)

    def mailbox(self, account: Account) -> tuple[str, str]:
        """See `Lookups.mailbox`."""
        rules = self._rules
        is_virtual = "@" in account.name
        if is_virtual and not account.mail:
            place = virtual_mailbox(
                self._routing.virtual_mailbox_maps, rules.virtual_mailbox_base, account.name
            )
            if place is not None:
                return place
        if (is_virtual or account.mail) and rules.inbox_of is not None:
            return rules.inbox_of(account), "userdb_mail" if account.mail else "mail_location"
        if rules.home_mailbox:
            return f"{account.home}/{rules.home_mailbox}", "home_mailbox"
        directory = rules.mail_spool_directory
        is_maildir = directory.endswith("/")
        return f"{directory.rstrip('/')}/{account.name}{'/' * is_maildir}", "mail_spool_directory"
