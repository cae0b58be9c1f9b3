"""The AUTHORIZATION state: USER and PASS, AUTH, CAPA, STLS, and who may say what in the clear."""

from __future__ import annotations

import base64
import os
import re
from ipaddress import ip_network
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from mailserver.accounts.logged_in import LoggedIn
from mailserver.accounts.login import Granted, Refused
from mailserver.pop3d.settings import Pop3Settings
from mailserver.store.contract import MailboxBusy, StoreFailure
from tests.accounts.scram_client import ScramClient, log_in
from tests.pop3d.dialogue import ALICE, ELSEWHERE, TWO, Dialogue, HeldThreads

PLAIN = base64.b64encode(b"\0alice\0secret")


def test_user_and_pass_open_the_maildrop() -> None:
    """RFC 1939 §7. A password may hold spaces."""
    dialogue = Dialogue()
    assert dialogue.connect() == b"+OK Mail server ready.\r\n"
    dialogue.ask(b"uSeR alice")
    assert dialogue.ask(b"PASS  two words ") == b"-ERR [AUTH] Authentication failed.\r\n"
    assert dialogue.logins.attempts[0].password == b" two words "
    assert dialogue.ask(b"PASS secret").startswith(b"-ERR")  # needs USER again
    dialogue.ask(b"USER alice")
    assert dialogue.ask(b"PASS secret") == b"+OK Logged in.\r\n"
    assert dialogue.ask(b"STAT") == b"+OK 2 90\r\n"


def test_pass_without_user_is_refused_unchecked() -> None:
    """RFC 1939 §7."""
    dialogue = Dialogue()
    dialogue.connect()
    assert dialogue.ask(b"PASS secret").startswith(b"-ERR")
    assert not dialogue.logins.attempts


@pytest.mark.parametrize("exchange", [
    [b"AUTH PLAIN " + PLAIN],
    [b"auth plain", PLAIN],
    [b"AUTH LOGIN", b"YWxpY2U=", b"c2VjcmV0"],
    [b"AUTH LOGIN YWxpY2U=", b"c2VjcmV0"],
])  # fmt: skip
def test_auth_with_and_without_initial_response(exchange: list[bytes]) -> None:
    """RFC 5034 §4. Twisted's POP3 drops the connection at an initial response."""
    dialogue = Dialogue()
    dialogue.connect()
    for line in exchange[:-1]:
        assert dialogue.ask(line).startswith(b"+ ")
    assert dialogue.ask(exchange[-1]) == b"+OK Logged in.\r\n"


@pytest.mark.parametrize("exchange", [
    [b"AUTH PLAIN", b"*"],
    [b"AUTH PLAIN", b"?"],
    [b"AUTH PLAIN ="],
    [b"AUTH PLAIN \xff\xfe"],
    [b"AUTH PLAIN " + base64.b64encode(b"no nul")],
    [b"AUTH PLAIN " + base64.b64encode(b"root\0alice\0secret")],
    [b"AUTH CRAM-MD5"],
    [b"AUTH LOGIN", b"YWxpY2U=", b"*"],
])  # fmt: skip
def test_auth_that_goes_wrong_is_an_error_and_no_attempt(exchange: list[bytes]) -> None:
    """RFC 5034 §4: cancelled and malformed exchanges; the connection lives on."""
    dialogue = Dialogue()
    dialogue.connect()
    answer = b""
    for line in exchange:
        answer = dialogue.ask(line)
    assert answer.startswith(b"-ERR ")
    assert not dialogue.logins.attempts
    assert dialogue.ask(b"CAPA").startswith(b"+OK")


def test_auth_alone_lists_mechanisms() -> None:
    """As Dovecot answers it."""
    dialogue = Dialogue()
    dialogue.connect()
    assert dialogue.ask(b"AUTH") == b"+OK\r\nPLAIN\r\nLOGIN\r\n.\r\n"


