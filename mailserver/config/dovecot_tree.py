"""What a dovecot.conf reads as: sections within sections."""

from __future__ import annotations

from dataclasses import dataclass, field

from mailserver.config.syntax import Setting


@dataclass(slots=True)
class Section:
    """`kind name { … }`; the top level has neither."""

    kind: str
    name: str
    where: str
    settings: list[Setting] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)

    def values(self) -> dict[str, str]:
        """The section's own settings; of several of one name the last."""
        return {setting.name: setting.value for setting in self.settings}
