"""Dovecot's words for how much an account may store, and for whom to call when that runs out.

    *:storage=1G            all its mail together; B, k, M, G, T; without a unit, kibibytes
    *:bytes=1000000         the same in octets
    *:messages=20000        how many messages; both: *:storage=1G:messages=20000
    Trash:storage=+10%      what is stored in Trash may take it that much further; also +100M, messages=+50
    Junk:ignore             what lies in Junk does not count

    storage=95% /usr/local/bin/quota-warning 95 %u      run when that is reached from below
    -storage=100% /usr/local/bin/quota-warning below %u when it is left again

A mailbox's name may have `*` and `?`. Several rules, or warnings, stand behind each other with commas.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

_LIMIT: Final = re.compile(r"(storage|bytes|messages)=([+-]?)([0-9]{1,15})([bkmgt]?|%{1,2})b?", re.IGNORECASE)
_UNITS: Final = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_WARNING: Final = re.compile(r"(-?)((?:storage|bytes|messages)=\S+)\s+(\S.*)", re.IGNORECASE)


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


@dataclass(frozen=True, slots=True)
class Grace:
    """`quota_grace`: how far the last mail that is delivered may lead over the limit of octets."""

    octets: int = 0
    percent: int = 0

    def hold(self, limits: Limits, before: tuple[int, int], after: tuple[int, int]) -> bool:
        """Whether mail may be delivered that makes `after` of `before`, each octets and messages."""
        beyond = self.octets + limits.octets * self.percent // 100
        largest = Limits(limits.octets + beyond if limits.octets else 0, limits.messages)
        return limits.hold(*after) or (limits.hold(*before) and largest.hold(*after))


def parse_grace(text: str) -> Grace:
    """`10%`, `50M`, octets, or "" for none. Raises ValueError."""
    found = re.fullmatch(r"([0-9]{1,15})\s*([bkmgt]?|%{1,2})b?", text.strip() or "0", re.IGNORECASE)
    if found is None:
        raise ValueError(f"{text}: write it as 10% or 50M")
    unit = found[2].lower()
    if unit.startswith("%"):
        return Grace(percent=int(found[1]))
    return Grace(int(found[1]) * _UNITS[unit or "b"])


@dataclass(frozen=True, slots=True)
class _Part:
    """`storage=+10%`: what it limits, a sign or "", the number in octets or messages, or in per cent."""

    is_messages: bool
    sign: str
    number: int
    is_percent: bool

    def of(self, limit: int) -> int:
        """The limit that it makes of the one for all mail."""
        if not limit and (self.sign or self.is_percent):
            return 0  # more than unlimited
        number = limit * self.number // 100 if self.is_percent else self.number
        return max(1, limit - number) if self.sign == "-" else limit + number if self.sign else number


@dataclass(frozen=True, slots=True)
class Rules:
    """What an account may store, and what each mailbox may add to it."""

    limits: Limits = Limits()
    mailboxes: tuple[tuple[str, tuple[_Part, ...]], ...] = ()
    ignored: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.limits or self.mailboxes)

    def limits_in(self, mailbox: str) -> Limits:
        """The limits when something is to be stored in that mailbox."""
        octets, messages = self.limits.octets, self.limits.messages
        for pattern, parts in self.mailboxes:
            if fnmatchcase(mailbox, pattern):
                for part in parts:
                    if part.is_messages:
                        messages = part.of(self.limits.messages)
                    else:
                        octets = part.of(self.limits.octets)
                break
        return Limits(octets, messages)

    def ignores(self, mailbox: str) -> bool:
        """Whether what lies in that mailbox does not count."""
        return any(fnmatchcase(mailbox, pattern) for pattern in self.ignored)


def parse_rules(text: str) -> Rules:
    """The rules, with commas between them. Raises ValueError."""
    limits, mailboxes, ignored = Limits(), [], []
    for rule in filter(None, (each.strip() for each in text.split(","))):
        mailbox, _, words = rule.partition(":")
        if words.strip().lower() == "ignore":
            ignored.append(mailbox)
            continue
        parts = tuple(_part(word.strip(), rule) for word in words.split(":"))
        if mailbox in ("*", "?"):
            limits = _absolute(parts, rule)
        else:
            mailboxes.append((mailbox, parts))
    return Rules(limits, tuple(mailboxes), tuple(ignored))


def _part(word: str, rule: str) -> _Part:
    found = _LIMIT.fullmatch(word)
    if found is None:
        raise ValueError(f"{rule}: write it as *:storage=1G")
    name, unit = found[1].lower(), found[4].lower()
    if unit.startswith("%"):
        return _Part(name == "messages", found[2], int(found[3]), True)
    factor = 1 if name == "messages" else _UNITS[unit or ("k" if name == "storage" else "b")]
    return _Part(name == "messages", found[2], int(found[3]) * factor, False)


def _absolute(parts: Sequence[_Part], rule: str) -> Limits:
    if any(part.sign or part.is_percent for part in parts):
        raise ValueError(f"{rule}: the rule for all mail has no base: write it as *:storage=1G")
    octets = [part.number for part in parts if not part.is_messages]
    messages = [part.number for part in parts if part.is_messages]
    return Limits(octets[-1] if octets else 0, messages[-1] if messages else 0)


def rules_of(extra: Mapping[str, str], common: str = "") -> str:
    """An account's rules: its own `userdb_quota_rule`, `…rule2` and so on stand for the common ones."""
    rules = dict(enumerate((rule.strip() for rule in common.split(",")), 1))
    for name, rule in extra.items():
        found = re.fullmatch(r"userdb_quota_rule(\d{0,2})", name)
        if found:
            rules[int(found[1] or 1)] = rule
    return ", ".join(rules[number] for number in sorted(rules) if rules[number])


