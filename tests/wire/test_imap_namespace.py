"""How an account's own mailboxes are named to clients. RFC 2342 §5."""

from __future__ import annotations

import pytest

from mailserver.wire.imap_mailbox import InvalidMailboxName, mailbox_name
from mailserver.wire.imap_namespace import NO_PREFIX, PersonalNamespace

NAMESPACE = PersonalNamespace(".", "INBOX/", ("shared/", "Public/Team/"))


@pytest.mark.parametrize("name", ["INBOX", "Work", "Work/2024", "INBOX/Child", "a.b"])
def test_what_is_told_is_understood(name: str) -> None:
    """Whatever a client is told is that mailbox when it comes back; without a prefix nothing changes."""
    assert NAMESPACE.heard(NAMESPACE.told(name)) == name
    assert NO_PREFIX.told(name) == NO_PREFIX.heard(name) == name


@pytest.mark.parametrize(
    ("raw", "name"),
    [(b"inbox", "INBOX"), (b"INBOX.", "INBOX"), (b"INBOX.INBOX", "INBOX"), (b"inbox.inbox", "INBOX"),
     (b"inbox.Sent", "Sent"), (b"INBOX.INBOX.x", "INBOX/x"), (b"shared.bob.Work", "shared/bob/Work"),
     (b"shared", "shared"), (b"Public", "Public"), (b"Public.Team.x", "Public/Team/x")],
)  # fmt: skip
def test_names_that_clients_say(raw: bytes, name: str) -> None:
    """INBOX in any case (RFC 3501 §5.1), the prefix too; others' names as they are."""
    assert mailbox_name(raw, namespace=NAMESPACE) == name


@pytest.mark.parametrize("raw", [b"Sent", b"INBOX/Sent", b"INBOXSent", b"Public.x", b"sharedx", b"INBOX..x"])
def test_names_in_no_namespace(raw: bytes) -> None:
    """They are refused: no folder can be had by two names."""
    with pytest.raises(InvalidMailboxName):
        mailbox_name(raw, namespace=NAMESPACE)


def test_levels_above() -> None:
    """INBOX is above all own mailboxes where the prefix says so, and above no other."""
    assert [NAMESPACE.parent(name) for name in ("a/b", "a", "INBOX")] == ["a", "INBOX", ""]
    assert NAMESPACE.parent("shared", is_own=False) == ""
    assert [NO_PREFIX.parent(name) for name in ("a/b", "a", "INBOX")] == ["a", "", ""]
