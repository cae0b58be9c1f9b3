"""What the server says, command by command. Texts are Postfix's."""
# ruff: noqa: E501 -- replies are shown whole

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from mailserver.delivery.content_checks import CheckTables
from mailserver.open_sessions import PATIENCE
from mailserver.queue.cleanup import Cleanup, CleanupRules
from mailserver.queue.file import QueueFile
from mailserver.tables.open import open_table
from tests.smtpd.harness import NEIGHBOUR, STRANGER, Connection, House, read_content

HELLO = "EHLO client.example"
FROM = "MAIL FROM:<s@example.com>"
TO = "RCPT TO:<alice@example.org>"
OK = "250 2.0.0 Ok\n"
GO_ON = "354 End data with <CR><LF>.<CR><LF>\n"


@pytest.fixture
def house(tmp_path: Path) -> House:
    """A server with default settings."""
    return House(tmp_path)


def hello(house: House, address: str = STRANGER) -> Connection:
    """A connection that has said EHLO."""
    client = house.connect(address)
    client.say(HELLO)
    return client


def deliver(client: Connection, content: str = "Subject: x\r\n\r\nbody") -> str:
    """One message to alice; the reply to its end."""
    client.say(FROM, TO, "DATA")
    return client.say(content, ".")


def test_greeting_and_extensions(house: House) -> None:
    """RFC 5321 §4.1.1.1; AUTH and STARTTLS are not offered where they would not work."""
    client = house.connect()
    assert client.greeting == "220 mx.example.org ESMTP Postfix\r\n"
    assert client.say(HELLO) == (
        "250-mx.example.org\n250-PIPELINING\n250-SIZE 10240000\n250-VRFY\n250-ENHANCEDSTATUSCODES\n"
        "250-8BITMIME\n250-DSN\n250-SMTPUTF8\n250 CHUNKING\n"
    )
    assert client.say("HELO client.example") == "250 mx.example.org\n"


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        ("NOOP", OK),
        ("NOOP ignored", OK),
        ("noop\tx\t", OK),
        ("RSET", OK),
        ("RSET x", "501 5.5.4 Syntax: RSET\n"),
        ("VRFY alice", "252 2.0.0 alice\n"),
        ("VRFY nosuchuser", "252 2.0.0 nosuchuser\n"),
        ("VRFY", "501 5.5.4 Syntax: VRFY address [SMTPUTF8]\n"),
        ("EXPN staff", "502 5.5.1 Error: command not implemented\n"),
        ("ETRN example.org", "502 5.5.1 Error: command not implemented\n"),
        ("STARTTLS", "502 5.5.1 Error: command not implemented\n"),
        ("XCLIENT ADDR=127.0.0.1", "502 5.5.1 Error: command not implemented\n"),
        ("XFORWARD ADDR=127.0.0.1", "502 5.5.1 Error: command not implemented\n"),
        ("TURN", "502 5.5.1 Error: command not implemented\n"),
        ("BOGUS", "500 5.5.2 Error: command not recognized\n"),
        ("", "500 5.5.2 Error: bad syntax\n"),
        ("HELO", "501 Syntax: HELO hostname\n"),
        ("EHLO", "501 Syntax: EHLO hostname\n"),
        ("AUTH PLAIN", "538 5.7.11 Encryption required for requested authentication mechanism\n"),
        ("RCPT TO:<alice@example.org>", "503 5.5.1 Error: need MAIL command\n"),
        ("DATA", "503 5.5.1 Error: need RCPT command\n"),
        ("MAIL FROM:<alice@>", "501 5.1.7 Bad sender address syntax\n"),
        ("MAIL FROM:<-a@b>", "501 5.1.7 Bad sender address syntax\n"),
        ("MAIL FROM:<a@192.0.2.1>", "501 5.1.7 Bad sender address syntax\n"),
        ("MAIL FROM:<a@[192.0.2.1]>", "250 2.1.0 Ok\n"),
        ("MAIL FROM:< a@b > SIZE=1", "250 2.1.0 Ok\n"),
        ("MAIL FROM:a@b", "250 2.1.0 Ok\n"),
        ("MAIL FROM:<a@b> SIZE=99999999", "552 5.3.4 Message size exceeds fixed limit\n"),
        ("MAIL FROM:<a@b> FOO=1", "555 5.5.4 Unsupported option: FOO=1\n"),
        ("MAIL", "501 5.5.4 Syntax: MAIL FROM:<address>\n"),
        ("QUIT", "221 2.0.0 Bye\n"),
        (b"\xc4\xff\x00", "500 5.5.2 Error: command not recognized\n"),
        ("GET / HTTP/1.1", "221 2.7.0 Error: I can break rules, too. Goodbye.\n"),
    ],
)
def test_single_commands(house: House, command: str | bytes, reply: str) -> None:
    """One command after EHLO."""
    assert hello(house).say(command) == reply


