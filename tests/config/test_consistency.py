"""mail_location reads where delivery writes, or the start is refused with both lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailserver.config.syntax import ConfigError
from tests.config.hosts import written


@pytest.mark.parametrize(
    "lines",
    [
        "",
        "mail_location = mbox:~/mail:INBOX=/var/mail/%u",
        "mail_location = mbox:~/mail:INBOX=/var/spool/mail/%n",
        "mail_location = maildir:~/Maildir\nhome_mailbox = Maildir/",
        "mail_location = maildir:%h/Maildir\nhome_mailbox = Maildir/",
        "mail_location = maildir:/var/mail/%u\nmail_spool_directory = /var/mail/",
        "mail_location = maildir:/srv/x/%{user}/\nmail_spool_directory = /srv/x/",
        "mail_location = maildir:~/Maildir\nmailbox_command = procmail",
        "mail_location = mbox:~/mail:INBOX=~/Mailbox:INDEX=MEMORY\nhome_mailbox = Mailbox",
    ],
)
def test_agreement(tmp_path: Path, lines: str) -> None:
    """The same place in two spellings, or a command that alone knows the place."""
    assert written(tmp_path, lines + "\n").warnings == ()


@pytest.mark.parametrize(
    "lines",
    [
        "mail_location = maildir:~/Maildir",
        "mail_location = maildir:/var/mail/%u",
        "mail_location = mbox:~/mail:INBOX=/srv/mail/%u",
        "mail_location = mbox:~/mail:INBOX=/var/mail/%u\nmail_spool_directory = /var/mail/",
        "mail_location = mbox:~/mail:INBOX=/var/mail/%u\nhome_mailbox = Mailbox",
    ],
)
def test_disagreement(tmp_path: Path, lines: str) -> None:
    """Mail would be delivered where nobody reads it."""
    with pytest.raises(ConfigError, match=r"main\.cf:1: mail_location: mail is read from .* make them agree"):
        written(tmp_path, lines + "\n")


def test_both_lines_are_named(tmp_path: Path) -> None:
    """So that the administrator need not search."""
    with pytest.raises(ConfigError) as caught:
        written(tmp_path, "mail_location = maildir:~/Maildir\n\nhome_mailbox = Mailbox\n")
    assert f"{tmp_path}/main.cf:1" in str(caught.value)
    assert f"{tmp_path}/main.cf:3" in str(caught.value)


@pytest.mark.parametrize(
    ("lines", "location"),
    [
        ("", "mbox:~/mail:INBOX=/var/spool/mail/%u"),
        ("mail_spool_directory = /var/mail/", "maildir:/var/mail/%u"),
        ("home_mailbox = Maildir/", "maildir:~/Maildir/"),
        ("home_mailbox = Mailbox", "mbox:~/mail:INBOX=~/Mailbox"),
    ],
)
def test_the_default_follows_delivery(tmp_path: Path, lines: str, location: str) -> None:
    """A main.cf of Postfix alone says all that is needed."""
    assert written(tmp_path, lines + "\n").string("mail_location") == location


def test_unknown_protocols_are_refused(tmp_path: Path) -> None:
    """A misspelt protocol would be a port that never opens."""
    with pytest.raises(ConfigError, match="unknown protocol imap4"):
        written(tmp_path, "protocols = imap4\n")
    assert written(tmp_path, "protocols = imap pop3 lmtp\n").warnings == ()
