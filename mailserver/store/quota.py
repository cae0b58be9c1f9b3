"""How much an account may store, in Dovecot's words, and how much it does.

    *:storage=1G            all its mail together; B, k, M, G, T; without a unit, kibibytes
    *:bytes=1000000         the same in octets
    *:messages=20000        how many messages; both: *:storage=1G:messages=20000

The rule stands in the passwd-file as `userdb_quota_rule`. Rules for single mailboxes (`Trash:…`) count for
nothing: all mailboxes share the one limit. What is counted is what clients are told: octets
with CRLF line ends. Expunged mail that can be brought back is not counted. A move is always possible.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Final

from mailserver.store.contract import OverQuota, Quota
from mailserver.store.maildir_names import key_of

RULE_FIELDS: Final = ("userdb_quota_rule", "userdb_quota_rule2", "userdb_quota_rule3")
WARNINGS: Final = (95, 80)  # per cent
_LIMIT: Final = re.compile(r"(storage|bytes|messages)=([0-9]{1,15})([bkmgt]?)b?", re.IGNORECASE)
_UNITS: Final = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SIZE: Final = re.compile(r",S=([0-9]{1,15})")
_PATIENCE: Final = 5.0  # seconds for a lock on state.db


@dataclass(frozen=True, slots=True)
class Limits:
    """The most octets and messages; 0 is no limit."""

    octets: int = 0
    messages: int = 0

    def __bool__(self) -> bool:
        return bool(self.octets or self.messages)

    def hold(self, octets: int, messages: int) -> bool:
        """Whether so much is within them."""
        return not (0 < self.octets < octets or 0 < self.messages < messages)


def parse_rule(rule: str) -> Limits:
    """The limits that a rule sets for all mail. Raises ValueError."""
    mailbox, _, text = rule.strip().partition(":")
    if mailbox not in ("*", "?"):
        return Limits()
    found = {"octets": 0, "messages": 0}
    for part in text.split(":"):
        limit = _LIMIT.fullmatch(part.strip())
        if limit is None:
            raise ValueError(f"{rule}: write it as *:storage=1G")
        name, number, unit = limit[1].lower(), int(limit[2]), limit[3].lower()
        if name == "messages":
            found["messages"] = number
        else:
            found["octets"] = number * _UNITS[unit or ("k" if name == "storage" else "b")]
    return Limits(**found)


def rule_of(extra: Mapping[str, str]) -> str:
    """The rule for all mail among an account's extra fields, "" where there is none."""
    rules = (extra.get(name, "") for name in RULE_FIELDS)
    return next((rule for rule in rules if rule.startswith(("*:", "?:"))), "")


class QuotaKeeper:
    """Keeps an account's mail within its limits. `usage` gives octets and messages; it blocks."""

    def __init__(
        self, limits: Limits, usage: Callable[[], tuple[int, int]], warn: Callable[[str], None]
    ) -> None:
        self.limits = limits
        self._usage = usage
        self._warn = warn
        self._level = 0

    def check(self, octets: int, messages: int) -> None:
        """There is room for so much more. Raises OverQuota. Says where 80 and 95 % are passed."""
        if not self.limits:
            return
        used, count = self._usage()
        if not self.limits.hold(used + octets, count + messages):
            raise OverQuota("Quota exceeded (mailbox for user is full)")
        self._tell_level(used + octets, count + messages)

    def _tell_level(self, octets: int, messages: int) -> None:
        parts = ((octets, self.limits.octets), (messages, self.limits.messages))
        percent = max(100 * used // limit for used, limit in parts if limit)
        level = next((level for level in WARNINGS if percent >= level), 0)
        if level > self._level:
            self._warn(f"quota: {percent} % of {self.limits.octets or self.limits.messages} used")
        self._level = level

    def quota(self) -> Quota | None:
        """The figures, None where there is no limit."""
        if not self.limits:
            return None
        octets, messages = self._usage()
        self._tell_level(octets, messages)
        return Quota(octets, messages, self.limits.octets, self.limits.messages)


def usage_at_delivery(directory: str, target: str) -> tuple[int, int]:
    """Octets and messages of an account, for a program that has no store open. Raises OSError.

    `directory` has its state.db, if it ever logged in; `target` is its INBOX. What came to INBOX since
    state.db last looked is counted too. Blocking; cheap where little came.
    """
    is_maildir = target.endswith("/")
    known = _known(os.path.join(directory, "state.db"), with_inbox=is_maildir)
    if not is_maildir:
        return (known[0] if known else 0) + _file_size(target), known[1] if known else 0
    octets, messages, in_new = known or (0, 0, frozenset())
    unknown = _unknown_files(target + "new", in_new)
    if known is None:
        unknown += _unknown_files(target + "cur", frozenset())
    return octets + sum(unknown), messages + len(unknown)


def _known(path: str, with_inbox: bool) -> tuple[int, int, frozenset[str]] | None:
    """Octets and messages that state.db knows, and the keys of those in INBOX's `new`; None without one."""
    if not os.path.exists(path):
        return None
    message = "message JOIN mailbox ON mailbox.id = message.mailbox"
    total = f"SELECT coalesce(sum(size), 0), count(*) FROM {message} WHERE ? OR name != 'INBOX'"
    new = f"SELECT key FROM {message} WHERE name='INBOX' AND place >= 'new/' AND place < 'new0'"
    try:
        with closing(sqlite3.connect(path, timeout=_PATIENCE)) as db:
            octets, messages = db.execute(total, (with_inbox,)).fetchone()
            return octets, messages, frozenset(os.fsdecode(key) for (key,) in db.execute(new))
    except sqlite3.Error as error:
        raise OSError(f"state.db: {error}") from error


def _unknown_files(directory: str, known: frozenset[str]) -> list[int]:
    """The sizes of the files whose keys are not known."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    return [_size_of(directory, name) for name in names if key_of(name) not in known]


def _size_of(directory: str, name: str) -> int:
    found = _SIZE.search(name)
    return int(found[1]) if found else _file_size(os.path.join(directory, name))


def _file_size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0
