"""What a dovecot.conf means here: which of our parameters it sets, and what is not used.

The top level, `passdb`, `userdb`, `namespace`, `plugin` and `quota` are used; other sections tune what
this program does not have, and give a warning where they say something. What 2.4 calls otherwise than
2.3 is known under both names. Sizes and times may have units as Dovecot has them (`64 k`, `30 mins`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from mailserver.config.declaration import Type
from mailserver.config.dovecot_accounts import account_source, auth_listener
from mailserver.config.dovecot_blocks import flatten
from mailserver.config.dovecot_namespaces import PLACE, PLUGIN_SETTINGS, inherit_place, location_of, namespace
from mailserver.config.dovecot_quota import QuotaSettings
from mailserver.config.dovecot_tree import Section
from mailserver.config.parameters import PARAMETERS
from mailserver.config.syntax import Setting

# 2.4's names for 2.3's settings, where the value means the same.
RENAMED: Final = {
    "auth_default_domain": "auth_default_realm",
    "mail_home_dir": "mail_home",
    "ssl_client_cert_file": "ssl_client_cert",
    "ssl_client_key_file": "ssl_client_key",
    "ssl_server_alt_cert_file": "ssl_alt_cert",
    "ssl_server_alt_key_file": "ssl_alt_key",
    "ssl_server_ca_file": "ssl_ca",
    "ssl_server_cert_file": "ssl_cert",
    "ssl_server_cert_username_field": "ssl_cert_username_field",
    "ssl_server_dh_file": "ssl_dh",
    "ssl_server_key_file": "ssl_key",
    "ssl_server_key_password": "ssl_key_password",
    "ssl_server_prefer_ciphers": "ssl_prefer_server_ciphers",
    "ssl_server_request_client_cert": "ssl_verify_client_cert",
    "ssl_server_require_crl": "ssl_require_crl",
}
# Parts of Dovecot that this program does not have: their settings begin with these words.
OTHER_PARTS: Final = (
    "cassandra_", "crypt_", "dict_", "director_", "doveadm_", "dsync_", "event_exporter_", "fs_", "fts_",
    "http_client_", "imap_hibernate_", "imap_urlauth_", "imapc_", "imapsieve_", "language_", "last_login_",
    "lazy_expunge_", "ldap_", "lmtp_", "lua_", "mail_attachment_", "mail_compress_", "mail_crypt_",
    "mail_ext_attachment_", "mail_log_", "managesieve_", "mdbox_", "metric_", "mysql_", "notify_",
    "oauth2_", "old_stats_", "pgsql_", "pop3c_", "push_notification_", "quota_clone_", "redis_",
    "replication_", "replicator_", "sieve", "sql_", "sqlite_", "stats_", "submission_", "textcat_",
    "trash_", "virtual_", "welcome_",
)  # fmt: skip
# Sections whose contents change nothing here: the names of folders, and parts that we do not have.
QUIET_SECTIONS: Final = frozenset({"mailbox", "dict", "map", "metric", "event_exporter"})
_USER: Final = re.compile(r"%\{([a-z |]+)\}")
_SIZE: Final = re.compile(r"(\d+)\s*([bkmgt]?)(?:i?b)?", re.IGNORECASE)
_NUMBERS: Final = (Type.OCTETS, Type.INTEGER)
_UNITS: Final = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def meaning(top: Section) -> tuple[list[Setting], list[str]]:
    """The parameters that a dovecot.conf sets, in main.cf's names, and warnings."""
    settings: dict[str, Setting] = {}
    warnings: list[str] = []
    quota = QuotaSettings()
    flatten(top, _is_known)
    for setting in top.settings:
        if not quota.take(setting):
            _top_level(setting, settings, warnings)
    inherit_place(top)
    _mail_location(settings)
    for section in sorted(top.sections, key=lambda section: section.kind == "userdb"):
        if not quota.take_section(section):
            _section(section, settings, warnings, quota)
    quota.add_to(settings, warnings)
    return list(settings.values()), warnings


def _is_known(name: str) -> bool:
    parameter = PARAMETERS.get(RENAMED.get(name, name))
    return name in PLACE or (parameter is not None and parameter.source != "postfix")


def _old_format(found: re.Match[str]) -> str:
    """`%{user | username | lower}` as 2.3's `%Ln`; what 2.3 could not say as it is."""
    user, *filters = (word.strip() for word in found[1].split("|"))
    if user != "user" or not {*filters} <= {"username", "domain", "lower", "upper"}:
        return found[0]
    part = "n" if "username" in filters else "d" if "domain" in filters else "u"
    return "%" + "L" * ("lower" in filters) + "U" * ("upper" in filters) + part


