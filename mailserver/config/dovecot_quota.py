"""Quotas of a dovecot.conf as `quota_rule` and `quota_warning`.

    plugin {                                          quota "User quota" {
      quota_rule = *:storage=1G                         quota_storage_size = 1G
      quota_rule2 = Trash:storage=+100M                 warning warn-95 {
      quota_warning = storage=95%% quota-warning 95 %u    quota_storage_percentage = 95
    }                                                     execute quota-warning {
    service quota-warning {                                 args = 95 %{user}
      executable = script /usr/local/bin/warn.sh      } } }
    }

Dovecot hands a warning to a service; here the service's script is run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from mailserver.config.dovecot_tree import Section
from mailserver.config.syntax import Setting

_NUMBERED: Final = re.compile(r"(quota_rule|quota_warning)(\d*)")
# 2.4's settings, and the words of a rule that they stand for.
_LIMITS: Final = {"quota_storage_size": "storage", "quota_message_count": "messages"}
# What says how Dovecot counts.
_GRACES: Final = ("quota_grace", "quota_storage_grace")  # 2.3's name, and 2.4's
_QUIET: Final = frozenset({"quota", "quota2", "quota_driver", "quota_vsizes", "quota_exceeded_message"})


class QuotaSettings:
    """Gathers what a dovecot.conf says of quotas; `add_to` gives it back as our parameters."""

    def __init__(self) -> None:
        self._numbered: dict[tuple[str, int], Setting] = {}
        self._limits: list[Setting] = []
        self._warnings: list[Setting] = []
        self._scripts: dict[str, str] = {}
        self._grace: Setting | None = None

    def take(self, setting: Setting) -> bool:
        """Whether the setting, of the top level or of `plugin`, is about quotas."""
        found = _NUMBERED.fullmatch(setting.name)
        if found:
            self._numbered[found[1], int(found[2] or 1)] = setting
        elif setting.name in _LIMITS:
            self._limits.append(setting)
        elif setting.name in _GRACES:
            self._grace = Setting("quota_grace", setting.value.replace("%%", "%"), setting.where)
        return bool(found) or setting.name in _GRACES or setting.name in _LIMITS or setting.name in _QUIET

    def take_section(self, section: Section) -> bool:
        """Whether the section is about quotas and nothing else. A service's script is remembered."""
        if section.kind == "service":
            executable = section.values().get("executable", "")
            if executable.startswith("script "):
                self._scripts[section.name] = executable.removeprefix("script ").strip()
            return section.name in ("quota-warning", "quota-status")
        if section.kind == "quota":
            for setting in section.settings:
                self.take(setting)
            self._warnings.extend(_warning(each) for each in section.sections if each.kind == "warning")
        return section.kind == "quota"

    def add_to(self, settings: dict[str, Setting], warnings: list[str]) -> None:
        """The parameters are among the settings; a warning for what nobody would run."""
        if self._grace is not None:
            settings["quota_grace"] = self._grace
        rules = list(self._of("quota_rule"))
        if self._limits:
            limits = ":".join(f"{_LIMITS[each.name]}={_exact(each)}" for each in self._limits)
            rules.append(Setting("quota_rule", f"*:{limits}", self._limits[0].where))
        _join("quota_rule", rules, settings)
        commands = []
        for warning in (*self._of("quota_warning"), *self._warnings):
            limit, _, command = warning.value.replace("%%", "%").partition(" ")
            name, _, rest = command.strip().partition(" ")
            script = self._scripts.get(name, name)
            if not script.startswith("/"):
                warnings.append(
                    f"{warning.where}: quota_warning: there is no service {name or '(none)'} with"
                    " `executable = script /path`: it is logged, nothing is run"
                )
                continue
            commands.append(Setting(warning.name, f"{limit} {script} {rest}".strip(), warning.where))
        _join("quota_warning", commands, settings)

    def _of(self, name: str) -> Iterator[Setting]:
        for key in sorted(self._numbered):
            if key[0] == name and self._numbered[key].value:
                yield self._numbered[key]


def _exact(setting: Setting) -> str:
    """2.4's number with its unit, without the spaces that it may have; octets where it has none."""
    text = re.sub(r"\s", "", setting.value).removesuffix("iB").removesuffix("B")
    if text == "unlimited":
        return "0"
    return text + "B" if setting.name == "quota_storage_size" and text.isdigit() else text


def _warning(section: Section) -> Setting:
    """2.4's block as 2.3 would write it."""
    values = section.values()
    below = "-" if values.get("threshold", values.get("quota_over_status_mask", "")) == "under" else ""
    limits = [
        f"{word}={values[name]}%"
        for name, word in (("quota_storage_percentage", "storage"), ("quota_message_percentage", "messages"))
        if name in values
    ]
    limits += [f"{word}={values[name]}" for name, word in _LIMITS.items() if name in values]
    executed = next((each for each in section.sections if each.kind == "execute"), None)
    command = f"{executed.name} {executed.values().get('args', '')}" if executed is not None else ""
    return Setting("quota_warning", f"{below}{limits[0] if limits else ''} {command}", section.where)


def _join(name: str, parts: list[Setting], settings: dict[str, Setting]) -> None:
    if parts:
        value = ", ".join(part.value.replace("%%", "%") for part in parts)
        settings[name] = Setting(name, value.replace("$", "$$"), parts[0].where)