def relimited(rule: str, limits: Limits) -> str:
    """The rule `userdb_quota_rule` with these limits for all mail; what it says of single mailboxes stays."""
    parts = [f"storage={limits.octets // 1024}k" if limits.octets else ""]
    parts += [f"messages={limits.messages}" if limits.messages else ""]
    rules = (each.strip() for each in rule.split(","))
    others = [each for each in rules if each and each.partition(":")[0] not in ("*", "?")]
    return ",".join([":".join(["*", *(filter(None, parts) if limits else ["storage=0"])]), *others])


@dataclass(frozen=True, slots=True)
class QuotaWarning:
    """A command, and when to run it."""

    is_left: bool  # when use falls below, not when it rises
    part: _Part
    command: tuple[str, ...]

    def is_due(self, limits: Limits, before: tuple[int, int], after: tuple[int, int]) -> bool:
        """Whether the use of octets and messages passed the mark."""
        which = 1 if self.part.is_messages else 0
        mark = self.part.of(limits.messages if which else limits.octets)
        if not mark:
            return False
        return after[which] < mark <= before[which] if self.is_left else before[which] < mark <= after[which]


def parse_warnings(text: str) -> tuple[QuotaWarning, ...]:
    """The warnings, with commas between them. Raises ValueError."""
    return tuple(_warnings(text))


def _warnings(text: str) -> Iterator[QuotaWarning]:
    for item in filter(None, (each.strip() for each in text.split(","))):
        found = _WARNING.fullmatch(item)
        if found is None:
            raise ValueError(f"{item}: write it as storage=95% /path/to/command 95 %u")
        yield QuotaWarning(bool(found[1]), _part(found[2], item), tuple(shlex.split(found[3])))


def due(
    warnings: Sequence[QuotaWarning], limits: Limits, before: tuple[int, int], after: tuple[int, int]
) -> tuple[str, ...]:
    """The command of the first warning whose mark was passed; nothing where none was."""
    return next((each.command for each in warnings if each.is_due(limits, before, after)), ())
