"""The TRANSACTION and UPDATE states. RFC 1939 §5 to §7."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.pop3d.output import multiline, top
from mailserver.pop3d.settings import Pop3Settings
from mailserver.pop3d.uidl import Known, header_digest, uidl_maker
from mailserver.store.contract import SEEN, NewMessage, StoreFailure
from tests.pop3d.dialogue import ONE, TWO, Dialogue, HeldThreads, unstuffed


@pytest.fixture
def dialogue() -> Dialogue:
    """A session with two messages."""
    session = Dialogue()
    session.log_in()
    return session


def test_listings_leave_out_deleted_messages(dialogue: Dialogue) -> None:
    """RFC 1939 §5: Twisted's POP3 counts them still."""
    assert dialogue.ask(b"LIST") == b"+OK 2 messages:\r\n1 44\r\n2 46\r\n.\r\n"
    assert dialogue.ask(b"UIDL") == b"+OK\r\n1 00000001000f4241\r\n2 00000002000f4241\r\n.\r\n"
    assert dialogue.ask(b"DELE 1") == b"+OK Marked to be deleted.\r\n"
    assert dialogue.ask(b"STAT") == b"+OK 1 46\r\n"
    assert dialogue.ask(b"LIST") == b"+OK 1 messages:\r\n2 46\r\n.\r\n"
    assert dialogue.ask(b"UIDL") == b"+OK\r\n2 00000002000f4241\r\n.\r\n"
    for command in (b"LIST 1", b"UIDL 1", b"RETR 1", b"TOP 1 0", b"DELE 1"):
        assert dialogue.ask(command) == b"-ERR Message is deleted.\r\n"
    assert dialogue.ask(b"RSET") == b"+OK\r\n"
    assert dialogue.ask(b"LIST 1") == b"+OK 1 44\r\n"
    assert dialogue.ask(b"UIDL 2") == b"+OK 2 00000002000f4241\r\n"


@pytest.mark.parametrize(
    "number", [b"0", b"3", b"-1", b"99999999999999999999", b"x", b"", b"1 2", b"+1", "²".encode()]
)
def test_bad_message_numbers_delete_nothing(dialogue: Dialogue, number: bytes) -> None:
    """`DELE 0` deletes the last message in Twisted's POP3."""
    for command in (b"DELE %b", b"RETR %b", b"TOP %b 0"):
        assert dialogue.ask(command % number).startswith(b"-ERR ")
    assert dialogue.ask(b"STAT") == b"+OK 2 90\r\n"
    assert dialogue.ask(b"QUIT") == b"+OK Logging out.\r\n"
    assert len(dialogue.store.inbox.uids) == 2


def test_retrieved_messages_are_those_stored(dialogue: Dialogue) -> None:
    """RFC 1939 §3: dots are stuffed, the size is the store's."""
    assert dialogue.ask(b"RETR 2") == (
        b"+OK 46 octets\r\nSubject: two\r\n\r\n..leading dot\r\n...two\r\n..\r\nlast\r\n.\r\n"
    )
    assert unstuffed(dialogue.ask(b"RETR 1")) == ONE


@pytest.mark.parametrize("length", [16_381, 16_382, 16_383, 16_384, 16_385, 32_766, 65_535])
def test_dots_at_chunk_borders_are_stuffed(length: int) -> None:
    """Twisted loses the stuffing at each border of 16 KiB, and the client the rest of the message."""
    header = b"Subject: x\r\n\r\n"
    content = header + b"y" * (length - len(header) - 2) + b"\r\n.\r\n.z\r\n"
    dialogue = Dialogue([content])
    dialogue.log_in()
    assert unstuffed(dialogue.ask(b"RETR 1")) == content


@given(st.lists(st.sampled_from([b".", b"\r\n", b"a", b"\0", b"\r", b"\xff", b".."]), max_size=30))
def test_any_content_survives_stuffing(pieces: list[bytes]) -> None:
    """What a client reads is what is stored, but for NULs, a last line end and the blank line."""
    content = b"".join(pieces)
    read = unstuffed(b"+OK\r\n" + multiline(content))
    assert read.startswith(content.replace(b"\0", b"\x80"))
    assert read.endswith(b"\r\n") and b"\0" not in read
    assert read.startswith(b"\r\n") or b"\r\n\r\n" in read


