"""UIDONLY: a client that enabled it neither says nor hears a message's number. RFC 9586 §3.

What it may not say is refused here; what it hears instead, UIDFETCH for FETCH and VANISHED for EXPUNGE, is
where those are said.
"""

from __future__ import annotations

from typing import Final

from mailserver.imapd.replies import Rejection
from mailserver.wire.imap_commands import Command
from mailserver.wire.imap_multisearch import MultiSearch
from mailserver.wire.imap_search import Either, Every, Key, Not, Numbered, Order, Search
from mailserver.wire.imap_select import Select

_OF_NUMBERS: Final = frozenset({"FETCH", "STORE", "SEARCH", "COPY", "MOVE", "SORT", "THREAD", "REPLACE"})


def check(command: Command) -> None:
    """The command names no message by its number; else a Rejection."""
    if command.name in _OF_NUMBERS:
        raise _required(f"{command.name} is not allowed with UIDONLY: use UID {command.name}.")
    match command.arguments:
        case Search(program) | Order(program) | MultiSearch(_, Search(program)):
            check_program(program)
        case Select(resync=resync) if resync is not None and resync.matched_numbers is not None:
            raise _required("Message sequence match data is not allowed with UIDONLY.")


def check_program(program: Key) -> None:
    """The search program names no message by its number; else a Rejection."""
    if _has_numbers(program):
        raise _required("Message numbers are not allowed with UIDONLY: use the search key UID.")


def _required(text: str) -> Rejection:
    return Rejection(text, b"UIDREQUIRED")


def _has_numbers(key: Key) -> bool:
    match key:
        case Every(parts):
            return any(map(_has_numbers, parts))
        case Either(first, second):
            return _has_numbers(first) or _has_numbers(second)
        case Not(inner):
            return _has_numbers(inner)
    return isinstance(key, Numbered) and not key.by_uid and not key.messages.is_saved
