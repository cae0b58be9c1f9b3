r"""A \Seen of each user's own on Debian's Dovecot (INDEXPVT) and on ours: the same answers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import pytest

from tests.differential.servers import open_directory
from tests.differential.test_acl import Both, DovecotSession
from tests.imapd.harness import Client

pytestmark = [pytest.mark.needs("dovecot")]

_ONE, _TWO, _THREE = (f"{{12+}}\r\nSubject: {letter}\r\n" for letter in "abc")
SHARED = [
    ("bob", "CREATE Team"), ("bob", "SETACL Team alice lrswit"), ("bob", "SETACL Team carol lrs"),
    ("bob", "SETACL Team dave lr"),
    ("bob", rf"APPEND Team (\Seen) {_ONE}"), ("bob", rf"APPEND Team (\Flagged) {_TWO}"),
    ("bob", "SELECT Team"), ("alice", "SELECT shared/bob/Team"), ("carol", "SELECT shared/bob/Team"),
    ("dave", "SELECT shared/bob/Team"), ("alice", "FETCH 1:* FLAGS"),
    ("alice", "STATUS shared/bob/Team (UNSEEN)"), ("bob", "STATUS Team (UNSEEN)"),
    ("alice", r"STORE 2 +FLAGS (\Seen \Answered)"), ("carol", "NOOP"), ("carol", "FETCH 1:* FLAGS"),
    ("bob", "NOOP"), ("bob", "FETCH 1:* FLAGS"),
    ("carol", r"STORE 1:2 +FLAGS (\Seen)"), ("alice", "NOOP"), ("alice", "FETCH 1:* FLAGS"),
    ("alice", "SEARCH UNSEEN"), ("carol", "SEARCH UNSEEN"), ("dave", "SEARCH UNSEEN"),
    ("dave", r"STORE 1 +FLAGS (\Seen)"), ("dave", "FETCH 1 FLAGS"), ("dave", "FETCH 1 BODY[]"),
    ("dave", "FETCH 1 FLAGS"), ("alice", r"STORE 2 FLAGS (\Draft)"), ("alice", "FETCH 1:* FLAGS"),
    ("carol", "NOOP"), ("carol", "FETCH 1:* FLAGS"), ("bob", "NOOP"), ("bob", "FETCH 1:* FLAGS"),
    ("alice", "FETCH 1 BODY[]"), ("carol", "NOOP"), ("alice", "SEARCH SEEN"), ("bob", "NOOP"),
    ("alice", rf"APPEND shared/bob/Team (\Seen \Answered) {_THREE}"), ("alice", "FETCH 3 FLAGS"),
    ("carol", "NOOP"), ("carol", "FETCH 3 FLAGS"), ("bob", "NOOP"), ("bob", "FETCH 3 FLAGS"),
    ("carol", "COPY 1:2 INBOX"), ("carol", "STATUS INBOX (MESSAGES UNSEEN)"),
    ("alice", "COPY 1:2 INBOX"), ("alice", "STATUS INBOX (MESSAGES UNSEEN)"),
    ("alice", "SELECT INBOX"), ("alice", "COPY 1 shared/bob/Team"),
    ("carol", "NOOP"), ("carol", "FETCH 4 FLAGS"), ("alice", "SELECT shared/bob/Team"),
    ("alice", "FETCH 1:* FLAGS"), ("alice", "STATUS shared/bob/Team (UNSEEN)"),
    ("carol", "STATUS shared/bob/Team (UNSEEN)"),
    ("bob", r"STORE 1 -FLAGS (\Seen)"), ("carol", "CHECK"), ("carol", "FETCH 1 FLAGS"),
    ("bob", r"STORE 1:2 +FLAGS (\Deleted)"), ("bob", "EXPUNGE"), ("carol", "NOOP"),
    ("carol", "FETCH 1:* FLAGS"), ("carol", "STATUS shared/bob/Team (UNSEEN)"),
]  # fmt: skip
RENAMED = [("bob", "RENAME Team Crew"), ("alice", "STATUS shared/bob/Crew (MESSAGES UNSEEN)")]
PUBLIC = [
    ("alice", "CREATE Public/News"), ("alice", "SETACL Public/News dave lrswit"),
    ("alice", rf"APPEND Public/News (\Seen) {_ONE}"), ("alice", f"APPEND Public/News () {_TWO}"),
    ("dave", "SELECT Public/News"), ("dave", "FETCH 1:* FLAGS"), ("alice", "SELECT Public/News"),
    ("alice", "FETCH 1:* FLAGS"), ("dave", r"STORE 1:2 +FLAGS \Seen"), ("alice", "NOOP"),
    ("alice", "FETCH 1:* FLAGS"), ("alice", "STATUS Public/News (UIDNEXT UNSEEN)"),
    ("dave", "STATUS Public/News (UIDNEXT UNSEEN)"),
]  # fmt: skip
DELIVERED = [("dave", "STATUS Public/News (MESSAGES UNSEEN)"), ("alice", "STATUS Public/News (UNSEEN)")]
DIFFERENCES = {
    r"STORE 1 +FLAGS (\Seen)": "without `s` RFC 4314 §4 refuses; Dovecot does nothing and says OK",
    "CHECK": "Dovecot tells of a message where nothing changed for its reader",
    "STATUS shared/bob/Crew (MESSAGES UNSEEN)": "Dovecot forgets what others have seen of a renamed mailbox",
    "STATUS Public/News (MESSAGES UNSEEN)": "with maildirs Dovecot looks at no `S` of another program's",
    "STATUS Public/News (UNSEEN)": "the same",
}


@pytest.fixture
def sites() -> Iterator[tuple[Both, Both]]:
    """One for each server."""
    with open_directory() as theirs, open_directory() as ours:
        both = Both(theirs, private_seen=True), Both(ours, private_seen=True)
        yield both
        for each in both:
            each.ours.close()


def comparable(said: bytes) -> list[str]:
    """What tells of flags and numbers, flags in order; without \\Recent, whose telling Dovecot puts off."""
    text = said.decode().replace('"', "").replace("\\Recent", "")
    found = []
    for number, flags in re.findall(r"\* (\d+) FETCH .*?FLAGS \((.*?)\)", text, re.DOTALL):
        found.append(f"{number} {sorted(flags.split())}")
    for line in text.splitlines():
        words = line.split()
        if line.startswith("x "):
            code = re.match(r"\[(READ-\S+)\]", words[2])
            found.append(f"{words[1]} {code[1] if code else ''}")
        elif "PERMANENTFLAGS" in line:
            found.append(" ".join(sorted(re.findall(r"\\[A-Za-z*]+", line))))
        elif words[:2] in (["*", "STATUS"], ["*", "SEARCH"]) or words[-1:] in (["EXISTS"], ["EXPUNGE"]):
            found.append(line)
        elif "[UNSEEN" in line:
            found.append(line.partition("]")[0])
    return found


def compare(sites: tuple[Both, Both], dialogue: Sequence[tuple[str, str]]) -> list[object]:
    """What differs, played by sessions that all begin now."""
    theirs, ours = sites
    dovecot: dict[str, DovecotSession] = {}
    clients: dict[str, Client] = {}
    wrong: list[object] = []
    for name in dict.fromkeys(name for name, _ in dialogue):
        dovecot[name], clients[name] = theirs.dovecot(name), ours.ours.log_in(name)
    for name, command in dialogue:
        line = b"x " + command.encode()
        expected, found = comparable(dovecot[name].ask(line)), comparable(clients[name].ask(line))
        if (expected != found) != (command in DIFFERENCES):
            wrong.append((name, command, expected, found))
    for session in dovecot.values():
        session.close()
    for client in clients.values():
        client.ask(b"x LOGOUT")
    return wrong


def test_the_same_answers(sites: tuple[Both, Both]) -> None:
    """Another user's mailbox, the same renamed, a public one, and one that mail came into with its flags."""
    wrong = [*compare(sites, SHARED), *compare(sites, RENAMED), *compare(sites, PUBLIC)]
    for site in sites:
        name = site.root / "public" / ".News" / "cur" / "1000000000.M1P1.host:2,S"
        name.write_bytes(b"Subject: d\n\nRead by whoever delivered it.\n")
    wrong += compare(sites, DELIVERED)
    assert not wrong, "\n".join(map(str, wrong))
