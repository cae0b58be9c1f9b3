"""BURL: messages that are sent from where they lie. RFC 4468, over the real store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from mailserver.accounts.account import Account
from mailserver.imapd.url_access import UrlServer
from mailserver.roles.burl import ImapContent
from mailserver.store.contract import MailboxBusy, NewMessage, StoreFailure
from mailserver.threads import Inline
from tests.imapd.harness import Server, message
from tests.imapd.sharing import SharingServer
from tests.imapd.test_urlauth import ONE, URLS, generated
from tests.smtpd.harness import Connection, House
from tests.smtpd.test_dialogue import FROM, HELLO, OK, TO
from tests.store_memory import MemoryRegistry

LOGIN = "AUTH PLAIN AGFsaWNlAHNlY3JldA=="  # alice, secret
FAILED = "554 5.7.0 IMAP URL authorization failed"
UNTRUSTED = "554 5.7.14 URL resolution requires trust relationship"
CONTENT = message("INBOX").replace(b"\r\n", b"\n")


@pytest.fixture
def mail(tmp_path: Path) -> Iterator[SharingServer]:
    """An IMAP server where alice and bob have a message in INBOX each."""
    server = SharingServer(tmp_path / "mail", urls=URLS)
    for name in ("alice", "bob"):
        with server.sharing.borrow(server.people[name]) as store, store.borrow("INBOX") as inbox:
            inbox.append([NewMessage(message("INBOX")), NewMessage(b"From: a@example.org\r\n\r\nno end")])
    yield server
    server.close()


@pytest.fixture
def house(mail: SharingServer, tmp_path: Path) -> House:
    """A submission server over that mail."""
    return house_of(mail, tmp_path)


def house_of(mail: SharingServer, tmp_path: Path, urls: UrlServer = URLS, **changes: object) -> House:
    content = ImapContent(urls, "mx.example.org", mail.sharing, mail.people.get, Inline())
    return House(tmp_path / "queue", allow_plaintext_auth=True, urls=content, **changes)


def logged_in(house: House) -> Connection:
    """Alice's connection."""
    client = house.connect()
    client.say(HELLO)
    assert client.say(LOGIN).startswith("235 ")
    return client


def burl(client: Connection, url: bytes, tail: bytes = b" LAST") -> str:
    """The reply to BURL in a transaction of its own."""
    client.say("RSET", FROM, TO)
    return client.say(b"BURL " + url + tail)


def test_offered_to_who_may_use_it(house: House, mail: SharingServer, tmp_path: Path) -> None:
    """RFC 4468 §3.1, §3.3: without arguments before login; where it is off, there is no such command."""
    client = house.connect()
    assert "250 BURL\n" in client.say(HELLO)
    assert client.say(b"BURL " + ONE + b" LAST") == "530 5.7.0 Authentication required\n"
    client.say(LOGIN)
    assert "250 BURL imap imap://host.example\n" in client.say(HELLO)
    anywhere = house_of(mail, tmp_path, UrlServer("*", 1143))
    client = logged_in(anywhere)
    assert "250 BURL imap imap://mx.example.org:1143\n" in client.say(HELLO)
    without = House(tmp_path / "without", allow_plaintext_auth=True)
    client = logged_in(without)
    assert "BURL" not in client.say(HELLO)
    assert client.say(b"BURL " + ONE + b" LAST") == "500 5.5.2 Error: command not recognized\n"


def test_a_whole_message(house: House, mail: SharingServer) -> None:
    """RFC 4468 §3.2: the message is sent as it lies there, with a URL for its submission or a plain one."""
    alice = mail.log_in("alice")
    client = logged_in(house)
    for url in (
        generated(alice, ONE + b";URLAUTH=submit+alice"),
        generated(alice, ONE + b";URLAUTH=user+alice"),
        ONE,
    ):
        said = burl(client, url)
        assert (
            said == f"250 2.5.0 Ok: {len(message('INBOX'))} bytes queued as {house.accepted[-1].queue_id}\n"
        )
    assert all(content.endswith(CONTENT) for content in house.contents())
    assert burl(client, ONE[:-1] + b"2").startswith("250 ")
    assert house.contents()[-1].endswith(b"no end\n")


def test_mixed_with_chunks(house: House, mail: SharingServer) -> None:
    """RFC 4468 §3.2: BURL and BDAT interleave, in one segment too; line ends cut in two are put together."""
    header = generated(mail.log_in("alice"), ONE + b"/;SECTION=HEADER/;PARTIAL=0.29;URLAUTH=submit+alice")
    client = logged_in(house)
    said = client.say(
        FROM,
        TO,
        b"BURL " + header,
        b"BDAT 13\r\nX-By: hand\r\n\r",
        b"BDAT 8\r\n\nbody: \r",
        b"BURL " + ONE + b"/;SECTION=TEXT LAST",
    )
    assert said.splitlines()[2:4] == ["250 2.5.0 Ok: 29 bytes", "250 2.0.0 Ok: 13 bytes"]
    assert said.splitlines()[-1].startswith("250 2.5.0 Ok: 5 bytes queued as ")
    assert len(house.accepted) == 1


