"""STATUS of a mailbox that is not in memory, from what state.db remembers of it.

When a mailbox is settled, its figures are kept beside the format's token. Where the token still fits,
nothing was done to the mailbox since: the figures hold, and a stat or two is all that it costs, however
many messages there are.
"""

from __future__ import annotations

from mailserver.store.contract import MailboxStatus
from mailserver.store.format import MailboxFormat
from mailserver.store.state import Figures, MailboxRow, State


def is_untouched(row: MailboxRow, figures: Figures, form: MailboxFormat, state: State) -> bool:
    """Whether the mailbox is as it was when its figures were kept. *Blocking.* Raises OSError."""
    count, _, token = row.token.partition("|")
    if figures.modseq != row.modseq or count != str(figures.messages) or not form.is_at(token):
        return False
    mark = form.foreign_mark()
    return not mark or mark == state.foreign_mark(row.id)


def remembered_status(row: MailboxRow, figures: Figures, state: State) -> MailboxStatus:
    """The figures as STATUS has them. *Blocking.*"""
    return MailboxStatus(
        figures.messages,
        state.count_from(row.id, row.recent) if row.recent < row.uidnext else 0,
        row.uidnext,
        row.uidvalidity,
        figures.unseen,
        row.modseq,
        figures.deleted,
        figures.size,
        row.mailbox_id,
    )