@pytest.mark.parametrize(
    ("commands", "last"),
    [
        ([FROM, FROM], "503 5.5.1 Error: nested MAIL command\n"),
        ([FROM, "DATA"], "554 5.5.1 Error: no valid recipients\n"),
        ([FROM, "RCPT TO:<alice@>"], "501 5.1.3 Bad recipient address syntax\n"),
        ([FROM, "RCPT TO:<>"], "501 5.1.3 Bad recipient address syntax\n"),
        ([FROM, "RCPT TO:<-alice@example.org>"], "501 5.1.3 Bad recipient address syntax\n"),
        ([FROM, "RCPT TO:<alice@1.2.3>"], "501 5.1.3 Bad recipient address syntax\n"),
        ([FROM, TO, "RSET", "DATA"], "503 5.5.1 Error: need RCPT command\n"),
        ([FROM, TO, HELLO, TO], "503 5.5.1 Error: need MAIL command\n"),
        ([FROM, TO, "DATA x"], "501 5.5.4 Syntax: DATA\n"),
        ([FROM, "AUTH PLAIN"], "503 5.5.1 Error: MAIL transaction in progress\n"),
        ([FROM, "RCPT TO:<postmaster>"], "250 2.1.5 Ok\n"),
        (["MAIL FROM:<>", "RCPT TO:<nobody@example.org>"], "550 5.1.1 <nobody@example.org>: Recipient address "
         "rejected: User unknown in local recipient table\n"),
    ],
)  # fmt: skip
def test_sequences(house: House, commands: list[str], last: str) -> None:
    """The reply to the last of several commands, sent in one segment and one by one."""
    together = hello(house).say(*commands)
    one_by_one = hello(house)
    for command in commands:
        said = one_by_one.say(command)
    assert said == last
    assert together.endswith(last)


def test_a_message_is_queued(house: House) -> None:
    """250 names the queue file; the envelope has what the client said; our Received: comes first."""
    client = hello(house)
    client.say("MAIL FROM:<s@example.com> BODY=8BITMIME RET=HDRS ENVID=e+2Bf")
    client.say("RCPT TO:<Alice+x@Example.org> NOTIFY=DELAY ORCPT=rfc822;o@d", "DATA")
    said = client.say("Subject: x", "", "body", ".")
    message = house.accepted[0]
    assert said == f"250 2.0.0 Ok: queued as {message.queue_id}\n"
    envelope = message.accepted.envelope
    assert str(envelope.sender) == "s@example.com"
    assert (envelope.body, envelope.ret, envelope.envid) == ("8BITMIME", "HDRS", "e+f")
    recipient = envelope.recipients[0]
    assert (recipient.original, recipient.notify, recipient.orcpt) == (
        "Alice+x@Example.org", frozenset(["DELAY"]), "rfc822;o@d",
    )  # fmt: skip
    assert (envelope.client.protocol, envelope.client.helo) == ("ESMTP", "client.example")
    assert read_content(message).decode() == (
        f"Received: from client.example (unknown [192.0.2.7])\n\tby mx.example.org (Postfix) with ESMTP id "
        f"{message.queue_id}\n\tfor <Alice+x@Example.org>; Wed, 18 Nov 2026 11:06:40 +0000 (UTC)\n"
        "Subject: x\n\nbody\n"
    )


