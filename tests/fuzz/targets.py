"""Every grammar that reads what strangers write, as one function of octets: the targets of `make fuzz`.

A target may raise nothing: what its grammar refuses, with the errors that it names, is as good as what it
takes. Beyond that each states what must hold (the same however the octets are cut; what is written is
read back). `SEEDS` are octets that get far into the grammar, to be mutated.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Final

from twisted.internet.defer import Deferred, succeed

from mailserver.accounts import passwd_file, system
from mailserver.accounts.sasl import SaslProblem, credentials
from mailserver.accounts.scram import read_verifier
from mailserver.config.dovecot import Parser
from mailserver.config.dovecot_meaning import meaning
from mailserver.config.master import format_row, parse_master
from mailserver.config.syntax import ConfigError, parse_main
from mailserver.message import (
    addresses,
    bounce_template,
    dates,
    fuzzy,
    header,
    imap_envelope,
    mime,
    preview,
    qualify,
    section,
    sort_keys,
    structure,
    text,
    threading,
)
from mailserver.message.binary import without_binary
from mailserver.message.downgrade import downgraded
from mailserver.message.fields import make_field
from mailserver.pop3d.authentication import in_base64
from mailserver.pop3d.lines import LineQueue
from mailserver.pop3d.lines import LineTooLong as Pop3LineTooLong
from mailserver.pop3d.output import multiline
from mailserver.pop3d.settings import Pop3Settings
from mailserver.queue import drop_file
from mailserver.store import mbox_scan, uidlist
from mailserver.tables.cidr import network_pattern
from mailserver.tables.source import alias_lines, map_lines, read_source
from mailserver.tables.table import TableError
from mailserver.wire import (
    address,
    aliases,
    dovecot_auth,
    imap_mailbox,
    imap_sequence,
    milter,
    policy_delegation,
    redaction,
    scram,
    smtp,
    smtp_reply,
    user_variables,
)
from mailserver.wire.imap_arguments import ImapSyntaxError
from mailserver.wire.imap_commands import parse_command
from mailserver.wire.imap_deflate import DeflateError, Deflater, Inflater
from mailserver.wire.imap_framing import CommandReader, CommandText, Event, Fatal, Limits
from mailserver.wire.imap_search import MOST_KEYS, BadCharset, read_criteria
from mailserver.wire.imap_url import BadUrl, Url, parse_absolute_url, parse_message_url
from mailserver.wire.lines import BareNewline, ChunkDecoder, CommandLines, DataDecoder, LineTooLong
from mailserver.wire.smtp_stuffing import Stuffing
from tests.pop3d.dialogue import Dialogue, unstuffed

Target = Callable[[bytes], None]

MESSAGES: Final = Path(__file__).parent.parent / "data" / "messages"
_LONGEST_LINE: Final = 64
_LIMITS: Final = Limits(line=200, literals=100, message=300)


def _halves(data: bytes) -> tuple[bytes, bytes]:
    """Cut where the first octet says."""
    at = data[0] % (len(data) + 1) if data else 0
    return data[:at], data[at:]


def smtp_address(data: bytes) -> None:
    """What is read is read again from what it is written as."""
    with contextlib.suppress(address.AddressError):
        found, _ = address.scan_path(b"<%b>" % data)
        if found is not None:
            assert address.scan_path(f"<{found}>".encode())[0] == found
    for parse in (address.parse_lenient, address.parse_sender):
        with contextlib.suppress(address.AddressError):
            parse(data.decode("utf-8", "surrogateescape"))


def smtp_command(data: bytes) -> None:
    """RFC 5321 §4.1.1, RFC 3461 §4, RFC 3030."""
    with contextlib.suppress(smtp.SmtpError):
        _, argument = smtp.split_command(data)
        for parse in (smtp.parse_helo, smtp.parse_mail, smtp.parse_rcpt, smtp.parse_bdat, smtp.parse_burl):
            with contextlib.suppress(smtp.SmtpError):
                parse(argument)
    with contextlib.suppress(smtp.SmtpError):
        plain = smtp.decode_xtext(data.decode("latin-1"), "ORCPT")
        assert smtp.decode_xtext(smtp.encode_xtext(plain), "ORCPT") == plain


def _lines(pieces: tuple[bytes, ...]) -> list[bytes | None]:
    reader, found = CommandLines(_LONGEST_LINE), list[bytes | None]()
    for piece in pieces:
        reader.feed(piece)
        while True:
            try:
                line = reader.next_line()
            except LineTooLong:
                found.append(None)
                continue
            if line is None:
                break
            found.append(line)
        assert len(reader) <= _LONGEST_LINE
    return found


def smtp_lines(data: bytes) -> None:
    """Cut anywhere, the same lines; what is held is bounded."""
    assert _lines((data,)) == _lines(_halves(data))


def smtp_data(data: bytes) -> None:
    """Cut anywhere, the same content and the same rest."""
    for mode in BareNewline:
        whole, parts = DataDecoder(mode), DataDecoder(mode)
        content = whole.feed(data)
        pieces, rest = b"", b""
        for piece in _halves(data):
            if parts.is_finished:
                rest += piece
            else:
                pieces += parts.feed(piece)
        assert whole.is_finished == parts.is_finished
        if whole.is_finished:
            assert (pieces, parts.rest + rest) == (content, whole.rest)
            assert b"\r" not in content
        else:
            assert content.startswith(pieces) or pieces.startswith(content)


def smtp_chunks(data: bytes) -> None:
    """Cut anywhere, the same content, which ends in a line end where there is any."""
    for mode in BareNewline:
        whole, parts = ChunkDecoder(mode), ChunkDecoder(mode)
        content = whole.feed(data) + whole.finish()
        assert content == b"".join(map(parts.feed, _halves(data))) + parts.finish()
        assert not content or content.endswith(b"\n")


def smtp_replies(data: bytes) -> None:
    """A hostile server's replies are bounded, and printable."""
    reader = smtp_reply.ReplyReader()
    reader.feed(data)
    with contextlib.suppress(smtp_reply.ReplyError):
        while reply := reader.take():
            smtp_reply.parse_extensions(reply)
            assert all(line.isprintable() for line in reply.lines)
            assert reply.dsn


