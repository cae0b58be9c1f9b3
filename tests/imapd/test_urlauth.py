"""URLAUTH: who gets what a URL names, and who does not. RFC 4467, RFC 5524; RELIABILITY B27."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mailserver.imapd.settings import ImapSettings
from mailserver.imapd.url_access import UrlServer
from mailserver.store.contract import NewMessage, StoreFailure, StoreRegistry
from mailserver.store.layout import layout_for
from mailserver.store.registry import FileStoreRegistry
from tests.imapd.harness import Client, Server, message
from tests.imapd.sharing import SharingServer
from tests.store_memory import MemoryRegistry

NOW = 1_900_000_000.0  # 2030-03-17
URLS = UrlServer("host.example", now=lambda: NOW)
ONE = b"imap://alice@host.example/INBOX/;UID=1"


@pytest.fixture(params=["memory", "maildir:{home}/Maildir", "mbox:{home}/mail:INBOX={home}/inbox"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreRegistry]:
    """Alice's mail in memory, in maildirs, in mboxes."""
    if request.param == "memory":
        yield MemoryRegistry()
        return
    location = request.param.format(home=tmp_path / "home")
    os.makedirs(tmp_path / "home")
    files = FileStoreRegistry(
        lambda account: layout_for(account, location), str(tmp_path / "state"), "host.example"
    )
    yield files
    files.shut()


def server_with(registry: StoreRegistry, *contents: bytes, urls: UrlServer = URLS) -> Server:
    """A server whose alice has these messages in INBOX."""
    server = Server(ImapSettings(urls=urls), registry)
    with server.store.borrow("INBOX") as inbox:
        inbox.append([NewMessage(content) for content in contents or [message("one")]])
    return server


def generated(client: Client, rump: bytes) -> bytes:
    """The URL with its token."""
    said = client.ask(b'g GENURLAUTH "%b" INTERNAL' % rump)
    found = re.fullmatch(rb'\* GENURLAUTH "([^"]+)"\r\ng OK [^\r\n]*\r\n', said)
    assert found is not None, said
    assert re.fullmatch(re.escape(rump) + rb":internal:[0-9a-f]{64}", found[1])
    return found[1]


def fetched(client: Client, url: bytes) -> bytes | None:
    """What URLFETCH tells of the URL, None for NIL."""
    said = client.ask(b'f URLFETCH "%b"' % url)
    found = re.fullmatch(
        rb'\* URLFETCH "%b" (?:NIL|\{(\d+)\}\r\n(.*))\r\nf OK [^\r\n]*\r\n' % re.escape(url), said, re.DOTALL
    )
    assert found is not None, said
    assert found[1] is None or int(found[1]) == len(found[2])
    return found[2]


def test_announced_where_a_host_is_set(registry: StoreRegistry) -> None:
    """The capabilities, URLMECH at SELECT (RFC 4467 §8), and none of it without imap_urlauth_host."""
    client = server_with(registry).log_in()
    assert b" URLAUTH URLAUTH=BINARY " in client.ask(b"a CAPABILITY")
    assert b"* OK [URLMECH INTERNAL] " in client.ask(b"b SELECT INBOX")
    assert b"* OK [URLMECH INTERNAL] " in client.ask(b"c EXAMINE INBOX")
    client = server_with(registry, urls=UrlServer("")).log_in()
    assert b"URLAUTH" not in client.ask(b"a CAPABILITY")
    assert b"URLMECH" not in client.ask(b"b SELECT INBOX")
    for line in (b'GENURLAUTH "%b;URLAUTH=anonymous" INTERNAL' % ONE, b"RESETKEY", b'URLFETCH "%b"' % ONE):
        assert client.ask(b"c " + line).startswith(b"c BAD ")


def test_urls_are_good_until_the_key_is_reset(registry: StoreRegistry) -> None:
    """What imaptest's urlauth asks for: whole messages, then NIL for both after RESETKEY of the mailbox."""
    client = server_with(registry, message("one"), message("two")).select()
    one = generated(client, ONE + b";urlauth=user+alice")
    two = generated(client, b"imap://alice@host.example/inbox/;uid=2;urlauth=user+alice")
    assert fetched(client, one) == message("one")
    assert fetched(client, two) == message("two")
    assert client.ask(b"r RESETKEY INBOX") == b"r OK [URLMECH INTERNAL] Resetkey completed.\r\n"
    assert fetched(client, one) is None
    assert fetched(client, two) is None
    again = generated(client, ONE + b";urlauth=user+alice")
    assert again != one
    assert fetched(client, again) == message("one")