def test_received_names_no_recipient_where_there_are_two(house: House) -> None:
    """Who else got it is nobody's business."""
    client = hello(house)
    client.say(FROM, TO, "RCPT TO:<bob@example.org>", "DATA")
    client.say("x", ".")
    assert b"for <" not in read_content(house.accepted[0])


def test_missing_fields_are_added_for_local_clients_only(house: House) -> None:
    """Date, From and Message-Id come from us where the client is this host's."""
    deliver(hello(house))
    deliver(hello(house, "127.0.0.1"))
    foreign, local = map(read_content, house.accepted)
    assert b"Message-Id:" not in foreign
    assert f"Message-Id: <20261118110640.{house.accepted[1].queue_id}@mx.example.org>".encode() in local
    assert b"From: s@example.com\n" in local


def test_the_log_of_a_message(house: House) -> None:
    """The lines that log readers know, in order. ECOSYSTEM §9."""
    client = hello(house)
    deliver(client)
    client.say("RCPT TO:<x@y>", "QUIT")
    client.server.connectionLost()
    queue_id = house.accepted[0].queue_id
    assert house.log.lines == [
        ("smtpd", "connect from unknown[192.0.2.7]"),
        ("smtpd", f"{queue_id}: client=unknown[192.0.2.7]"),
        ("cleanup", f"{queue_id}: message-id="),
        ("smtpd", "disconnect from unknown[192.0.2.7] ehlo=1 mail=1 rcpt=1/2 data=1 quit=1 commands=5/6"),
    ]


def test_a_client_that_vanishes_in_data_leaves_nothing(house: House) -> None:
    """RELIABILITY F40: nothing queued, no file left; the log says where it was lost."""
    client = hello(house)
    client.say(FROM, TO, "DATA")
    client.send(b"x" * 200_000)
    client.server.connectionLost()
    assert house.accepted == []
    assert list(Path(house.queue.path, "incoming").iterdir()) == []
    assert ("smtpd", "lost connection after DATA (200000 bytes) from unknown[192.0.2.7]") in house.log.lines


def test_a_client_that_vanishes_during_a_flush_leaves_nothing(tmp_path: Path) -> None:
    """The file is removed after the write that is under way, not beside it."""
    threads = SlowThreads()
    house = House(tmp_path, threads=threads)
    client = hello(house)
    client.say(FROM, TO)
    threads.answer()
    client.say("DATA")
    client.send(b"x" * 200_000 + b"\r\n\r\n" + b"y" * 2_000_000)
    client.server.connectionLost()
    assert len(threads.waiting) == 1
    while threads.waiting:
        threads.answer()
    assert list(Path(house.queue.path, "incoming").iterdir()) == []


def test_a_client_that_stops_talking_still_hears_the_answers(house: House) -> None:
    """RELIABILITY F41: everything pipelined, then half-closed."""
    client = house.connect()
    said = client.say(HELLO, FROM, TO, "DATA", "x", ".", "NOOP")
    client.server.readConnectionLost()
    assert "queued as" in said
    assert said.endswith(OK)
    assert client.is_closed


