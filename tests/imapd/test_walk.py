"""Nobody reaches another account's data through any command: all of them are walked. RELIABILITY B27."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailserver.imapd.dispatch import HANDLERS, NEEDS_SELECTED
from mailserver.imapd.url_access import UrlServer
from mailserver.store.acl import parse_acl
from tests.imapd.harness import Client
from tests.imapd.sharing import SharingServer

SECRET = b"confidential"
_MESSAGE = b"Subject: " + SECRET + b"\r\n\r\n" + SECRET + b"\r\n"

# What dave tries with a mailbox B of others; INBOX, his own, is selected and has a message.
BY_NAME: dict[str, list[bytes]] = {
    "SELECT": [b"SELECT B", b"SELECT B (CONDSTORE)"],
    "EXAMINE": [b"EXAMINE B"],
    "STATUS": [b"STATUS B (MESSAGES UIDNEXT UIDVALIDITY UNSEEN SIZE DELETED-STORAGE MAILBOXID)"],
    "APPEND": [
        b"APPEND B {4+}\r\na: b",
        b'APPEND INBOX CATENATE (URL "/B/;UID=1")',
        b'APPEND INBOX CATENATE (URL "/B/;UID=1/;SECTION=TEXT")',
    ],
    "LIST": [
        b'LIST "" B',
        b'LIST "" B* RETURN (STATUS (MESSAGES) MYRIGHTS METADATA (/shared/comment) SPECIAL-USE)',
        b'LIST (SUBSCRIBED RECURSIVEMATCH) "" *',
        b'LIST "" *',
    ],
    "LSUB": [b'LSUB "" B*'],
    "CREATE": [b"CREATE B/New", b"CREATE B"],
    "DELETE": [b"DELETE B"],
    "RENAME": [b"RENAME B Mine", b"RENAME INBOX B/Mine", b"RENAME B B2"],
    "SUBSCRIBE": [b"SUBSCRIBE B"],
    "UNSUBSCRIBE": [b"UNSUBSCRIBE B"],
    "GETMETADATA": [b'GETMETADATA (DEPTH infinity) B (/shared /private)', b"GETMETADATA B /shared/comment"],
    "SETMETADATA": [b'SETMETADATA B (/shared/comment "x")', b'SETMETADATA B (/private/comment "x")'],
    "NOTIFY": [b"NOTIFY SET STATUS (mailboxes B (MessageNew MessageExpunge)) (subtree B (MessageNew"
               b" MessageExpunge FlagChange MailboxName SubscriptionChange))"],
    "ESEARCH": [
        b"ESEARCH IN (mailboxes B) ALL",
        b"ESEARCH IN (subtree B personal) RETURN (COUNT) TEXT conf",
        b"ESEARCH IN (subtree-one B subscribed inboxes) RETURN (UPDATE MIN) SUBJECT conf",
    ],
    "GETQUOTAROOT": [b"GETQUOTAROOT B"],
    "GETQUOTA": [b"GETQUOTA alice"],
    "SETQUOTA": [b"SETQUOTA alice (STORAGE 1)", b"SETQUOTA \"User quota\" (STORAGE 1)"],
    "RESETKEY": [b"RESETKEY B", b"RESETKEY"],
    "GENURLAUTH": [b'GENURLAUTH "imap://dave@host/B/;UID=1;URLAUTH=anonymous" INTERNAL',
                   b'GENURLAUTH "imap://alice@host/INBOX/;UID=1;URLAUTH=anonymous" INTERNAL'],
    "URLFETCH": [b'URLFETCH "imap://dave@host/B/;UID=1"', b'URLFETCH ("imap://dave@host/B/;UID=1" BODY)',
                 b'URLFETCH "imap://alice@host/Team/;UID=1"',
                 b'URLFETCH "imap://alice@host/B/;UID=1;URLAUTH=anonymous:internal:%b"' % (b"0" * 64)],
    "GETACL": [b"GETACL B"],
    "SETACL": [b"SETACL B dave lrswipkxtea", b"SETACL B anyone +r"],
    "DELETEACL": [b"DELETEACL B alice"],
    "LISTRIGHTS": [b"LISTRIGHTS B dave"],
    "MYRIGHTS": [b"MYRIGHTS B"],
    "COPY": [b"COPY 1 B"],
    "UID COPY": [b"UID COPY 1 B"],
    "MOVE": [b"MOVE 1 B"],
    "UID MOVE": [b"UID MOVE 1 B"],
    "REPLACE": [b"REPLACE 1 B {4+}\r\na: b"],
    "UID REPLACE": [b'UID REPLACE 1 INBOX CATENATE (URL "/B/;UID=1")'],
}  # fmt: skip
# What dave tries in the mailbox of others that he has open, when he may no longer read it.
IN_SELECTED: dict[str, list[bytes]] = {
    "FETCH": [b"FETCH 1 (FLAGS)", b"FETCH 1 (BODY[])", b"FETCH 1 (ENVELOPE)", b"FETCH 1 RFC822.SIZE"],
    "STORE": [b"STORE 1 +FLAGS (\\Deleted)", b"STORE 1 FLAGS ()"],
    "COPY": [b"COPY 1 INBOX"],
    "MOVE": [b"MOVE 1 INBOX"],
    "SEARCH": [b"SEARCH ALL", b"SEARCH TEXT conf", b"SEARCH RETURN (UPDATE COUNT) UNSEEN"],
    "SORT": [b"SORT (SUBJECT) UTF-8 ALL"],
    "THREAD": [b"THREAD REFERENCES UTF-8 ALL"],
    "EXPUNGE": [b"EXPUNGE"],
    "REPLACE": [b"REPLACE 1 INBOX {4+}\r\na: b"],
    "UID FETCH": [b"UID FETCH 1:* (FLAGS)", b"UID FETCH 1 (PREVIEW)"],
    "UID STORE": [b"UID STORE 1 +FLAGS (\\Seen)"],
    "UID COPY": [b"UID COPY 1 INBOX"],
    "UID MOVE": [b"UID MOVE 1 INBOX"],
    "UID SEARCH": [b"UID SEARCH ALL"],
    "UID SORT": [b"UID SORT (ARRIVAL) UTF-8 ALL"],
    "UID THREAD": [b"UID THREAD ORDEREDSUBJECT UTF-8 ALL"],
    "UID EXPUNGE": [b"UID EXPUNGE 1"],
    "UID REPLACE": [b"UID REPLACE 1 INBOX {4+}\r\na: b"],
    "CANCELUPDATE": [b'CANCELUPDATE "x"'],
    "UIDBATCHES": [b"UIDBATCHES 500"],
    "CHECK": [b"CHECK"],
    "CLOSE": [b"CLOSE"],
    "UNSELECT": [b"UNSELECT"],
    "NOOP": [b"NOOP"],
    "IDLE": [b"IDLE"],
}
HARMLESS = {"NAMESPACE", "ENABLE"}  # they name no mailbox and show nothing of one
HIDDEN = (b"shared/alice/Team", b"shared/alice/INBOX", b"Public/Hidden", b"Public")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharingServer]:
    server = SharingServer(tmp_path_factory.mktemp("walk"), urls=UrlServer("host"))
    furnish(server)
    yield server
    server.close()


def furnish(server: SharingServer) -> None:
    """Alice's Team and INBOX, and Public/Hidden, each with a secret and rights for carol."""
    alice = server.log_in()
    for name in (b"Team", b"Public/Hidden"):
        alice.ask(b"a CREATE " + name)
    for name in (b"INBOX", b"Team", b"Public/Hidden"):
        answer = alice.ask(b"b APPEND %b (Confidential) {%d+}\r\n%b" % (name, len(_MESSAGE), _MESSAGE))
        assert b"b OK" in answer
        assert b"c OK" in alice.ask(b'c SETMETADATA %b (/shared/comment "%b")' % (name, SECRET))
        assert b"d OK" in alice.ask(b"d SETACL %b carol lrswi" % name)
    dave = server.log_in("dave")
    assert b"a OK" in dave.ask(b"a APPEND INBOX {10+}\r\nSubject: x")


