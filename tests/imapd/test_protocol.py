"""What a hostile, broken or silent client meets, and what the log says. RFC 3501, RFC 7888, RFC 5530."""

import base64
import os
import re
import socket
from collections.abc import Iterator
from ipaddress import ip_network

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.logger import LogEvent, globalLogPublisher

from mailserver.accounts.logged_in import LoggedIn, Login
from mailserver.accounts.login import Granted, Refused
from mailserver.imapd.settings import ImapSettings
from mailserver.store.contract import NewMessage, StoreFailure
from tests.accounts.scram_client import ScramClient, log_in
from tests.imapd.harness import ALICE, Client, Server, Transport, message


@pytest.fixture
def events() -> Iterator[list[LogEvent]]:
    """What Twisted's log gets."""
    seen: list[LogEvent] = []
    globalLogPublisher.addObserver(seen.append)
    yield seen
    globalLogPublisher.removeObserver(seen.append)


@pytest.fixture
def server() -> Server:
    return Server()


# Before login.


def test_nagle_is_off(server: Server) -> None:
    """TCP_NODELAY, or each small answer waits 40 ms."""
    assert server.connect().transport.no_delay


def test_passwords_in_clear_are_refused_and_not_looked_at(server: Server) -> None:
    """Without TLS and from afar: LOGINDISABLED; who tries is dropped, the password never checked."""
    client = server.connect("192.0.2.7")
    assert b" LOGINDISABLED]" in client.read()
    said = client.ask(b"a LOGIN alice secret")
    assert said.startswith(b"a NO [PRIVACYREQUIRED]") and not client.is_open
    assert not server.logins.attempts


def test_three_wrong_passwords_end_the_connection(server: Server) -> None:
    """With Dovecot's words in the log, as fail2ban matches them."""
    client = server.connect()
    for _ in range(3):
        said = client.ask(b"a LOGIN bob> wrong")
        assert said.startswith(b"a NO [AUTHENTICATIONFAILED] Authentication failed.\r\n")
    assert b"* BYE" in said and not client.is_open
    (line,) = [text for service, text in server.log.lines if service == "imap-login"]
    assert re.fullmatch(
        r"Disconnected: .* \(auth failed, 3 attempts in 0 secs\): user=<bob\?>, method=PLAIN, "
        r"rip=127.0.0.1, lip=127.0.0.1, secured, session=<\S+>",
        line,
    )
    assert "wrong" not in line


def test_three_bad_commands_before_login_end_the_connection(server: Server) -> None:
    """Nobody who speaks IMAP needs more."""
    client = server.connect()
    assert client.ask(b"GET / HTTP/1.1").startswith(b"GET BAD")
    client.send(b"Host: x")
    assert client.ask(b"").endswith(b"* BYE Too many invalid IMAP commands.\r\n") and not client.is_open


def test_twenty_bad_commands_after_login_end_the_connection(server: Server) -> None:
    """In a row: a good one between forgives them."""
    client = server.log_in()
    for _ in range(19):
        assert client.ask(b"x FOO").startswith(b"x BAD ")
    client.ask(b"x NOOP")
    for _ in range(20):
        client.send(b"x FOO")
    assert not client.is_open


@pytest.mark.parametrize("data", [b"a LOGIN {4097+}\r\n", b"x" * 9000, b"a LOGIN {99999999+}\r\nsecret"])
def test_too_much_before_login_ends_the_connection(server: Server, data: bytes) -> None:
    """A literal of more than 4 KB, a line of more than 8 KB."""
    client = server.connect()
    client.read()
    client.feed(data)
    assert client.read().startswith(b"* BYE ") and not client.is_open


def test_no_tags_but_tags(server: Server) -> None:
    """`*` and `+` are none (twisted: accepted)."""
    client = server.log_in()
    assert client.ask(b"* NOOP") == b"* BAD Error in IMAP command: Invalid tag\r\n"


def test_silence_ends_the_connection(server: Server) -> None:
    """After three minutes before login, thirty after."""
    early, late = server.connect(), server.log_in()
    server.clock.advance(181)
    assert not early.is_open and late.is_open
    server.clock.advance(1800)
    assert b"* BYE Disconnected for inactivity." in late.read() and not late.is_open
    assert not server.registry.stores["alice"].users