def test_a_first_line_that_begins_with_a_dot() -> None:
    """Not stuffed in Twisted's POP3."""
    assert multiline(b".x: y\r\n\r\n") == b"..x: y\r\n\r\n.\r\n"


def test_a_header_without_a_blank_line_gets_one() -> None:
    """Old clients hang otherwise."""
    assert multiline(b"Subject: x\r\n") == b"Subject: x\r\n\r\n.\r\n"
    assert multiline(b"") == b"\r\n.\r\n"


@pytest.mark.parametrize(("lines", "expected"), [
    (0, b"Subject: two\r\n\r\n"),
    (1, b"Subject: two\r\n\r\n.leading dot\r\n"),
    (4, TWO),
    (9_999_999_999, TWO),
])  # fmt: skip
def test_top(lines: int, expected: bytes) -> None:
    """RFC 1939 §7; the message does not become \\Seen."""
    assert top(TWO, lines) == expected
    dialogue = Dialogue()
    dialogue.log_in()
    assert unstuffed(dialogue.ask(b"TOP 2 %d" % lines)) == expected
    dialogue.ask(b"QUIT")
    assert not dialogue.store.inbox.messages[2].flags


def test_quit_removes_what_was_marked_and_nothing_else() -> None:
    """RFC 1939 §6: +OK comes after the removal."""
    threads = HeldThreads()
    dialogue = Dialogue([ONE, TWO, ONE], threads=threads)
    dialogue.connect()
    dialogue.say(b"USER alice\r\nPASS secret\r\nDELE 1\r\nDELE 3\r\n")
    threads.work()
    dialogue.answers()
    dialogue.store.inbox.deliver(b"Subject: new\r\n\r\n")
    assert dialogue.ask(b"QUIT") == b""
    assert dialogue.store.inbox.uids == [1, 2, 3]
    threads.work()
    assert dialogue.answers() == b"+OK Logging out, messages deleted.\r\n"
    dialogue.store.inbox.refresh()
    assert dialogue.store.inbox.uids == [2, 4]
    assert not dialogue.store.maildrop_is_locked
    dialogue.hang_up()
    endings = [text for service, text in dialogue.log.lines if service.startswith("pop3(alice)<")]
    assert endings == ["Disconnected: Logged out top=0/0, retr=0/0, del=2/3, size=134"]


def test_a_broken_connection_deletes_nothing_but_keeps_seen(dialogue: Dialogue) -> None:
    """RFC 1939 §6: no UPDATE state without QUIT."""
    dialogue.ask(b"RETR 1")
    dialogue.ask(b"DELE 1")
    dialogue.hang_up()
    assert dialogue.store.inbox.uids == [1, 2]
    assert dialogue.store.inbox.messages[1].flags == {SEEN}
    assert not dialogue.store.maildrop_is_locked
    assert dialogue.log.lines[-1][1] == "Disconnected: Connection closed top=0/0, retr=1/62, del=0/2, size=90"


def test_seen_is_left_alone_where_it_should_be() -> None:
    """pop3_no_flag_updates = yes; and RSET takes back what RETR did, as in Dovecot."""
    dialogue = Dialogue(settings=Pop3Settings(marks_seen=False))
    dialogue.log_in()
    dialogue.ask(b"RETR 1")
    dialogue.ask(b"QUIT")
    assert not dialogue.store.inbox.messages[1].flags


def test_quit_that_cannot_delete_says_so(dialogue: Dialogue) -> None:
    """RFC 1939 §6: -ERR where some messages were not removed; the lock is free."""
    dialogue.ask(b"DELE 1")
    dialogue.store.inbox.fail_with = StoreFailure("disk full on /dev/sda1")
    answer = dialogue.ask(b"QUIT")
    assert answer == b"-ERR [SYS/TEMP] Some deleted messages were not removed.\r\n"
    assert dialogue.wire.disconnecting
    dialogue.hang_up()
    assert dialogue.store.inbox.uids == [1, 2]
    assert not dialogue.store.maildrop_is_locked


