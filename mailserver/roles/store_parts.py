"""From main.cf to the rules of the store: where mail lies, namespaces, ACLs, quotas and locks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property

from mailserver.accounts.account import Account
from mailserver.config.config import Config
from mailserver.delivery.lookups import virtual_mailbox
from mailserver.store.acl import BadAcl
from mailserver.store.contract import StoreFailure
from mailserver.store.global_acls import GlobalAcls
from mailserver.store.layout import Layout, layout_at, layout_for, parse_location, with_dovecots_separator
from mailserver.store.locking import LockRules
from mailserver.store.namespaces import (
    NamespaceRules,
    PublicNamespace,
    checked_prefix,
    checked_shared_prefix,
)
from mailserver.store.quota_rules import Grace, QuotaWarning, parse_grace, parse_rules, parse_warnings
from mailserver.tables.table import Table, TableError


class StoreParts:
    """What a process knows of the store; each is read when it is first asked for."""

    def __init__(
        self, config: Config, virtual_mailboxes: Callable[[], tuple[Table, ...]], warn: Callable[[str], None]
    ) -> None:
        self._config = config
        self._virtual_mailboxes = virtual_mailboxes
        self._warn = warn

    @cached_property
    def quota_warnings(self) -> tuple[QuotaWarning, ...]:
        """What is run when little room is left. Raises ConfigError."""
        try:
            parse_rules(self._config.string("quota_rule"))
        except ValueError as error:
            raise self._config.error("quota_rule", str(error)) from error
        try:
            return parse_warnings(self._config.string("quota_warning"))
        except ValueError as error:
            raise self._config.error("quota_warning", str(error)) from error

    @cached_property
    def quota_grace(self) -> Grace:
        """How far delivered mail may lead over a quota. Raises ConfigError."""
        try:
            return parse_grace(self._config.string("quota_grace"))
        except ValueError as error:
            raise self._config.error("quota_grace", str(error)) from error

    def layout_for(self, account: Account) -> Layout:
        """Where the account's mail lies. *Blocking*, for virtual accounts. Raises StoreFailure."""
        layout = self._place_for(account)
        separator, prefix = self.personal_namespace
        if not separator:
            return with_dovecots_separator(layout)
        return replace(layout, separator=separator, prefix=prefix)

    @cached_property
    def personal_namespace(self) -> tuple[str, str]:
        """The separator, "" for the format's own, and the prefix, "" or `INBOX/`. Raises ConfigError."""
        separator = self._config.string("namespace_separator")
        prefix = self._config.string("namespace_prefix")
        if prefix and not prefix.endswith(separator or "/"):
            raise self._config.error(
                "namespace_prefix",
                f"{prefix} does not end in the namespace_separator {separator}: change one",
            )
        return separator, "INBOX/" if prefix else ""

    def _place_for(self, account: Account) -> Layout:
        config = self._config
        if "@" in account.name and not account.mail:
            base = config.string("virtual_mailbox_base")
            try:
                place = virtual_mailbox(self._virtual_mailboxes(), base, account.name)
            except TableError as error:
                raise StoreFailure("The mail of the account cannot be found") from error
            if place is not None:
                return layout_at(place[0], account)
        return layout_for(
            account,
            config.string("mail_location"),
            config.string("mail_spool_directory"),
            config.string("home_mailbox"),
        )

    @cached_property
    def global_acls(self) -> GlobalAcls:
        """The administrator's ACLs, read. Raises ConfigError."""
        backend, _, rest = self._config.string("acl").partition(":")
        path, *options = rest.split(":")
        if backend not in ("", "vfile") or not all(option.startswith("cache_secs=") for option in options):
            raise self._config.error("acl", "write vfile, vfile:/path/to/global-acls, or nothing")
        try:
            return GlobalAcls(path, self._warn)
        except IsADirectoryError as error:
            raise self._config.error("acl", f"{path}: a directory: write one file instead") from error
        except (OSError, BadAcl) as error:
            raise self._config.error("acl", f"{path}: {error}: write lines as: Public/* anyone lr") from error

    @cached_property
    def namespace_rules(self) -> NamespaceRules:
        """Whose mailboxes a session may reach besides its own. Raises ConfigError."""
        config = self._config
        try:
            shared = checked_shared_prefix(config.string("shared_namespace"))
        except ValueError as error:
            raise config.error("shared_namespace", f"{error}: write shared/%u/") from error
        public = [self._public_namespace(word) for word in config.words("public_namespaces")]
        prefixes = [shared.removesuffix("%u/"), *(each.prefix for each in public)]
        if len(set(prefixes)) < len(prefixes):
            raise config.error("public_namespaces", "two namespaces have one prefix: name one otherwise")
        return NamespaceRules(shared, public, self._private_seen(shared, public))

    def _private_seen(self, shared: str, public: Sequence[PublicNamespace]) -> frozenset[str]:
        r"""The prefixes of namespaces where each user has a \Seen of his own. Raises ConfigError."""
        known = {each for each in (shared, *(namespace.prefix for namespace in public)) if each}
        named = {_bare(word).replace("%%", "%") for word in self._config.words("private_seen")}
        if "all" in named or self._config.string("mail_index_private_path"):
            return frozenset(known)
        if not named <= known:
            wrong = sorted(named - known)[0]
            raise self._config.error(
                "private_seen", f"{wrong} is no namespace's prefix: write {', '.join(sorted(known))} or all"
            )
        return frozenset(named | {each.prefix for each in public if each.has_private_index})

    def _public_namespace(self, word: str) -> PublicNamespace:
        prefix, _, location = _bare(word).partition("=")
        try:
            found = PublicNamespace(checked_prefix(prefix.strip()), location.strip())
            parse_location(found.location, found.account())
        except ValueError as error:
            raise self._config.error(
                "public_namespaces", f"{error}: write PREFIX/=LOCATION, say Public/=maildir:/var/mail/public"
            ) from error
        return found

    @cached_property
    def lock_rules(self) -> LockRules:
        """How long mailbox locks are tried for, and when one counts as left behind."""
        config = self._config
        patience = config.integer("deliver_lock_attempts") * config.seconds("deliver_lock_delay")
        return LockRules(patience=patience, stale_after=config.seconds("stale_lock_time"))


def _bare(word: str) -> str:
    """An item of a list without the braces around it."""
    return word.removeprefix("{").removesuffix("}").strip()
