"""Access control lists: who may do what with a mailbox. RFC 4314 §2, in Dovecot's words.

The text of a `dovecot-acl` file, one entry a line; `#` begins a comment:

    owner lrwstipekxa
    user=bob lrs
    group=staff lrwsti
    -user=carol w                   a right that carol does not get, whoever else grants it
    "user=two words" lr :write      rights by name behind the colon

Of the identifiers that name somebody the most specific one counts (`group-override`, `user`, `owner`,
`group`, `authenticated`, `anyone`), several groups together; then whatever any negative entry
withholds is taken away. That is Dovecot's reading of its files, measured. The owner has all
rights where no entry is his, and never loses `l` and `a`: nobody locks himself out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Final

Rights = frozenset[str]  # letters of RIGHTS

RIGHTS: Final = "lrswipkxtea"  # in the order in which they are told
ALL: Final[Rights] = frozenset(RIGHTS)
NONE: Final[Rights] = frozenset()
FLAG_RIGHTS: Final[Rights] = frozenset("swt")
OWNER_KEEPS: Final[Rights] = frozenset("la")
_VIRTUAL: Final = {"c": "kx", "d": "te"}  # RFC 4314 §2.1.1
NAMES: Final = {
    "lookup": "l", "read": "r", "write": "w", "write-seen": "s", "write-deleted": "t", "insert": "i",
    "post": "p", "expunge": "e", "create": "k", "delete": "x", "admin": "a",
}  # fmt: skip
_LINE: Final = re.compile(r'(-?)(?:"((?:[^"\\]|\\.)*)"|(\S+))(?:\s+(.*))?')


class BadAcl(ValueError):
    """The text is no ACL, identifier or list of rights. The text says why."""


class Kind(IntEnum):
    """Whom an identifier names; a higher one is more specific."""

    ANYONE = 1
    AUTHENTICATED = 2
    GROUP = 3
    OWNER = 4
    USER = 5
    GROUP_OVERRIDE = 6


_WORDS: Final = {"anyone": Kind.ANYONE, "authenticated": Kind.AUTHENTICATED, "owner": Kind.OWNER}
_PREFIXES: Final = {
    "user=": Kind.USER,
    "group=": Kind.GROUP,
    "group-override=": Kind.GROUP_OVERRIDE,
}


@dataclass(frozen=True, slots=True, order=True)
class Identifier:
    """Somebody, or several. `name` is of a user or group, else ""."""

    kind: Kind
    name: str = ""

    def __str__(self) -> str:
        """As the file has it."""
        for prefix, kind in _PREFIXES.items():
            if kind is self.kind:
                return prefix + self.name
        return self.kind.name.lower()


ANYONE: Final = Identifier(Kind.ANYONE)
AUTHENTICATED: Final = Identifier(Kind.AUTHENTICATED)
OWNER: Final = Identifier(Kind.OWNER)


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who logged in, as identifiers may name him."""

    name: str
    groups: frozenset[str] = frozenset()

    def is_named_by(self, identifier: Identifier, is_owner: bool) -> bool:
        """Whether the identifier means this one."""
        if identifier.kind is Kind.USER:
            return identifier.name == self.name
        if identifier.kind in (Kind.GROUP, Kind.GROUP_OVERRIDE):
            return identifier.name in self.groups
        return identifier.kind is not Kind.OWNER or is_owner