def test_commands_behind_a_pending_login_wait(server: Server) -> None:
    """One command at a time: what is pipelined is answered afterwards, in order."""
    client = server.connect()
    client.read()
    server.logins.answer = Deferred()
    client.feed(b"a LOGIN alice secret\r\nb NOOP\r\nc CAPABILITY\r\n")
    assert client.read() == b""
    server.logins.answer.callback(Granted(ALICE))
    assert re.findall(rb"^(\w) OK", client.read(), re.MULTILINE) == [b"a", b"b", b"c"]


def test_a_client_that_leaves_during_its_login(server: Server) -> None:
    """Nothing stays open, the stream that was granted neither."""
    for stream in (False, True):
        client = server.connect()
        server.logins.answer = answer = Deferred()
        client.send(b"a LOGIN alice secret")
        client.transport.close()
        ours, theirs = socket.socketpair()
        answer.callback(Granted(ALICE, ours.detach() if stream else -1))
        if stream:
            assert theirs.recv(1) == b""
        theirs.close()
    assert all(not store.users for store in server.registry.stores.values())


def test_a_broken_login_data_base_is_not_a_wrong_password(server: Server) -> None:
    """NO [UNAVAILABLE], and it does not count."""
    client = server.connect()
    for _ in range(5):
        server.logins.answer = Deferred()
        server.logins.answer.callback(Refused(temporary=True))
        assert client.ask(b"a LOGIN alice secret").startswith(b"a NO [UNAVAILABLE] ")
    assert client.is_open


# STARTTLS.


def test_starttls_resets_the_session() -> None:
    """The capabilities change; the handshake begins after the OK. RFC 3501 §6.2.1."""
    server = Server(tls=object())
    client = server.connect("192.0.2.7")
    assert b" STARTTLS LOGINDISABLED]" in client.read()
    assert client.ask(b"a STARTTLS") == b"a OK Begin TLS negotiation now.\r\n"
    assert client.transport.tls is not None
    assert b"STARTTLS" not in client.ask(b"b CAPABILITY")
    assert client.ask(b"c STARTTLS").startswith(b"c BAD ")
    assert client.ask(b"d LOGIN alice secret").startswith(b"d OK ")
    assert server.logins.attempts[0].peer.is_tls


def test_nothing_may_follow_starttls_in_clear() -> None:
    """Injected plaintext never runs inside TLS: the connection is dropped (CVE-2011-0411, CVE-2021-33515)."""
    server = Server(tls=object())
    client = server.connect()
    client.read()
    client.feed(b"a STARTTLS\r\nb CAPABILITY\r\n")
    assert not client.is_open and client.transport.tls is None
    assert b"CAPABILITY" not in client.read()


def test_starttls_where_there_is_none(server: Server) -> None:
    """BAD, and not announced."""
    client = server.connect()
    assert b"STARTTLS" not in client.read()
    assert client.ask(b"a STARTTLS").startswith(b"a BAD ")


# Handing over.


def test_a_session_goes_on_elsewhere() -> None:
    """The host owes the tagged OK; what was read already travels along."""
    taken: list[tuple[object, ...]] = []
    front = Server(handover=lambda *arguments: taken.append(arguments))
    client = front.connect()
    client.read()
    front.logins.answer = Deferred()
    front.logins.answer.callback(Granted(ALICE, 77))
    client.feed(b"a LOGIN alice secret\r\nb NOOP\r\n")
    ((protocol, granted, preamble, pending),) = taken
    assert protocol is client.protocol and granted == Granted(ALICE, 77) and pending == b"b NOOP\r\n"
    assert client.read() == b"" and client.is_open and client.transport.producer is None

    host = Server()
    resumed = Client(host, host.factory.resumed(ALICE, preamble), Transport("local"))  # type: ignore[arg-type]
    resumed.feed(b"b NOOP\r\n")
    assert re.fullmatch(rb"a OK \[CAPABILITY .*\] Logged in\r\nb OK NOOP completed.\r\n", resumed.read())
    resumed.send(b"c LOGOUT")
    ((_, login),) = front.log.lines
    ((service, goodbye),) = host.log.lines
    session = re.search(r"session=<(.*?)>", login)
    assert session and service == f"imap(alice)<{os.getpid()}><{session[1]}>"
    assert goodbye.startswith("Disconnected: Logged out in=")


# Limits and kicks.