def _events(pieces: tuple[bytes, ...]) -> Iterator[Event]:
    reader = CommandReader(_LIMITS)
    for piece in pieces:
        reader.feed(piece)
        while (event := reader.next_event()) is not None:
            yield event
            if isinstance(event, Fatal):
                return


def imap_framing(data: bytes) -> None:
    """Cut anywhere, the same commands; literals are counted exactly."""
    assert list(_events((data,))) == list(_events(_halves(data)))


def imap_command(data: bytes) -> None:
    """A command is a value or an ImapSyntaxError, with and without UTF8=ACCEPT."""
    line, *literals = data.split(b"\0")
    for takes_utf8 in (False, True):
        with contextlib.suppress(ImapSyntaxError, BadCharset):
            parse_command(CommandText(line, tuple(literals)), takes_utf8)


def message_url(data: bytes) -> None:
    """A URL names a message, or is a BadUrl; its rump is how it begins. RFC 5092, RFC 4467 §3 and §6."""
    with contextlib.suppress(BadUrl):
        parse_message_url(Url(data))
    with contextlib.suppress(BadUrl):
        url = parse_absolute_url(data)
        assert url.authority is None or data.startswith(url.authority.rump)
        parse_message_url(url.message)


def bounce_templates(data: bytes) -> None:
    """Whatever a file says, there is a template of each kind, and each can be shown. bounce(5)."""
    found, _ = bounce_template.parse_templates(data.decode("latin-1"))
    assert found.keys() == bounce_template.BUILT_IN.keys()
    for name, template in found.items():
        bounce_template.as_text(name, template)


def stored_search(data: bytes) -> None:
    """A filter is a search program or an ImapSyntaxError. RFC 5466 §3.2."""
    with contextlib.suppress(ImapSyntaxError):
        assert read_criteria(data).count <= MOST_KEYS


