"""The results of SEARCH and SORT as they are told and kept.

RFC 4731 (ESEARCH), RFC 5182 (SEARCHRES), RFC 5267 (ESORT), RFC 7162 §3.1.5, RFC 9394 (PARTIAL),
RFC 7377 (MULTISEARCH), RFC 6203 (RELEVANCY).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mailserver.imapd.fuzzy import Scores, relevancy
from mailserver.imapd.selected import Selected
from mailserver.imapd.session import Session
from mailserver.store.contract import Uid
from mailserver.wire.imap_responses import string
from mailserver.wire.imap_results import Returns
from mailserver.wire.imap_sequence import render_set


@dataclass(frozen=True, slots=True)
class Results:
    """UIDs in the order that was asked for. `with_modseq`: the highest modseq is told too.

    `mailbox` is the mailbox's name as the client reads it, where the response says it.
    """

    selected: Selected
    uids: Sequence[Uid]
    by_uid: bool
    with_modseq: bool = False
    mailbox: bytes = b""
    scores: Scores = field(default_factory=dict)

    def numbers(self, uids: Sequence[Uid]) -> Sequence[int]:
        """UIDs or sequence numbers, as the client asked."""
        return uids if self.by_uid else self.selected.numbers(uids)

    def plain(self, name: bytes) -> bytes:
        """The SEARCH or SORT response. RFC 3501 §7.2.5, RFC 7162 §3.1.6."""
        words = [b"* " + name, *(b"%d" % number for number in self.numbers(self.uids))]
        if self.with_modseq and self.uids:
            words.append(b"(MODSEQ %d)" % self._highest(self.uids))
        return b" ".join(words)

    def heading(self, tag: bytes) -> bytes:
        """What all ESEARCH responses of the command begin with. RFC 4731 §3.1, RFC 7377 §2.1."""
        correlators = b"TAG " + string(tag)
        if self.mailbox:
            correlators += b" MAILBOX %b UIDVALIDITY %d" % (self.mailbox, self.selected.mailbox.uidvalidity)
        return b"* ESEARCH (%b)%b" % (correlators, b" UID" if self.by_uid else b"")

    def extended(self, returns: Returns, tag: bytes) -> bytes:
        """The ESEARCH response. RFC 4731 §3.1, RFC 5267 §3."""
        words = [self.heading(tag)]
        if self.uids and "MIN" in returns:
            words.append(b"MIN %d" % self.numbers(self.uids[:1])[0])
        if self.uids and "MAX" in returns:
            words.append(b"MAX %d" % self.numbers(self.uids[-1:])[0])
        if "COUNT" in returns:
            words.append(b"COUNT %d" % len(self.uids))
        if self.uids and "ALL" in returns:
            words.append(b"ALL " + render_set(self.numbers(self.uids)))
        if returns.partial is not None:
            part = render_set(self.numbers(returns.partial.of(self.uids))) or b"NIL"
            words.append(b"PARTIAL (%b %b)" % (returns.partial.label, part))
        if self.uids and "RELEVANCY" in returns:
            scores = [b"%d" % relevancy(self.scores, uid) for uid in self._scored(returns)]
            words.append(b"RELEVANCY (%b)" % b" ".join(scores))  # RFC 6203 §4
        told = self.told(returns)
        if self.with_modseq and told:
            words.append(b"MODSEQ %d" % self._highest(told))
        return b" ".join(words)

    def _scored(self, returns: Returns) -> Sequence[Uid]:
        """The messages whose relevancy is told, in the order in which they are told."""
        if "ALL" not in returns and returns.partial is not None:
            return returns.partial.of(self.uids)
        return self.uids if "ALL" in returns else self.told(returns)

    def told(self, returns: Returns) -> Sequence[Uid]:
        """The messages that the options speak of: what SAVE keeps and MODSEQ is of.

        All of them, but for MIN, MAX and PARTIAL without ALL and COUNT.
        RFC 5182 §2.1, RFC 4731 §3.2, RFC 9394 §3.2.
        """
        if not self.uids or returns.options & {"ALL", "COUNT"}:
            return self.uids
        if not returns.options & {"MIN", "MAX", "PARTIAL"}:
            return self.uids
        named = set(returns.partial.of(self.uids)) if returns.partial is not None else set()
        if "MIN" in returns:
            named.add(self.uids[0])
        if "MAX" in returns:
            named.add(self.uids[-1])
        return sorted(named)

    def _highest(self, uids: Sequence[Uid]) -> int:
        known = self.selected.mailbox.messages
        return max((found.modseq for uid in uids if (found := known.get(uid)) is not None), default=0)


def tell(session: Session, results: Results, returns: Returns) -> None:
    """The ESEARCH response is said where one is due, and what SAVE keeps is kept."""
    if returns.is_answered:
        session.output.line(results.extended(returns, session.current_tag))
    if "SAVE" in returns:
        results.selected.saved = sorted(results.told(returns))