def test_too_many_sessions_of_a_user_from_an_address() -> None:
    """mail_max_userip_connections: Dovecot's code and text, a log line that is no failed login."""
    server = Server(logged_in=LoggedIn(1))
    first = server.log_in()
    second = server.connect()
    assert second.ask(b"a LOGIN alice secret").startswith(
        b"a NO [LIMIT] Maximum number of connections from user+IP exceeded "
        b"(mail_max_userip_connections=1)\r\n"
    )
    assert not second.is_open and first.is_open
    service, line = server.log.lines[-1]
    assert service == "imap-login" and "auth failed" not in line
    assert line.startswith(
        "Disconnected: Maximum number of connections from user+IP exceeded (mail_max_useri"
    )
    assert ": user=<alice>, method=PLAIN, rip=127.0.0.1" in line
    first.transport.close()
    assert b"a OK" in server.connect().ask(b"a LOGIN alice secret")


def test_a_stream_that_was_granted_to_one_too_many_is_closed() -> None:
    """The session host sees the end; nothing is handed over."""
    server = Server(logged_in=LoggedIn(1), handover=lambda *arguments: pytest.fail("handed over"))
    server.factory._logged_in.enter(LoggedIn(), Login("alice", "imap", "127.0.0.1", 0, "x"))  # type: ignore[arg-type]
    ours, theirs = socket.socketpair()
    server.logins.answer = succeed(Granted(ALICE, theirs.detach()))
    assert b"a NO [LIMIT]" in server.connect().ask(b"a LOGIN alice secret")
    with ours:
        assert ours.recv(1) == b""


def test_a_login_without_a_mailbox_is_not_counted() -> None:
    """The store fails: NO, and the client may try again."""
    logged_in = LoggedIn(1)
    server = Server(logged_in=logged_in)
    server.registry.fail_with = StoreFailure("broken")  # type: ignore[attr-defined]
    client = server.connect()
    assert b"a NO [" in client.ask(b"a LOGIN alice secret")
    assert logged_in.logins() == []
    server.registry.fail_with = None  # type: ignore[attr-defined]
    assert b"b OK" in client.ask(b"b LOGIN alice secret")
    assert len(logged_in.logins()) == 1
    client.send(b"c UNAUTHENTICATE")
    assert logged_in.logins() == []


def test_a_kicked_session() -> None:
    """`mailserver kick`: BYE, in IDLE too, and a reason in the log."""
    logged_in = LoggedIn()
    server = Server(logged_in=logged_in)
    client = server.select()
    client.send(b"c IDLE")
    client.read()
    logged_in.kick([login.session for login, _ in logged_in.logins()])
    assert client.read() == b"* BYE Kicked by an administrator.\r\n"
    assert not client.is_open and logged_in.logins() == []
    assert server.log.lines[-1][1].startswith("Disconnected: Kicked by an administrator in=")


# What Dovecot's users have set.


def test_trusted_networks_need_no_tls() -> None:
    """login_trusted_networks: they are as safe as loopback, the others are not."""
    settings = ImapSettings(trusted_networks=(ip_network("192.0.2.0/24"), ip_network("2001:db8::/32")))
    server = Server(settings)
    for address in ("192.0.2.7", "2001:db8::1"):
        assert b"a OK" in server.connect(address).ask(b"a LOGIN alice secret")
        assert server.logins.attempts[-1].peer.is_secure
    outside = server.connect("198.51.100.1")
    assert b"LOGINDISABLED" in outside.read()
    assert outside.ask(b"a LOGIN alice secret").startswith(b"a NO [PRIVACYREQUIRED]")


def test_what_id_says_and_logs() -> None:
    """imap_id_send and imap_id_log, before and after the login; RFC 2971."""
    server = Server(ImapSettings(identity=(("name", "x"), ("os", "Linux")), id_log=("name", "version")))
    client = server.connect()
    assert b'* ID ("name" "x" "os" "Linux")' in client.ask(
        b'a ID ("Name" "Mutt" "os" "hidden" "version" "1")'
    )
    client.send(b"b LOGIN alice secret")
    client.send(b'c ID ("name" "Mutt\r\n2")')
    client.send(b'd ID ("name" "Mutt 2")')
    client.send(b"e ID NIL")
    texts = [text for _, text in server.log.lines if text.startswith("ID sent")]
    assert texts[0].startswith("ID sent: name=Mutt, version=1: user=<>, rip=127.0.0.1")
    assert texts[1:] == ["ID sent: name=Mutt 2"]
    assert b"* ID NIL" in Server(ImapSettings(identity=())).connect().ask(b"a ID NIL")


