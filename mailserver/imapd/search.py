"""SEARCH and UID SEARCH, old and extended. RFC 3501 §6.4.4, RFC 4731, RFC 5182, RFC 7162 §3.1.5."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mailserver.imapd.replies import Reply, ok
from mailserver.imapd.search_keys import Searcher
from mailserver.imapd.selected import Selected
from mailserver.imapd.session import Session
from mailserver.store.contract import Uid
from mailserver.wire.imap_responses import string
from mailserver.wire.imap_search import Search
from mailserver.wire.imap_sequence import render_set


async def search(session: Session, command: Search) -> Reply:
    """What was found is told; with SAVE it is kept as `$`."""
    selected = session.mailbox_in_use
    if command.returns is None and session.is_rev2:
        command = replace(command, returns=frozenset({"ALL"}))  # RFC 9051 §6.4.4: no SEARCH response
    if command.uses_modseq:
        session.enable_condstore()
    saves = command.returns is not None and "SAVE" in command.returns
    if saves:
        selected.saved = []  # RFC 5182 §2.1: also when the search fails
    searcher = Searcher(session, selected, session.service.now())
    uids = await searcher.found(command.program)
    modseq = _highest(selected, uids) if command.uses_modseq else 0
    if command.returns is None:
        session.output.write(_plain(selected, command, uids, modseq))
    elif command.returns != {"SAVE"}:
        session.output.line(_extended(selected, command, uids, modseq, session.current_tag))
    if saves and command.returns is not None:
        selected.saved = _saved(command.returns, uids)
    await session.sync(may_expunge=command.by_uid)
    return ok("Search completed.")


def _numbers(selected: Selected, uids: Sequence[Uid], by_uid: bool) -> list[int]:
    return [*uids] if by_uid else [selected.number(uid) for uid in uids]


def _plain(selected: Selected, command: Search, uids: Sequence[Uid], modseq: int) -> bytes:
    words = [b"* SEARCH", *(b"%d" % number for number in _numbers(selected, uids, command.by_uid))]
    if modseq and uids:
        words.append(b"(MODSEQ %d)" % modseq)
    return b" ".join(words) + b"\r\n"


def _extended(selected: Selected, command: Search, uids: Sequence[Uid], modseq: int, tag: bytes) -> bytes:
    returns = command.returns or frozenset()
    numbers = _numbers(selected, uids, command.by_uid)
    words = [b"* ESEARCH (TAG %b)" % string(tag)]
    if command.by_uid:
        words.append(b"UID")
    if numbers and "MIN" in returns:
        words.append(b"MIN %d" % numbers[0])
    if numbers and "MAX" in returns:
        words.append(b"MAX %d" % numbers[-1])
    if "COUNT" in returns:
        words.append(b"COUNT %d" % len(numbers))
    if numbers and "ALL" in returns:
        words.append(b"ALL " + render_set(numbers))
    if modseq and numbers:
        words.append(b"MODSEQ %d" % modseq)
    return b" ".join(words)


def _highest(selected: Selected, uids: Sequence[Uid]) -> int:
    known = selected.mailbox.messages
    return max((found.modseq for uid in uids if (found := known.get(uid)) is not None), default=0)


def _saved(returns: frozenset[str], uids: Sequence[Uid]) -> list[int]:
    """RFC 5182 §2.1: with MIN or MAX alone only those are kept, else all."""
    if returns & {"ALL", "COUNT"} or not returns & {"MIN", "MAX"} or not uids:
        return [*uids]
    ends = [*([uids[0]] if "MIN" in returns else []), *([uids[-1]] if "MAX" in returns else [])]
    return sorted(set(ends))