@dataclass(frozen=True, slots=True)
class Acl:
    """Rights by identifier, and those withheld from one. Values never change.

    `above` is the administrator's ACL (`store.global_acls`), which no change of this one touches.
    """

    granted: Mapping[Identifier, Rights] = field(default_factory=dict)
    withheld: Mapping[Identifier, Rights] = field(default_factory=dict)
    above: Acl | None = None

    def rights_of(self, person: Person, is_owner: bool) -> Rights:
        """What the person may do with the mailbox; entries `above` count first, for the owner too."""
        own = Acl({OWNER: ALL, **self.granted}, self.withheld) if is_owner else self
        granted, withheld = own._entries_for(person, is_owner)
        ruled, taken = (self.above or Acl())._entries_for(person, is_owner)
        if ruled is not None:
            return ruled - taken
        rights = (granted or NONE) - withheld
        return (rights | OWNER_KEEPS if is_owner else rights) - taken

    def _entries_for(self, person: Person, is_owner: bool) -> tuple[Rights | None, Rights]:
        """What the closest identifiers that name the person grant, None without one; what is withheld."""
        named = [each for each in self.granted if person.is_named_by(each, is_owner)]
        closest = max((each.kind for each in named), default=None)
        granted = [self.granted[each] for each in named if each.kind is closest]
        withheld = [self.withheld[each] for each in self.withheld if person.is_named_by(each, is_owner)]
        return NONE.union(*granted) if granted else None, NONE.union(*withheld)

    def under(self, above: Acl) -> Acl:
        """This one, and the administrator's above it."""
        return replace(self, above=above) if above else self

    def over(self, default: Acl) -> Acl:
        """Both: this one's entries replace the default's of the same identifier."""
        return Acl({**default.granted, **self.granted}, {**default.withheld, **self.withheld})

    def changed(
        self, identifier: Identifier, change: Callable[[Rights], Rights], is_negative: bool = False
    ) -> Acl:
        """With the identifier's entry as `change` makes it; a negative entry of nothing is none."""
        before = self.withheld if is_negative else self.granted
        implied = ALL if identifier == OWNER and not is_negative else NONE
        rights = change(before.get(identifier, implied))
        after = {**before, identifier: rights}
        if is_negative and not rights:
            del after[identifier]
        return Acl(self.granted, after) if is_negative else Acl(after, self.withheld)

    def without(self, identifier: Identifier, is_negative: bool = False) -> Acl:
        """With no entry of the identifier."""
        before = self.withheld if is_negative else self.granted
        after = {each: rights for each, rights in before.items() if each != identifier}
        return Acl(self.granted, after) if is_negative else Acl(after, self.withheld)

    def __bool__(self) -> bool:
        return bool(self.granted or self.withheld or self.above)


# Rights as letters.


def parse_rights(letters: str) -> Rights:
    """The rights, the obsolete `c` and `d` as what they stand for. Raises BadAcl. RFC 4314 §2.1.1."""
    found: set[str] = set()
    for letter in letters:
        members = _VIRTUAL.get(letter, letter)
        if not set(members) <= ALL:
            raise BadAcl(f"Invalid ACL right: {letter}")
        found.update(members)
    return frozenset(found)


def render_rights(rights: Rights) -> str:
    """The letters, in one order."""
    return "".join(letter for letter in RIGHTS if letter in rights)


def render_with_obsolete(rights: Rights) -> str:
    """As `render_rights`, with `c` and `d` where a member of theirs is there. RFC 4314 §2.1.1."""
    obsolete = "".join(letter for letter, members in _VIRTUAL.items() if rights & set(members))
    return render_rights(rights - {"a"}) + obsolete + ("a" if "a" in rights else "")


# The file.


def parse_identifier(text: str) -> Identifier:
    """As the file writes it. Raises BadAcl."""
    if text in _WORDS:
        return Identifier(_WORDS[text])
    for prefix, kind in _PREFIXES.items():
        if text.startswith(prefix) and len(text) > len(prefix):
            return Identifier(kind, text[len(prefix) :])
    raise BadAcl(f"{text}: write user=NAME, group=NAME, owner, authenticated or anyone")


def parse_acl(text: str) -> Acl:
    """The ACL that a file holds. Raises BadAcl, which names the line."""
    granted: dict[Identifier, Rights] = {}
    withheld: dict[Identifier, Rights] = {}
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        try:
            is_negative, identifier, rights = _parse_line(line)
        except BadAcl as error:
            raise BadAcl(f"line {number}: {error}") from error
        entries = withheld if is_negative else granted
        entries[identifier] = entries.get(identifier, NONE) | rights
    return Acl(granted, withheld)


def _parse_line(line: str) -> tuple[bool, Identifier, Rights]:
    found = _LINE.fullmatch(line)
    if found is None:
        raise BadAcl("no identifier")
    quoted = found[2] if found[2] is not None else None
    name = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else found[3]
    is_negative = found[1] == "-"
    if quoted is not None and name.startswith("-"):
        is_negative, name = True, name[1:]
    return is_negative, parse_identifier(name), _parse_file_rights(found[4] or "")


def _parse_file_rights(text: str) -> Rights:
    letters, _, names = text.partition(":")
    named = [name for name in names.split() if name]
    unknown = [name for name in named if name.lower() not in NAMES]
    if unknown:
        raise BadAcl(f"unknown right {unknown[0]}")
    return parse_rights(letters.strip()) | frozenset(NAMES[name.lower()] for name in named)


def render_acl(acl: Acl) -> str:
    """The text of a file."""
    return "".join(f"{line}\n" for line in _lines(acl))


def _lines(acl: Acl) -> Iterator[str]:
    for sign, entries in (("", acl.granted), ("-", acl.withheld)):
        for identifier, rights in entries.items():
            name = sign + str(identifier)
            if re.search(r'[\s"\\]', name):
                name = '"' + re.sub(r'(["\\])', r"\\\1", name) + '"'
            yield f"{name} {render_rights(rights)}".rstrip()
