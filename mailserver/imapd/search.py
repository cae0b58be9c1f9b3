"""SEARCH and UID SEARCH, old and extended.

RFC 3501 §6.4.4, RFC 4731, RFC 5182, RFC 5267, RFC 7162 §3.1.5, RFC 9394.
"""

from __future__ import annotations

from dataclasses import replace

from mailserver.imapd import contexts
from mailserver.imapd.filters import expanded
from mailserver.imapd.progress import Progress, reporting
from mailserver.imapd.replies import Reply, ok
from mailserver.imapd.results import Results, tell
from mailserver.imapd.search_keys import Searcher
from mailserver.imapd.session import Session
from mailserver.wire.imap_results import RETURN_ALL
from mailserver.wire.imap_search import Key, Search


async def search(session: Session, command: Search) -> Reply:
    """What was found is told; with SAVE it is kept as `$`, with UPDATE its changes are told later."""
    if command.returns is None and session.is_rev2:
        command = replace(command, returns=RETURN_ALL)  # RFC 9051 §6.4.4: no SEARCH response
    if command.has_filters:
        command = await expanded(session, command)
    returns = command.returns
    if returns is not None and "UPDATE" in returns:
        contexts.check_tag(session)
    if command.uses_modseq:
        session.enable_condstore()
    with reporting(session) as progress:
        program, results = await search_selected(session, command, progress)
    if returns is None:
        session.output.line(results.plain(b"SEARCH"))
    else:
        tell(session, results, returns)
        if "UPDATE" in returns:
            contexts.keep(session, contexts.Context(session, program, results))
    await session.sync(may_expunge=command.by_uid)
    return ok("Search completed.", results.selected.expunge_code)


async def search_selected(
    session: Session, command: Search, progress: Progress, mailbox: bytes = b""
) -> tuple[Key, Results]:
    """What was found in the selected mailbox, and the program that keeps its meaning with SAVE and UPDATE.

    `mailbox` is the name that the results are told with, if any.
    """
    selected, returns = session.mailbox_in_use, command.returns
    program = command.program
    if returns is not None and returns.options & {"SAVE", "UPDATE"}:
        program = contexts.frozen(program, selected)
    if returns is not None and "SAVE" in returns:
        selected.saved = []  # RFC 5182 §2.1: also when the search fails
    searcher = Searcher(session, selected, session.service.now(), progress)
    uids = await searcher.found(program)
    return program, Results(selected, uids, command.by_uid, command.uses_modseq, mailbox, searcher.scores)