def fuzzy_search(data: bytes) -> None:
    """What an exact search finds has a score, and no text that has one lacks the pieces. RFC 6203 §4."""
    needle, _, content = data.decode("latin-1").partition("\0")
    wanted, folded = fuzzy.FuzzyText(needle), text.fold(content)
    score = wanted.of_text("", folded, with_header=False)
    assert 0 <= score <= 100 and 0 <= wanted.of_text(folded, folded, with_header=True) <= 100
    assert score or text.fold(needle) not in folded
    plain = text.without_accents(folded)
    assert not score or all(any(piece in plain for piece in group) for group in wanted.pieces)


def imap_name(data: bytes) -> None:
    """A mailbox name that is taken is written and read back as itself. RFC 3501 §5.1.3."""
    for takes_utf8 in (False, True):
        with contextlib.suppress(ImapSyntaxError):
            name = imap_mailbox.mailbox_name(data, takes_utf8)
            assert imap_mailbox.decode_modified_utf7(imap_mailbox.encode_modified_utf7(name)) == name
            imap_mailbox.matches(name.replace("a", "*").replace("b", "%"), name)


def imap_sequence_set(data: bytes) -> None:
    """Spans ascend and do not touch; what is rendered is read back."""
    with contextlib.suppress(ImapSyntaxError):
        spans = imap_sequence.parse_sequence_set(data).spans(1000)
        assert all(low <= high for low, high in spans)
        assert all(one[1] + 1 < other[0] for one, other in pairwise(spans))
        numbers = [number for low, high in spans for number in range(low, min(high, low + 50) + 1)]
        if numbers:
            rendered = imap_sequence.parse_sequence_set(imap_sequence.render_set(numbers))
            assert rendered.spans(1) == imap_sequence.runs(numbers)


def imap_deflate(data: bytes) -> None:
    """Foreign streams stay bounded; our own are read back. RFC 4978."""
    inflater = Inflater(1 << 16)
    inflater.feed(data)
    with contextlib.suppress(DeflateError):
        while inflater.read():
            pass
    reader = Inflater(1 << 16)
    reader.feed(Deflater().deflate(data))
    found = b""
    while piece := reader.read():
        found += piece
    assert found == data


def mime_message(data: bytes) -> None:
    """Parts lie within their message, and every answer can be given."""
    message = mime.parse(data)
    structure.render_body(data)
    structure.render_bodystructure(data)
    imap_envelope.render_envelope(data)
    preview.preview(data)
    text.searchable(data)
    for numbers in ((1,), (2,), (1, 1), (1, 2, 3)):
        for part in ("", "HEADER", "TEXT", "MIME"):
            section.section_span(message, numbers, part)
        with contextlib.suppress(section.UnknownEncoding):
            section.binary(data, message, numbers)


def mail_header(data: bytes) -> None:
    """A header is its fields; every field's value can be read as any kind."""
    end = header.header_end(data)
    assert 0 <= end <= len(data)
    for field in header.fields(data[:end]):
        value = header.unfold(field.body)
        addresses.parse_addresses(value)
        dates.sent_date(value)
        text.decode_words(value)
        mime.content_type(value)
        qualify.Completion(b"example.org", b"example.org").list(value)
        sort_keys.base_subject(value)
        sort_keys.mailbox_key(value)
        sort_keys.display_key(value)
        sort_keys.references(value, value)


def threads(data: bytes) -> None:
    """Every message stands in the threads once, whatever refers to what. RFC 5256 §3."""
    names = [bytes([octet & 7]) for octet in data[:60]]
    messages = [
        threading.Threadable(
            number, names[number], tuple(names[number : number + (octet >> 6)]), str(octet & 3)
        )
        for number, octet in enumerate(data[:60])
    ]
    for arrange in (threading.by_references, threading.by_refs):
        said = threading.render(arrange(messages))
        numbers = said.replace(b"(", b" ").replace(b")", b" ").split()
        assert sorted(map(int, numbers)) == list(range(len(messages)))


