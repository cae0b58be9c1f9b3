"""FILTERS: search programs that a user keeps under a name, among the account's annotations. RFC 5466.

FILTER stands for the whole program, as if it were between parentheses. Programs may name others, ten deep;
together with what they name they have no more keys than any other program.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final, TypeVar

from mailserver.imapd import uid_only
from mailserver.imapd.replies import Refusal, Rejection
from mailserver.imapd.session import Session
from mailserver.wire.imap_arguments import ImapSyntaxError
from mailserver.wire.imap_search import (
    MOST_KEYS,
    Either,
    Every,
    Filtered,
    Key,
    Not,
    Order,
    Search,
    read_criteria,
)

VALUES: Final = ("/private/filters/values/", "/shared/filters/values/")  # the first counts before the other
DEEPEST: Final = 10  # filters within filters; §3.1 wants 3 at least
C = TypeVar("C", Search, Order)


async def expanded(session: Session, command: C) -> C:
    """The command with what its filters say in their place; a Refusal where there is no such filter. §3.1."""
    expansion = _Expansion(await session.run(session.store.annotations, ""))
    try:
        program = expansion.of(command.program, ())
    except Refusal:
        if session.selected is not None and command.returns is not None and "SAVE" in command.returns:
            session.selected.saved = []  # RFC 5182 §2.1
        raise
    if session.is_uid_only:
        uid_only.check_program(program)
    uses_modseq = command.uses_modseq or expansion.uses_modseq
    return replace(command, program=program, uses_modseq=uses_modseq, has_filters=False)


class _Expansion:
    """One program's. `uses_modseq`: so does a filter."""

    def __init__(self, entries: Mapping[str, bytes]) -> None:
        self._entries = entries
        self._count = 0
        self.uses_modseq = False

    def of(self, key: Key, within: tuple[str, ...]) -> Key:
        """The key without filters. `within` are those that it comes from."""
        match key:
            case Every(parts):
                return Every(tuple(self.of(part, within) for part in parts))
            case Either(first, second):
                return Either(self.of(first, within), self.of(second, within))
            case Not(inner):
                return Not(self.of(inner, within))
            case Filtered():
                return self._stored(key, within)
        return key

    def _stored(self, key: Filtered, within: tuple[str, ...]) -> Key:
        name = key.name.lower()  # as names of annotations are kept
        values = [self._entries[place + name] for place in VALUES if place + name in self._entries]
        if not values or name in within or len(within) >= DEEPEST:
            raise Refusal("There is no such filter.", b"UNDEFINED-FILTER " + key.name.encode("ascii"))
        try:
            criteria = read_criteria(values[0], key.depth, key.is_fuzzy)
        except ImapSyntaxError as fault:
            raise Refusal(f"The filter {key.name} is no search program: {fault}")
        self._count += criteria.count
        if self._count > MOST_KEYS:
            raise Rejection("Search program too complex")
        self.uses_modseq = self.uses_modseq or criteria.uses_modseq
        return self.of(criteria.program, (*within, name))


def check_entry(entry: str, value: bytes) -> None:
    """An annotation of the account that is to be a filter is one; else a Refusal. §3.2."""
    for place in VALUES:
        if entry.startswith(place):
            try:
                read_criteria(value)
            except ImapSyntaxError as fault:
                raise Refusal(f"The filter is no search program: {fault}")
