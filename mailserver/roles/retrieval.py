"""POP3 and IMAP from the configuration: store, settings, factories."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from mailserver import __version__
from mailserver.accounts import passwd_file_edit
from mailserver.accounts.account import Account
from mailserver.accounts.groups import groups_of
from mailserver.accounts.logged_in import LoggedIn
from mailserver.accounts.login import Logins
from mailserver.accounts.passwd_file_edit import EditError
from mailserver.config.config import Config
from mailserver.imapd.factory import ImapFactory
from mailserver.imapd.settings import ImapSettings
from mailserver.imapd.url_access import UrlServer
from mailserver.pop3d.factory import Pop3Factory
from mailserver.pop3d.service import Service as Pop3Service
from mailserver.pop3d.settings import Pop3Settings
from mailserver.rawlog import RawLog
from mailserver.roles.client_certificates import certificate_logins
from mailserver.roles.logins import mechanisms, trusted_networks
from mailserver.roles.parts import Parts
from mailserver.roles.permission import is_user_of_system
from mailserver.roles.public import reachable
from mailserver.store.acl_files import AclFiles
from mailserver.store.contract import AccessDenied, StoreFailure, StoreRegistry
from mailserver.store.format import MailboxFormat
from mailserver.store.mbox import MboxFormat
from mailserver.store.notices import Notices
from mailserver.store.quota_rules import Limits, relimited
from mailserver.store.registry import FileStoreRegistry, layout_of, state_name
from mailserver.store.shared_boxes import OWN_INDEX, SharedBoxes
from mailserver.store.sharing import SharingRegistry
from mailserver.threads import Threads

QUOTA_RULE: Final = "userdb_quota_rule"


def imap_settings(config: Config) -> ImapSettings:
    """The settings of the IMAP server. Raises ConfigError."""
    return ImapSettings(
        greeting=config.string("login_greeting"),
        message_size_limit=config.octets("message_size_limit"),
        allow_plaintext=allows_plaintext(config),
        trusted_networks=trusted_networks(config),
        mechanisms=mechanisms(config),
        certificates=certificate_logins(config),
        identity=identity(config.words("imap_id_send")),
        id_log=tuple(word.lower() for word in config.words("imap_id_log")),
        capability=config.string("imap_capability"),
        logout_format=config.string("imap_logout_format"),
        login_timeout=config.seconds("login_timeout"),
        idle_timeout=config.seconds("imap_timeout"),
        idle_notify_interval=config.seconds("imap_idle_notify_interval"),
        line_limit=config.octets("imap_max_line_length"),
        acl_anyone=config.string("acl_anyone") == "allow",
        urls=url_server(config),
    )


def url_server(config: Config) -> UrlServer:
    """Which IMAP URLs are this server's. Raises ConfigError."""
    return UrlServer(config.string("imap_urlauth_host"), config.integer("imap_urlauth_port"))


def pop3_settings(config: Config) -> Pop3Settings:
    """The settings of the POP3 server. Raises ConfigError."""
    try:
        return Pop3Settings(
            greeting=config.string("login_greeting"),
            uidl_format=config.string("pop3_uidl_format"),
            allow_plaintext=allows_plaintext(config),
            trusted_networks=trusted_networks(config),
            mechanisms=mechanisms(config),
            certificates=certificate_logins(config),
            marks_seen=not config.boolean("pop3_no_flag_updates"),
            reuses_old_ids=config.boolean("pop3_reuse_xuidl"),
            logout_format=config.string("pop3_logout_format"),
            login_timeout=config.seconds("login_timeout"),
            idle_timeout=config.seconds("pop3_timeout"),
        )
    except ValueError as error:
        raise config.error("pop3_uidl_format", str(error)) from error


