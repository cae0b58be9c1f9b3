"""The dialogues, played on Dovecot and on ours: the same answers, or the difference is explained.

A dialogue is a file of commands. `C: ` lines belong to the first session, `C2: ` to another;
`{{…}}` is sent as a literal, with `\\r\\n` escapes; `$MODSEQ` and `$UIDVALIDITY` stand for what that
server last told that session. Every command has its own tag within the file, by which the table of
differences names it. A listed difference that is none any more fails too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.differential.answers import comparable
from tests.differential.differences import DIALOGUES
from tests.differential.servers import Dovecot, Ours, open_directory
from tests.imapd.harness import with_literals

pytestmark = [pytest.mark.needs("dovecot")]

FILES = sorted((Path(__file__).parent / "dialogues").glob("*.txt"))
_TOLD = re.compile(rb"(HIGHESTMODSEQ|UIDVALIDITY) ([0-9]+)")

MAIL = {
    str(number): (
        f"From: {sender} <{sender}@example.org>\nTo: team@example.org\nCc: {copied}@example.net\n"
        f"Subject: {subject}\nDate: {date}\nMessage-ID: <{number}@example.org>\n{reference}\n"
        f"Body of {number}.\n"
    ).encode()
    for number, (sender, copied, subject, date, reference) in enumerate(
        (
            ("alice", "zoe", "plan", "Mon, 7 Feb 1994 21:52:25 -0800", ""),
            ("bob", "yan", "Re: plan", "Tue, 8 Feb 1994 01:00:00 +0000", "In-Reply-To: <1@example.org>\n"),
            ("carol", "xia", "=?utf-8?q?caf=C3=A9?=", "Wed, 9 Feb 1994 01:00:00 +0000", ""),
            ("alice", "wes", "Fwd: plan", "Thu, 10 Feb 1994 01:00:00 +0000", "References: "
                "<1@example.org> <2@example.org>\n"),
            ("dave", "vic", "[list] other (fwd)", "Fri, 11 Feb 1994 01:00:00 +0000", ""),
            ("bob", "uma", "Re: [list] other", "Sat, 12 Feb 1994 01:00:00 +0000",
                "References: <nowhere@example.org>\n"),
        ),
        1,
    )
}  # fmt: skip


@dataclass
class Player:
    """Plays commands on one server."""

    server: Dovecot | Ours
    told: dict[tuple[str, bytes], bytes] = field(default_factory=dict)

    def ask(self, session: str, command: bytes) -> list[str]:
        for (name, word), value in self.told.items():
            if name == session:
                command = command.replace(b"$" + word, value)
        responses = self.server.session(session).ask(command)
        for response in responses:
            for word, value in _TOLD.findall(response):
                self.told[session, word.removeprefix(b"HIGHEST")] = value
        return comparable(responses)


@pytest.fixture
def players(tmp_path: Path, path: Path) -> Iterator[tuple[Player, Player]]:
    prefix = "INBOX." if path.stem == "prefix" else ""
    with open_directory() as home:
        servers = (Dovecot(home, MAIL, prefix), Ours(tmp_path, MAIL, prefix))
        yield Player(servers[0]), Player(servers[1])
        for server in servers:
            server.close()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_dialogue(players: tuple[Player, Player], path: Path) -> None:
    """The rules are named in the first line of the file."""
    wrong = []
    for line in path.read_text().splitlines():
        if not line.startswith("C"):
            continue
        session, command = line.split(": ", 1)
        theirs, ours = (player.ask(session, with_literals(command)) for player in players)
        tag = command.split()[0]
        is_known = any(known.covers(path.stem, tag) for known in DIALOGUES)
        if (theirs != ours) != is_known:
            wrong.append(line)
            wrong += [f"  dovecot {said}" for said in theirs if said not in ours]
            wrong += [f"  ours    {said}" for said in ours if said not in theirs]
    assert not wrong, "\n" + "\n".join(wrong)