def test_a_hang_up_within_auth_leaves_nothing_behind() -> None:
    """The dialogue ends with the connection; one log line."""
    dialogue = Dialogue()
    dialogue.connect()
    dialogue.ask(b"AUTH PLAIN")
    dialogue.hang_up()
    assert [service for service, _ in dialogue.log.lines] == ["pop3-login"]


@pytest.mark.parametrize("with_password", [b"PASS secret", b"AUTH PLAIN " + PLAIN])
def test_no_password_in_the_clear_from_elsewhere(with_password: bytes) -> None:
    """Refused and not checked, the client dropped; fail2ban's words in the log."""
    dialogue = Dialogue(address=ELSEWHERE)
    dialogue.connect()
    assert dialogue.ask(b"USER alice").startswith(b"-ERR [AUTH] Plaintext")
    assert b"USER" not in dialogue.ask(b"CAPA").split(b"\r\n")
    assert dialogue.ask(with_password).startswith(b"-ERR [AUTH] Plaintext")
    assert dialogue.wire.disconnecting
    assert not dialogue.logins.attempts
    dialogue.hang_up()
    assert dialogue.log.lines[-1][1].startswith(
        "Aborted login (tried to use disallowed plaintext auth): user=<>, rip=192.0.2.9, "
        "lip=192.0.2.1, session=<"
    )


def test_plaintext_from_elsewhere_where_it_is_allowed() -> None:
    """disable_plaintext_auth = no."""
    dialogue = Dialogue(address=ELSEWHERE, settings=Pop3Settings(allow_plaintext=True))
    dialogue.log_in()


def test_three_wrong_passwords_end_the_connection() -> None:
    """The line is what fail2ban's dovecot filter matches."""
    dialogue = Dialogue(address="127.0.0.1")
    dialogue.connect()
    for _ in range(3):
        assert not dialogue.wire.disconnecting
        dialogue.ask(b"USER b>ob")
        dialogue.ask(b"PASS wrong")
    assert dialogue.wire.disconnecting
    dialogue.clock.advance(4)
    dialogue.hang_up()
    service, text = dialogue.log.lines[-1]
    assert service == "pop3-login"
    assert text.startswith(
        "Disconnected: Connection closed (auth failed, 3 attempts in 4 secs): user=<b?ob>, method=PLAIN, "
        "rip=127.0.0.1, lip=192.0.2.1, secured, session=<"
    )


def test_a_temporary_failure_says_so() -> None:
    """RFC 3206 §4: SYS/TEMP, and no failed attempt in the log."""
    dialogue = Dialogue()
    dialogue.logins.answer = Refused(temporary=True)
    dialogue.connect()
    dialogue.ask(b"USER alice")
    assert dialogue.ask(b"PASS secret").startswith(b"-ERR [SYS/TEMP]")
    dialogue.hang_up()
    assert "auth failed" not in dialogue.log.lines[-1][1]


def test_three_bad_commands_before_login_end_the_connection() -> None:
    """Unknown, 8-bit and empty commands are errors, never exceptions."""
    dialogue = Dialogue()
    dialogue.connect()
    assert dialogue.ask(b"STAT").startswith(b"-ERR")
    assert dialogue.ask(b"\xff\xfe\x00").startswith(b"-ERR")
    assert not dialogue.wire.disconnecting
    assert dialogue.ask(b"").startswith(b"-ERR")
    assert dialogue.wire.disconnecting


