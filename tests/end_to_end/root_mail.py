"""Sending and reading mail of a `RootServer`, for the tests of what root does."""

from __future__ import annotations

import contextlib
import imaplib
import os
import smtplib
from collections.abc import Iterator
from pathlib import Path

from tests.end_to_end.root_server import PASSWORD, USERS, RootServer
from tests.end_to_end.server import wait_for


def send(server: RootServer, identifier: str, *recipients: str, sender: str = "carol@example.net") -> None:
    """The message is queued; its Message-ID contains the identifier."""
    content = (
        f"From: {sender}\r\nMessage-ID: <{identifier}@example.net>\r\nSubject: {identifier}\r\n\r\nhi\r\n"
    )
    with smtplib.SMTP("127.0.0.1", server.ports["smtp"]) as client:
        client.ehlo()
        client.docmd("MAIL", f"FROM:<{sender}>")  # as written: smtplib repairs addresses
        for recipient in recipients:
            assert client.docmd("RCPT", f"TO:<{recipient}>")[0] == 250
        assert client.data(content.encode())[0] == 250


def imap(server: RootServer, name: str, password: str = PASSWORD) -> imaplib.IMAP4:
    """A logged in IMAP session."""
    client = imaplib.IMAP4("127.0.0.1", server.ports["imap"])
    client.login(name, password)
    return client


def found(server: RootServer, name: str, identifier: str, mailbox: str = "INBOX") -> int:
    """How many messages of the mailbox have the identifier as their subject."""
    client = imap(server, name)
    client.select(mailbox, readonly=True)
    numbers = client.search(None, "SUBJECT", identifier)[1][0].split()
    client.logout()
    return len(numbers)


def arrived(server: RootServer, name: str, identifier: str) -> None:
    """Returns once the message is in the account's INBOX."""
    wait_for(lambda: found(server, name, identifier) == 1, f"{identifier} for {name}")


def logged(server: RootServer, text: str) -> None:
    """Returns once the log has the text."""
    wait_for(lambda: text in server.log_text(), f"{text!r} in\n{server.log_text()[-3000:]}")


def user_file(server: RootServer, name: str, file: str, text: str, mode: int) -> Path:
    """A file of that user's in the home directory."""
    path = server.home(name) / file
    path.write_text(text)
    path.chmod(mode)
    os.chown(path, USERS[name], USERS[name])
    return path


@contextlib.contextmanager
def forwarding(server: RootServer, name: str, text: str, mode: int = 0o644) -> Iterator[None]:
    """The user has that .forward meanwhile."""
    path = user_file(server, name, ".forward", text, mode)
    yield
    path.unlink()
