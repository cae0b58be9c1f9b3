"""What a view of a mailbox answers itself, and what the mailbox behind it."""

from __future__ import annotations

import pytest

from mailserver.store.contract import Mailbox
from mailserver.store.guarded import GuardedMailbox
from mailserver.store.mailbox_view import MailboxView
from mailserver.store.private_seen import PrivateSeenMailbox

METHODS = sorted(name for name in vars(Mailbox) if callable(getattr(Mailbox, name)) and name[0] != "_")
# Changes, and what differs from user to user: no view may leave these to the mailbox unseen.
OWN = {"append", "as_target", "change_flags", "copy", "expunge", "move", "remove", "seen_by"}


@pytest.mark.parametrize("view", [GuardedMailbox, PrivateSeenMailbox])
@pytest.mark.parametrize("method", sorted(OWN))
def test_changes_are_each_views_own(view: type[MailboxView], method: str) -> None:
    """The base of the views lets no change through, so that none is let through by oversight."""
    assert method not in vars(MailboxView)
    assert method in vars(view)


@pytest.mark.parametrize("method", [name for name in METHODS if name not in OWN | {"check_rights"}])
def test_no_question_is_forgotten(method: str) -> None:
    """Where the contract has a default answer, a view gives the answer of the mailbox behind it."""
    assert method in vars(MailboxView)