def test_capabilities_by_state() -> None:
    """RFC 2449 §5: each state tells its own; Twisted's list is CELERITY and the like."""
    dialogue = Dialogue(tls=object())
    dialogue.connect()
    before = dialogue.ask(b"CAPA").split(b"\r\n")
    for line in (b"STLS", b"USER", b"SASL PLAIN LOGIN", b"TOP", b"UIDL", b"PIPELINING", b"RESP-CODES",
                 b"AUTH-RESP-CODE", b"EXPIRE NEVER", b"UTF8 USER", b"LANG"):  # fmt: skip
        assert line in before
    dialogue.ask(b"USER alice")
    dialogue.ask(b"PASS secret")
    after = dialogue.ask(b"CAPA").split(b"\r\n")
    assert b"IMPLEMENTATION mailserver" in after
    assert b"STLS" not in after and b"USER" not in after
    assert {b"UTF8 USER", b"LANG"} <= set(after)
    assert after[-2:] == [b".", b""]


def test_languages() -> None:
    """RFC 6856 §3.2: a listing, a choice, `*` for the server's own; in both states."""
    dialogue = Dialogue()
    dialogue.connect()
    for _ in range(2):
        assert dialogue.ask(b"LANG") == b"+OK Languages follow.\r\nen English\r\n.\r\n"
        assert dialogue.ask(b"LANG EN").startswith(b"+OK en ")
        assert dialogue.ask(b"LANG *").startswith(b"+OK en ")
        assert dialogue.ask(b"LANG uga").startswith(b"-ERR ")
        dialogue.ask(b"USER alice")
        dialogue.ask(b"PASS secret")


def test_commands_behind_stls_in_clear_end_the_connection() -> None:
    """Nothing that came in clear may run inside TLS."""
    dialogue = Dialogue(tls=object())
    dialogue.connect()
    answer = dialogue.say(b"STLS\r\nUSER alice\r\n")
    assert answer == b"-ERR Nothing may follow STLS.\r\n"
    assert dialogue.wire.disconnecting


def test_stls_where_there_is_none() -> None:
    """RFC 2595 §4."""
    dialogue = Dialogue()
    dialogue.connect()
    assert dialogue.ask(b"STLS").startswith(b"-ERR")


def test_commands_behind_pass_wait_for_the_login() -> None:
    """RFC 2449 §6.6: pipelined commands run after the login, in order; Twisted runs them before."""
    dialogue = Dialogue()
    dialogue.logins.held = Deferred()
    dialogue.connect()
    assert dialogue.say(b"USER alice\r\nPASS secret\r\nSTAT\r\nNOOP\r\n") == b"+OK\r\n"
    dialogue.logins.held.callback(None)
    assert dialogue.answers() == b"+OK Logged in.\r\n+OK 2 90\r\n+OK\r\n"


def test_the_second_session_is_told_in_use() -> None:
    """RFC 2449 §8.1.1; the lock is free again as soon as QUIT is answered."""
    dialogue = Dialogue()
    dialogue.log_in()
    first = dialogue.server, dialogue.wire
    dialogue.connect()
    dialogue.ask(b"USER alice")
    assert dialogue.ask(b"PASS secret").startswith(b"-ERR [IN-USE]")
    assert dialogue.wire.disconnecting
    dialogue.hang_up()
    dialogue.server, dialogue.wire = first
    assert dialogue.ask(b"QUIT") == b"+OK Logging out.\r\n"
    dialogue.log_in()
    assert dialogue.store.users == 1


@pytest.mark.parametrize(("problem", "code"), [
    (StoreFailure("/var/mail: I/O error"), b"-ERR [SYS/TEMP]"),
    (MailboxBusy("locked"), b"-ERR [IN-USE]"),
])  # fmt: skip
def test_trouble_in_the_store_at_login(problem: Exception, code: bytes) -> None:
    """A local fault is temporary, and its text stays in the log."""
    dialogue = Dialogue()
    dialogue.connect()
    dialogue.store.inbox.fail_with = problem
    dialogue.ask(b"USER alice")
    answer = dialogue.ask(b"PASS secret")
    assert answer.startswith(code)
    assert b"/var/mail" not in answer
    assert not dialogue.store.maildrop_is_locked
    assert dialogue.store.users == 0


