"""What must agree across parameters, and what this program will not pass over in silence.

`check` raises ConfigError for what cannot be served and gives warnings for the rest: unused
and undefined names, parameters that are not honoured, `mail_location` that reads where delivery
does not write.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Final

from mailserver.config import values
from mailserver.config.config import DEFAULT, Config
from mailserver.config.declaration import Kind, Parameter
from mailserver.config.parameters import find_parameter
from mailserver.config.syntax import Setting, referenced_names

OUR_COMMANDS: Final = frozenset({"smtpd", "pop3d", "imapd"})
RETRIEVAL: Final = frozenset({"imap", "imaps", "pop3", "pop3s", "none"})
# Dovecot's protocols that are other services than retrieval.
MECHANISMS: Final = ("plain", "login", "scram-sha-256", "scram-sha-256-plus", "external")
OTHER_PROTOCOLS: Final = frozenset({"lmtp", "submission", "sieve"})


def check(config: Config) -> list[str]:
    """Warnings about a configuration that can be served. Raises ConfigError where it cannot."""
    warnings = list(_check_settings(config, config.settings))
    for row in config.services:
        if row.program in OUR_COMMANDS:
            view = config.with_overrides(row)
            warnings += _check_settings(view, {name: view.settings[name] for name in row.overrides})
    _check_protocols(config)
    check_mail_location(config)
    return warnings + list(_second_certificate(config)) + list(_mechanisms(config))


def _check_settings(config: Config, settings: Mapping[str, Setting]) -> Iterator[str]:
    allowed = set(config.words("allow_unsupported"))
    used = _used_names(config)
    for name, setting in settings.items():
        parameter = find_parameter(name)
        if parameter is None:
            if name not in used:
                yield f"{setting.where}: unused parameter: {name}={setting.value}"
        elif parameter.kind in (Kind.HARMLESS, Kind.REFUSED):
            yield from _check_unsupported(config, parameter, allowed)
        elif parameter.kind is Kind.HONOURED:
            _check_value(config, parameter)
            yield from _undefined(config, parameter)


def unused(config: Config) -> list[Setting]:
    """The settings whose name is neither declared nor used by another setting."""
    used = _used_names(config)
    settings = config.settings.values()
    return [
        setting for setting in settings if setting.name not in used and find_parameter(setting.name) is None
    ]


def _used_names(config: Config) -> set[str]:
    """The names that some value refers to, or that are restriction classes."""
    used = set(config.words("smtpd_restriction_classes"))
    for setting in config.settings.values():
        used |= referenced_names(setting.value)
    for row in config.services:
        for text in (*row.overrides.values(), *row.arguments):
            used |= referenced_names(text)
    return used


def _check_unsupported(config: Config, parameter: Parameter, allowed: set[str]) -> Iterator[str]:
    name = parameter.name
    if _is_default(config, name):
        return
    problem = f"parameter is not supported: {parameter.documentation}"
    if parameter.kind is Kind.REFUSED and name not in allowed:
        raise config.error(
            name, f"{problem} Remove it, or put it into allow_unsupported to start without it."
        )
    yield f"{config.where(name)}: {name}: {problem} Ignored."


def _is_default(config: Config, name: str) -> bool:
    if config.raw(name).split() == config.default(name).split():
        return True
    return config.string(name).split() == Config(config.directory, {}, host=config.host).string(name).split()


def _check_value(config: Config, parameter: Parameter) -> None:
    text = config.string(parameter.name)
    try:
        values.check(parameter, text)
    except values.ValueProblem as error:
        raise config.error(parameter.name, str(error)) from error


def _undefined(config: Config, parameter: Parameter) -> Iterator[str]:
    for name in sorted(config.undefined(parameter.name)):
        yield f"{config.where(parameter.name)}: undefined parameter: {name}"


def _second_certificate(config: Config) -> Iterator[str]:
    used, other = config.string("smtpd_tls_cert_file"), config.string("ssl_cert")
    if other and other != used:
        yield (
            f"{config.where('ssl_cert')}: ssl_cert: smtpd_tls_cert_file of"
            f" {config.where('smtpd_tls_cert_file')} is the certificate of all services: remove one"
        )


def _mechanisms(config: Config) -> Iterator[str]:
    for word in config.words("auth_mechanisms"):
        if word.lower() not in MECHANISMS:
            yield (
                f"{config.where('auth_mechanisms')}: auth_mechanisms: {word} is not offered here:"
                f" write some of {', '.join(MECHANISMS)}"
            )


def _check_protocols(config: Config) -> None:
    for word in config.words("protocols"):
        if word.lower() not in RETRIEVAL | OTHER_PROTOCOLS:
            raise config.error("protocols", f"unknown protocol {word}: write imap, pop3, or none")


def check_mail_location(config: Config) -> None:
    """Raises ConfigError where INBOX is read elsewhere than delivery writes it.

    Where a command delivers, only that command knows where to. A place with a domain in it is for virtual
    accounts, and delivery looks there too.
    """
    if not config.is_set("mail_location") or config.raw("mailbox_command"):
        return
    if re.search(r"%L?d|%\{(?:user\s*\|\s*)?domain", config.string("mail_location")):
        return
    read = inbox_of(config.string("mail_location"))
    decides = "home_mailbox" if config.string("home_mailbox") else "mail_spool_directory"
    written = delivery_target(config)
    if read is None or _same_place(read, written):
        return
    where = config.where(decides)
    raise config.error(
        "mail_location",
        f"mail is read from {read}, but {decides} = {config.string(decides)}"
        f" ({'the default' if where == DEFAULT else where}) delivers to {written}: make them agree",
    )


def delivery_target(config: Config) -> str:
    """The mailbox that local delivery writes: `~` is the home, `%u` the user, a last `/` a maildir."""
    home_mailbox = config.string("home_mailbox")
    if home_mailbox:
        return f"~/{home_mailbox}"
    spool = config.string("mail_spool_directory")
    return f"{spool}%u/" if spool.endswith("/") else f"{spool}/%u"


def inbox_of(mail_location: str) -> str | None:
    """INBOX of a mail_location in the form of `delivery_target`; None where it is found by itself."""
    driver, _, rest = mail_location.partition(":")
    if driver not in ("mbox", "maildir") or not rest:
        return None
    path, *options = rest.split(":")
    inbox = next((option.removeprefix("INBOX=") for option in options if option.startswith("INBOX=")), "")
    if driver == "mbox":
        return _plain(inbox or f"{path}/inbox")
    return _plain(inbox or path).rstrip("/") + "/"


def _plain(path: str) -> str:
    """The path with one spelling for each of home and user."""
    path = re.sub(r"%h|%\{home\}", "~", path)
    return re.sub(r"%L?[un]|%\{user(?:\s*\|\s*(?:username|lower))*\}", "%u", path)


def _same_place(one: str, other: str) -> bool:
    if one.endswith("/") != other.endswith("/"):
        return False
    return _real(one) == _real(other)


def _real(path: str) -> str:
    """The path with its links followed, /var/spool/mail being /var/mail on every system."""
    directory, name = os.path.split(path.rstrip("/"))
    if directory.startswith("/"):
        directory = os.path.realpath(directory)
    return os.path.join(re.sub(r"^/var/spool/mail(?=/|$)", "/var/mail", os.path.normpath(directory)), name)