def identity(words: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """The pairs of imap_id_send: `*` is what we know of the field. Dovecot's wiki, imap_id_send."""
    system = os.uname()
    known = {
        "name": "mailserver", "version": __version__, "os": system.sysname, "os-version": system.release,
    }  # fmt: skip
    pairs = zip(words[::2], words[1::2], strict=False)
    return tuple((name, known.get(name.lower(), "") if value == "*" else value) for name, value in pairs)


def allows_plaintext(config: Config) -> bool:
    """Whether passwords may travel without TLS from anywhere."""
    return not config.boolean("disable_plaintext_auth")


def make_registry(parts: Parts, threads: Threads, reactor: Any) -> tuple[FileStoreRegistry, Notices]:
    """The stores of this process, and whoever tells them of changes; the notices are not started."""
    config = parts.config
    notices = Notices(reactor, threads, parts.log)
    mboxrd = config.string("mbox_quoting") == "mboxrd"

    def make_mbox(path: str, journals: str) -> MailboxFormat:
        return MboxFormat(path, journals, mboxrd=mboxrd, rules=parts.store.lock_rules)

    registry = FileStoreRegistry(
        parts.store.layout_for,
        _accounts_directory(config),
        config.string("myhostname"),
        notices,
        parts.log,
        make_mbox,
        expunge_grace=config.seconds("expunge_grace"),
        quota_rules=config.string("quota_rule"),
        quota_warnings=parts.store.quota_warnings,
    )
    notices.chores.append(registry.sweep)
    return registry, notices


def _accounts_directory(config: Config) -> str:
    return os.path.join(config.string("state_directory"), "accounts")


def behind_acls(parts: Parts, files: FileStoreRegistry, whose: Account | None = None) -> StoreRegistry:
    """The stores as sessions see them: with what others share, as far as ACLs say. Raises ConfigError.

    Where this process is one account's (`whose`) it reaches that account's mail and the public namespaces
    that its groups let it reach, and says in an index of its own whom the account shares with
    (`roles.neighbours`).
    """
    config = parts.config
    _ = parts.store.personal_namespace
    if not config.string("acl"):
        return files
    rules = parts.store.namespace_rules
    acls = AclFiles(partial(layout_of, layout_for=parts.store.layout_for), parts.warn("imap"))
    if whose is None:
        boxes = SharedBoxes(config.string("acl_shared_dict").removeprefix("file:"))
        lookup, limit = parts.accounts.lookup, partial(_limit, parts, files)
        return SharingRegistry(files, acls, boxes, lookup, groups_of, rules, parts.store.global_acls, limit)
    shared_prefix = rules.shared_prefix if is_user_of_system(whose) else ""
    rules = replace(rules, shared_prefix=shared_prefix, public=reachable(parts, _accounts_directory(config)))
    boxes = own_index(config, whose)

    def own(name: str) -> Account | None:
        return whose if name == whose.name else None

    return SharingRegistry(
        files, acls, boxes, own, groups_of, rules, parts.store.global_acls, reaches_all=False
    )


def own_index(config: Config, account: Account) -> SharedBoxes:
    """Where an account of many owners says whom it shares with."""
    directory = os.path.join(_accounts_directory(config), state_name(account))
    return SharedBoxes(os.path.join(directory, OWN_INDEX), of_any_right=True)


def _limit(parts: Parts, files: FileStoreRegistry, account: Account, limits: Limits) -> None:
    """The account's limits stand in the passwd-file, and count from now on. Raises StoreError."""
    rule = relimited(account.extra.get(QUOTA_RULE, ""), limits)
    try:
        passwd_file_edit.set_extra(parts.config.string("passwd_file"), account.name, QUOTA_RULE, rule)
    except EditError as error:
        raise AccessDenied(f"{error}: its quota is set elsewhere") from error
    except OSError as error:
        parts.warn("imap")(f"passwd_file: {error}: quota not set")
        raise StoreFailure("The quota cannot be written for now") from error
    changed = parts.accounts.lookup(account.name)
    if changed is not None:
        files.relimit(changed)


class RetrievalListeners:
    """Makes the factories of the POP3 and IMAP listeners of a process."""

    def __init__(
        self,
        parts: Parts,
        threads: Threads,
        reactor: Any,
        logins: Logins | None,
        registry: StoreRegistry | None,
        handovers: Mapping[str, Any] | None = None,
    ) -> None:
        """A front has no registry but `handovers`; a session host has a registry and no logins."""
        self._parts = parts
        self._threads = threads
        self._reactor = reactor
        self._logins: Any = logins
        self._registry: Any = registry
        self._handovers = handovers or {}
        self._rawlog = RawLog(_accounts_directory(parts.config), parts.log)

    def imap(self, config: Config) -> ImapFactory:
        """The factory of one IMAP listener. Raises ConfigError."""
        return ImapFactory(imap_settings(config), *self._common(), *self._for_clients("imap", config))

    def pop3(self, config: Config) -> Pop3Factory:
        """The factory of one POP3 listener. Raises ConfigError."""
        return Pop3Factory(
            Pop3Service(pop3_settings(config), *self._common(), *self._for_clients("pop3", config))
        )

    def imap_host(self, config: Config) -> ImapFactory:
        """The factory of the IMAP sessions that fronts hand over: TLS stays in the front."""
        return ImapFactory(imap_settings(config), *self._common(), rawlog=self._rawlog)

    def pop3_host(self, config: Config) -> Pop3Factory:
        """The same for POP3."""
        return Pop3Factory(Pop3Service(pop3_settings(config), *self._common(), rawlog=self._rawlog))

    def _common(self) -> tuple[Any, Any, Any, Any, Any]:
        return self._logins, self._registry, self._threads, self._reactor, self._parts.log

    def _for_clients(self, service: str, config: Config) -> tuple[Any, Any, LoggedIn, RawLog]:
        """What the factory of a listener has besides, whom clients reach directly."""
        handover = self._handovers.get(service)
        return self._tls(service, config), handover, self._parts.logged_in, self._rawlog

    def _tls(self, service: str, config: Config) -> Any:
        return self._parts.tls.server(service, config) if config.string("ssl") != "no" else None