def test_too_many_sessions_of_a_user_from_an_address() -> None:
    """mail_max_userip_connections: Dovecot's code and text, a log line that is no failed login."""
    dialogue = Dialogue(logged_in=LoggedIn(1))
    dialogue.log_in()
    first, first_wire = dialogue.server, dialogue.wire
    dialogue.connect()
    dialogue.ask(b"USER alice")
    assert dialogue.ask(b"PASS secret") == (
        b"-ERR [IN-USE] Maximum number of connections from user+IP exceeded "
        b"(mail_max_userip_connections=1)\r\n"
    )
    assert dialogue.wire.disconnecting and not first_wire.disconnecting
    dialogue.server.connectionLost()
    line = dialogue.log.lines[-1][1]
    assert line.startswith("Disconnected: Maximum number of connections") and "auth failed" not in line
    first.connectionLost()
    dialogue.log_in()


def test_a_kicked_session_deletes_nothing() -> None:
    """`mailserver kick`: -ERR, and no UPDATE state. RFC 1939 §6."""
    logged_in = LoggedIn()
    dialogue = Dialogue(logged_in=logged_in)
    dialogue.log_in()
    dialogue.ask(b"DELE 1")
    logged_in.kick([login.session for login, _ in logged_in.logins()])
    assert dialogue.answers() == b"-ERR [SYS/TEMP] Kicked by an administrator.\r\n"
    assert dialogue.wire.disconnecting
    dialogue.server.connectionLost()
    assert len(dialogue.store.inbox.uids) == 2 and not dialogue.store.maildrop_is_locked
    assert "Disconnected: Kicked by an administrator top=0/0" in dialogue.log.lines[-1][1]


def test_trusted_networks_need_no_tls() -> None:
    """login_trusted_networks: they are as safe as loopback, the others are not."""
    settings = Pop3Settings(trusted_networks=(ip_network("192.0.2.0/24"),))
    Dialogue(settings=settings, address="192.0.2.7").log_in()
    outside = Dialogue(settings=settings, address="198.51.100.1")
    outside.connect()
    assert outside.ask(b"USER alice").startswith(b"-ERR [AUTH] Plaintext authentication disallowed")


def test_the_logout_format_and_unchanged_flags() -> None:
    """pop3_logout_format in Dovecot's variables; pop3_no_flag_updates leaves what was read unseen."""
    text = "%{input} %o %{retr_count}/%b %d/%{deleted_bytes} %{session}"
    dialogue = Dialogue(settings=Pop3Settings(logout_format=text, marks_seen=False))
    dialogue.log_in()
    for command in (b"RETR 1", b"DELE 2", b"QUIT"):
        dialogue.ask(command)
    service, line = dialogue.log.lines[-1]
    found = re.fullmatch(r"Disconnected: Logged out (\d+) (\d+) 1/\d+ 1/(\d+) (\S+)", line)
    assert found and int(found[1]) == len(b"USER alice\r\nPASS secret\r\nRETR 1\r\nDELE 2\r\nQUIT\r\n")
    assert int(found[2]) > 100 and int(found[3]) == len(TWO) and f"<{found[4]}>" in service
    assert [message.flags for message in dialogue.store.inbox.messages.values()] == [frozenset()]


def test_login_line_in_the_log() -> None:
    """The words of Dovecot 2.3, which log readers know."""
    dialogue = Dialogue()
    dialogue.log_in()
    service, text = dialogue.log.lines[-1]
    assert service == "pop3-login"
    assert text.startswith("Login: user=<alice>, method=PLAIN, rip=127.0.0.1, lip=192.0.2.1, mpid=")
    assert ", secured, session=<" in text