def test_a_message_that_another_program_removed(dialogue: Dialogue) -> None:
    """Numbers and sizes stay, the message alone is an error."""
    dialogue.store.inbox.vanish(1)
    assert dialogue.ask(b"RETR 1") == b"-ERR Message was removed by another program.\r\n"
    assert unstuffed(dialogue.ask(b"RETR 2")) == TWO
    assert dialogue.ask(b"STAT") == b"+OK 2 90\r\n"
    dialogue.ask(b"DELE 1")
    assert dialogue.ask(b"QUIT").startswith(b"+OK")


def test_a_failing_disk_is_temporary(dialogue: Dialogue) -> None:
    """One log line, no traceback, the session lives."""
    dialogue.store.inbox.fail_with = StoreFailure("/var/mail/alice: Input/output error")
    assert dialogue.ask(b"RETR 1") == b"-ERR [SYS/TEMP] Mailbox is not available for now.\r\n"
    assert dialogue.log.lines[-1][1] == "Error: /var/mail/alice: Input/output error"
    dialogue.store.inbox.fail_with = None
    assert dialogue.ask(b"NOOP") == b"+OK\r\n"


def test_retrieving_in_order_reads_ahead_and_gives_the_right_messages() -> None:
    """Messages read ahead are those of their numbers, deleted ones included in between."""
    messages = [b"Subject: %d\r\n\r\n%b\r\n" % (number, b"x" * number) for number in range(60)]
    dialogue = Dialogue(messages)
    dialogue.log_in()
    dialogue.ask(b"DELE 7")
    for number in [*range(1, 60), 3, 60, 59]:
        answer = dialogue.ask(b"RETR %d" % number)
        if number == 7:
            assert answer == b"-ERR Message is deleted.\r\n"
        else:
            assert unstuffed(answer) == messages[number - 1]


def test_many_pipelined_retrievals_wait_for_the_reader() -> None:
    """A client that does not read makes the server wait, not grow; then all comes, in order."""
    messages = [b"Subject: %d\r\n\r\nx\r\n" % number for number in range(20)]
    dialogue = Dialogue(messages)
    dialogue.log_in()
    dialogue.server.pauseProducing()
    assert dialogue.say(b"".join(b"RETR %d\r\n" % number for number in range(1, 21))) == b""
    assert dialogue.store.inbox.reads == 0
    dialogue.server.resumeProducing()
    answers = dialogue.answers()
    assert answers.count(b"+OK") == 20
    assert [answers.index(b"Subject: %d\r\n" % number) for number in range(20)] == sorted(
        answers.index(b"Subject: %d\r\n" % number) for number in range(20)
    )


def test_input_is_bounded_while_a_command_runs() -> None:
    """Reading pauses, and goes on when the command is done."""
    threads = HeldThreads()
    dialogue = Dialogue(threads=threads)
    dialogue.connect()
    dialogue.say(b"USER alice\r\nPASS secret\r\n")
    dialogue.say(b"NOOP\r\n" * 20_000)
    assert dialogue.wire.producerState == "paused"
    threads.work()
    assert dialogue.wire.producerState == "producing"
    assert dialogue.answers().count(b"+OK\r\n") == 20_000


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_commands_in_any_pieces(size: int) -> None:
    """A line is a line wherever the segments end; a bare LF ends one too."""
    dialogue = Dialogue()
    dialogue.connect()
    octets = b"USER alice\r\nPASS secret\nSTAT\r\nQUIT\r\n"
    said = b"".join(dialogue.say(octets[start : start + size]) for start in range(0, len(octets), size))
    assert said == b"+OK\r\n+OK Logged in.\r\n+OK 2 90\r\n+OK Logging out.\r\n"


def test_a_line_without_end_ends_the_connection(dialogue: Dialogue) -> None:
    """RFC 2449 §4: 255 octets are enough; 512 are accepted. Twisted takes 16 KiB."""
    assert dialogue.say(b"NOOP " + b"x" * 600).startswith(b"-ERR Line too long.")
    assert dialogue.wire.disconnecting


