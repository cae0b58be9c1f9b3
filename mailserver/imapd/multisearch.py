r"""ESEARCH: one search of several mailboxes, each answered as soon as it is done. RFC 7377.

The selected mailbox is searched as the session knows it; each other one is opened, searched and given
back before the next, so that one at a time is held. A mailbox that is not there, or that its user may not
read, is passed over: neither an answer nor the lack of one tells them apart. Whatever was found before a
local fault is told, and the command ends with NO.

Sequence numbers in the program count in each mailbox; `$` is of the selected one alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from mailserver.imapd import contexts
from mailserver.imapd.filters import expanded
from mailserver.imapd.listing import folders_of, is_in
from mailserver.imapd.progress import Progress, reporting
from mailserver.imapd.replies import Refusal, Reply, ok
from mailserver.imapd.results import Results, tell
from mailserver.imapd.search import search_selected
from mailserver.imapd.search_keys import Searcher
from mailserver.imapd.selected import Selected, unclaimed
from mailserver.imapd.session import Session
from mailserver.store.contract import (
    DELETED,
    SEEN,
    AccessDenied,
    BadMailboxName,
    Mailbox,
    MailboxReplaced,
    MailboxStatus,
    NoSuchMailbox,
    Sleeping,
    StoreError,
)
from mailserver.wire import imap_search as keys
from mailserver.wire.imap_filter import MailboxFilter
from mailserver.wire.imap_multisearch import MultiSearch
from mailserver.wire.imap_results import RETURN_ALL
from mailserver.wire.imap_search import Search

_NOT_THERE: Final = (
    NoSuchMailbox,
    BadMailboxName,
    AccessDenied,
    MailboxReplaced,
)  # for this user, or any more


async def multisearch(session: Session, command: MultiSearch) -> Reply:
    """What was found is told of each mailbox that has any. RFC 7377 §2."""
    selected = session.mailbox_in_use if command.is_of_selected else session.selected
    returns = command.search.returns or RETURN_ALL
    if "UPDATE" in returns:
        contexts.check_tag(session)
    if command.search.has_filters:
        command = replace(command, search=await expanded(session, command.search))
    if command.search.uses_modseq:
        session.enable_condstore()
    own_name = selected.mailbox.name if selected is not None else ""
    names = [own_name] if command.is_of_selected else []
    names += await session.run(_names, session, command.sources)
    with reporting(session) as progress:
        work = _Work(session, command.search, progress)
        for name in dict.fromkeys(names):
            if selected is not None and name == own_name:
                await work.search_selected(selected)
            else:
                await work.search(name)
            await session.output.room()
    if "UPDATE" in returns and own_name not in names:
        contexts.refuse(session, "The selected mailbox was not searched.")
    await session.sync()
    if work.is_short:
        raise Refusal("Some of the mailboxes could not be searched.", b"UNAVAILABLE")
    return ok("Search completed.")


def _names(session: Session, sources: Iterable[MailboxFilter]) -> list[str]:
    """The mailboxes that were named, and those that are listed and meant. Blocking."""
    named = [name for source in sources for name in source.mailboxes]
    if all(source.kind in ("SELECTED", "MAILBOXES") for source in sources):
        return named
    folders = [folder for folder in folders_of(session.store) if folder.selectable]
    return named + [
        folder.name for folder in folders if any(is_in(session, source, folder) for source in sources)
    ]


class _Work:
    """One ESEARCH. `is_short`: of some mailbox it is not known whether it has anything."""

    def __init__(self, session: Session, command: Search, progress: Progress) -> None:
        self._session = session
        self._command = command
        self._progress = progress
        self._searched: set[str] = set()  # MAILBOXIDs: another user's mailbox may have two names here
        self.is_short = False

    async def search_selected(self, selected: Selected) -> None:
        """The selected mailbox is searched, and what is to be kept up to date is. May raise StoreError."""
        session, command = self._session, self._command
        await session.wake()
        self._searched.add(selected.mailbox.mailbox_id)
        program, results = await search_selected(
            session, command, self._progress, session.name(selected.mailbox.name)
        )
        self._tell(results)
        if command.returns is not None and "UPDATE" in command.returns:
            contexts.keep(session, contexts.Context(session, program, results))

    async def search(self, name: str) -> None:
        """A mailbox that is not selected is searched, as far as there is one that may be. §2.2."""
        try:
            figures = self._session.store.status_at_once(name)
            if figures is not None and _has_none(figures, self._command.program):
                return
            mailbox = await self._session.open(name)
            try:
                await self._search_open(name, mailbox)
            finally:
                await self._session.give_back(mailbox)
        except _NOT_THERE:
            pass
        except StoreError:
            self.is_short = True

    async def _search_open(self, name: str, mailbox: Mailbox) -> None:
        session, command = self._session, self._command
        if mailbox.mailbox_id in self._searched:
            return
        self._searched.add(mailbox.mailbox_id)
        if mailbox.sleeping is not None:
            if _has_none(mailbox.sleeping, command.program):
                return
            await session.run(mailbox.wake)
        recent = None if session.is_rev2 else unclaimed(mailbox)
        selected = Selected(mailbox, is_read_only=True, recent=recent)
        searcher = Searcher(session, selected, session.service.now(), self._progress)
        uids = await searcher.found(command.program)
        if mailbox.is_guarded:
            await session.run(mailbox.check_rights)  # it may have taken long
            if "r" not in mailbox.rights:
                return
        self._tell(Results(selected, uids, True, command.uses_modseq, session.name(name), searcher.scores))

    def _tell(self, results: Results) -> None:
        """§2.1: only where anything was found. It is with the client before the next mailbox is searched."""
        if results.uids:
            tell(self._session, results, self._command.returns or RETURN_ALL)
            self._session.output.flush()


def _has_none(mailbox: Sleeping | MailboxStatus, program: keys.Key) -> bool:
    """Whether the figures of a mailbox say that nothing can be found: it need not be read then."""
    parts: Sequence[keys.Key] = program.keys if isinstance(program, keys.Every) else (program,)
    return (
        not mailbox.messages
        or (not mailbox.unseen and keys.Not(keys.HasFlag(SEEN)) in parts)
        or (not mailbox.deleted and keys.HasFlag(DELETED) in parts)
    )