@pytest.mark.parametrize(
    ("capability", "found"),
    [
        ("+XFOO XBAR", rb"\* OK \[CAPABILITY IMAP4rev1 .* XFOO XBAR\] "),
        ("IMAP4rev1 XBAZ", rb"\* OK \[CAPABILITY .*AUTH="),
    ],
)
def test_configured_capabilities(capability: str, found: bytes) -> None:
    """imap_capability: more of them in both lists, or another list after the login."""
    client = Server(ImapSettings(capability=capability)).connect()
    assert re.match(found, client.read())
    answer = client.ask(b"a LOGIN alice secret")
    if capability.startswith("+"):
        assert b" IDLE " in answer and b" XFOO XBAR]" in answer
    else:
        assert answer == b"a OK [CAPABILITY IMAP4rev1 XBAZ] Logged in\r\n"


def test_the_logout_format() -> None:
    """imap_logout_format, in Dovecot's variables."""
    server = Server(ImapSettings(logout_format="%i/%{output} 100%% %{nonsense} %x"))
    server.log_in().send(b"b LOGOUT")
    assert re.fullmatch(
        r"Disconnected: Logged out \d+/\d+ 100% UNSUPPORTED_VARIABLE_nonsense UNSUPPORTED_VARIABLE_x",
        server.log.lines[-1][1],
    )


# After login.


def test_the_log_lines_of_a_session(server: Server) -> None:
    """Dovecot's words."""
    client = server.log_in()
    client.send(b"z LOGOUT")
    assert not client.is_open
    (login_service, login), (service, goodbye) = server.log.lines
    assert login_service == "imap-login"
    assert re.fullmatch(
        r"Login: user=<alice>, method=PLAIN, rip=127.0.0.1, lip=127.0.0.1, mpid=\d+, secured, session=<\S+>",
        login,
    )
    assert re.fullmatch(r"imap\(alice\)<\d+><\S+>", service)
    assert re.fullmatch(
        r"Disconnected: Logged out in=32 out=\d+ deleted=0 expunged=0 trashed=0 hdr_count=0 hdr_bytes=0 "
        r"body_count=0 body_bytes=0",
        goodbye,
    )


def test_everything_is_given_back(server: Server) -> None:
    """However a session ends: the listener, the mailbox, the store (twisted: the listener stays)."""
    for end in (lambda client: client.send(b"z LOGOUT"), lambda client: client.transport.close()):
        client = server.select()
        store = server.registry.stores["alice"]
        assert store.users and store.inbox.listeners and store.inbox.users
        end(client)
        assert not (store.users or store.inbox.listeners or store.inbox.users)


