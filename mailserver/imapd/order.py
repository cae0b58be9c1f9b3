"""SORT and THREAD; THREAD=REFS as Dovecot has it.

RFC 5256, RFC 5957 (SORT=DISPLAY), RFC 5267 (ESORT, CONTEXT=SORT), RFC 6203 (RELEVANCY).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final
from weakref import WeakKeyDictionary

from mailserver.imapd import contexts
from mailserver.imapd.filters import expanded
from mailserver.imapd.fuzzy import Scores
from mailserver.imapd.progress import Progress, reporting
from mailserver.imapd.replies import Reply, ok
from mailserver.imapd.results import Results, tell
from mailserver.imapd.search_keys import Searcher
from mailserver.imapd.selected import Selected
from mailserver.imapd.session import Session
from mailserver.imapd.sorting import Criteria, in_order, sent_times
from mailserver.message.header import first, header_end
from mailserver.message.sort_keys import base_subject, message_ids, references
from mailserver.message.threading import Threadable, by_references, by_refs, ordered_subject, render
from mailserver.store.contract import Mailbox, Uid
from mailserver.wire.imap_search import Order


async def order(session: Session, command: Order) -> Reply:
    """The messages that match are told in order, or as threads."""
    selected = session.mailbox_in_use
    if command.has_filters:
        command = await expanded(session, command)
    if command.returns is not None and "UPDATE" in command.returns:
        contexts.check_tag(session)
        command = replace(command, program=contexts.frozen(command.program, selected))
    if command.uses_modseq:
        session.enable_condstore()
    with reporting(session) as progress:
        searcher = Searcher(session, selected, session.service.now(), progress)
        uids = await searcher.found(command.program)
        progress.goal += len(uids) * max(1, len(command.criteria))
        if command.algorithm:
            threads = await _threads(session, selected, uids, command, progress)
        else:
            uids = await _in_order(session, uids, command.criteria, searcher.scores, progress)
    if command.algorithm:
        session.output.line(b"* THREAD " + threads if threads else b"* THREAD")
    else:
        _tell_sorted(session, command, uids, searcher.scores)
    await session.sync(may_expunge=command.by_uid)
    return ok("Thread completed." if command.algorithm else "Sort completed.", selected.expunge_code)


@dataclass(frozen=True, slots=True)
class _Sorted:
    """An answer to SORT, and what it depends on: messages never change."""

    criteria: Criteria
    uids: list[Uid]
    ordered: list[Uid]


_last_sorted: WeakKeyDictionary[Mailbox, _Sorted] = WeakKeyDictionary()


async def _in_order(
    session: Session, uids: list[Uid], criteria: Criteria, scores: Scores, progress: Progress
) -> list[Uid]:
    """The messages in order; sorted but once for clients that ask the same again and again."""
    mailbox = session.mailbox_in_use.mailbox
    last = _last_sorted.get(mailbox)
    if last is not None and not scores and (last.criteria, last.uids) == (criteria, uids):
        return last.ordered
    ordered = await session.run(in_order, mailbox, uids, criteria, progress, scores)
    if len(ordered) == len(uids) and not scores:  # none was gone
        _last_sorted[mailbox] = _Sorted(criteria, uids, ordered)
    return ordered


@dataclass(frozen=True, slots=True)
class _Threads:
    """An answer to THREAD, and what it depends on: messages never change."""

    algorithm: str
    uids: Sequence[Uid]
    numbers: Sequence[int]  # UIDs where the client asked for those
    answer: bytes


_last_threads: WeakKeyDictionary[Mailbox, _Threads] = WeakKeyDictionary()


async def _threads(
    session: Session, selected: Selected, uids: Sequence[Uid], command: Order, progress: Progress
) -> bytes:
    """The threads; computed but once for clients that ask the same again and again."""
    numbers = uids if command.by_uid else selected.numbers(uids)
    last = _last_threads.get(selected.mailbox)
    if last and (last.algorithm, last.uids, last.numbers) == (command.algorithm, uids, numbers):
        return last.answer
    answer = await session.run(_threaded, selected.mailbox, uids, numbers, command.algorithm, progress)
    _last_threads[selected.mailbox] = _Threads(command.algorithm, uids, numbers, answer)
    return answer


def _tell_sorted(session: Session, command: Order, uids: Sequence[Uid], scores: Scores) -> None:
    selected = session.mailbox_in_use
    results = Results(selected, uids, command.by_uid, command.uses_modseq, scores=scores)
    if command.returns is None:
        session.output.line(results.plain(b"SORT"))
        return
    tell(session, results, command.returns)
    if "UPDATE" in command.returns and "RELEVANCY" in dict(command.criteria):
        contexts.refuse(session, "An order by relevancy is not kept up to date.")
    elif "UPDATE" in command.returns:
        context = contexts.SortedContext(session, command.program, results, command.criteria)
        contexts.keep(session, context)


def _threaded(
    mailbox: Mailbox, uids: Sequence[Uid], numbers: Sequence[int], algorithm: str, progress: Progress
) -> bytes:
    """Blocking."""
    facts = mailbox.facts(uids, progress.counting(_thread_fact), "thread.1", of_header=True)
    dates = sent_times(mailbox, uids, Progress())
    messages = [
        _threadable(number, facts[uid], dates[uid])
        for number, uid in zip(numbers, uids, strict=True)
        if uid in facts and uid in dates
    ]
    return render(_ALGORITHMS[algorithm](messages))


_ALGORITHMS: Final = {"REFERENCES": by_references, "REFS": by_refs, "ORDEREDSUBJECT": ordered_subject}


def _thread_fact(content: bytes) -> bytes:
    """Message-ID, references, reply mark and base subject, a line each."""
    header = content[: header_end(content)]
    own = message_ids(first(header, b"message-id") or b"")[:1]
    ancestors = references(first(header, b"references") or b"", first(header, b"in-reply-to") or b"")
    subject, is_reply = base_subject(first(header, b"subject") or b"")
    clean = [name.replace(b"\n", b"").replace(b" ", b"") for name in (*own, *ancestors)]
    return b"\n".join(
        (b"".join(clean[: len(own)]), b" ".join(clean[len(own) :]), b"R" if is_reply else b"",
         subject.encode("utf-8", "replace"))
    )  # fmt: skip


def _threadable(number: int, fact: bytes, sent: int) -> Threadable:
    own, ancestors, mark, subject = fact.split(b"\n", 3)
    return Threadable(number, own, tuple(ancestors.split()), subject.decode("utf-8"), bool(mark), sent)
