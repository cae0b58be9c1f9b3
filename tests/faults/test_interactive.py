"""Somebody reads mail at a terminal while an IMAP session idles on the same spool. RELIABILITY P6, P7.

`h`, `1`, `d 3 4`, `s 1 first`, `q`: what was read goes to ~/mbox or stays, what was deleted is gone, the
file is written; the session hears of each message that went, and the others keep their UIDs.
"""

from __future__ import annotations

import mailbox
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.server import Server, running
from tests.faults.test_everybody import imap, message, on_a_terminal

COMMANDS = b"h\n1\nd 3 4\ns 1 first\nq\n"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with running(tmp_path / "home", "mbox") as server:
        yield server


class Idler:
    """An IMAP session of alice's in IDLE, byte by byte."""

    def __init__(self, server: Server) -> None:
        self._socket = socket.create_connection(("127.0.0.1", server.ports["imap"]), timeout=30)
        self._file = self._socket.makefile("rwb")
        self._file.readline()
        self.say(b"a LOGIN alice " + server.passwords["alice"].encode())
        self.until(b"a OK")
        self.say(b"b SELECT INBOX")
        self.until(b"b OK")
        self.say(b"c IDLE")
        self.until(b"+ ")

    def say(self, line: bytes) -> None:
        self._file.write(line + b"\r\n")
        self._file.flush()

    def until(self, start: bytes) -> list[bytes]:
        """The lines up to one that starts so."""
        lines = [self._file.readline()]
        while not lines[-1].startswith(start):
            assert lines[-1], lines
            lines.append(self._file.readline())
        return lines

    def done(self) -> list[bytes]:
        self.say(b"DONE")
        return self.until(b"c OK")

    def close(self) -> None:
        self._file.close()
        self._socket.close()


def by_subject(server: Server) -> dict[str, str]:
    """UID by subject, with UIDVALIDITY beside them."""
    client = imap(server)
    found = {"UIDVALIDITY": client.response("UIDVALIDITY")[1][0].decode()}  # type: ignore[union-attr]
    rows = client.uid("FETCH", "1:*", "(UID BODY.PEEK[HEADER.FIELDS (SUBJECT)])")[1]
    for row in rows:
        if isinstance(row, tuple):
            subject = row[1].decode().partition(":")[2].strip()
            found[subject] = row[0].split(b"UID ")[1].split()[0].decode()
    client.logout()
    return found


def fill(server: Server) -> None:
    """INBOX holds six messages of ours and nothing else, none of them read."""
    client = imap(server)
    client.store("1:*", "+FLAGS.SILENT", "(\\Deleted)")
    client.expunge()
    for number in range(1, 7):
        client.append("INBOX", "", "", message(f"n{number}").replace("\n", "\r\n").encode())
    client.logout()


@pytest.mark.parametrize(
    "program",
    [
        pytest.param(("bsd-mailx", "-n", "-N"), marks=pytest.mark.needs("bsd-mailx"), id="bsd-mailx"),
        pytest.param(("s-nail", "-:/", "-Snoheader"), marks=pytest.mark.needs("s-nail"), id="s-nail"),
    ],
)
def test_mail_at_a_terminal(server: Server, tmp_path: Path, program: tuple[str, ...]) -> None:
    """The user's mail program and an IDLE session, on one mbox."""
    fill(server)
    before = by_subject(server)
    idler = Idler(server)
    home = tmp_path / "user"
    home.mkdir()
    shown = on_a_terminal([*program], home, COMMANDS, MAIL=str(server.inbox("alice")), USER="alice")
    assert b"body" in shown, shown
    saved = mailbox.mbox(home / "first")
    assert [each["Subject"] for each in saved] == ["n1"]
    lines: list[bytes] = []
    while sum(b" EXPUNGE" in line for line in lines) < 3:  # 1 was saved, 3 and 4 were deleted
        lines += idler.until(b"* ")
    idler.done()
    idler.close()
    after = by_subject(server)
    assert set(before) - set(after) == {"n1", "n3", "n4"}
    assert all(before[subject] == uid for subject, uid in after.items())
    assert [each["Subject"] for each in mailbox.mbox(server.inbox("alice"))] == ["n2", "n5", "n6"]


@pytest.mark.needs("bsd-mailx")
def test_what_was_read_goes_to_mbox(server: Server, tmp_path: Path) -> None:
    """mail(1)'s own habit: on `q` a message that was read moves from the spool to ~/mbox."""
    fill(server)
    before = by_subject(server)
    idler = Idler(server)
    home = tmp_path / "user"
    home.mkdir()
    on_a_terminal(["bsd-mailx", "-n", "-N"], home, b"2\nq\n", MAIL=str(server.inbox("alice")))
    lines: list[bytes] = []
    while not any(b" EXPUNGE" in line for line in lines):
        lines += idler.until(b"* ")
    idler.close()
    assert [each["Subject"] for each in mailbox.mbox(home / "mbox")] == ["n2"]
    after = by_subject(server)
    assert before.items() - after.items() == {("n2", before["n2"])}