def alias_values(data: bytes) -> None:
    """Right-hand sides of aliases(5) and lines of .forward."""
    aliases.parse_destinations(data.decode("utf-8", "surrogateescape"))
    aliases.parse_file(data)


def table_source(data: bytes) -> None:
    """postmap's and postalias's sources, and network patterns."""
    written = data.decode("utf-8", "surrogateescape")
    for grammar in (map_lines, alias_lines):
        with contextlib.suppress(TableError):
            read_source(written, grammar)
    with contextlib.suppress(ValueError):
        network_pattern(written)


def configuration(data: bytes) -> None:
    """main.cf, master.cf, dovecot.conf: read, or refused with the place."""
    written = data.decode("utf-8", "surrogateescape")
    with contextlib.suppress(ConfigError):
        parse_main(written, "main.cf")
    with contextlib.suppress(ConfigError):
        rows, _ = parse_master(written, "master.cf")
        for row in rows:
            format_row(row)
    parser = Parser(lambda path: written, lambda pattern: [])
    with contextlib.suppress(ConfigError):
        parser.parse("dovecot.conf")
        meaning(parser.finish())


def scram_messages(data: bytes) -> None:
    """What is taken holds together: the parts are the message's own."""
    with contextlib.suppress(scram.ScramSyntaxError):
        first = scram.parse_client_first(data)
        assert first.gs2_header + first.bare == data and first.nonce in first.bare and first.name
    with contextlib.suppress(scram.ScramSyntaxError):
        final = scram.parse_client_final(data)
        assert data.startswith(final.without_proof + b",p=") and final.nonce in final.without_proof
    text = data.decode("utf-8", "surrogateescape")
    verifier = read_verifier("{SCRAM-SHA-256}" + text)
    assert verifier is None or read_verifier(str(verifier)) == verifier


def account_files(data: bytes) -> None:
    """passwd-files and shadow."""
    written = data.decode("utf-8", "surrogateescape")
    passwd_file.parse(written)
    for entry in system.parse_shadow(written).values():
        entry.refusal(20_000)


def dropped_file(data: bytes) -> None:
    """What users put into maildrop."""
    with contextlib.suppress(drop_file.Malformed):
        drop_file.decode_first_line(data)
    with contextlib.suppress(drop_file.Malformed):
        fields = drop_file.decode_envelope(data)
        assert b"".join(b"%s=%s\0" % field for field in fields) == data


def mbox_file(data: bytes) -> None:
    """Messages follow each other without a gap from the first separator to the end."""
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        for mboxrd in (False, True):
            at = None
            for message in mbox_scan.scan(file.fileno(), 0, len(data), mboxrd):
                place = message.place
                assert at is None or place.offset == at
                at = place.offset + place.length
            assert at is None or at == len(data)


