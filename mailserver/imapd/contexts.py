"""CONTEXT=SEARCH: searches whose results are kept up to date for the client. RFC 5267.

A context remembers which UIDs it has told. When the session tells of changes, the messages that
changed are asked again, only they, and what came or went is told in ADDTO and REMOVEFROM. What
was expunged leaves a context just before its EXPUNGE is told (§4.3.4).

Time alone (OLDER, YOUNGER) changes nothing that is told.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from mailserver.imapd.replies import Rejection, Reply, ok
from mailserver.imapd.results import Results
from mailserver.imapd.search_keys import Searcher
from mailserver.imapd.selected import Selected
from mailserver.imapd.session import Session
from mailserver.store.contract import Uid
from mailserver.wire import imap_search as keys
from mailserver.wire.imap_commands import CancelUpdate
from mailserver.wire.imap_responses import string
from mailserver.wire.imap_sequence import SequenceSet, render_set, runs

MOST_CONTEXTS: Final = 10


class Context:
    """One search that is kept up to date. See `selected.KeptSearch`."""

    def __init__(self, session: Session, program: keys.Key, results: Results) -> None:
        self.tag = session.current_tag
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
            kind = b" UID" if self._results.by_uid else b""
            numbers = self._results.numbers([Uid(uid) for uid in uids])
            line = b"* ESEARCH (TAG %b)%b %b (0 %b)" % (string(self.tag), kind, what, render_set(numbers))
            self._session.output.line(line)


def check_tag(session: Session) -> None:
    """The tag names no context yet; else a Rejection. RFC 5267 §4.3."""
    if any(context.tag == session.current_tag for context in session.mailbox_in_use.contexts):
        raise Rejection("Tag reuse")


def keep(session: Session, program: keys.Key, results: Results) -> None:
    """The search is kept up to date from now on, or NOUPDATE is told. RFC 5267 §4.3.1."""
    contexts = results.selected.contexts
    if len(contexts) >= MOST_CONTEXTS:
        session.output.line(b"* NO [NOUPDATE %b] Too many contexts." % string(session.current_tag))
        return
    contexts.append(Context(session, program, results))


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