def test_a_key_is_of_one_mailbox(registry: StoreRegistry) -> None:
    """RFC 4467 §2.3: RESETKEY of another mailbox leaves the URL; without a name it takes back all."""
    client = server_with(registry).log_in()
    client.ask(b"c CREATE other")
    url = generated(client, ONE + b";URLAUTH=authuser")
    assert client.ask(b"r RESETKEY other internal").startswith(b"r OK [URLMECH INTERNAL]")
    assert fetched(client, url) == message("one")
    assert client.ask(b"r RESETKEY") == b"r OK All keys removed.\r\n"
    assert fetched(client, url) is None
    assert client.ask(b"r RESETKEY nowhere").startswith(b"r NO [NONEXISTENT]")
    assert client.ask(b"r RESETKEY INBOX XSAMPLE").startswith(b"r NO ")


def test_a_new_mailbox_under_an_old_name(registry: StoreRegistry) -> None:
    """A URL does not open what lies in a mailbox that was made later."""
    client = server_with(registry).log_in()
    client.ask(b"c CREATE box")
    client.ask(b"d APPEND box {3+}\r\nold")
    url = generated(client, b"imap://alice@host.example/box/;UID=1;URLAUTH=anonymous")
    assert fetched(client, url) is not None
    client.ask(b"e DELETE box")
    assert fetched(client, url) is None
    client.ask(b"c CREATE box")
    client.ask(b"d APPEND box {3+}\r\nnew")
    assert fetched(client, url) is None
    generated(client, b"imap://alice@host.example/box/;UID=1;URLAUTH=anonymous")
    assert fetched(client, url) is None


def test_parts_and_ranges(registry: StoreRegistry) -> None:
    """SECTION and PARTIAL count; of a part that is not there, or a message that is gone, nothing is told."""
    client = server_with(registry).log_in()
    text = generated(client, ONE + b"/;SECTION=TEXT;URLAUTH=anonymous")
    assert fetched(client, text) == b"Hi.\r\n"
    assert fetched(client, generated(client, ONE + b"/;PARTIAL=1.4;URLAUTH=anonymous")) == b"rom:"
    assert fetched(client, generated(client, ONE + b"/;SECTION=7;URLAUTH=anonymous")) is None
    assert fetched(client, generated(client, ONE[:-1] + b"9;URLAUTH=anonymous")) is None
    client.ask(b"s SELECT INBOX")
    client.ask(b"s STORE 1 +FLAGS (\\Deleted)")
    client.ask(b"s EXPUNGE")
    assert fetched(client, text) is None


@pytest.mark.parametrize(
    "url",
    [
        ONE,  # for nobody
        b"imap://bob@host.example/INBOX/;UID=1;URLAUTH=authuser",
        b"imap://host.example/INBOX/;UID=1;URLAUTH=authuser",
        b"imap://alice@elsewhere.example/INBOX/;UID=1;URLAUTH=authuser",
        b"imap://alice@host.example:144/INBOX/;UID=1;URLAUTH=authuser",
        b"imap://alice@host.example/Nowhere/;UID=1;URLAUTH=authuser",
        b"imap://alice@host.example/../x/;UID=1;URLAUTH=authuser",
        b"imap://alice@host.example/INBOX;UIDVALIDITY=7/;UID=1;URLAUTH=authuser",
        b"imap://alice@host.example/INBOX;URLAUTH=authuser",
        ONE + b";EXPIRE=2020-01-01T00:00:00Z;URLAUTH=authuser",
        ONE + b";URLAUTH=authuser:internal:" + b"0" * 64,
        ONE + b"/;SECTION=" + b"1." * 930 + b"1;URLAUTH=authuser",  # no room for a token
    ],
)
def test_what_is_not_authorized(url: bytes) -> None:
    """RFC 4467 §7: BAD, and nothing is told."""
    client = server_with(MemoryRegistry()).log_in()
    said = client.ask(b'g GENURLAUTH "%b;URLAUTH=authuser" INTERNAL "%b" INTERNAL' % (ONE, url))
    assert said.startswith(b"g BAD ") and said.count(b"\r\n") == 1
    assert client.ask(b'g GENURLAUTH "%b;URLAUTH=authuser" XSAMPLE' % ONE).startswith(b"g NO ")