def dovecot_uidlist(data: bytes) -> None:
    """UIDNEXT lies above every UID."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, uidlist.UIDLIST).write_bytes(data)
        adopted, uids = uidlist.read_uidlist(os.fspath(directory))
        assert not uids or adopted.uidnext > max(uids.values())


_COMMANDS: Final = (
    b'a UID SEARCH RETURN (MIN PARTIAL 1:9) CHARSET UTF-8 OR NOT SEEN (FROM "x" UID 1:*) MODSEQ 7',
    b'a LIST (SUBSCRIBED) "" ("a" b*) RETURN (CHILDREN STATUS (MESSAGES UIDNEXT))',
    b"a UID FETCH 1,2:* (FLAGS BODY.PEEK[1.HEADER.FIELDS (To)]<0.9> BINARY[1]) (CHANGEDSINCE 5 VANISHED)",
    b'a APPEND x (\\Seen) "24-Nov-2026 02:22:04 +0000" CATENATE (URL "/x/;UID=2" TEXT {3}\r\n)\0abc',
    b"a SELECT x (QRESYNC (67890007 20050715 41,43:211 (1 1)))",
    b"a NOTIFY SET STATUS (selected (MessageNew (UID) MessageExpunge)) (subtree (a b) (MailboxName))",
    b"a STORE 1:3,7 (UNCHANGEDSINCE 7) +FLAGS.SILENT (\\Seen x)",
    b'a SETMETADATA INBOX (/private/comment "x" /shared/comment NIL)',
    b"a SORT RETURN (COUNT) (REVERSE DATE SUBJECT) UTF-8 ALL",
    b"a THREAD REFERENCES US-ASCII ALL",
    b'a GENURLAUTH "imap://joe@example.com/INBOX/;uid=20;urlauth=anonymous" INTERNAL',
    b'a URLFETCH ("/x/;UID=2;urlauth=anonymous:internal:91" BODY BINARY) "/x/;UID=3"',
    b"a RESETKEY x INTERNAL",
    b'a ESEARCH IN (mailboxes (a "b") subtree-one c personal) RETURN (MIN) NOT TEXT x',
    b"a SETACL x bob +lrs",
    b"a DELETEACL x -bob",
)
_REPLIES: Final = (b"250-mx.example\r\n250-SIZE 9\r\n250 AUTH PLAIN\r\n", b"451 4.7.1 later\r\n")
_SMTP: Final = (
    b"MAIL FROM:<a@b.example> SIZE=9 BODY=8BITMIME RET=HDRS ENVID=x+2By SMTPUTF8",
    b'RCPT TO:<@h:"a b"@[IPv6:::1]> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;x+3Dy',
)
_DOVECOT: Final = (
    b"protocols = imap pop3\nnamespace inbox {\n  mailbox Sent {\n  }\n}\npassdb {\n  driver = shadow\n}\n"
)
_MBOX: Final = b"From a@b  Tue Nov 24 02:22:04 2026\nSubject: x\nX-UID: 7\nStatus: RO\n\nbody\n>From x\n\n"


def auth_line(data: bytes) -> None:
    """Dovecot's auth protocol: fields are read from what they are written as."""
    fields = dovecot_auth.fields_of(data)
    assert dovecot_auth.fields_of(dovecot_auth.line(*fields)) == fields
    with contextlib.suppress(dovecot_auth.AuthSyntaxError, dovecot_auth.BadResponse):
        dovecot_auth.parse_request(fields)


def _pop3_lines(pieces: tuple[bytes, ...]) -> list[bytes | None]:
    queue, found = LineQueue(), list[bytes | None]()
    for piece in pieces:
        queue.add(piece)
        with contextlib.suppress(Pop3LineTooLong):
            while (line := queue.take(_LONGEST_LINE)) is not None:
                found.append(line)
    return found


def pop3_lines(data: bytes) -> None:
    """Cut anywhere, the same lines; what waits is given on as it came."""
    before, after = _halves(data)
    assert _pop3_lines((data,)) == _pop3_lines((before, after))
    queue = LineQueue()
    queue.add(before)
    queue.add(after)
    assert queue.held == len(data) and queue.take_all() == data and queue.held == 0


def pop3_session(data: bytes) -> None:
    """Each line has one answer, whole; nothing but QUIT deletes, and stuffing hides no end. RFC 1939 §3."""
    session = Dialogue(settings=Pop3Settings(most_bad_commands=10_000))
    session.log_in()
    stored = len(session.store.inbox.uids)
    answer = session.say(data)
    assert not answer or answer.endswith(b"\r\n")
    is_over = session.wire.disconnecting
    assert is_over or len(session.store.inbox.uids) == stored
    session.hang_up()
    for shown in (data, downgraded(data)):
        unstuffed(b"+OK\r\n" + multiline(shown))


_raised: list[object] = []


def pop3_responses(data: bytes) -> None:
    """What AUTH is answered with is credentials, or is refused."""
    for mechanism in ("PLAIN", "LOGIN"):
        waiting = [*data.split(b"\n"), b"*"][::-1]
        ask = in_base64(lambda challenge, left=waiting: succeed(left.pop()))  # type: ignore[misc]
        Deferred.fromCoroutine(credentials(mechanism, None, ask)).addErrback(
            lambda failure: failure.trap(SaslProblem)
        ).addErrback(_raised.append)
        assert not _raised, _raised.pop()