def contents(server: SharingServer) -> list[object]:
    """All that others could change about alice's mail and the public namespace."""
    found: list[object] = []
    for account in (server.people["alice"], server.public):
        store = server.files.open(account)
        for folder in store.folders():
            if folder.selectable:
                with store.borrow(folder.name) as mailbox:
                    found.append((folder, mailbox.highest_modseq, dict(mailbox.messages)))
                found.append((store.annotations(folder.name), server.acls.read(account, folder.name)))
        found.append(store.subscriptions())
        server.files.close(store)
    return found


def test_every_command_is_walked() -> None:
    """A new command has to say here what it could do to others' mailboxes."""
    assert set(BY_NAME) | set(IN_SELECTED) | HARMLESS == set(HANDLERS)
    assert set(IN_SELECTED) >= NEEDS_SELECTED


def logged_in(server: SharingServer) -> Client:
    dave = server.log_in("dave")
    assert b"b OK" in dave.ask(b"b SELECT INBOX")
    return dave


@pytest.mark.parametrize("command", sorted(BY_NAME))
def test_without_rights(server: SharingServer, command: str) -> None:
    """A mailbox on which somebody has no right answers as one that does not exist, and stays as it is."""
    before = contents(server)
    for line in BY_NAME[command]:
        answers = {}
        for name in (*HIDDEN, b"shared/alice/Nowhere", b"shared/nobody/Team", b"Public/Nowhere"):
            dave = logged_in(server)
            said = dave.ask(b"x " + re.sub(rb"\bB\b", name, line))
            assert SECRET not in said.lower(), line
            answers[name] = said.replace(name, b"B")
            dave.transport.close()
        nowhere = {answers.pop(name) for name in (b"shared/alice/Nowhere", b"Public/Nowhere")}
        answers.pop(b"Public")  # everybody knows the namespaces
        assert set(answers.values()) <= nowhere, line
        if command in ("CREATE", "RENAME", "COPY", "APPEND", "SELECT", "GETACL", "SETACL"):
            assert all(b"\r\nx OK" not in b"\r\n" + said for said in nowhere), line
    assert contents(server) == before