@pytest.mark.parametrize(
    ("url", "reply"),
    [
        (b"imap://bob@host.example/INBOX/;UID=1", FAILED),
        (b"imap://bob@host.example/INBOX/;UID=1;URLAUTH=submit+alice:internal:" + b"0" * 64,
         FAILED),
        (b"imap://nobody@host.example/INBOX/;UID=1;URLAUTH=submit+alice:internal:" + b"0" * 64,
         FAILED),
        (b"imap://alice@host.example/INBOX/;UID=1;URLAUTH=submit+alice", FAILED),
        (b"imap://alice@host.example/", FAILED),
        (b"http://host.example/", FAILED),
        (b"imap://alice@elsewhere.example/INBOX/;UID=1", UNTRUSTED),
        (b"imap://alice@host.example/INBOX/;UID=9", "554 5.6.6 IMAP URL resolution failed"),
        (b"imap://alice@host.example/nowhere/;UID=1", "554 5.6.6 IMAP URL resolution failed"),
        (b"imap://alice@host.example/INBOX/;UID=1/;SECTION=9", "554 5.6.6 IMAP URL resolution failed"),
    ],
)  # fmt: skip
def test_what_is_not_to_be_had(house: House, url: bytes, reply: str) -> None:
    """RFC 4468 §6: the message fails, the session goes on."""
    client = logged_in(house)
    assert burl(client, url) == reply + "\n"
    about = "from=<s@example.com> proto=ESMTP helo=<client.example>"
    line = f"NOQUEUE: reject: BURL from unknown[192.0.2.7]: {reply}; {about}"
    assert ("smtpd", line) in house.log.lines
    client.say(FROM, TO)
    assert client.say(b"BURL " + url) == reply + "\n"
    assert client.say(b"BDAT 3 LAST\r\nx") == "551 5.0.0 Discarded 3 bytes after earlier error\n"
    assert client.say("NOOP") == OK
    assert not house.accepted
    assert burl(client, ONE).startswith("250 2.5.0 Ok: ")


def test_urls_of_others(house: House, mail: SharingServer) -> None:
    """RFC 4467 §3: what bob authorised for alice's submission, and nothing that he authorised for others'."""
    bob, client = mail.log_in("bob"), logged_in(house)
    theirs = ONE.replace(b"alice", b"bob")
    good = generated(bob, theirs + b";URLAUTH=submit+alice")
    assert burl(client, good).startswith("250 2.5.0 ")
    assert burl(client, generated(bob, theirs + b";URLAUTH=authuser")).startswith("250 2.5.0 ")
    for access in (b"submit+bob", b"user+bob", b"submit+carol"):
        assert burl(client, generated(bob, theirs + b";URLAUTH=" + access)).startswith("554 5.7.0 ")
    bob.ask(b"r RESETKEY INBOX")
    assert burl(client, good).startswith("554 5.7.0 ")


@pytest.mark.parametrize(
    "line", [b"BURL", b"BURL ", b"BURL  LAST", b"BURL x y", b"BURL x LAST x", b"BURL \xff LAST"]
)
def test_syntax(house: House, line: bytes) -> None:
    """RFC 4468 §3.5."""
    client = logged_in(house)
    client.say(FROM, TO)
    assert client.say(line).startswith(
        ("501 5.5.4 ", "554 5.7.0 ") if line == b"BURL  LAST" else "501 5.5.4 "
    )


def test_without_recipients(house: House) -> None:
    """RFC 4468 §3.2: nothing is fetched, and nothing is sent."""
    client = logged_in(house)
    assert client.say(b"BURL " + ONE + b" LAST").startswith("503 5.5.1 ")
    client.say(FROM)
    assert client.say(b"BURL " + ONE + b" LAST").startswith("554 5.5.1 ")
    assert not house.accepted


def test_message_size_limit(mail: SharingServer, tmp_path: Path) -> None:
    """RFC 4468 §6: what is fetched counts, with what came before it."""
    client = logged_in(house_of(mail, tmp_path, message_size_limit=600))
    assert burl(client, ONE).startswith("250 ")
    client.say(FROM, TO)
    client.send(b"BDAT 500\r\n" + b"x" * 500)
    assert client.say(b"BURL " + ONE + b" LAST") == "554 5.3.4 Message too big for system\n"


@pytest.mark.parametrize("fault", [MailboxBusy("locked"), StoreFailure("on fire")])
def test_local_faults_are_temporary(tmp_path: Path, fault: Exception) -> None:
    """RELIABILITY P5: a mailbox that is locked, or a store that fails, is no reason to give up."""
    registry = MemoryRegistry()
    server = Server(registry=registry)
    server.store.fail_with = fault
    content = ImapContent(URLS, "mx", registry, lambda name: Account(name, 1, 1, "/"), Inline())
    client = logged_in(House(tmp_path, allow_plaintext_auth=True, urls=content))
    assert burl(client, ONE) == "451 4.4.1 IMAP server unavailable\n"


def test_a_client_that_leaves(tmp_path: Path) -> None:
    """What comes for a client that is gone goes nowhere; the reactor waits for nothing meanwhile."""
    coming: Deferred[bytes] = Deferred()

    class Slow:
        authority = "host.example"

        def fetch(self, user: str, url: bytes) -> Deferred[bytes]:
            assert (user, url) == ("alice", ONE)
            return coming

    house = House(tmp_path, allow_plaintext_auth=True, urls=Slow())
    client = logged_in(house)
    assert burl(client, ONE) == ""
    assert client.say("NOOP") == ""  # it waits its turn
    client.server.connectionLost()
    coming.callback(b"x\r\n")
    assert not house.accepted
    assert house.log.lines[-1][1].startswith("disconnect from unknown[192.0.2.7] ehlo=1 auth=1")


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60))
def test_any_argument(house: House, text: bytes) -> None:
    """Whatever the URL is, one reply comes, and nothing is sent."""
    client = logged_in(house)
    text = text.replace(b"\n", b"").replace(b"\r", b"")
    said = burl(client, text)
    assert said.count("\n") == 1 and said[0] == "5"
    assert not house.accepted
    client.server.connectionLost()