def test_a_granted_stream_takes_the_connection_over_and_the_host_goes_on() -> None:
    """The front keeps nothing; pipelined octets travel with the connection; no second greeting."""
    taken: list[Any] = []
    dialogue = Dialogue(handover=lambda *arguments: taken.append(arguments))
    reading, writing = os.pipe()
    os.close(reading)
    dialogue.logins.answer = Granted(ALICE, writing)
    dialogue.connect()
    dialogue.ask(b"USER alice")
    assert dialogue.say(b"PASS secret\r\nSTAT\r\nNO") == b""
    protocol, granted, preamble, pending = taken[0]
    assert (protocol, granted.stream, pending) == (dialogue.server, writing, b"STAT\r\nNO")
    assert dialogue.wire.producer is None
    os.close(writing)
    dialogue.clock.advance(10_000)
    assert not dialogue.wire.disconnecting
    host = Dialogue()
    host.server = host.factory.resumed(ALICE, preamble)
    host.server.makeConnection(host.wire)
    assert host.answers() == b"+OK Logged in.\r\n"
    assert host.say(pending + b"OP\r\n") == b"+OK 2 90\r\n+OK\r\n"
    assert host.ask(b"QUIT") == b"+OK Logging out.\r\n"
    assert f"<{preamble['session']}>" in host.log.lines[-1][0]


def test_a_resumed_session_without_a_maildrop_ends() -> None:
    """The host answers for the front."""
    taken: list[Any] = []
    front = Dialogue(handover=lambda *arguments: taken.append(arguments))
    front.logins.answer = Granted(ALICE, os.dup(0))
    front.connect()
    front.say(b"USER alice\r\nPASS secret\r\n")
    os.close(taken[0][1].stream)
    host = Dialogue()
    host.store.lock_maildrop()
    host.server = host.factory.resumed(ALICE, taken[0][2])
    host.server.makeConnection(host.wire)
    assert host.answers().startswith(b"-ERR [IN-USE]")
    assert host.wire.disconnecting


def test_a_client_that_leaves_while_the_maildrop_opens_leaves_no_lock() -> None:
    """The lock is released after the thread has done its work."""
    threads = HeldThreads()
    dialogue = Dialogue(threads=threads)
    dialogue.connect()
    dialogue.ask(b"USER alice")
    dialogue.ask(b"PASS secret")
    dialogue.hang_up()
    threads.work()
    assert not dialogue.store.maildrop_is_locked
    assert dialogue.store.users == dialogue.store.inbox.users == 0


SCRAM = Pop3Settings(mechanisms=("SCRAM-SHA-256",))


def test_scram() -> None:
    """RFC 5802 over AUTH; where it is all that is offered, USER is neither shown nor taken."""
    dialogue = Dialogue(settings=SCRAM)
    dialogue.connect()
    capabilities = dialogue.ask(b"CAPA")
    assert b"\r\nSASL SCRAM-SHA-256\r\n" in capabilities and b"USER\r\n" not in capabilities.replace(
        b"UTF8 USER", b""
    )
    assert dialogue.ask(b"USER alice").startswith(b"-ERR")
    assert dialogue.ask(b"AUTH PLAIN " + PLAIN).startswith(b"-ERR")
    start = b"AUTH SCRAM-SHA-256"
    assert (
        log_in(ScramClient("alice", "wrong"), dialogue.ask, start)
        == b"-ERR [AUTH] Authentication failed.\r\n"
    )
    assert log_in(ScramClient("alice", "secret"), dialogue.ask, start) == b"+OK Logged in.\r\n"
    assert {attempt.mechanism for attempt in dialogue.logins.attempts} == {"SCRAM-SHA-256"}


def test_scram_that_is_malformed() -> None:
    """It is a bad command, as a PLAIN that is none."""
    dialogue = Dialogue(settings=SCRAM)
    dialogue.connect()
    assert dialogue.ask(b"AUTH SCRAM-SHA-256") == b"+ \r\n"
    assert dialogue.ask(b"*") == b"-ERR Authentication aborted by client.\r\n"
    assert dialogue.ask(b"AUTH SCRAM-SHA-256 AAAA").startswith(b"-ERR Invalid SCRAM")
