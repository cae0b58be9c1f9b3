"""Where mail lies: Dovecot's mail_location and Postfix's parameters."""

from __future__ import annotations

import dataclasses

import pytest

from mailserver.accounts.account import Account
from mailserver.store.contract import StoreFailure
from mailserver.store.layout import BadLocation, Kind, Layout, layout_for, parse_location

ALICE = Account("alice", 1000, 1000, "/home/alice")
BOB = Account("bob@example.org", 1000, 1000, "/srv/vmail/50%/bob")
MAILDIR, MBOX = Kind.MAILDIR, Kind.MBOX


@pytest.mark.parametrize(
    ("location", "layout"),
    [
        ("maildir:~/Maildir", Layout(MAILDIR, "/home/alice/Maildir", MAILDIR, "/home/alice/Maildir")),
        ("maildir:%h/Maildir", Layout(MAILDIR, "/home/alice/Maildir", MAILDIR, "/home/alice/Maildir")),
        ("maildir:/var/mail/%u/", Layout(MAILDIR, "/var/mail/alice", MAILDIR, "/var/mail/alice")),
        ("maildir:~/m:LAYOUT=fs", Layout(MAILDIR, "/home/alice/m", MAILDIR, "/home/alice/m", plain=True)),
        (
            "maildir:~/m:INBOX=/var/mail/%n:CONTROL=/c/%u",
            Layout(MAILDIR, "/var/mail/alice", MAILDIR, "/home/alice/m", control="/c/alice"),
        ),
        (
            "mbox:~/mail:INBOX=/var/mail/%u",
            Layout(MBOX, "/var/mail/alice", MBOX, "/home/alice/mail", plain=True),
        ),
        ("mbox:~/mail", Layout(MBOX, "/home/alice/mail/inbox", MBOX, "/home/alice/mail", plain=True)),
        (
            "mbox:~/mail:DIRNAME=messages:INDEX=/var/idx",
            Layout(MBOX, "/home/alice/mail/inbox", MBOX, "/home/alice/mail", True, "messages"),
        ),
    ],
)
def test_mail_location(location: str, layout: Layout) -> None:
    """Dovecot's syntax, as its documentation has it."""
    assert parse_location(location, ALICE) == layout


def test_variables() -> None:
    """%u, %n, %d, %h and %%; a percent sign in the home is no variable."""
    layout = parse_location("maildir:/v/%d/%n/%u/%%:INBOX=~/x", BOB)
    assert layout.root == "/v/example.org/bob/bob@example.org/%"
    assert layout.inbox == "/srv/vmail/50%/bob/x"


@pytest.mark.parametrize(
    "location",
    [
        *("", "dbox:~/x", "maildir:", "maildir:relative", "maildir:~bob/x", "maildir:/v/%Z"),
        *("maildir:~/x:LAYOUT=index", "mbox:~/m:LAYOUT=maildir++", "mbox:~/m:DIRNAME=a/b"),
    ],
)
def test_bad_locations(location: str) -> None:
    """What cannot be understood is refused, never guessed."""
    with pytest.raises(BadLocation):
        parse_location(location, ALICE)


@pytest.mark.parametrize(
    ("spool", "home_mailbox", "kind", "inbox", "root"),
    [
        ("/var/mail", "", MBOX, "/var/mail/alice", "/home/alice/mail"),
        ("/var/mail/", "", MAILDIR, "/var/mail/alice", "/var/mail/alice"),
        ("/var/mail", "Maildir/", MAILDIR, "/home/alice/Maildir", "/home/alice/Maildir"),
        ("/var/mail", "Mailbox", MBOX, "/home/alice/Mailbox", "/home/alice/mail"),
    ],
)
def test_postfix_parameters(spool: str, home_mailbox: str, kind: Kind, inbox: str, root: str) -> None:
    """Where mail_location is empty, mail is read where Postfix's words say that it is delivered."""
    layout = layout_for(ALICE, "", spool, home_mailbox)
    assert (layout.inbox_kind, layout.inbox, layout.root) == (kind, inbox, root)


def test_the_accounts_own_location_wins() -> None:
    """userdb_mail overrides mail_location."""
    account = dataclasses.replace(ALICE, mail="maildir:/srv/alice")
    assert layout_for(account, "mbox:~/mail").inbox == "/srv/alice"


def test_a_bad_location_is_a_local_fault() -> None:
    """The client is told of a temporary failure. RELIABILITY P5."""
    with pytest.raises(StoreFailure):
        layout_for(dataclasses.replace(ALICE, mail="nonsense"), "")
