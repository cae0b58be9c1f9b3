"""The personal namespace: how an account's own mailboxes are named to clients. RFC 2342 §5, RFC 3501 §5.1.

Within the program a name has `/` between its levels and no prefix; a client is told others:

    here         with the separator `.`      and the prefix `INBOX/`
    INBOX        INBOX                       INBOX
    Work/2024    Work.2024                   INBOX.Work.2024
    INBOX/Child  INBOX.Child                 INBOX.INBOX.Child
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SEPARATOR: Final = "/"
INBOX: Final = "INBOX"


def with_separator(name: str, separator: str) -> str:
    """A name with `/` between levels, as a client sees it that is told another separator; and the inverse.

    The two characters change places: a level that has the client's separator in it can be named too.
    """
    return name if separator == SEPARATOR else name.translate({ord("/"): separator, ord(separator): "/"})


@dataclass(frozen=True, slots=True)
class PersonalNamespace:
    """What clients are told. `separator` stands between the levels of all names.

    `prefix` is "" or `INBOX/`, what the own mailboxes' names begin with; `others`, each with a slash at
    its end, what those of other users' and public mailboxes begin with.
    """

    separator: str = SEPARATOR
    prefix: str = ""
    others: tuple[str, ...] = ()

    def told(self, name: str) -> str:
        """What clients call the own mailbox `name`, `/` between levels."""
        return name if name in ("", INBOX) else self.prefix + name

    def heard(self, told: str) -> str | None:
        """The name of what a client calls `told`, `/` between levels; None in no namespace.

        The prefix before INBOX is INBOX too, as Dovecot has it.
        """
        if not self.prefix or told == INBOX:
            return told
        if told.startswith(self.prefix):
            return told[len(self.prefix) :]
        return told if f"{told}/".startswith(self.others) or self._is_above_others(told) else None

    def _is_above_others(self, name: str) -> bool:
        return any(root.startswith(f"{name}/") for root in self.others)

    def parent(self, name: str, is_own: bool = True) -> str:
        """The level above the name as clients see it; "" for the topmost."""
        above = name.rpartition(SEPARATOR)[0]
        return INBOX if self.prefix and is_own and not above and name != INBOX else above


NO_PREFIX: Final = PersonalNamespace()