def test_twenty_bad_commands_end_a_session(dialogue: Dialogue) -> None:
    """Errors are counted after login too."""
    for _ in range(19):
        assert dialogue.ask(b"FROB") == b"-ERR Unknown command.\r\n"
    assert dialogue.ask(b"LAST").endswith(b"-ERR Too many invalid commands.\r\n")
    assert dialogue.wire.disconnecting


def test_time_outs() -> None:
    """RFC 1939 §3: ten minutes, Twisted gives five; nothing is deleted."""
    dialogue = Dialogue()
    dialogue.connect()
    dialogue.clock.advance(179)
    dialogue.ask(b"CAPA")
    dialogue.ask(b"USER alice")
    dialogue.ask(b"PASS secret")
    dialogue.ask(b"DELE 1")
    dialogue.clock.advance(599)
    assert not dialogue.wire.disconnecting
    dialogue.clock.advance(2)
    assert dialogue.answers() == b"-ERR Disconnected for inactivity.\r\n"
    assert dialogue.wire.disconnecting
    dialogue.hang_up()
    assert dialogue.store.inbox.uids == [1, 2]
    assert "Disconnected: Inactivity" in dialogue.log.lines[-1][1]
    assert not dialogue.clock.getDelayedCalls()


def test_a_client_that_does_not_read_is_dropped() -> None:
    """Neither its buffer nor our last words hold the connection."""
    dialogue = Dialogue()
    dialogue.log_in()
    dialogue.server.pauseProducing()
    dialogue.ask(b"RETR 1")
    dialogue.clock.advance(601)
    assert dialogue.wire.aborted
    dialogue.hang_up()
    assert not dialogue.store.maildrop_is_locked


def test_uidl_formats() -> None:
    """pop3_uidl_format: Dovecot's default is lower-case hexadecimal; unfit formats are refused."""
    dialogue = Dialogue(settings=Pop3Settings(uidl_format="%v.%u"))
    dialogue.log_in()
    assert dialogue.ask(b"UIDL 2") == b"+OK 2 1000001.2\r\n"
    for unfit in ("%v", "", "%u x", "%q", "%u%", "x" * 70 + "%u", "%h%u", "%5u"):
        with pytest.raises(ValueError, match="pop3_uidl_format"):
            Pop3Settings(uidl_format=unfit)


def test_uidl_modifiers() -> None:
    """Dovecot's: upper case, hexadecimal, MD5, widths; before the letter in any order."""
    known = Known(255, 10, "Name", "abc")
    for text, made in {
        "%08Xu": b"000000ff", "%UXu": b"FF", "%Lf%u": b"name255", "%Uf": b"NAME",
        "%4Mu": b"fe131d7f5a6b38b23cc967316c13dae2",
        "%m-%v": b"abc-10", "%%%u": b"%255",
    }.items():  # fmt: skip
        assert uidl_maker(text)(known) == made


@pytest.mark.parametrize(
    ("header", "digest"),
    [
        (b"Received: from x by y\r\n\twith ESMTP\r\nSubject: one\r\n", b"db2b8d408414039f760bb259da124bb2"),
        (b"X-Delivery-ID:  77 \r\nFrom: a@b\r\n", b"e507b32e3b7bb08854e3d2affe6f58ab"),
        (b"Delivered-To: me@here\r\n", b"66e22b9dfc980d8539279caa9b740c9e"),
        (b"Received: from x by y\r\nReceived: from z by x\r\nDate: x\r\n",
         b"8e6cb85d333205c3fab03af2d72785e7"),
        (b"Date: Fri, 22 Feb 2008 17:06:22 +0000\r\nMessage-ID: <2@x>\r\n"
         b"Received: from x by y\r\nFrom: a@b\r\n",
         b"89268a6479a961e9647f0234daf859f7"),
        (b"From: a@b\r\nSubject: none\r\n", b"d41d8cd98f00b204e9800998ecf8427e"),
    ],
)  # fmt: skip
def test_header_digests_are_dovecots(header: bytes, digest: bytes) -> None:
    """As Debian's Dovecot 2.3 gave them for `pop3_uidl_format = %m` over an mbox."""
    assert header_digest(header + b"\r\nbody\r\n") == digest


