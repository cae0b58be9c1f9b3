"""CONTEXT=SEARCH and CONTEXT=SORT: searches whose results are kept up to date for the client. RFC 5267.

A context remembers which UIDs it has told. When the session tells of changes, the messages that
changed are asked again, only they, and what came or went is told in ADDTO and REMOVEFROM. What
was expunged leaves a context just before its EXPUNGE is told (§4.3.4).

Where results are sorted, each change names its position; what a message is sorted by never changes.

Time alone (OLDER, YOUNGER) changes nothing that is told.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from mailserver.imapd.replies import Rejection, Reply, ok
from mailserver.imapd.results import Results
from mailserver.imapd.search_keys import Searcher
from mailserver.imapd.selected import KeptSearch, Selected
from mailserver.imapd.session import Session
from mailserver.imapd.sorting import Criteria, in_order
from mailserver.store.contract import Mailbox, Uid
from mailserver.wire import imap_search as keys
from mailserver.wire.imap_commands import CancelUpdate
from mailserver.wire.imap_responses import public_text, string
from mailserver.wire.imap_sequence import SequenceSet, render_set, runs

MOST_CONTEXTS: Final = 10
Pair = tuple[int, list[Uid]]  # the position of the first, from 1, and what comes or goes there


class Context:
    """One search that is kept up to date. See `selected.KeptSearch`."""

    def __init__(self, session: Session, program: keys.Key, results: Results) -> None:
        self.tag = session.current_tag
        self.by_uid = results.by_uid
        self._session = session
        self._program = program
        self._results = results
        self._uids: set[int] = set(results.uids)

    def remove(self, uids: Collection[int]) -> None:
        """Those of the messages that were results are none any more, and the client knows."""
        gone = sorted(self._uids.intersection(uids))
        self._uids.difference_update(gone)
        self._tell(b"REMOVEFROM", gone)

    async def update(self, changed: Sequence[Uid]) -> None:
        """The messages came or changed; the client knows which are results now, and which no more."""
        session, selected = self._session, self._results.selected
        searcher = Searcher(session, selected, session.service.now())
        found = set(await searcher.among(self._program, [*changed]))
        self.remove(set(changed) - found)
        fresh = sorted(found - self._uids)
        self._uids.update(fresh)
        self._tell(b"ADDTO", fresh)

    def _tell(self, what: bytes, uids: Sequence[int]) -> None:
        if uids:
            numbers = self._results.numbers([Uid(uid) for uid in uids])
            heading = self._results.heading(self.tag)
            self._session.output.line(b"%b %b (0 %b)" % (heading, what, render_set(numbers)))


class SortedContext:
    """One SORT that is kept up to date. See `selected.KeptSearch`."""

    def __init__(self, session: Session, program: keys.Key, results: Results, criteria: Criteria) -> None:
        self.tag = session.current_tag
        self.by_uid = results.by_uid
        self._session = session
        self._program = program
        self._results = results
        self._criteria = criteria
        self._uids = list(results.uids)

    def remove(self, uids: Collection[int]) -> None:
        """Those of the messages that were results are none any more, and the client knows.

        From the last position to the first, so that none moves before its turn.
        """
        gone = [position for position, uid in enumerate(self._uids) if uid in uids]
        pairs = []
        for first, last in reversed(list(runs(gone))):
            pairs.append((first + 1, self._uids[first : last + 1]))
            del self._uids[first : last + 1]
        self._tell(b"REMOVEFROM", pairs)

    async def update(self, changed: Sequence[Uid]) -> None:
        """The messages came or changed; the client knows which are results now, and where."""
        session, selected = self._session, self._results.selected
        searcher = Searcher(session, selected, session.service.now())
        found = set(await searcher.among(self._program, [*changed]))
        self.remove(set(changed) - found)
        fresh = sorted(found - set(self._uids))
        if fresh:
            mailbox = selected.mailbox
            self._uids, pairs = await session.run(inserted, mailbox, self._uids, fresh, self._criteria)
            self._tell(b"ADDTO", pairs)

    def _tell(self, what: bytes, pairs: Sequence[Pair]) -> None:
        if pairs:
            words = [b"%d %b" % (at, render_set(self._results.numbers(uids))) for at, uids in pairs]
            heading = self._results.heading(self.tag)
            self._session.output.line(b"%b %b (%b)" % (heading, what, b" ".join(words)))


def inserted(
    mailbox: Mailbox, ordered: Sequence[Uid], fresh: Sequence[Uid], criteria: Criteria
) -> tuple[list[Uid], list[Pair]]:
    """The sorted messages with the fresh ones among them, and what was put where. Blocking.

    Each place is found by comparing with few of the others, whose keys the store remembers.
    """
    result, pairs = list(ordered), list[Pair]()
    for uid in in_order(mailbox, fresh, criteria):
        living = [index for index, other in enumerate(result) if other in mailbox.messages]
        low, high = 0, len(living)
        while low < high:
            middle = (low + high) // 2
            other = result[living[middle]]
            if in_order(mailbox, sorted((uid, other)), criteria)[:1] == [uid]:
                high = middle
            else:
                low = middle + 1
        place = living[low] if low < len(living) else len(result)
        result.insert(place, uid)
        if pairs and pairs[-1][0] + len(pairs[-1][1]) == place + 1:
            pairs[-1][1].append(uid)
        else:
            pairs.append((place + 1, [uid]))
    return result, pairs


def check_tag(session: Session) -> None:
    """The tag names no context yet; else a Rejection. RFC 5267 §4.3."""
    if any(context.tag == session.current_tag for context in session.mailbox_in_use.contexts):
        raise Rejection("Tag reuse")


def keep(session: Session, context: KeptSearch) -> None:
    """The search is kept up to date from now on, or NOUPDATE is told. RFC 5267 §4.3.1."""
    contexts = session.mailbox_in_use.contexts
    if len(contexts) >= MOST_CONTEXTS:
        refuse(session, "Too many contexts.")
        return
    contexts.append(context)


def refuse(session: Session, reason: str, tag: bytes = b"") -> None:
    """The client knows that the search (`tag`: an earlier one) is not kept up to date. RFC 5267 §4.3.1."""
    session.output.line(b"* NO [NOUPDATE %b] %b" % (string(tag or session.current_tag), public_text(reason)))


def drop_numbered(session: Session) -> None:
    """No search is kept up to date whose results the client knows by their numbers. RFC 9586 §3."""
    contexts = session.selected.contexts if session.selected is not None else []
    for context in [context for context in contexts if not context.by_uid]:
        contexts.remove(context)
        refuse(session, "Its results are message numbers.", context.tag)


async def cancel(session: Session, command: CancelUpdate) -> Reply:
    """Nothing more is told of those contexts. RFC 5267 §4.3.5."""
    contexts = session.mailbox_in_use.contexts
    contexts[:] = [context for context in contexts if context.tag not in command.tags]
    return ok("No further updates.")


def frozen(key: keys.Key, selected: Selected) -> keys.Key:
    """The program with UIDs in place of sequence numbers and `$`: they mean what they mean now."""
    match key:
        case keys.Every(parts):
            return keys.Every(tuple(frozen(part, selected) for part in parts))
        case keys.Either(first, second):
            return keys.Either(frozen(first, selected), frozen(second, selected))
        case keys.Not(inner):
            return keys.Not(frozen(inner, selected))
        case keys.Numbered(messages, by_uid) if messages.is_saved or not by_uid:
            uids = selected.chosen(messages, by_uid, is_strict=False)
            return keys.Numbered(SequenceSet(tuple(runs(uids))), by_uid=True)
    return key
