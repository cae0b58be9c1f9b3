"""From main.cf to the objects that everything else takes as plain arguments.

A `Parts` belongs to one process and makes each object when it is first asked for. What the
configuration says wrongly is a ConfigError with `path:line`, raised at the start by whoever asks.
"""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Final

from mailserver.accounts.account import AccountDirectory
from mailserver.accounts.directory import SourceDirectory
from mailserver.accounts.logged_in import LoggedIn
from mailserver.accounts.pam import Pam, PamAccounts
from mailserver.accounts.passwd_file import MailOwner, PasswdFile
from mailserver.accounts.passwd_users import ValidUids
from mailserver.accounts.source import AccountSource
from mailserver.accounts.system import SystemAccounts
from mailserver.config.config import Config
from mailserver.config.syntax import ConfigError
from mailserver.delivery.content_checks import CheckTables
from mailserver.delivery.header_rewriting import HeaderRewriting
from mailserver.delivery.job import Owner
from mailserver.delivery.lookups import LocalRules, owner_named
from mailserver.delivery.routing import AccountTable, Masquerade, Routing
from mailserver.delivery.srs import Srs
from mailserver.envelope import Address
from mailserver.maillog import FileLog, MailLog, SyslogLog
from mailserver.message.qualify import Completion
from mailserver.queue.cleanup import CleanupRules
from mailserver.queue.copies import Copies
from mailserver.queue.directory import QueueDirectory
from mailserver.queue.schedule import RetryTimes
from mailserver.roles.secret import Secret
from mailserver.secret_files import read_file, stamp_file
from mailserver.store.layout import (
    Kind,
    Layout,
)
from mailserver.tables.lists import DomainList, NetworkList, StringList, read_items
from mailserver.tables.open import TableOpener, split_name
from mailserver.tables.secret import SecretTable
from mailserver.tables.table import Table, TableError

if TYPE_CHECKING:
    from mailserver.roles.store_parts import StoreParts
    from mailserver.roles.tls_parts import TlsParts

_ACCOUNTS: Final = frozenset({"unix:passwd.byname", "proxy:unix:passwd.byname"})
_SOURCES: Final = ("passwd-file", "system", "pam")
_COPIES: Final = ("always_bcc", "sender_bcc_maps", "recipient_bcc_maps")


def mail_log(config: Config) -> MailLog:
    """The log that `maillog_file` names, else syslog. Raises ConfigError."""
    path = config.string("maillog_file")
    names = (config.string("syslog_name"), config.string("retrieval_syslog_name"))
    if not path:
        return SyslogLog(*names)
    try:
        return FileLog(path, *names, host=config.string("myhostname").split(".")[0])
    except OSError as error:
        raise config.error(
            "maillog_file", f"{path}: {error.strerror}: name a file that can be written"
        ) from error


def has_system_accounts(config: Config) -> bool:
    """Whether mail has many owners: then each role has a process of its own."""
    return names_system_accounts(config) and os.geteuid() == 0


def names_system_accounts(config: Config) -> bool:
    """Whether the accounts are users of this system, who own their mail."""
    return not {"system", "pam"}.isdisjoint(config.words("account_sources"))


