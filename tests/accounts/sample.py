"""Accounts for tests: cheap hashes, files in a temporary directory."""

from __future__ import annotations

from pathlib import Path

from mailserver.accounts.check import SourcePasswordCheck
from mailserver.accounts.directory import SourceDirectory
from mailserver.accounts.hashing import hash_password
from mailserver.accounts.login import Attempt, Peer
from mailserver.accounts.passwd_file import MailOwner, PasswdFile


def stored(password: str) -> str:
    """A cheap hash."""
    return hash_password(password.encode(), rounds=1000)


def write_users(path: Path, *lines: str) -> PasswdFile:
    """A passwd-file with those lines."""
    path.write_text("".join(f"{line}\n" for line in lines))
    return PasswdFile(str(path), MailOwner(5000, 5001), "/home/vmail/%d/%n")


def check_for(path: Path, *lines: str) -> SourcePasswordCheck:
    """A check over a passwd-file with those lines."""
    return SourcePasswordCheck(SourceDirectory([write_users(path, *lines)]), ["example.org"])


def attempt(name: str, password: str, address: str = "192.0.2.1", service: str = "imap") -> Attempt:
    """A login over TLS."""
    peer = Peer(address, 4711, "192.0.2.99", 993, True, True)
    return Attempt(service, "PLAIN", name, password.encode(), peer, "session1")