def test_expired_urls() -> None:
    """RFC 4467 §3: from the moment on that EXPIRE says, the URL opens nothing."""
    now = [NOW]
    client = server_with(MemoryRegistry(), urls=UrlServer("host.example", now=lambda: now[0])).log_in()
    url = generated(client, ONE + b";EXPIRE=2030-03-17T17:46:50Z;URLAUTH=anonymous")
    now[0] += 9
    assert fetched(client, url) == message("one")
    now[0] += 1
    assert fetched(client, url) is None


def test_altered_urls() -> None:
    """Whatever is changed in a URL, its letter case or encoding included, it proves nothing. RFC 4467 §6."""
    client = server_with(MemoryRegistry(), message("one"), message("two")).log_in()
    url = generated(client, ONE + b";EXPIRE=2030-12-31T00:00:00Z;URLAUTH=user+alice")
    altered = [
        url.replace(b"UID=1", b"UID=2"),
        url.replace(b"UID=1;", b"UID=1/;SECTION=TEXT;"),
        url.replace(b"2030", b"2031"),
        url.replace(b";EXPIRE=2030-12-31T00:00:00Z", b""),
        url.replace(b"user+alice", b"anonymous"),
        url.replace(b"INBOX", b"inbox"),
        url.replace(b"INBOX", b"INBO%58"),
        url.replace(b"host.example", b"HOST.example"),
        url.replace(b":internal:", b":xsample:"),
        url[:-1],
        url[:-1] + (b"0" if url[-1:] != b"0" else b"1"),
        url[: url.rindex(b":") + 33],
        url + b"0",
    ]
    for one in altered:
        assert fetched(client, one) is None, one
    assert fetched(client, url) == message("one")
    assert fetched(client, url.replace(b":internal:", b":INTERNAL:")) == message("one")


@pytest.fixture(scope="module")
def alice() -> tuple[Client, bytes]:
    """A session, and a URL that opens her message."""
    client = server_with(MemoryRegistry()).log_in()
    return client, generated(client, ONE + b";URLAUTH=anonymous")


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 150), st.integers(0, 5), st.binary(max_size=6))
def test_garbled_urls(alice: tuple[Client, bytes], place: int, cut: int, piece: bytes) -> None:
    """Any other octets anywhere: NIL, or BAD where they are no IMAP string; the session goes on."""
    client, url = alice
    garbled = url[:place] + piece + url[place + cut :]
    said = client.ask(b"f URLFETCH {%d+}\r\n%b" % (len(garbled), garbled))
    rump = url[: url.rindex(b":internal:")]
    assume(garbled.lower() != url.lower() or not garbled.startswith(rump))  # the token's case is all one
    assert said.endswith(b" NIL\r\nf OK Urlfetch completed.\r\n") or said.startswith(b"f BAD"), said
    assert b"Subject" not in said
    client.ask(b"n NOOP")  # so that bad commands are forgiven


def test_submission_urls_are_for_submission() -> None:
    """RFC 4467 §3: an IMAP session is nobody's submission server."""
    client = server_with(MemoryRegistry()).log_in()
    assert fetched(client, generated(client, ONE + b";URLAUTH=submit+alice")) is None


def test_limits() -> None:
    """A command names a hundred URLs, none longer than two thousand octets."""
    client = server_with(MemoryRegistry()).log_in()
    assert client.ask(b"f URLFETCH " + b" ".join([b"x"] * 100)).count(b" NIL\r\n") == 100
    assert client.ask(b"f URLFETCH " + b" ".join([b"x"] * 101)).startswith(b"f BAD ")
    assert client.ask(b"f URLFETCH").startswith(b"f BAD ")
    assert client.ask(b'g GENURLAUTH "%b;URLAUTH=anonymous"' % ONE).startswith(b"g BAD ")


def test_a_local_fault_is_no(registry: StoreRegistry) -> None:
    """RFC 4467 §7: NO for what may be resolved later; never NIL, which says that the URL is worth nothing."""
    memory = MemoryRegistry()
    server = server_with(memory)
    client = server.log_in()
    url = generated(client, ONE + b";URLAUTH=anonymous")
    server.store.fail_with = StoreFailure("The disk is on fire")
    assert client.ask(b'f URLFETCH "%b"' % url).startswith(b"f NO [UNAVAILABLE]")


NESTED = (
    b"Subject: x\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    b"--b\r\nContent-Transfer-Encoding: base64\r\n\r\naGVsbG8NCndvcmxk\r\n"
    b"--b\r\nContent-Transfer-Encoding: x-unprintable\r\n\r\nabc\r\n--b\r\n"
    b"Content-Type: application/x\r\nContent-Transfer-Encoding: base64\r\n\r\nAAEC\r\n--b--\r\n"
)


