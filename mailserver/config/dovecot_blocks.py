"""2.4's ways to write settings in blocks, made plain settings before `dovecot_meaning` reads them.

    ssl_server {                    is ssl_server_cert_file = /etc/ssl/mail.pem
      cert_file = /etc/ssl/mail.pem
    }
    auth_mechanisms {               is auth_mechanisms = plain login
      plain = yes
      login = yes
    }
    group @mailbox_defaults de {    what `@mailbox_defaults = de` stands for, wherever that is written:
      mailbox Entwürfe { … }        before all else that its section says
    }

Within `passdb`, `userdb` and `quota` a setting may have the section's word in front, or not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from mailserver.config.dovecot_tree import Section
from mailserver.config.syntax import Setting

_PREFIXED: Final = frozenset({"passdb", "userdb"})  # the word is taken off there
_QUOTA: Final = frozenset(
    {"storage_size", "message_count", "storage_grace", "storage_percentage", "message_percentage"}
)


def flatten(top: Section, is_known: Callable[[str], bool]) -> None:
    """The tree without groups, and without blocks that only spell settings of the top level."""
    groups = {tuple(each.name.split()): each for each in top.sections if each.kind == "group"}
    top.sections = [each for each in top.sections if each.kind != "group"]
    _include(top, groups)
    kept = []
    for section in top.sections:
        if not section.name and not section.sections and (found := _settings(section, is_known)):
            top.settings += found
        else:
            kept.append(section)
    top.sections = kept
    _unprefix(top)


def _include(section: Section, groups: Mapping[tuple[str, ...], Section], depth: int = 0) -> None:
    """Where it names groups, what they hold is in it, in front. A group may name others."""
    for setting in [each for each in section.settings if each.name.startswith("@")]:
        group = groups.get((setting.name, setting.value))
        if group is not None and depth < 16:
            copy = Section("", "", group.where, list(group.settings), list(group.sections))
            _include(copy, groups, depth + 1)
            section.settings[:0] = copy.settings
            section.sections[:0] = copy.sections
    for inner in section.sections:
        _include(inner, groups, depth + 1)


def _settings(section: Section, is_known: Callable[[str], bool]) -> list[Setting]:
    """The section as settings of the top level; none where it is something else."""
    longer = [Setting(f"{section.kind}_{each.name}", each.value, each.where) for each in section.settings]
    if longer and all(is_known(each.name) for each in longer):
        return longer
    if (
        section.settings
        and is_known(section.kind)
        and all(each.value in ("yes", "no") for each in section.settings)
    ):
        words = " ".join(each.name for each in section.settings if each.value == "yes")
        return [Setting(section.kind, words, section.where)]
    return []


def _unprefix(section: Section, kind: str = "") -> None:
    """`passdb_driver` in a passdb is its `driver`; `storage_size` in a quota `quota_storage_size`."""
    kind = kind or section.kind
    if kind in _PREFIXED:
        section.settings = [
            Setting(each.name.removeprefix(f"{kind}_"), each.value, each.where) for each in section.settings
        ]
    elif kind == "quota":
        section.settings = [
            Setting(f"quota_{each.name}" if each.name in _QUOTA else each.name, each.value, each.where)
            for each in section.settings
        ]
    for inner in section.sections:
        _unprefix(inner, kind if kind in ("quota", *_PREFIXED) else "")
