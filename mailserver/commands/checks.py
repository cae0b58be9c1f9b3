"""What is wrong with a configuration and with the files it names: one line each, with the cure.

For `mailserver check` and `postfix check`. Nothing is changed. A problem that is fatal keeps the
server from starting; any other is a warning.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, cast

from twisted.internet.task import Clock

from mailserver.accounts.account import TemporaryAccountFailure
from mailserver.accounts.login import Logins
from mailserver.commands.login_checks import login_problems
from mailserver.config.config import Config
from mailserver.config.listeners import Listener, listeners
from mailserver.config.read import ConfigError, read_config
from mailserver.delivery.job import Owner
from mailserver.delivery.user_files import read_forward
from mailserver.dns import Resolver
from mailserver.maillog import ListLog
from mailserver.roles.input_options import pickup_view
from mailserver.roles.instance import running_pid
from mailserver.roles.listening import StartFailed, bind_all
from mailserver.roles.milters import milter_rules
from mailserver.roles.parts import Parts, has_system_accounts
from mailserver.roles.public import problems_of_public
from mailserver.roles.smtp import SmtpListeners
from mailserver.roles.transports import transport_names
from mailserver.secret_files import read_file
from mailserver.tables.index import SUFFIX
from mailserver.tables.open import open_table
from mailserver.tables.patterns import PatternTable
from mailserver.tables.table import TableError
from mailserver.threads import Inline
from mailserver.tls import CertificateError, days_left

SOON: Final = 14  # days before its end in which a certificate is warned about
_TABLE: Final = re.compile(r"\b(hash|btree|dbm|lmdb|texthash|cidr|regexp|pcre):(/[^\s,{}]+)")
_INDEXED: Final = frozenset(("hash", "btree", "dbm", "lmdb"))
_OF_RULES: Final = frozenset({"cidr", "regexp", "pcre"})
_PAM_DIRECTORIES: Final = ("/etc/pam.d", "/usr/lib/pam.d")  # pam.d(5)
_TRANSPORTS: Final = (
    "local_transport",
    "virtual_transport",
    "relay_transport",
    "default_transport",
    "mailbox_transport",
    "fallback_transport",
)
_SECRETS: Final = ("passwd_file", "smtpd_tls_key_file", "smtpd_tls_eckey_file")


@dataclass(frozen=True, slots=True)
class Problem:
    """`text` says what is wrong, where, and how to mend it."""

    text: str
    is_fatal: bool = False


class Checks:
    """All checks of one configuration. `config` is None where it cannot be read at all."""

    def __init__(self, config_directory: str | None) -> None:
        self.config: Config | None = None
        self.listeners: list[Listener] = []
        self.relay_is_safe = False
        self.pid = 0
        self.problems: list[Problem] = []
        try:
            self.config = read_config(config_directory, os.environ)
            self.problems += map(Problem, self.config.warnings)
            self.pid = running_pid(self.config)
            self.listeners = listeners(self.config)
        except ConfigError as error:
            self.problems.append(Problem(str(error), is_fatal=True))
        if self.config is not None:
            self._parts = Parts(self.config, ListLog())
            for check in _ALL:
                self.problems += check(self)

    @property
    def parts(self) -> Parts:
        """The objects made from the configuration, with a log that nobody reads."""
        return self._parts

    @property
    def is_fatal(self) -> bool:
        """Whether the server would not start."""
        return any(problem.is_fatal for problem in self.problems)


def _given(checks: Checks) -> Config:
    assert checks.config is not None
    return checks.config


def _names(checks: Checks) -> Iterator[Problem]:
    config = _given(checks)
    name = config.string("myhostname")
    if "." not in name or name.endswith(".localdomain"):
        yield Problem(
            f"{config.where('myhostname')}: myhostname: {name} is not fully qualified: "
            "other hosts refuse it: write the name that DNS has for this host"
        )


def _files(checks: Checks) -> Iterator[Problem]:
    """Files that decide where mail goes, and secrets, that somebody else may write or put in their place."""
    config = _given(checks)
    secrets = [(name, path) for name in _SECRETS if (path := config.string(name))]
    paths = [f"{config.directory}/main.cf", f"{config.directory}/master.cf", *(path for _, path in secrets)]
    for kind, path in _tables(config):
        paths += [path, path + SUFFIX] if kind in _INDEXED else [path]
    try:
        trusted = {0, os.geteuid(), checks.parts.mail_owner.uid}
    except (ConfigError, OSError):
        trusted = {0, os.geteuid()}
    for path in dict.fromkeys((*map(os.path.dirname, paths), *paths)):
        status = _status(path)
        if status is None:
            continue
        may_all_write = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if may_all_write and not status.st_mode & stat.S_ISVTX:
            yield Problem(f"group or other writable: {path}: chmod go-w {path}")
        if status.st_uid not in trusted:
            yield Problem(f"{path} belongs to uid {status.st_uid}, who may change it: chown root {path}")
    for parameter, path in secrets:
        status = _status(path)
        if status is not None and status.st_mode & stat.S_IROTH:
            yield Problem(
                f"{config.where(parameter)}: {parameter}: {path} is readable by others: chmod o-r {path}"
            )


def _status(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None


def _directories(checks: Checks) -> Iterator[Problem]:
    config = _given(checks)
    spool = config.string("mail_spool_directory").rstrip("/")
    if not config.string("home_mailbox") and not os.path.isdir(spool):
        where = config.where("mail_spool_directory")
        yield Problem(f"{where}: mail_spool_directory: {spool}: there is no such directory: mkdir -p {spool}")
    for parameter in ("queue_directory", "state_directory"):
        path = config.string(parameter)
        parent = path
        while not os.path.exists(parent):
            parent = os.path.dirname(parent)
        if not os.path.isdir(parent) or not os.access(parent, os.W_OK | os.X_OK):
            text = f"{path}: cannot be written: create it for the user of the server"
            yield Problem(f"{config.where(parameter)}: {parameter}: {text}")


def _queue_owner(checks: Checks) -> Iterator[Problem]:
    """A queue that belongs to somebody else than the server will be."""
    config = _given(checks)
    queue = config.string("queue_directory")
    try:
        owner = checks.parts.mail_owner.uid
        found = {name: os.stat(f"{queue}/{name}") for name in ("incoming", "deferred", "hold", "maildrop")}
    except (OSError, ConfigError):
        return  # it is made at the start, or another check says what is wrong
    if os.geteuid() not in (0, owner):
        return
    for name, status in found.items():
        if status.st_uid != owner:
            name_of_owner = config.string("mail_owner")
            text = f"{queue}/{name} belongs to uid {status.st_uid}, not to {name_of_owner}"
            yield Problem(f"{text}: chown -R {name_of_owner} {queue}/{name}")
        others = stat.S_IMODE(status.st_mode) & 0o077
        if others and name != "maildrop":
            yield Problem(f"{queue}/{name} is open to others: chmod 700 {queue}/{name}")


def _tables(config: Config) -> Iterator[tuple[str, str]]:
    """Type and path of every table that a parameter in use names."""
    found: dict[tuple[str, str], None] = {}
    for name in (*config.settings, "alias_maps"):
        try:
            text = config.string(name) if config.is_known(name) else ""
        except ConfigError:
            continue
        found.update(dict.fromkeys((match[1], match[2]) for match in _TABLE.finditer(text)))
    return iter(found)


def _table_files(checks: Checks) -> Iterator[Problem]:
    for kind, path in _tables(_given(checks)):
        index = path + SUFFIX
        changed, indexed = _changed(path), _changed(index) if kind in _INDEXED else None
        if changed is None and indexed is None:
            text = f"open {kind}:{path}: No such file or directory: create it, or remove it from main.cf"
            yield Problem(text)
        elif changed is not None and indexed is not None and changed > indexed:
            command = "postalias" if "alias" in os.path.basename(path) else "postmap"
            yield Problem(f"database {index} is older than source file {path}: run {command} {path}")
        elif changed is not None and kind in _OF_RULES:
            yield from _bad_rules(kind, path)


def _bad_rules(kind: str, path: str) -> Iterator[Problem]:
    """Rules of a table that cannot be read: what they would say of a key is unknown."""
    table = open_table(f"{kind}:{path}")
    assert isinstance(table, PatternTable)
    with contextlib.suppress(TableError):
        for warning in table.warnings():
            yield Problem(f"{warning}: mail that reaches this rule waits: mend it")


def _changed(path: str) -> float | None:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return None


def _access_file(checks: Checks) -> Iterator[Problem]:
    """An access file beside main.cf that no restriction names does nothing."""
    config = _given(checks)
    path = f"{config.directory}/access"
    if os.path.exists(path) and path not in {table for _, table in _tables(config)}:
        yield Problem(
            f"{path}: no restriction names this file, so it has no effect: add "
            f"check_client_access hash:{path} to smtpd_relay_restrictions, or remove it"
        )


def _tls(checks: Checks) -> Iterator[Problem]:
    """Certificates that cannot be used, or not for long."""
    seen = set()
    for listener in checks.listeners:
        service = {"smtpd": "smtp", "pop3d": "pop3", "imapd": "imap"}[listener.service]
        view = listener.config
        files = tuple(checks.parts.tls.key_pair_files(view))
        if files in seen:
            continue
        seen.add(files)
        where = view.where("smtpd_tls_cert_file")
        try:
            checks.parts.tls.server(service, view)
        except (ConfigError, CertificateError) as error:
            yield Problem(str(error), is_fatal=True)
            continue
        if not files and listener.implicit_tls:
            text = "begins with TLS and there is no certificate: name one, or remove the row"
            yield Problem(f"{listener.where}: {text}", is_fatal=True)
        for pair in files:
            left = days_left(read_file(pair.certificate), time.time())
            if left < SOON:
                state = "has expired" if left < 0 else f"expires in {int(left)} days"
                yield Problem(f"{where}: smtpd_tls_cert_file: {pair.certificate} {state}: renew it")


def _relaying(checks: Checks) -> Iterator[Problem]:
    """Access rules that cannot be used, or that would let strangers relay."""
    clock = Clock()
    try:
        smtp = SmtpListeners(
            checks.parts, Inline(), clock, Resolver(clock), cast(Logins, None), lambda message: None
        )
        for listener in checks.listeners:
            if listener.service == "smtpd":
                smtp.policy(listener.config)
                smtp.milters(listener.config)
        checks.relay_is_safe = True
    except (ConfigError, OSError) as error:
        yield Problem(str(error), is_fatal=True)


def _parts(checks: Checks) -> Iterator[Problem]:
    """What the server makes at its start."""
    parts = checks.parts
    wanted: list[Callable[[], object]] = [
        lambda: parts.routing, lambda: parts.local_rules, lambda: parts.retry_times,
        lambda: parts.cleanup_rules, lambda: parts.mail_owner, lambda: parts.store.namespace_rules,
        lambda: parts.store.personal_namespace,
    ]  # fmt: skip
    for make in wanted:
        try:
            make()
        except ConfigError as error:
            yield Problem(str(error), is_fatal=True)


def _public_namespaces(checks: Checks) -> Iterator[Problem]:
    """Those that users of the system cannot share."""
    if has_system_accounts(_given(checks)):
        with suppress(ConfigError):  # told by `_parts`
            yield from map(Problem, problems_of_public(checks.parts))


def _burl(checks: Checks) -> Iterator[Problem]:
    """Listeners that were to have BURL, and have none."""
    for config in (each.config for each in checks.listeners if each.service == "smtpd"):
        if not config.boolean("smtpd_burl_enable"):
            continue
        where = f"{config.where('smtpd_burl_enable')}: smtpd_burl_enable"
        if not config.string("imap_urlauth_host"):
            yield Problem(f"{where}: there is no BURL without imap_urlauth_host: name the host of IMAP URLs")
        elif has_system_accounts(_given(checks)):
            yield Problem(f"{where}: there is no BURL where users of the system have mail: take it out")


def _logins(checks: Checks) -> Iterator[Problem]:
    """What keeps people from logging in."""
    try:
        yield from map(Problem, login_problems(_given(checks), checks.listeners))
    except ConfigError as error:
        yield Problem(str(error), is_fatal=True)


def _pam(checks: Checks) -> Iterator[Problem]:
    """A service that no file describes: PAM asks `other` then, which often denies everybody."""
    config = _given(checks)
    service = config.string("pam_service")
    if "pam" not in config.words("account_sources"):
        return
    if not any(os.path.exists(os.path.join(directory, service)) for directory in _PAM_DIRECTORIES):
        yield Problem(
            f"{config.where('pam_service')}: pam_service: there is no /etc/pam.d/{service}, so PAM asks"
            " the service other: copy etc/pam.d/mailserver there"
        )
    if os.geteuid() != 0:
        yield Problem(
            "account_sources: pam checks others' passwords only where the server is started by root"
        )


def _transports(checks: Checks) -> Iterator[Problem]:
    """Rows of pipe(8) that cannot be used, milters too, and transports that no row has."""
    config = _given(checks)
    try:
        known = transport_names(config)
        milter_rules(pickup_view(config), "non_smtpd_milters")
    except ConfigError as error:
        yield Problem(str(error), is_fatal=True)
        return
    views = [config, *(each.config for each in checks.listeners if each.service == "smtpd")]
    named = [(config, name) for name in _TRANSPORTS] + [(view, "content_filter") for view in views]
    given = {(view.where(name), name, view.string(name).partition(":")[0]): None for view, name in named}
    for where, name, transport in given:
        if transport and transport not in known:
            yield Problem(
                f"{where}: {name}: there is no transport {transport}: its mail would wait: "
                f"add a row to master.cf: {transport} unix - - n - - smtp"
            )


def _ports(checks: Checks) -> Iterator[Problem]:
    """Ports that somebody else has; our own server may have them."""
    if checks.pid:
        return
    try:
        for _, taken in bind_all(_given(checks)):
            taken.close()
    except (StartFailed, ConfigError) as error:
        yield Problem(str(error), is_fatal=True)


def _forwards(checks: Checks) -> Iterator[Problem]:
    """Every .forward that delivery would pass over."""
    config = _given(checks)
    if "$home/.forward" not in config.raw("forward_path"):
        return
    word = config.string("forward_file_mode")
    mode = None if word == "any" else int(word, 8)
    try:
        for name in checks.parts.accounts.names():
            account = checks.parts.accounts.lookup(name)
            if account is None or not account.home.startswith("/"):
                continue
            owner = Owner(account.name, account.uid, account.gid, account.home)
            try:
                _, warnings = read_forward(owner, (f"{account.home}/.forward",), mode)
            except OSError as error:
                warnings = (f"{account.home}/.forward: {error.strerror}: become root to check it",)
            yield from map(Problem, warnings)
    except TemporaryAccountFailure as failure:
        yield Problem(f"{failure}: mail for all accounts would wait: check the file", is_fatal=False)


_ALL: Final = (
    _names,
    _files,
    _directories,
    _queue_owner,
    _table_files,
    _access_file,
    _parts,
    _public_namespaces,
    _burl,
    _transports,
    _tls,
    _logins,
    _pam,
    _relaying,
    _ports,
    _forwards,
)