def milter_packets(data: bytes) -> None:
    """What a milter or a policy service sends is packets and decisions, or an error that is named."""
    reader = milter.PacketReader()
    with contextlib.suppress(milter.MilterError):
        reader.feed(data)
        while (packet := reader.take()) is not None:
            for read in (milter.negotiated, lambda *parts: milter.edit(*parts, milter.Allowed(0x1FF))):
                with contextlib.suppress(milter.MilterError):
                    read(*packet)
    with contextlib.suppress(policy_delegation.PolicyAnswerError):
        policy_delegation.decode_answer(data)


def smtp_stuffing(data: bytes) -> None:
    """What we send is read back as whole lines, with no end before the end. RFC 5321 §4.5.2."""
    writer = Stuffing()
    before, after = _halves(data.replace(b"\r", b"").replace(b"\0", b""))
    sent = writer.feed(before) + writer.feed(after) + writer.finish()
    reader = DataDecoder(BareNewline.REJECT)
    reader.feed(sent)
    assert reader.is_finished and not reader.rest


def written_field(data: bytes) -> None:
    """Whatever the text, the field that we write is one field: RELIABILITY B12."""
    for utf8 in (False, True):
        made = make_field("X-Y", data.decode("utf-8", "replace"), utf8)
        assert len(list(header.fields(made))) == 1
        assert not re.search(rb"[\r\0]|\n(?![ \t]|\Z)", made)


def stored_content(data: bytes) -> None:
    """Without BINARYMIME a message has no binary part; variables of a location are filled in or left."""
    without_binary(data)
    with contextlib.suppress(ValueError):
        user_variables.expand(data.decode("utf-8", "surrogateescape"), "alice", "/home/alice")


def transcript(data: bytes) -> None:
    """What a transcript shows is printable, and the same however the octets are cut."""
    for is_client in (True, False):
        before, after = _halves(data)
        cut, whole = redaction.Redaction(True, is_client), redaction.Redaction(True, is_client)
        lines = cut.feed(before) + cut.feed(after)
        assert lines == whole.feed(before + after)
        assert all(32 <= octet < 127 for line in lines for octet in line)