class Parts:
    """The objects of one process."""

    def __init__(
        self,
        config: Config,
        log: MailLog,
        accounts: AccountDirectory | None = None,
        read_secret: Callable[[str], bytes] = read_file,
        stamp_secret: Callable[[str], tuple[int, ...]] = stamp_file,
    ) -> None:
        """A process that may not read accounts or keys itself is given who may (`separated`)."""
        self.config = config
        self.log = log
        self._given_accounts = accounts
        self._read_secret = read_secret
        self._stamp_secret = stamp_secret

    @property
    def accounts(self) -> AccountDirectory:
        """Who exists."""
        return self._given_accounts or self.account_sources

    def warn(self, service: str) -> Callable[[str], None]:
        """A function that logs warnings under that service's name."""
        return lambda text: self.log.write(service, f"warning: {text.removeprefix('warning: ')}")

    # Tables and lists.

    @cached_property
    def opener(self) -> TableOpener:
        """Opens the tables that main.cf names."""
        return TableOpener(self.config.directory, warn=self.warn("smtpd"))

    def tables(self, name: str) -> tuple[Table, ...]:
        """The lookup tables that a parameter lists."""
        return self.tables_of(self.config, name)

    def tables_of(self, config: Config, name: str) -> tuple[Table, ...]:
        """The lookup tables that a parameter lists in a row's view of the configuration."""
        return tuple(self._table(name, word, self.opener.table) for word in config.words(name))

    def secret_tables_of(self, config: Config, name: str) -> tuple[Table, ...]:
        """The same for tables of secrets, which this process may have to ask the helper for."""
        return tuple(
            self._secret_table(word, path) or self._table(name, word, self.opener.table)
            for word, path in secret_sources(config, name)
        )

    def _secret_table(self, word: str, path: str) -> Table | None:
        is_ours = not path or not os.path.exists(path) or os.access(path, os.R_OK)
        if is_ours or self._read_secret is read_file:
            return None
        return SecretTable(word, path, self._read_secret, self._stamp_secret)

    def alias_tables(self) -> tuple[Table, ...]:
        """The tables of alias_maps."""
        return tuple(
            self._table("alias_maps", w, self.opener.aliases) for w in self.config.words("alias_maps")
        )

    def _table(self, parameter: str, name: str, open_: Callable[[str], Table]) -> Table:
        try:
            return open_(name)
        except TableError as error:
            raise self.config.error(parameter, str(error)) from error

    def domains(self, name: str) -> DomainList:
        """The domains that a parameter lists."""
        words = self.config.words(name)
        parents = name in self.config.words("parent_domain_matches_subdomains")
        try:
            items = read_items(words, self.opener.table, self.config.where(name), self.config.directory)
        except TableError as error:
            raise self.config.error(name, str(error)) from error
        return DomainList(items, parents)

    def networks(self, name: str) -> NetworkList:
        """The client networks that a parameter lists."""
        try:
            words = self.config.words(name)
            items = read_items(words, self.opener.table, self.config.where(name), self.config.directory)
            return NetworkList(items)
        except TableError as error:
            raise self.config.error(name, str(error)) from error

    def names_of(self, config: Config, name: str) -> StringList:
        """The plain names that a parameter lists in a row's view of the configuration."""
        try:
            return StringList(read_items(config.words(name), self.opener.table, config.where(name)))
        except TableError as error:
            raise config.error(name, str(error)) from error

    # Accounts.

    @cached_property
    def mail_owner(self) -> MailOwner:
        """Who owns the mail of accounts without a uid of their own."""
        if os.geteuid() != 0:
            return MailOwner(os.geteuid(), os.getegid())
        virtual = self._static_id("virtual_uid_maps")
        name = self.config.string("mail_uid") or virtual or self.config.string("mail_owner")
        try:
            entry = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
        except KeyError:
            names = ("mail_uid", "virtual_uid_maps", "mail_owner")
            parameter = next(filter(self.config.string, names))
            raise self.config.error(
                parameter,
                f"{name}: no such user: useradd --system --no-create-home {name}, or name another one",
            ) from None
        return MailOwner(entry.pw_uid, int(self._static_id("virtual_gid_maps") or entry.pw_gid))

    def _static_id(self, name: str) -> str:
        """The number of a `static:` table: all virtual mail has one owner. Raises ConfigError."""
        words = self.config.words(name)
        if not words:
            return ""
        kind, _, number = words[0].partition(":")
        if len(words) > 1 or kind != "static" or not number.isdecimal():
            raise self.config.error(
                name,
                "all virtual mail has one owner here: write static:NUMBER, or put uids into the passwd-file",
            )
        return number

    @cached_property
    def account_sources(self) -> SourceDirectory:
        """The accounts of `account_sources`, in that order, with their passwords."""
        return SourceDirectory([self._source(word) for word in self.config.words("account_sources")])

    def _source(self, word: str) -> AccountSource:
        config = self.config
        if word == "passwd-file":
            path, home = config.string("passwd_file"), config.string("mail_home")
            return PasswdFile(path, self.mail_owner, home, config.string("default_pass_scheme"))
        uids = ValidUids(config.integer("first_valid_uid"), config.integer("last_valid_uid"))
        if word == "system":
            return SystemAccounts(uids)
        if word == "pam":
            return PamAccounts(Pam(config.string("pam_service")), uids)
        raise config.error("account_sources", f"unknown source {word}: write {' or '.join(_SOURCES)}")

    @cached_property
    def logged_in(self) -> LoggedIn:
        """Who is logged in to this process."""
        networks = self.networks("mynetworks")

        def is_ours(address: str) -> bool:
            try:
                return networks.find(address) is not None
            except TableError:
                return False

        return LoggedIn(self.config.integer("mail_max_userip_connections"), is_ours=is_ours)

    # Addresses.

    @cached_property
    def own_addresses(self) -> frozenset[str]:
        """The addresses of this host, and those of `proxy_interfaces`."""
        own = {str(interface.ip) for interface in self.config.host.interfaces()}
        return frozenset(own | set(self.config.words("proxy_interfaces")))

    @cached_property
    def routing(self) -> Routing:
        """Which addresses are ours, who exists, and which way mail leaves."""
        config = self.config
        relay_recipients = self.tables("relay_recipient_maps")
        local, relay = self.domains("mydestination"), self.domains("relay_domains")
        aliases, mailboxes = self.domains("virtual_alias_domains"), self.domains("virtual_mailbox_domains")
        return Routing(
            my_origin=config.string("myorigin"),
            is_my_destination=local.has,
            accounts=self.accounts,
            alias_maps=self.alias_tables(),
            recipient_delimiter=config.string("recipient_delimiter"),
            is_own_literal=lambda literal: literal.lower().removeprefix("ipv6:") in self.own_addresses,
            is_relay_domain=relay.has,
            is_virtual_alias_domain=aliases.has,
            is_virtual_mailbox_domain=mailboxes.has,
            domain_tables=(*local.tables, *relay.tables, *aliases.tables, *mailboxes.tables),
            virtual_alias_maps=self.tables("virtual_alias_maps"),
            virtual_mailbox_maps=self.tables("virtual_mailbox_maps"),
            relay_recipient_maps=relay_recipients or None,
            transport_maps=self.tables("transport_maps"),
            canonical_maps=self.canonical_tables("recipient", "envelope_recipient"),
            sender_canonical_maps=self.canonical_tables("sender", "envelope_sender"),
            relocated_maps=self.tables("relocated_maps"),
            relayhost=config.string("relayhost"),
            local_transport=config.string("local_transport"),
            virtual_transport=config.string("virtual_transport"),
            relay_transport=config.string("relay_transport"),
            default_transport=config.string("default_transport"),
            sender_dependent_relayhost_maps=self.tables("sender_dependent_relayhost_maps"),
            sender_dependent_default_transport_maps=self.tables("sender_dependent_default_transport_maps"),
            propagate_unmatched_extensions=frozenset(config.words("propagate_unmatched_extensions")),
            append_at_myorigin=config.string(
                "myorigin" if config.boolean("append_at_myorigin") else "myhostname"
            ),
            append_dot_mydomain=config.string("mydomain") if config.boolean("append_dot_mydomain") else "",
            masquerade=self.masquerade("envelope_sender"),
            srs=self._srs(),
            luser_relay=config.raw("luser_relay"),
            local_recipient_maps=self._local_recipients(),
            accept_all_local=not config.string("local_recipient_maps"),
        )

    def _local_recipients(self) -> tuple[Table, ...] | None:
        """The tables of local_recipient_maps; None where it is accounts and aliases alone."""
        name, aliases = "local_recipient_maps", self.config.words("alias_maps")
        words = self.config.words(name)
        if set(words) - _ACCOUNTS == set(aliases) and not _ACCOUNTS.isdisjoint(words):
            return None
        return tuple(
            AccountTable(self.accounts)
            if word in _ACCOUNTS
            else self._table(name, word, self.opener.aliases if word in aliases else self.opener.table)
            for word in words
        )

    def _srs(self) -> Srs | None:
        """How mail that is forwarded gets a sender of ours; None where bounces would not come back to us."""
        domain = self.config.string("srs_domain")
        if not domain or not self.domains("mydestination").has(domain.lower()):
            return None
        path = os.path.join(self.config.string("queue_directory"), "srs-secret")
        owner = (self.mail_owner.uid, self.mail_owner.gid) if os.geteuid() == 0 else None
        return Srs(domain, Secret(path, owner), time.time)

    def masquerade(self, place: str) -> Callable[[Address], Address]:
        """What masquerade_domains does to addresses there, where masquerade_classes has the place."""
        config = self.config
        if place not in config.words("masquerade_classes"):
            return lambda address: address
        exceptions = frozenset(word.lower() for word in config.words("masquerade_exceptions"))
        return Masquerade(config.words("masquerade_domains"), exceptions)

    @cached_property
    def completion(self) -> Completion:
        """What local addresses lack. append_at_myorigin, append_dot_mydomain."""
        config = self.config
        return self._completion(config.string("myorigin"), config.string("mydomain"))

    def _completion(self, origin: str, domain: str) -> Completion:
        config = self.config
        return Completion(
            origin.encode() if config.boolean("append_at_myorigin") else b"",
            domain.encode() if config.boolean("append_dot_mydomain") else b"",
        )

    def header_rewriting(self, completion: Completion) -> Callable[[bytes], bytes]:
        """What becomes of addresses in headers that are completed so."""
        routing = self.routing
        maps = ("canonical_maps", "sender_canonical_maps", "recipient_canonical_maps", "masquerade_domains")
        if not any(map(self.config.string, maps)):
            return completion.header

        def change(side: str) -> Callable[[Address], Address]:
            tables = self.canonical_tables(side, f"header_{side}")
            masquerade = self.masquerade(f"header_{side}")
            return lambda address: masquerade(routing.canonical(tables, address))

        rewriting = HeaderRewriting(change("sender"), change("recipient"))
        return lambda header: rewriting(completion.header(header))

    def canonical_tables(self, side: str, place: str) -> tuple[Table, ...]:
        """The canonical tables for `side` (sender, recipient) that its classes want used at `place`."""
        names = (f"{side}_canonical", "canonical")
        found = (
            self.tables(f"{name}_maps") for name in names if place in self.config.words(f"{name}_classes")
        )
        return tuple(table for tables in found for table in tables)

    @cached_property
    def local_rules(self) -> LocalRules:
        """The rules of local delivery."""
        config = self.config
        return LocalRules(
            default_privs=self.default_privs,
            allow_mail_to_commands=frozenset(config.words("allow_mail_to_commands")),
            allow_mail_to_files=frozenset(config.words("allow_mail_to_files")),
            forward_path=config.raw("forward_path"),
            mailbox_transport=config.string("mailbox_transport"),
            mailbox_transport_maps=self.tables("mailbox_transport_maps"),
            mailbox_command=config.raw("mailbox_command"),
            mailbox_command_maps=self.tables("mailbox_command_maps"),
            home_mailbox=config.string("home_mailbox"),
            mail_spool_directory=config.string("mail_spool_directory"),
            virtual_mailbox_base=config.string("virtual_mailbox_base"),
            virtual_owner=self._virtual_owner(),
            inbox_of=lambda account: _path_of(self.store.layout_for(account)),
            fallback_transport=config.string("fallback_transport"),
            fallback_transport_maps=self.tables("fallback_transport_maps"),
            luser_relay=config.raw("luser_relay"),
            expand_owner_alias=config.boolean("expand_owner_alias"),
            reset_owner_alias=config.boolean("reset_owner_alias"),
            virtual_alias_recursion_limit=config.integer("virtual_alias_recursion_limit"),
            virtual_alias_expansion_limit=config.integer("virtual_alias_expansion_limit"),
            virtual_alias_address_length_limit=config.integer("virtual_alias_address_length_limit"),
            duplicate_filter_limit=config.integer("duplicate_filter_limit"),
        )

    def _virtual_owner(self) -> Owner | None:
        """Who owns virtual mailboxes without an account, where tables make some."""
        if not self.config.words("virtual_mailbox_maps"):
            return None
        return Owner("virtual", self.mail_owner.uid, self.mail_owner.gid, "/")

    @cached_property
    def default_privs(self) -> Owner:
        """With whose rights commands and files of aliases are used."""
        if os.geteuid() != 0:
            me = os.geteuid()
            return Owner("mailserver", me, os.getegid(), "/")
        name = self.config.string("default_privs")
        try:
            owner = owner_named(name)
        except KeyError:
            raise self.config.error(
                "default_privs", f"{name}: no such user: name an unprivileged one"
            ) from None
        if owner.uid == 0:
            raise self.config.error("default_privs", f"{name}: is root: name an unprivileged user")
        return owner

    # Queue.

    @cached_property
    def queue(self) -> QueueDirectory:
        """The queue under `queue_directory`."""
        config = self.config
        return QueueDirectory(
            config.string("queue_directory"),
            clock=time.time,
            warn=self.warn("qmgr"),
            worker=os.getpid(),
            long_ids=config.boolean("enable_long_queue_ids"),
            minimum_free=config.octets("queue_minfree"),
            message_size_limit=config.octets("message_size_limit"),
            complete=self.copies.added_to if any(map(config.string, _COPIES)) else None,
        )

    @cached_property
    def copies(self) -> Copies:
        """The recipients that new mail gets besides its own."""
        config = self.config
        return Copies(
            routing=self.routing,
            always_bcc=config.string("always_bcc"),
            sender_bcc_maps=self.tables("sender_bcc_maps"),
            recipient_bcc_maps=self.tables("recipient_bcc_maps"),
            warn=self.warn("cleanup"),
        )

    @cached_property
    def cleanup_rules(self) -> CleanupRules:
        """What is done to content on its way in."""
        config = self.config
        return CleanupRules(
            drop=frozenset(word.lower().encode() for word in config.words("message_drop_headers")),
            hopcount_limit=config.integer("hopcount_limit"),
            message_size_limit=config.octets("message_size_limit"),
            header_size_limit=config.octets("header_size_limit"),
            checks=CheckTables(
                header_checks=self.tables("header_checks"),
                mime_header_checks=self.tables("mime_header_checks"),
                nested_header_checks=self.tables("nested_header_checks"),
                body_checks=self.tables("body_checks"),
                body_checks_size_limit=config.octets("body_checks_size_limit"),
                mime_nesting_limit=config.integer("mime_nesting_limit"),
            ),
            rewrite=self.header_rewriting(self.completion),
            rewrite_remote=self._remote_rewriting(),
        )

    def _remote_rewriting(self) -> Callable[[bytes], bytes] | None:
        """What becomes of headers from elsewhere: nothing without remote_header_rewrite_domain."""
        domain = self.config.string("remote_header_rewrite_domain")
        return self.header_rewriting(self._completion(domain, domain)) if domain else None

    @cached_property
    def retry_times(self) -> RetryTimes:
        """When deferred mail is tried again, and given up."""
        config = self.config
        return RetryTimes(
            minimum=config.seconds("minimal_backoff_time"),
            maximum=config.seconds("maximal_backoff_time"),
            lifetime=config.seconds("maximal_queue_lifetime"),
            bounce_lifetime=config.seconds("bounce_queue_lifetime"),
            warning=config.seconds("delay_warning_time"),
        )

    # Store and TLS: see there. Commands that need neither do not import them.

    @cached_property
    def store(self) -> StoreParts:
        """Where mail lies, and by which rules it is kept."""
        from mailserver.roles.store_parts import StoreParts

        return StoreParts(self.config, lambda: self.tables("virtual_mailbox_maps"), self.warn("imap"))

    @cached_property
    def tls(self) -> TlsParts:
        """Certificates, and the TLS of listeners and clients."""
        from mailserver.roles.tls_parts import TlsParts

        return TlsParts(self.tables_of, self.warn, self._read_secret, self._stamp_secret)


def secret_sources(config: Config, name: str) -> Iterator[tuple[str, str]]:
    """The tables that a parameter lists, each with its source's path, "" where it has none."""
    for word in config.words(name):
        kind, argument = split_name(word)
        has_source = kind in ("hash", "btree", "lmdb", "texthash")
        yield word, os.path.join(config.directory, argument) if has_source else ""


def _path_of(layout: Layout) -> str:
    """INBOX as delivery names it."""
    return f"{layout.inbox}/" if layout.inbox_kind is Kind.MAILDIR else layout.inbox


__all__ = ["ConfigError", "Parts", "has_system_accounts", "mail_log"]