@pytest.mark.parametrize(
    ("section", "items", "told"),
    [
        (b"1", b" BINARY", b"(BINARY {12}\r\nhello\r\nworld)"),
        (b"1", b" BODY", b"(BODY {16}\r\naGVsbG8NCndvcmxk)"),
        (b"1", b"", b"{16}\r\naGVsbG8NCndvcmxk"),
        (
            b"1",
            b" BODYPARTSTRUCTURE",
            b'(BODYPARTSTRUCTURE ("text" "plain" ("charset" "us-ascii") NIL NIL "base64" 16 0'
            b" NIL NIL NIL NIL))",
        ),
        (
            b"1",
            b" BINARY BODYPARTSTRUCTURE",
            b'(BODYPARTSTRUCTURE ("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 12 1 NIL NIL NIL NIL))'
            b" (BINARY {12}\r\nhello\r\nworld)",
        ),
        (
            b"2",
            b" BINARY BODYPARTSTRUCTURE",
            b'(BODYPARTSTRUCTURE ("text" "plain" ("charset" "us-ascii") NIL NIL "x-unprintable" 3 0'
            b" NIL NIL NIL NIL)) (BINARY NIL)",
        ),
        (
            b"3",
            b" BODYPARTSTRUCTURE BINARY",
            b'(BODYPARTSTRUCTURE ("application" "x" NIL NIL NIL "binary" 3 NIL NIL NIL NIL))'
            b" (BINARY ~{3}\r\n\0\1\2)",
        ),
        (b"200", b" BODYPARTSTRUCTURE BODY", b"NIL"),
    ],
)
def test_extended_fetch(section: bytes, items: bytes, told: bytes) -> None:
    """RFC 5524 §3.2 and §4: decoded parts, and their structure as they are told."""
    client = server_with(MemoryRegistry(), NESTED).log_in()
    url = generated(client, ONE + b"/;SECTION=" + section + b";URLAUTH=anonymous")
    said = client.ask(b'f URLFETCH ("%b"%b)' % (url, items))
    assert said == b'* URLFETCH "%b" %b\r\nf OK Urlfetch completed.\r\n' % (url, told)
    assert client.ask(b'f URLFETCH ("%b" BODY BINARY)' % url).startswith(b"f BAD ")


def test_catenated_urls(registry: StoreRegistry) -> None:
    """RFC 4469 §3: absolute URLs of the account itself, and those that others gave it; no others."""
    client = server_with(registry).log_in()
    assert client.ask(b'c APPEND INBOX CATENATE (URL "%b")' % ONE).startswith(b"c OK [APPENDUID ")
    url = generated(client, ONE + b"/;SECTION=HEADER;URLAUTH=user+alice")
    assert client.ask(b'c APPEND INBOX CATENATE (URL "%b" TEXT {1+}\r\nx)' % url).startswith(b"c OK ")
    for refused in (url[:-2], ONE.replace(b"alice", b"bob"), ONE.replace(b"host.", b"other.")):
        said = client.ask(b'c APPEND INBOX CATENATE (URL "%b")' % refused)
        assert said.startswith(b"c NO [BADURL %b]" % refused)


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[SharingServer]:
    """Alice, with a message in INBOX and one in `box`, and others whose mail has the same owner."""
    server = SharingServer(tmp_path, urls=URLS)
    with server.sharing.borrow(server.people["alice"]) as store:
        store.create("box")
        for name in ("INBOX", "box"):
            with store.borrow(name) as mailbox:
                mailbox.append([NewMessage(message(name))])
    yield server
    server.close()


def test_who_else_gets_it(shared: SharingServer) -> None:
    """RFC 4467 §3: whom the access identifier admits, without any right to the mailbox; and nobody else."""
    alice, bob, carol = (shared.log_in(name) for name in ("alice", "bob", "carol"))
    for access, readers in ((b"user+bob", [bob]), (b"authuser", [bob, carol]), (b"anonymous", [bob, carol])):
        url = generated(alice, ONE + b";URLAUTH=" + access)
        for client in (bob, carol):
            assert fetched(client, url) == (message("INBOX") if client in readers else None), access
        assert fetched(alice, url) == (None if access == b"user+bob" else message("INBOX"))
    url = generated(alice, ONE + b";URLAUTH=submit+bob")
    assert all(fetched(client, url) is None for client in (alice, bob, carol))
    assert bob.ask(b"s SELECT shared/alice/INBOX").startswith(b"s NO")