@pytest.mark.parametrize("command", sorted(IN_SELECTED))
@pytest.mark.parametrize("is_own_process", [True, False])
def test_after_the_right_was_taken_back(server: SharingServer, command: str, is_own_process: bool) -> None:
    """Whoever has the mailbox open sees nothing more of it from his next command on."""
    alice = server.log_in()
    for line in IN_SELECTED[command]:
        alice.ask(b"a SETACL Team dave lrswite")
        dave = server.log_in("dave")
        assert b"b OK [READ-WRITE]" in dave.ask(b"b SELECT shared/alice/Team")
        if is_own_process:
            assert b"a OK" in alice.ask(b"a SETACL Team dave l")
        else:
            path = Path(server.people["alice"].home, "Maildir", ".Team", "dovecot-acl")
            path.write_text("user=dave l\nuser=carol lrswi\n")
        server.log_in("alice").ask(b"z APPEND Team (Confidential) {4+}\r\na: b")
        before = contents(server)
        said = dave.ask(b"x " + line) + dave.ask(b"DONE")
        assert SECRET not in said.lower(), line
        assert not re.search(rb"\* ([0-9]+ |SEARCH|SORT|THREAD|ESEARCH)", said), (line, said)
        if command not in ("CLOSE", "UNSELECT", "CANCELUPDATE"):
            assert b"x OK" not in said, (line, said)
        assert contents(server) == before, line
        dave.transport.close()


def test_rights_that_are_given_reach_no_further(server: SharingServer) -> None:
    """Rights on one mailbox say nothing of its parent, its children, its neighbours, or its owner's quota."""
    alice = server.log_in()
    alice.ask(b"a CREATE Team/Sub")
    alice.ask(b"b DELETEACL Team/Sub carol")
    alice.ask(b"c DELETEACL Team/Sub dave")
    alice.ask(b"d SETACL Team dave lrswipkxtea")
    dave = server.log_in("dave")
    listed = dave.ask(b'a LIST "" shared/*')
    assert b'"shared/alice/Team"' in listed and b"Sub" not in listed and b"INBOX" not in listed
    for name in (b"shared/alice/Team/Sub", b"shared/alice/INBOX", b"shared/alice/Drafts"):
        assert b"x NO [NONEXISTENT]" in dave.ask(b"x SELECT " + name)
    assert b"x NO" in dave.ask(b"x CREATE shared/alice/Other")
    assert b"x NO" in dave.ask(b"x RENAME shared/alice/Team shared/alice/Other")
    server.acls.update(server.people["alice"], "Team", lambda acl: parse_acl("user=carol lr"))
    assert b"x NO [NONEXISTENT]" in dave.ask(b"x SELECT shared/alice/Team")