def test_local_failures_are_temporary(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fails at the end of DATA is 451 4.3.0, never 5xx (T5); the session goes on."""
    client = hello(house)
    client.say(FROM, TO, "DATA")
    Path(house.queue.path, "incoming").rmdir()
    assert client.say("x", ".") == "451 4.3.0 Error: queue file write error\n"
    house.queue.prepare()
    assert "queued as" in deliver(client)


def test_our_own_bug_is_temporary(house: House) -> None:
    """An unexpected exception is 451, logged, and the session goes on."""
    make_filter = house.services.make_filter

    def fails(*arguments: object) -> Any:
        raise RuntimeError("broken")

    object.__setattr__(house.services, "make_filter", fails)
    client = hello(house)
    assert client.say(FROM, TO, "DATA").endswith("451 4.3.0 Error: internal error\n")
    assert client.say("NOOP") == OK
    object.__setattr__(house.services, "make_filter", make_filter)
    assert "queued as" in deliver(client)


def test_a_committed_message_is_ours_whatever_comes_after(house: House) -> None:
    """Where the hand-over fails, the file is in the queue: 250, or the client would send it again."""

    def fails(message: QueueFile) -> None:
        raise RuntimeError("broken")

    object.__setattr__(house.services, "accepted", fails)
    assert "queued as" in deliver(hello(house))
    assert len(house.queue.scan().incoming) == 1


def test_a_client_that_vanishes_during_the_commit(tmp_path: Path) -> None:
    """Whether it heard the 250 or not, what was committed is delivered once."""
    threads = SlowThreads()
    house = House(tmp_path, threads=threads)
    client = hello(house)
    client.say(FROM, TO)
    threads.answer()
    client.say("DATA")
    client.say("x", ".")
    client.server.connectionLost()
    while threads.waiting:
        threads.answer()
    assert len(house.accepted) == 1


def test_a_full_disk_is_told_at_mail(tmp_path: Path) -> None:
    """RELIABILITY F13: `452 4.3.1`, and 250 again once there is room."""
    house = House(tmp_path)
    house.queue._reserve = 1 << 62
    client = hello(house)
    assert client.say(FROM) == "452 4.3.1 Insufficient system storage\n"
    house.queue._reserve = 0
    assert client.say(FROM) == "250 2.1.0 Ok\n"


def test_too_big(tmp_path: Path) -> None:
    """RELIABILITY F19: the limit counts after our fields; a lying SIZE does not help."""
    house = House(tmp_path, message_size_limit=1000)
    client = hello(house)
    assert deliver(client, "x" * 1100).startswith("552 5.3.4 ")
    assert "queued as" in deliver(client)
    assert len(house.accepted) == 1


def test_too_many_hops(house: House) -> None:
    """RELIABILITY F49."""
    assert deliver(hello(house), "Received: x\r\n" * 50 + "\r\nx") == "554 5.4.0 Error: too many hops\n"


def test_a_big_message_goes_through_the_disk(house: House) -> None:
    """More than the memory limit: the octets are the same, the memory is not."""
    client = hello(house)
    client.say(FROM, TO, "DATA")
    line = b"y" * 98 + b"\r\n"
    for _ in range(30):
        client.server.dataReceived(line * 1000)
    assert "queued as" in client.say(".")
    assert house.accepted[0].content_length > 2_900_000
    assert read_content(house.accepted[0]).endswith(b"y" * 98 + b"\n")


def test_bdat(house: House) -> None:
    """RFC 3030 §2: chunks are counted; commands may follow in the same segment."""
    client = hello(house)
    client.say(FROM, TO)
    assert client.send(b"BDAT 5\r\nA: b\r") == "250 2.0.0 Ok: 5 bytes\n"
    said = client.send(b"BDAT 12 LAST\r\n\n\r\n.\r\nbody\r\nNOOP\r\n")
    assert said == f"250 2.0.0 Ok: 12 bytes queued as {house.accepted[0].queue_id}\n" + OK
    assert house.contents() == [b"A: b\n\n.\nbody\n"]


def test_bdat_byte_by_byte(house: House) -> None:
    """The same, octet by octet."""
    client = hello(house)
    client.say(FROM, TO)
    for octet in b"BDAT 3\r\na\r\nBDAT 0 LAST\r\n":
        client.server.dataReceived(bytes([octet]))
    assert "queued as" in client.take()


@pytest.mark.parametrize(
    ("before", "reply"),
    [
        ([], "503 5.5.1 Error: need RCPT command\n"),
        ([FROM], "554 5.5.1 Error: no valid recipients\n"),
    ],
)
def test_refused_chunks_are_swallowed(house: House, before: list[str], reply: str) -> None:
    """The octets of a chunk are never commands, whatever we think of it."""
    client = hello(house)
    client.say(*before)
    assert client.send(b"BDAT 6 LAST\r\nQUIT\r\nNOOP\r\n") == reply + OK
    assert not client.is_closed


def test_chunks_after_a_failed_one(tmp_path: Path) -> None:
    """The rest of a refused message is swallowed up to LAST; the next transaction is a fresh one."""
    house = House(tmp_path, message_size_limit=1000)
    client = hello(house)
    client.say(FROM, TO)
    assert client.send(b"BDAT 2000\r\n" + b"x" * 2000) == "552 5.3.4 Chunk exceeds message size limit\n"
    assert client.send(b"BDAT 2 LAST\r\nx\n") == "551 5.0.0 Discarded 2 bytes after earlier error\n"
    assert "queued as" in deliver(client)


@pytest.mark.parametrize("before", [[], [FROM, TO]])
@pytest.mark.parametrize("count", [2**30 + 1, 2**63 - 1, 10**20 - 1])
def test_chunks_too_large_to_discard(tmp_path: Path, before: list[str], count: int) -> None:
    """Nobody is kept waiting while more octets come than anyone sends: a reply at once, and the end."""
    house = House(tmp_path, message_size_limit=1000)
    client = hello(house)
    client.say(*before)
    said = client.send(b"BDAT %d LAST\r\nQUIT\r\n" % count)
    assert said.startswith("521 5.") and said.count("\n") == 1
    assert client.is_closed


def test_a_large_chunk_that_may_come_is_waited_for(tmp_path: Path) -> None:
    """Without a message_size_limit any count is taken; the limit is for what is thrown away."""
    client = hello(House(tmp_path, message_size_limit=0))
    client.say(FROM, TO)
    assert client.send(b"BDAT %d LAST\r\nx" % 2**40) == ""
    assert not client.is_closed


def test_commands_between_chunks(house: House) -> None:
    """MAIL, RCPT and DATA may not come between chunks; RSET ends it."""
    client = hello(house)
    client.say(FROM, TO)
    client.send(b"BDAT 1\r\nx")
    assert client.say(TO, "DATA", FROM) == (
        "503 5.5.1 Error: RCPT after BDAT\n503 5.5.1 Error: DATA after BDAT\n503 5.5.1 Error: MAIL after BDAT\n"
    )
    assert client.say("RSET") == OK
    assert "queued as" in deliver(client)


def test_bdat_without_a_count_ends_the_connection(house: House) -> None:
    """Nobody knows where the next command would begin."""
    client = hello(house)
    client.say(FROM, TO)
    assert client.send(b"BDAT x\r\nQUIT\r\n") == "521 5.5.4 Syntax: BDAT count [LAST]\n"
    assert client.is_closed


class SlowThreads:
    """Threads whose answers come when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[Any] = []

    def run(self, function: Any, /, *args: Any, **kwargs: Any) -> Deferred[Any]:
        """See Threads."""
        answer: Deferred[Any] = Deferred()
        self.waiting.append(lambda: answer.callback(function(*args, **kwargs)))
        return answer

    def answer(self) -> None:
        """The oldest call is done."""
        self.waiting.pop(0)()


def test_replies_keep_their_order(tmp_path: Path) -> None:
    """T7: commands behind one that waits wait too; `RCPT slow, RCPT, NOOP, DATA` are answered in order."""
    threads = SlowThreads()
    client = House(tmp_path, threads=threads).connect()
    assert client.say(HELLO, FROM, "RCPT TO:<slow@example.org>", TO, "NOOP", "DATA").endswith(
        "250 2.1.0 Ok\n"
    )
    assert len(threads.waiting) == 1
    while threads.waiting:
        threads.answer()
    assert client.take().replace("\r\n", "\n") == (
        "550 5.1.1 <slow@example.org>: Recipient address rejected: User unknown in local recipient table\n"
        "250 2.1.5 Ok\n250 2.0.0 Ok\n" + GO_ON
    )


def test_reading_stops_while_a_command_waits(tmp_path: Path) -> None:
    """What a client sends meanwhile is bounded, and nothing of it is lost."""
    threads = SlowThreads()
    client = House(tmp_path, threads=threads).connect()
    client.say(HELLO, FROM, TO)
    for _ in range(70):
        client.server.dataReceived(b"NOOP " + b"x" * 2000 + b"\r\n" + b"NOOP\r\n" * 350)
    assert client.transport.producerState == "paused"


def test_a_client_that_does_not_read_is_not_served(house: House) -> None:
    """Replies do not pile up in memory."""
    client = hello(house)
    client.server.pauseProducing()
    assert client.say("NOOP", "NOOP") == ""
    client.server.resumeProducing()
    assert client.take() == (OK * 2).replace("\n", "\r\n")


def test_replies_to_a_segment_leave_in_one_write(house: House) -> None:
    """RFC 2920 §3.2."""
    client = hello(house)
    writes = []
    client.transport.write = writes.append
    client.server.dataReceived(f"{FROM}\r\n{TO}\r\nDATA\r\n".encode())
    assert len(writes) == 1


def test_smtputf8(house: House) -> None:
    """RFC 6531 §3.7.3: unicode addresses only when declared; the trace says how it came."""
    client = hello(house)
    assert client.say("MAIL FROM:<jörg@example.com>").startswith("553 5.6.7 ")
    assert client.say("MAIL FROM:<jörg@example.com> SMTPUTF8") == "250 2.1.0 Ok\n"
    assert client.say("RCPT TO:<ünbekannt@example.org>").startswith("550 5.1.1 <ünbekannt@example.org>")
    client.say(TO, "DATA")
    assert client.say("Subject: ü", "", ".").startswith("250 ")
    assert b" with UTF8SMTP id " in read_content(house.accepted[-1])


def test_neighbours_relay_and_strangers_do_not(house: House) -> None:
    """mynetworks decides, not the sender."""
    assert hello(house, NEIGHBOUR).say(FROM, "RCPT TO:<x@other.test>").endswith("250 2.1.5 Ok\n")
    assert (
        hello(house)
        .say("MAIL FROM:<alice@example.org>", "RCPT TO:<x@other.test>")
        .endswith("454 4.7.1 <x@other.test>: Relay access denied\n")
    )


@pytest.mark.parametrize("line", [b"HELO a\nX-Evil: y\r\n", b"EHLO a\rb\r\n", b"HELO a\0b\r\n"])
def test_no_header_comes_through_helo(house: House, line: bytes) -> None:
    """RELIABILITY B12. Who sends a field as a command is sent away."""
    client = house.connect()
    client.send(line)
    if client.is_closed:
        client = house.connect()
    client.say(HELLO)
    deliver(client)
    assert b"\nX-Evil" not in read_content(house.accepted[0])


def test_shutting_down(house: House) -> None:
    """RELIABILITY F09: idle clients hear 421; one that is being committed hears its 250 first."""
    client = hello(house)
    done = house.factory.shut_down()
    assert client.take() == "421 4.3.2 mx.example.org Error: server is shutting down\r\n"
    assert not done.called
    client.server.connectionLost()
    assert done.called


@pytest.mark.parametrize("last", ["NOOP", "QUIT"])
def test_a_client_that_does_not_leave_keeps_nobody_waiting(house: House, last: str) -> None:
    """Under TLS a connection ends when both sides say so: one that is silent, or left so before, is cut off."""
    client = hello(house)
    client.say(last)
    house.factory.shut_down()
    house.clock.advance(PATIENCE - 0.1)
    assert not getattr(client.transport, "aborting", False)
    house.clock.advance(0.1)
    assert getattr(client.transport, "aborting", False)


def test_shutting_down_while_committing(tmp_path: Path) -> None:
    """The answer to a commit under way is a true one."""
    threads = SlowThreads()
    house = House(tmp_path, threads=threads)
    client = house.connect()
    client.say(HELLO, FROM, TO)
    threads.answer()
    client.say("DATA")
    client.say("x", ".")
    house.factory.shut_down()
    client.take()
    threads.answer()
    said = client.take()
    assert said.startswith("250 2.0.0 Ok: queued as ")
    assert "421 4.3.2" in said


def test_content_checks_reach_the_client_and_the_log(tmp_path: Path) -> None:
    """header_checks: REJECT is a 550 after the content, others a line of cleanup's; HOLD, REDIRECT."""
    house = House(tmp_path)
    path = tmp_path / "rules"
    path.write_text(
        "/^Subject: bad/ REJECT no such subject\n/^Subject: mind/ HOLD why\n/^To: old/ REDIRECT bob@example.org\n"
        "/^Subject: gone/ DISCARD\n"
    )
    rules = CleanupRules(checks=CheckTables(header_checks=(open_table(f"regexp:{path}"),)))
    object.__setattr__(house.services, "make_filter", partial(Cleanup, rules))
    client = house.connect()
    for content, reply in (
        ("Subject: bad", "550 5.7.1 no such subject\n"),
        ("Subject: mind\nTo: old@example.org", "250 2.0.0 Ok: queued as "),
        ("Subject: gone", "250 2.0.0 Ok: queued as "),
    ):
        client.say("EHLO client.example", "MAIL FROM:<a@example.com>", "RCPT TO:<alice@example.org>", "DATA")
        assert client.say(*content.split("\n"), "", "x", ".").startswith(reply)
    (message,) = house.accepted
    assert "/hold/" in message.path
    assert [str(each.address) for each in message.accepted.envelope.recipients] == ["bob@example.org"]
    lines = [line.partition(": ")[2] for service, line in house.log.lines if service == "cleanup"]
    about = "from unknown[192.0.2.7]; from=<a@example.com> to=<alice@example.org> proto=ESMTP helo=<client.example>"
    assert lines[0] == f"reject: header Subject: bad {about}: 5.7.1 no such subject"
    assert lines[1] == f"hold: header Subject: mind {about}: why"
    assert f"discard: header Subject: gone {about}" in lines


def test_how_strictly_addresses_are_read(tmp_path: Path) -> None:
    """strict_rfc821_envelopes, allow_min_user, resolve_numeric_domain."""
    house = House(tmp_path, strict_rfc821_envelopes=True, allow_min_user=True, resolve_numeric_domain=True)
    client = hello(house)
    assert client.say("MAIL FROM:a@b") == "501 5.1.7 Bad sender address syntax\n"
    assert client.say("MAIL FROM: <-a@192.0.2.1>") == "250 2.1.0 Ok\n"
    assert client.say("RCPT TO:alice@example.org") == "501 5.1.3 Bad recipient address syntax\n"


def test_postmaster_needs_no_domain(tmp_path: Path) -> None:
    """RFC 5321 §4.5.1: also where myorigin is no domain of ours."""
    client = hello(House(tmp_path, tools={"domains": ("mx.example.org",)}))
    assert client.say(FROM, "RCPT TO:<PostMaster>").endswith("250 2.1.5 Ok\n")
    assert client.say("RCPT TO:<alice>") == "454 4.7.1 <alice>: Relay access denied\n"
