r"""Namespaces of a dovecot.conf: other users' as `shared_namespace`, public ones as `public_namespaces`.

    namespace {                               namespace Team {
      type = shared                             type = public
      prefix = shared/%%u/                      prefix = Public/
      location = maildir:%%h/Maildir            location = maildir:/var/mail/public
    }                                         }

Where another user's mail lies is known already. INDEXPVT= in the location (2.4: mail_index_private_path)
makes \Seen each user's own (`private_seen`). Of a private namespace the separator is used, and the prefix
of the one with INBOX.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from mailserver.config.dovecot_tree import Section
from mailserver.config.syntax import Setting

PLUGIN_SETTINGS: Final = frozenset({"acl", "acl_anyone", "acl_shared_dict"})
_USELESS: Final = ("INDEX=", "INDEXPVT=", "CONTROL=", "VOLATILEDIR=", "INDEXCACHE=", "LISTINDEX=")


# 2.4's settings that say where mail lies, and the keys of 2.3's location that they stand for.
PLACE: Final = {
    "mail_driver": "",
    "mail_path": "",
    "mail_inbox_path": "INBOX=",
    "mailbox_list_layout": "LAYOUT=",
    "mail_control_path": "CONTROL=",
    "mailbox_directory_name": "DIRNAME=",
    "mailbox_list_utf8": "UTF-8",
}


def location_of(values: Mapping[str, str]) -> str:
    """2.3's location, of 2.4's settings; "" where there is no driver or no path."""
    location = f"{values.get('mail_driver', '')}:{values.get('mail_path', '')}"
    if location.startswith(":") or location.endswith(":"):
        return ""
    for name, key in PLACE.items():
        value = values.get(name, "").strip()
        if key.endswith("=") and value:
            location += f":{key}{value}"
        elif key and value == "yes":
            location += f":{key}"
    return location


def inherit_place(top: Section) -> None:
    """A namespace that says in 2.4's words where its mail lies has the rest of them from the top level."""
    place = [setting for setting in top.settings if setting.name in PLACE]
    for section in top.sections:
        values = section.values()
        if section.kind == "namespace" and values.keys() & PLACE.keys():
            own = {"mail_inbox_path", "mail_control_path"} if values.get("inbox") != "yes" else set()
            section.settings[:0] = [setting for setting in place if setting.name not in own]


def namespace(section: Section, settings: dict[str, Setting], warnings: list[str]) -> None:
    """What the section says is in the settings, or in the warnings."""
    values = section.values()
    kind = values.get("type", section.name).strip()
    separator = values.get("separator", "").strip()
    prefix = values.get("prefix", "").strip()
    if kind not in ("shared", "public"):
        _private(section, separator, prefix, settings, warnings)
        return
    if separator:
        prefix = prefix.replace(separator, "/")
    if kind == "shared":
        prefix = prefix.replace("%%", "%")
        settings["shared_namespace"] = Setting("shared_namespace", prefix.replace("$", "$$"), section.where)
    else:
        location = _location(values)
        if not location or not prefix:
            warnings.append(f"{section.where}: namespace {section.name}: no prefix, or no location: ignored")
            return
        _add("public_namespaces", f"{prefix}={location}", section, settings)
    if _has_private_index(values):
        _add("private_seen", prefix, section, settings)


def _add(name: str, item: str, section: Section, settings: dict[str, Setting]) -> None:
    """The list has one item more."""
    before = settings.get(name)
    item = f"{{ {item} }}".replace("$", "$$")
    settings[name] = Setting(name, f"{before.value}, {item}" if before is not None else item, section.where)


def _has_private_index(values: dict[str, str]) -> bool:
    options = _full_location(values).split(":")[2:]
    return bool(values.get("mail_index_private_path")) or any(
        each.startswith("INDEXPVT=") for each in options
    )


def _private(
    section: Section, separator: str, prefix: str, settings: dict[str, Setting], warnings: list[str]
) -> None:
    """The account's own mailboxes: the separator is taken over, and the prefix of those with INBOX."""
    if separator:
        settings["namespace_separator"] = Setting("namespace_separator", separator, section.where)
    values = section.values()
    if values.get("inbox") == "yes" or section.name == "inbox":
        if prefix:
            settings["namespace_prefix"] = Setting("namespace_prefix", prefix, section.where)
        if location := _full_location(values):
            settings["mail_location"] = Setting("mail_location", location.replace("$", "$$"), section.where)
    elif prefix or values.get("hidden") == "yes":
        warnings.append(
            f'{section.where}: namespace {section.name}: prefix "{prefix}": of the own folders one namespace'
            " is known, that with inbox = yes: names in this one are refused"
        )


def _full_location(values: dict[str, str]) -> str:
    """2.3's location, or 2.4's mail_driver and mail_path."""
    return (values.get("location", values.get("mail_location", "")) or location_of(values)).strip()


def _location(values: dict[str, str]) -> str:
    """Without what says where Dovecot's own files lie."""
    kind, *rest = _full_location(values).split(":")
    return ":".join([kind, *(each for each in rest if not each.startswith(_USELESS))])