def _top_level(setting: Setting, settings: dict[str, Setting], warnings: list[str]) -> None:
    name = RENAMED.get(setting.name, setting.name)
    value = setting.value
    if name == "auth_allow_cleartext":
        name, value = "disable_plaintext_auth", "no" if value == "yes" else "yes"
    if name == "acl_driver" and "acl" not in settings:
        name = "acl"
    if name == "acl_global_path":
        name, value = "acl", f"vfile:{value}"
    if name == "auth_username_format":
        value = _USER.sub(_old_format, value)
    if name in ("ssl_ca", "ssl_cert", "ssl_key"):
        value = value.removeprefix("<").strip()
    parameter = PARAMETERS.get(name)
    if _is_known(name):
        value = _with_digits(value) if parameter is not None and parameter.type in _NUMBERS else value
        settings[name] = Setting(name, value.replace("$", "$$"), setting.where)
    elif name.startswith(OTHER_PARTS):
        warnings.append(f"{setting.where}: {setting.name}: a part of Dovecot that is not here: ignored")
    elif parameter is None and name != "acl_driver" and not name.startswith("@"):  # a group that is not there
        warnings.append(f"{setting.where}: {setting.name}: this program does not know it: ignored")


def _with_digits(text: str) -> str:
    """A number, or a size with Dovecot's unit, in digits; `unlimited` is none, as 0 is here."""
    if text.strip() == "unlimited":
        return "0"
    found = _SIZE.fullmatch(text.strip())
    return str(int(found[1]) * _UNITS[found[2].lower()]) if found else text


def _mail_location(settings: dict[str, Setting]) -> None:
    """2.4's mail_driver, mail_path and the like as 2.3's mail_location."""
    parts = {name: settings.pop(name) for name in PLACE if name in settings}
    value = location_of({name: setting.value for name, setting in parts.items()})
    if value:
        settings["mail_location"] = Setting("mail_location", value, parts["mail_path"].where)


def _section(
    section: Section, settings: dict[str, Setting], warnings: list[str], quota: QuotaSettings
) -> None:
    if section.kind in ("passdb", "userdb"):
        account_source(section, settings)
    elif section.kind == "protocols":
        names = " ".join(item.name for item in section.settings if item.value == "yes")
        settings["protocols"] = Setting("protocols", names, section.where)
    elif section.kind == "protocol" and section.name in ("imap", "pop3", "lda", "lmtp"):
        _protocol(section, settings, warnings)
    elif section.kind.startswith(OTHER_PARTS):
        warnings.append(f"{section.where}: {section.kind}: a part of Dovecot that is not here: ignored")
    elif section.kind == "mail_plugins":
        pass
    elif section.kind == "acl_sharing_map":
        files = [section.values(), *(each.values() for each in section.sections)]
        path = next(
            (found for each in files if (found := each.get("dict_file_path") or each.get("path"))), ""
        )
        if path:
            value = f"file:{path}".replace("$", "$$")
            settings["acl_shared_dict"] = Setting("acl_shared_dict", value, section.where)
    elif section.kind == "namespace":
        namespace(section, settings, warnings)
    elif section.kind == "plugin":
        for setting in section.settings:
            if quota.take(setting):
                continue
            if setting.name == "sieve" or setting.name.startswith("sieve_before"):
                warnings.append(f"{setting.where}: plugin: {setting.name}: Sieve scripts are not run here")
            if setting.name in PLUGIN_SETTINGS:
                settings[setting.name] = Setting(
                    setting.name, setting.value.replace("$", "$$"), setting.where
                )
    elif section.kind not in QUIET_SECTIONS:
        if section.kind == "service" and section.name == "auth":
            auth_listener(section, settings)
        for setting in _deep(section):
            warnings.append(f"{setting.where}: {section.kind} {section.name}: {setting.name}: not used here")


def _protocol(section: Section, settings: dict[str, Setting], warnings: list[str]) -> None:
    """What is said of one protocol holds for all where nothing else is said of all."""
    for setting in section.settings:
        if setting.name in PARAMETERS and section.name in ("imap", "pop3"):
            settings.setdefault(setting.name, setting)
        if settings.get(setting.name, setting).value != setting.value or setting.name not in PARAMETERS:
            warnings.append(
                f"{setting.where}: protocol {section.name}: {setting.name}: not used for one protocol alone"
            )


def _deep(section: Section) -> Iterator[Setting]:
    yield from section.settings
    for inner in section.sections:
        if inner.kind not in ("unix_listener", "fifo_listener"):
            yield from _deep(inner)
