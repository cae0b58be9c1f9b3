"""Reads a directory of configuration: main.cf, master.cf, and a dovecot.conf.

The directory is the one that `-c` names, else MAIL_CONFIG, else /etc/mailserver, else
/etc/postfix. A dovecot.conf lies beside main.cf; beside /etc/postfix lies /etc/dovecot. main.cf wins
where both set a parameter. MAILSERVER_name in the environment sets the parameter `name` over both, for
containers. Reading changes nothing.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping
from typing import Final

from mailserver.config import consistency, dovecot, dovecot_meaning
from mailserver.config.config import Config
from mailserver.config.master import Row, parse_master
from mailserver.config.parameters import find_parameter
from mailserver.config.syntax import ConfigError, Setting, parse_main
from mailserver.config.system import Host

__all__ = ["Config", "ConfigError", "checked", "config_directory", "read_config", "read_unchecked"]

OWN_DIRECTORY: Final = "/etc/mailserver"
POSTFIX_DIRECTORY: Final = "/etc/postfix"
ENVIRONMENT_PREFIX: Final = "MAILSERVER_"


def config_directory(directory: str | None, environ: Mapping[str, str]) -> str:
    """The directory to read: what was asked for, MAIL_CONFIG, /etc/mailserver, else /etc/postfix."""
    chosen = directory or environ.get("MAIL_CONFIG")
    if chosen:
        return os.path.abspath(chosen)
    return OWN_DIRECTORY if os.path.exists(f"{OWN_DIRECTORY}/main.cf") else POSTFIX_DIRECTORY


def read_config(directory: str | None, environ: Mapping[str, str], host: Host | None = None) -> Config:
    """The configuration, checked: what is refused or cannot agree raises ConfigError."""
    return checked(read_unchecked(directory, environ, host))


def checked(config: Config) -> Config:
    """The same with all its warnings: what is refused or cannot agree raises ConfigError."""
    warnings = (*config.warnings, *consistency.check(config))
    return Config(
        config.directory,
        config.settings,
        config.services,
        tuple(dict.fromkeys(warnings)),
        config.host,
        config.dovecot_path,
    )


def read_unchecked(directory: str | None, environ: Mapping[str, str], host: Host | None = None) -> Config:
    """The configuration as it is written, for postconf: only its grammar must be right."""
    chosen = config_directory(directory, environ)
    main_path = os.path.join(chosen, "main.cf")
    listed, warnings = parse_main(_read(main_path), main_path)
    settings = {setting.name: setting for setting in listed}
    dovecot_path = _dovecot_path(chosen)
    if dovecot_path:
        warnings += _add_dovecot(dovecot_path, settings)
    for name, value in environ.items():
        parameter = name.removeprefix(ENVIRONMENT_PREFIX)
        if parameter != name and find_parameter(parameter) is not None:
            settings[parameter] = Setting(parameter, value, f"environment {name}")
    services, more = _services(os.path.join(chosen, "master.cf"))
    return Config(chosen, settings, services, (*warnings, *more), host, dovecot_path)


def _services(path: str) -> tuple[tuple[Row, ...], list[str]]:
    if not os.path.exists(path):
        return (), [f"{path}: there is none, so no SMTP service: write one, as `mailserver init` does"]
    return parse_master(_read(path), path)


def _dovecot_path(directory: str) -> str:
    """The dovecot.conf of this directory, "" where there is none."""
    candidates = [os.path.join(directory, "dovecot.conf")]
    if os.path.basename(directory) == "postfix":
        candidates.append(os.path.join(os.path.dirname(directory), "dovecot", "dovecot.conf"))
    return next((path for path in candidates if os.path.exists(path)), "")


def _add_dovecot(path: str, settings: dict[str, Setting]) -> list[str]:
    """What the dovecot.conf says is in `settings`, where main.cf says nothing; warnings."""
    parser = dovecot.Parser(_read, _glob)
    parser.parse(path)
    found, warnings = dovecot_meaning.meaning(parser.finish())
    for setting in found:
        winner = settings.setdefault(setting.name, setting)
        if winner.value != setting.value:
            warnings.append(f"{setting.where}: {setting.name}: {winner.where} says otherwise, and counts")
    return warnings


def _glob(pattern: str) -> list[str]:
    return sorted(path for path in glob.glob(pattern) if not os.path.isdir(path))


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return file.read().decode("utf-8", "surrogateescape")
    except PermissionError as error:
        raise ConfigError(f"{path}: {error.strerror}: become root, or whoever may read it") from error
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}: give -c DIR, or run `mailserver init`") from error