def test_what_others_cannot_learn(shared: SharingServer) -> None:
    """The same is said of accounts, mailboxes, keys and messages that are there and that are not."""
    bob, token = shared.log_in("bob"), b";URLAUTH=authuser:internal:" + b"0" * 64
    generated(shared.log_in("alice"), ONE + b";URLAUTH=authuser")
    host = b"@host.example/"
    tails = (
        b"alice%bINBOX/;UID=1" % host,
        b"alice%bbox/;UID=1" % host,
        b"alice%bnowhere/;UID=1" % host,
        b"alice%bINBOX/;UID=9" % host,
        b"nobody%bINBOX/;UID=1" % host,
        b"alice@elsewhere/INBOX/;UID=1",
    )
    for tail in tails:
        assert fetched(bob, b"imap://" + tail + token) is None
        said = bob.ask(b'g GENURLAUTH "imap://%b;URLAUTH=user+bob" INTERNAL' % tail)
        assert said.startswith(b"g BAD ")
    assert not shared.warnings


def test_who_was_never_here(shared: SharingServer, tmp_path: Path) -> None:
    """A URL that names an account makes nothing for it."""
    bob = shared.log_in("bob")
    url = b"imap://dave@host.example/INBOX/;UID=1;URLAUTH=authuser:internal:" + b"0" * 64
    assert fetched(bob, url) is None
    assert {each.name for each in (tmp_path / "state").iterdir()} >= {"alice", "bob"}
    assert not (tmp_path / "state" / "dave").exists() and not list((tmp_path / "home" / "dave").iterdir())


def test_rights_of_the_owner_count(shared: SharingServer) -> None:
    """RFC 4467 §7: what the account in the URL may read at that moment."""
    alice, bob, carol = (shared.log_in(name) for name in ("alice", "bob", "carol"))
    alice.ask(b"a SETACL box bob lr")
    theirs = b"imap://bob@host.example/shared/alice/box/;UID=1"
    url = generated(bob, theirs + b";URLAUTH=user+carol")
    assert fetched(carol, url) == message("box")
    alice.ask(b"a RESETKEY")  # her keys, not his
    assert fetched(carol, url) == message("box")
    alice.ask(b"a SETACL box bob l")
    assert fetched(carol, url) is None
    alice.ask(b"a SETACL box bob lr")
    assert fetched(carol, url) == message("box")
    assert bob.ask(b"r RESETKEY shared/alice/box").startswith(b"r OK [URLMECH INTERNAL]")
    assert fetched(carol, url) is None
    alice.ask(b"a SETACL box bob li")
    assert bob.ask(b'g GENURLAUTH "%b;URLAUTH=anonymous" INTERNAL' % theirs).startswith(b"g BAD ")
    assert bob.ask(b"r RESETKEY shared/alice/box").startswith(b"r NO [NOPERM]")


def test_where_each_process_has_one_account(shared: SharingServer) -> None:
    """A session host opens nobody else's state or mail for a URL."""
    alice, bob = shared.log_in("alice"), shared.log_in("bob")
    url = generated(alice, ONE + b";URLAUTH=anonymous")
    assert fetched(bob, url) == message("INBOX")
    shared.sharing.reaches_all = False
    assert fetched(bob, url) is None
    assert fetched(alice, url) == message("INBOX")


def test_keys_are_durable(tmp_path: Path) -> None:
    """A key outlives the process, and one that was reset does not come back after a crash."""
    location = f"maildir:{tmp_path / 'home'}/Maildir"
    os.makedirs(tmp_path / "home")

    def registry() -> FileStoreRegistry:
        return FileStoreRegistry(
            lambda account: layout_for(account, location), str(tmp_path / "state"), "host"
        )

    first = registry()
    url = generated(server_with(first).log_in(), ONE + b";URLAUTH=anonymous")
    copies = {path: path.read_bytes() for path in (tmp_path / "state" / "alice").glob("state.db*")}
    assert copies and not any(url[-64:] in content for content in copies.values())
    first.shut()
    second = registry()
    client = Server(ImapSettings(urls=URLS), second).log_in()
    assert fetched(client, url) == message("one")
    client.ask(b"r RESETKEY INBOX")
    saved = {path: path.read_bytes() for path in (tmp_path / "state" / "alice").glob("state.db*")}
    second.shut()
    for path, content in saved.items():  # as a crash leaves it right after the answer
        path.write_bytes(content)
    third = registry()
    assert fetched(Server(ImapSettings(urls=URLS), third).log_in(), url) is None
    third.shut()