SEEDS: Final[dict[Target, tuple[bytes, ...]]] = {
    scram_messages: (
        b"p=tls-exporter,a=x,n=us=2Cer,r=fyko+d2lbbFgONRv9qkxdawL,x=y",
        b"c=biws,r=fyko+d2lbbFgONRv9qkxdawL,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        b"4096,1a6bUeo1se6biGcvA+zQUQ==,VfPQv2aw3v24h3Vo2f0i0NEBUnfEu7CY1tr9A2C3jy8=,"
        b"1hKbY2d0P73Y1lDTTr5dRLUxjZb771Zfjg37rp0cCgQ=",
    ),
    smtp_address: (b'"a b"+x@[192.0.2.1]', b"a@b.example", b"@a,@b:c@d"),
    smtp_command: _SMTP,
    smtp_lines: (b"EHLO x\r\nMAIL\n" + 80 * b"x" + b"\r\nQUIT\r\n",),
    smtp_data: (b"..x\r\n.\r\nQUIT\r\n", b"x\n.\n", b"a\r.\r\nb\r\n.\n.\r\n"),
    smtp_chunks: (b"a\r\nb\rc\n\r",),
    smtp_replies: _REPLIES,
    imap_framing: (b"a LOGIN {1}\r\nx {2+}\r\nyy\r\nb NOOP\r\n", b"a APPEND x {900}\r\n"),
    imap_command: _COMMANDS,
    message_url: (
        b"/x;UIDVALIDITY=385759045/;UID=20/;SECTION=1.2/;PARTIAL=0.1024",
        b"imap://joe;AUTH=*@h.example:1143/a%20b;UIDVALIDITY=7/;UID=20/;SECTION=1.2/;PARTIAL=0.9"
        b";EXPIRE=2031-01-31T23:59:59.5+01:00;URLAUTH=submit+j%C3%B6:internal:" + b"0a" * 32,
        b"imap://joe@example.com/INBOX/;uid=20;expire=2036-01-01T00:00:00Z;urlauth=user+fred:internal:91354a473744",
    ),
    bounce_templates: (
        b"failure_template = <<EOF\nSubject: x\nCharset: utf-8\n\n$myhostname\nEOF\nx = <<\n",
    ),
    stored_search: (b'OR SMALLER 5000 FROM "boss@example.com"', b"(FILTER x) SUBJECT {2+}\r\nab NOT SEEN"),
    fuzzy_search: (b"invoice b\0the invioce, b\xe9 and invoices", b"!\0what!", b"R\xe9sum\xe9\0resume"),
    imap_name: (b"a/b&AOQ-/c", b"INBOX/&-", "ä/ö".encode()),
    imap_sequence_set: (b"1:3,7,*:9,4294967295",),
    imap_deflate: (Deflater().deflate(b"a NOOP\r\n" * 9),),
    mime_message: tuple(sorted(path.read_bytes() for path in MESSAGES.iterdir())),
    mail_header: tuple(sorted(path.read_bytes()[:2000] for path in MESSAGES.iterdir())),
    threads: (bytes(range(0, 250, 9)),),
    alias_values: (b'a, "|cmd x", /file, :include:/x, \\a, "b c"@d\n#x\n',),
    table_source: (b'# x\na@b OK\n "q r"\n  y\nname: "|x", y\n', b"192.0.2.0/24"),
    configuration: (b"a = ${b?c:d} $x\n  y\nsmtp inet n - n - - smtpd\n  -o a=b\n", _DOVECOT),
    account_files: (b"a:{PLAIN}x:1:2::/h::userdb_mail=maildir:~/m allow_nets=::1\n", b"a:$6$x:1:0:9:7:::\n"),
    dropped_file: (drop_file.encode([(b"sender", b"a"), (b"recipient", b"b@c")], b"x\n"),),
    mbox_file: (_MBOX, _MBOX * 3, b"\n" + _MBOX),
    dovecot_uidlist: (b"3 V9 N7 G00\n5 :1.2.h\n6 W9 :x:2,S\n",),
    auth_line: (
        b"AUTH\t1\tPLAIN\tservice=smtp\trip=192.0.2.7\tsecured\tresp=AGFsaWNlAHNlY3JldA==",
        b"FAIL\t7\tuser=ali\x01tce\treason=x",
    ),
    pop3_lines: (b"USER x\r\nPASS y\nQUIT\r\n" + 80 * b"x",),
    pop3_session: (
        b"STAT\r\nUIDL 1\r\nTOP 1 9\r\nRETR 2\r\nDELE 1\r\nLIST\r\nRSET\r\nNOOP\r\n.x\r\n",
        b"QUIT\r\n",
    ),
    pop3_responses: (b"AGFsaWNlAHNlY3JldA==", b"YWxpY2U=\nc2VjcmV0"),
    milter_packets: (
        milter.packet(b"O", bytes(12))
        + milter.packet(b"h", b"A\0b\0")
        + milter.packet(b"y", b"550 5.7.1 no\0"),
        b"action=DEFER x\n\n",
    ),
    smtp_stuffing: (b".\n..x\n" + 1200 * b"y" + b"\n.",),
    written_field: (b"a b\r\nBcc: x@y\r\n\r\n" + "ä".encode() * 90,),
    stored_content: (
        b"Content-Type: image/png\r\nContent-Transfer-Encoding: binary\r\n\r\n\0\r\n",
        b"%u%{user | lower}",
    ),
    transcript: (
        b"* 1 FETCH (BODY[] {12}\r\nsecret words FLAGS (\\Seen))\r\na OK done\r\n",
        b'a LOGIN {5}\r\nalice "secret"\r\nb APPEND INBOX {6+}\r\nsecret\r\n',
    ),
}
TARGETS: Final = {target.__name__: target for target in SEEDS}
