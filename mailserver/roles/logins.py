"""Who decides on logins in a process, and by which mechanisms, from the configuration."""

from __future__ import annotations

import os
import time
from ipaddress import ip_network
from typing import Final

from mailserver.accounts.app_password_admin import AppPasswordAdmin
from mailserver.accounts.app_passwords import AppPasswords
from mailserver.accounts.check import SourcePasswordCheck
from mailserver.accounts.login import EXTERNAL, PASSWORD_MECHANISMS
from mailserver.accounts.login_database import LoginDatabase
from mailserver.accounts.rehash import Rehash
from mailserver.accounts.scram_check import ScramCheck
from mailserver.accounts.scram_dialogue import MECHANISM as SCRAM
from mailserver.accounts.throttle import Network, Throttle
from mailserver.accounts.verdict import Judge
from mailserver.config.config import Config
from mailserver.config.listeners import listeners
from mailserver.rights.as_user import Identity, become
from mailserver.roles.client_certificates import certificate_logins
from mailserver.roles.parts import Parts, has_system_accounts

POSTFIX_QUEUE: Final = "/var/spool/postfix"
_KNOWN: Final = (*PASSWORD_MECHANISMS, SCRAM, EXTERNAL)


def mechanisms(config: Config) -> tuple[str, ...]:
    """Those of `auth_mechanisms` that there are here, in that order."""
    words = (word.upper().removesuffix("-PLUS") for word in config.words("auth_mechanisms"))
    return tuple(dict.fromkeys(word for word in words if word in _KNOWN))


def trusted_networks(config: Config) -> tuple[Network, ...]:
    """The networks of login_trusted_networks. Raises ConfigError."""
    try:
        words = config.words("login_trusted_networks")
        return tuple(ip_network(word.replace("[", "").replace("]", ""), strict=False) for word in words)
    except ValueError as error:
        raise config.error("login_trusted_networks", f"{error}: write addresses and networks") from error


def dovecot_socket(config: Config) -> str:
    """Where a running Dovecot checks the logins of our SMTP; "" where we check them ourselves.

    As Postfix has it (smtpd_sasl_type, smtpd_sasl_path), where we do SMTP alone: who serves mailboxes
    here has the accounts here. A relative path is one in the queue directory, ours or Postfix's.
    """
    path = config.string("smtpd_sasl_path")
    if config.string("smtpd_sasl_type") != "dovecot" or not config.is_set("smtpd_sasl_path") or not path:
        return ""
    if any(listener.service in ("imapd", "pop3d") for listener in listeners(config)):
        return ""
    if path.startswith("inet:") or os.path.isabs(path):
        return path
    own = os.path.join(config.string("queue_directory"), path)
    return own if os.path.exists(own) else os.path.join(POSTFIX_QUEUE, path)


def local_domains(config: Config) -> frozenset[str]:
    """The domains in which `name@domain` may log in as `name`."""
    own = {config.string(name) for name in ("mydomain", "myhostname", "myorigin")}
    words = {word for word in config.words("mydestination") if ":" not in word and "/" not in word}
    return frozenset(domain.lower() for domain in own | words)


def login_database(parts: Parts) -> LoginDatabase:
    """Where logins leave what they know: root's with system accounts, else the mail owner's."""
    owner = _database_owner(parts)
    ids = None if owner is None else (owner.uid, owner.gid)
    return LoginDatabase(os.path.join(parts.config.string("state_directory"), "auth", "logins.db"), ids)


def _database_owner(parts: Parts) -> Identity | None:
    """Whose the data base is, where root is not to use it itself."""
    if os.geteuid() != 0 or has_system_accounts(parts.config) or parts.mail_owner.uid == 0:
        return None
    return Identity(parts.config.string("mail_owner"), parts.mail_owner.uid, parts.mail_owner.gid)


def become_database_owner(parts: Parts) -> None:
    """A command of root's touches the data base as whoever owns it, for good: the directory is not root's."""
    owner = _database_owner(parts)
    if owner is not None:
        login_database(parts).prepare()
        become(owner)


def checks(parts: Parts) -> tuple[SourcePasswordCheck, ScramCheck]:
    """Who knows whether a password, or a proof of one, is right."""
    config, domains, database = parts.config, local_domains(parts.config), login_database(parts)
    check = SourcePasswordCheck(
        parts.account_sources,
        domains,
        remember=config.seconds("auth_cache_ttl"),
        app_passwords=AppPasswords(database, lambda text: parts.log.write("auth", text)),
        app_passwords_only=config.boolean("app_passwords_only"),
    )
    return check, ScramCheck(check, database, parts.warn("auth"), domains)


def app_password_admin(parts: Parts) -> AppPasswordAdmin:
    """Whoever makes and revokes app passwords in this process."""
    check, scram = checks(parts)
    assert check.app_passwords is not None
    return AppPasswordAdmin(check.app_passwords, scram)


def judge(parts: Parts) -> Judge:
    """Whoever decides on passwords in this process."""
    check, scram = checks(parts)
    if parts.config.boolean("rehash_on_login"):
        check.after_login.append(Rehash(parts.warn("auth"), lambda text: parts.log.write("auth", text)))
    has_scram = SCRAM in mechanisms(parts.config)
    if has_scram and not check.app_passwords_only:
        check.after_login.append(scram.enrol)
    first_delay = parts.config.seconds("auth_failure_delay")
    throttle = Throttle(time.monotonic, trusted_networks(parts.config), first_delay)
    certificates = certificate_logins(parts.config)
    return Judge(check, throttle, parts.log, scram if has_scram else None, certificates)