def test_an_unexpected_exception_is_one_no_and_one_traceback(
    server: Server, events: list[LogEvent], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client learns nothing of it, the session goes on, the log has it once."""
    client = server.select()
    inbox = server.registry.stores["alice"].inbox
    monkeypatch.setattr(inbox, "refresh", lambda: 1 / 0)
    said = client.ask(b"c NOOP")
    assert said.startswith(b"c NO [SERVERBUG] ") and b"ivision" not in said
    assert len([event for event in events if "log_failure" in event]) == 1
    monkeypatch.undo()
    assert client.ask(b"d NOOP") == b"d OK NOOP completed.\r\n"


def test_a_local_fault_is_temporary(server: Server) -> None:
    """A broken disk is NO [UNAVAILABLE], never BAD and never the end."""
    client = server.select()
    inbox = server.registry.stores["alice"].inbox
    inbox.append([NewMessage(message())])
    client.ask(b"c NOOP")
    inbox.fail_with = StoreFailure("disk trouble")
    for command in (b"FETCH 1 RFC822.SIZE", b"STORE 1 FLAGS (\\Seen)", b"NOOP", b"EXPUNGE", b"COPY 1 INBOX"):
        assert b"d NO [UNAVAILABLE] disk trouble" in client.ask(b"d " + command)


def test_a_mailbox_that_lost_its_uids_ends_the_session(server: Server) -> None:
    """BYE, at the next command or at once during IDLE."""
    polling, idling = server.select(), server.select()
    idling.ask(b"c IDLE")
    server.registry.stores["alice"].inbox.replace()
    assert polling.ask(b"c NOOP").startswith(b"* BYE ") and not polling.is_open
    server.clock.advance(31)
    assert b"* BYE " in idling.read() and not idling.is_open


def test_hostile_names_are_refused_everywhere(server: Server) -> None:
    """SELECT, CREATE, RENAME, STATUS, SUBSCRIBE, COPY, APPEND, DELETE: NO, and nothing happens."""
    client = server.select()
    server.registry.stores["alice"].inbox.append([NewMessage(message())])
    client.ask(b"c NOOP")
    names = [b'"../../etc/passwd"', b'"/etc"', b'"~root"', b'"a/../b"', b'"&AC8-"', b'"a&"', b'"a//b"', b'""',
             b'"' + b"x" * 300 + b'"', b'"a\tb"', b'"&AAA-"']  # fmt: skip
    for name in names:
        for command in (b"CREATE %b", b"RENAME INBOX %b", b"RENAME %b x",
                        b"STATUS %b (MESSAGES)",
                        b"SUBSCRIBE %b", b"COPY 1 %b", b"APPEND %b {1+}\r\nx", b"DELETE %b"):  # fmt: skip
            assert client.ask(b"d " + command % name).startswith(b"d NO [CANNOT] "), (command, name)
        failed = client.ask(b"e EXAMINE " + name)
        assert failed.startswith(b"* OK [CLOSED] ") and b"\r\ne NO [CANNOT] " in failed, name
        client.ask(b"f SELECT INBOX")
    assert set(server.registry.stores["alice"].mailboxes) == {"INBOX"}


def test_refused_literals_never_run(server: Server) -> None:
    """The octets of a refused literal are thrown away (twisted: they run as commands)."""
    server = Server(ImapSettings(message_size_limit=100))
    client = server.log_in()
    inner = b"x CREATE evil\r\n" * 20
    client.feed(b"c APPEND INBOX {%d+}\r\n%b\r\nd NOOP\r\n" % (len(inner), inner))
    assert client.read() == b"c NO [TOOBIG] Literal size too large.\r\nd OK NOOP completed.\r\n"
    client.feed(b"e STATUS {70000+}\r\n" + b"x NOOP\r\n" * 8750 + b" (MESSAGES)\r\nf NOOP\r\n")
    assert client.read() == b"e NO [TOOBIG] Literal size too large.\r\nf OK NOOP completed.\r\n"


@pytest.mark.parametrize("literal", [b"{999999999999}", b"{-5}", b"{99999999999999999999999}"])
def test_absurd_literals(server: Server, literal: bytes) -> None:
    """Refused at once, without a byte of disk or memory (twisted: an unbounded temporary file)."""
    client = server.log_in()
    assert re.match(rb"c (NO|BAD) ", client.ask(b"c APPEND INBOX " + literal))
    assert client.ask(b"d NOOP") == b"d OK NOOP completed.\r\n"


def test_overlong_lines_are_bad(server: Server) -> None:
    """64 KB of command (twisted: a line over 16,384 octets vanishes without an answer)."""
    client = server.log_in()
    assert client.ask(b"c NOOP " + b"x" * 70_000) == b"c BAD Command line too long.\r\n"
    assert client.ask(b"d STATUS " + b"x" * 60_000 + b" (MESSAGES)").startswith(b"d NO [CANNOT]")


def test_three_thousand_ids_in_a_line_are_cheap(server: Server) -> None:
    """Twisted's sets are quadratic: 3.8 s. Ours looks at each id once."""
    client = server.select()
    inbox = server.registry.stores["alice"].inbox
    inbox.append([NewMessage(message())] * 3000)
    client.ask(b"c NOOP")
    ids = b",".join(b"%d" % number for number in range(1, 6001, 2))
    said = client.ask(b"d UID FETCH " + ids + b" (FLAGS)")
    assert said.count(b" FETCH (UID ") == 1500 and said.endswith(b"d OK Fetch completed.\r\n")


def test_a_client_that_never_reads_is_not_served_on(server: Server) -> None:
    """FETCHes pipelined by a client that never reads: no more than a batch is held; then it is dropped."""
    client = server.select()
    inbox = server.registry.stores["alice"].inbox
    inbox.append([NewMessage(message(body="x" * 20_000))] * 100)
    client.ask(b"c NOOP")
    client.transport.is_reading = False
    client.feed(b"".join(b"d%d FETCH 1:* BODY.PEEK[]\r\n" % number for number in range(20)))
    assert len(client.transport.unread) < 600_000
    before = inbox.reads
    client.feed(b"x NOOP\r\n" * 100_000)
    assert inbox.reads == before and not client.transport.reads_input
    client.transport.read_on()
    for _ in range(200):
        server.clock.advance(0)
    assert client.transport.reads_input and client.read().count(b"OK Fetch completed.") == 20


def test_a_client_that_never_reads_is_dropped_in_the_end(server: Server) -> None:
    """The idle time-out holds during FETCH too (twisted: it is off)."""
    client = server.select()
    server.registry.stores["alice"].inbox.append([NewMessage(message(body="x" * 200_000))] * 5)
    client.ask(b"c NOOP")
    client.transport.is_reading = False
    client.send(b"d FETCH 1:* BODY.PEEK[]")
    server.clock.advance(1801)
    assert client.transport.was_aborted
    assert not server.registry.stores["alice"].inbox.users


def test_idle_polls_and_keeps_the_line_open(server: Server) -> None:
    """A slow poll is the net below the hints; a word now and then finds dead clients."""
    client = server.select()
    client.ask(b"c IDLE")
    server.registry.stores["alice"].inbox.deliver(message())
    assert client.read() == b""
    server.clock.advance(30)
    assert client.read() == b"* 1 EXISTS\r\n* 1 RECENT\r\n"
    server.clock.advance(90)
    assert client.read() == b"* OK Still here\r\n"
    assert client.ask(b"DONE") == b"c OK Idle completed.\r\n"
    assert not [call for call in server.clock.getDelayedCalls() if call.getTime() < 1800]


def test_literals_in_search_are_read(server: Server) -> None:
    """Twisted never reads them."""
    client = server.select()
    server.registry.stores["alice"].inbox.append([NewMessage(message("Grüße".encode().decode("latin-1")))])
    client.ask(b"c NOOP")
    client.feed(b"d SEARCH CHARSET UTF-8 SUBJECT {7}\r\n")
    assert client.read() == b"+ OK\r\n"
    client.feed("grüße".encode() + b"\r\n")
    assert client.read().endswith(b"d OK Search completed.\r\n")


def test_utf8_accept(server: Server) -> None:
    """Names travel as UTF-8 once it is enabled. RFC 6855 §3."""
    client = server.log_in()
    client.send(b"b CREATE Entw&APw-rfe")
    assert b'"Entw&APw-rfe"' in client.ask(b'c LIST "" E%')
    assert b"* ENABLED UTF8=ACCEPT\r\n" in client.ask(b"d ENABLE UTF8=ACCEPT")
    assert '"Entwürfe"'.encode() in client.ask(b'e LIST "" E%')
    assert client.ask('f STATUS "Entwürfe" (MESSAGES)'.encode()).endswith(b"f OK Status completed.\r\n")


def test_wild_patterns_are_cheap(server: Server) -> None:
    """LIST `*a*a*a…b` (twisted: 0.83 s for one name)."""
    client = server.log_in()
    client.send(b"c CREATE " + b"a" * 240)
    assert client.ask(b'd LIST "" "' + b"*a" * 200 + b'b"') == b"d OK List completed.\r\n"


SCRAM = ImapSettings(mechanisms=("SCRAM-SHA-256",))


def test_scram() -> None:
    """RFC 5802 over AUTHENTICATE; where it is all that is offered, LOGIN is not (RFC 3501 §6.2.3)."""
    server = Server(SCRAM)
    client = server.connect()
    assert b"AUTH=SCRAM-SHA-256 LOGINDISABLED]" in client.read()
    assert client.ask(b"a LOGIN alice secret").startswith(b"a NO [CANNOT]")
    start = b"b AUTHENTICATE SCRAM-SHA-256"
    wrong = log_in(ScramClient("alice", "wrong"), client.ask, start)
    assert wrong == b"b NO [AUTHENTICATIONFAILED] Authentication failed.\r\n"
    assert log_in(ScramClient("alice", "secret"), client.ask, start).startswith(b"b OK [CAPABILITY ")
    lines = [text for service, text in server.log.lines if service == "imap-login"]
    assert len(lines) == 1 and "user=<alice>, method=SCRAM-SHA-256, " in lines[0]


def test_scram_that_is_malformed() -> None:
    """BAD, as for base64 that is none; and a client that leaves in the middle leaves nothing."""
    server = Server(SCRAM)
    client = server.connect()
    assert client.ask(b"a AUTHENTICATE SCRAM-SHA-256") == b"+ \r\n"
    assert client.ask(b"*").startswith(b"a BAD ")
    assert client.ask(b"a AUTHENTICATE SCRAM-SHA-256 AAAA") == b"a BAD Invalid SCRAM message.\r\n"
    client.ask(b"a AUTHENTICATE SCRAM-SHA-256 " + base64.b64encode(ScramClient("alice", "x").first))
    client.protocol.connectionLost()
    assert not server.logins.attempts