def test_uidl_of_header_digests() -> None:
    """pop3_uidl_format = %m; messages that cannot be told apart by it get the default."""
    dialogue = Dialogue(settings=Pop3Settings(uidl_format="%m"))
    same = b"Date: x\r\n\r\n"
    dialogue.store.inbox.append([NewMessage(content) for content in (b"Date: y\r\n\r\n", same, same)])
    dialogue.log_in()
    ids = dialogue.ask(b"UIDL").split(b"\r\n")[3:6]
    assert re.fullmatch(rb"3 [0-9a-f]{32}", ids[0])
    assert ids[1:] == [b"4 00000004000f4241", b"5 00000005000f4241"]


def test_utf8_headers() -> None:
    """Without UTF8, mail that came by SMTPUTF8 has ASCII headers; what is stored stays. RFC 6856 §2.1, §4."""
    trace = b"Received: from a by b with UTF8SMTP\r\n"
    content = trace + "Subject: Gr\u00fc\u00dfe\r\n\r\n\u00e4\r\n".encode()
    for says_utf8 in (False, True):
        dialogue = Dialogue()
        dialogue.store.inbox.append([NewMessage(content)])
        dialogue.connect()
        if says_utf8:
            assert dialogue.ask(b"UTF8 x").startswith(b"-ERR")
            assert dialogue.ask(b"UTF8") == b"+OK UTF8 enabled.\r\n"
        dialogue.ask(b"USER alice")
        dialogue.ask(b"PASS secret")
        shown = content if says_utf8 else trace + b"Subject: =?utf-8?b?R3LDvMOfZQ==?=\r\n\r\n\xc3\xa4\r\n"
        assert dialogue.ask(b"RETR 3") == b"+OK %d octets\r\n%b.\r\n" % (len(shown), shown)
        assert dialogue.ask(b"TOP 3 0") == b"+OK\r\n%b.\r\n" % shown[: shown.index(b"\xc3\xa4\r\n")]
        assert dialogue.ask(b"UTF8").startswith(b"-ERR")
        assert dialogue.store.inbox.read(dialogue.store.inbox.uids[2]) == content


def test_ids_that_another_server_left() -> None:
    """pop3_reuse_xuidl: X-UIDL where it can be an id and is one message's alone, else the format."""
    headers = (b"X-UIDL: abc!~1\r\n", b"X-UIDL: two words\r\n", b"", b"X-UIDL: same\r\n", b"X-UIDL: same\r\n")
    messages = [b"%bSubject: x\r\n\r\nX-UIDL: body\r\n" % header for header in (*headers, b"X-UIDL:\r\n")]
    dialogue = Dialogue(messages, Pop3Settings(uidl_format="%u", reuses_old_ids=True))
    dialogue.log_in()
    assert dialogue.ask(b"UIDL").split(b"\r\n")[1:-2] == [b"1 abc!~1", b"2 2", b"3 3", b"4 4", b"5 5", b"6 6"]
    assert dialogue.ask(b"UIDL 1") == b"+OK 1 abc!~1\r\n"
    plain = Dialogue(messages, Pop3Settings(uidl_format="%u"))
    plain.log_in()
    assert plain.ask(b"UIDL 1") == b"+OK 1 1\r\n"


def test_uidl_of_file_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """pop3_uidl_format = %f or %g: whoever comes from Courier or Dovecot downloads nothing twice."""
    for text in ("%f", "%g"):
        dialogue = Dialogue(settings=Pop3Settings(uidl_format=text))
        names = {1: "1700000000.M1P1.host,S=100,W=105"}
        monkeypatch.setattr(type(dialogue.store.inbox), "file_names", lambda inbox, uids, known=names: known)
        dialogue.log_in()
        assert dialogue.ask(b"UIDL 1") == b"+OK 1 1700000000.M1P1.host,S=100,W=105\r\n"
        assert dialogue.ask(b"UIDL 2") == b"+OK 2 00000002000f4241\r\n"  # shares its file
        names[1] = "1700000001 odd"
        again = Dialogue(settings=Pop3Settings(uidl_format=text))
        again.log_in()
        assert re.fullmatch(rb"\+OK 1 [0-9a-f]{40}\r\n", again.ask(b"UIDL 1"))
