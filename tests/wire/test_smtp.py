"""The SMTP command grammar: RFC 5321 §4.1, RFC 1870, 3461, 4954, 6152, 6531; RELIABILITY B12."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.envelope import Address, Recipient
from mailserver.wire.smtp import (
    MailCommand,
    SmtpError,
    decode_xtext,
    encode_utf8_address,
    encode_xtext,
    parse_bdat,
    parse_helo,
    parse_mail,
    parse_rcpt,
    split_command,
)


@pytest.mark.parametrize(
    ("line", "verb", "argument"),
    [
        (b"NOOP", "NOOP", b""),
        (b"noop  x ", "NOOP", b"x"),
        (b"mail FROM:<>", "MAIL", b"FROM:<>"),
        (b"", "", b""),
        (b"M\xc4IL x", "", b"x"),
        (b"\0\1", "", b""),
        (b"STAR\tTLS", "STAR", b"TLS"),
    ],
)
def test_split(line: bytes, verb: str, argument: bytes) -> None:
    """A verb is letters and digits; an 8-bit one is unknown, not an exception (TWISTED.md)."""
    assert split_command(line) == (verb, argument)


SENDER = Address("a", "b")


@pytest.mark.parametrize(
    ("argument", "command"),
    [
        (b"FROM:<a@b>", MailCommand(SENDER)),
        (b"from: <a@b>", MailCommand(SENDER)),
        (b"FROM:a@b", MailCommand(SENDER)),
        (b"FROM:<>", MailCommand(None)),
        (b"FROM:<a@b> SIZE=1000 BODY=8bitmime", MailCommand(SENDER, 1000, "8BITMIME")),
        (b"FROM:<a@b> body=7BIT", MailCommand(SENDER, body="7BIT")),
        (b"FROM:<a@b> RET=hdrs ENVID=x+2By", MailCommand(SENDER, ret="HDRS", envid="x+y")),
        (b"FROM:<a@b> AUTH=<>", MailCommand(SENDER, auth="<>")),
        (b"FROM:<a@b> AUTH=e+3Dmc2@example.com", MailCommand(SENDER, auth="e=mc2@example.com")),
        ("FROM:<jörg@b> SMTPUTF8".encode(), MailCommand(Address("jörg", "b"), smtputf8=True)),
    ],
)
def test_mail(argument: bytes, command: MailCommand) -> None:
    """MAIL with its parameters."""
    assert parse_mail(argument) == command


@pytest.mark.parametrize(
    ("argument", "code", "dsn"),
    [
        (b"", 501, "5.5.4"),
        (b"FROM", 501, "5.5.4"),
        (b"FROM:", 501, "5.5.4"),
        (b"TO:<a@b>", 501, "5.5.4"),
        (b"FROM:<a@b", 501, "5.1.7"),
        (b"FROM:<a@>", 501, "5.1.7"),
        (b"FROM:<a@b>SIZE=1", 501, "5.1.7"),
        (b"FROM:Name <a@b>", 501, "5.5.4"),
        (b"FROM:<a@b> SIZE=", 501, "5.5.4"),
        (b"FROM:<a@b> SIZE=-1", 501, "5.5.4"),
        (b"FROM:<a@b> SIZE=1e9", 501, "5.5.4"),
        ("FROM:<a@b> SIZE=١".encode(), 501, "5.5.4"),
        (b"FROM:<a@b> SIZE=" + b"9" * 21, 501, "5.5.4"),
        (b"FROM:<a@b> BODY=BINARYMIME", 555, "5.5.4"),
        (b"FROM:<a@b> X=1", 555, "5.5.4"),
        (b"FROM:<a@b> =1", 501, "5.5.4"),
        (b"FROM:<a@b> SMTPUTF8=1", 555, "5.5.4"),
        (b"FROM:<a@b> RET=ALL", 501, "5.5.4"),
        (b"FROM:<a@b> RET=FULL RET=HDRS", 501, "5.5.4"),
        (b"FROM:<a@b> ENVID=", 501, "5.5.4"),
        (b"FROM:<a@b> ENVID=a b", 555, "5.5.4"),
        (b"FROM:<a@b> ENVID=x+0D+0AX-Evil:y", 501, "5.5.4"),
        (b"FROM:<a@b> ENVID=x+00", 501, "5.5.4"),
        (b"FROM:<a@b> ENVID=x+7F", 501, "5.5.4"),
        (b"FROM:<a@b> ENVID=x+zz", 501, "5.5.4"),
        (b"FROM:<a@b> ENVID=x\ry", 501, "5.5.4"),
        (b"FROM:<a@b> ENVID=\xff", 501, "5.5.4"),
        (b"FROM:<a@b> AUTH=", 501, "5.5.4"),
        (b"FROM:<a@b> AUTH=x+0A", 501, "5.5.4"),
        ("FROM:<jörg@b>".encode(), 553, "5.6.7"),
    ],
)
def test_mail_refused(argument: bytes, code: int, dsn: str) -> None:
    """Bad syntax has its code; no control character passes, raw or encoded."""
    with pytest.raises(SmtpError) as refusal:
        parse_mail(argument)
    assert (refusal.value.code, refusal.value.dsn) == (code, dsn)


@pytest.mark.parametrize(
    ("argument", "recipient"),
    [
        (b"TO:<a@b>", Recipient(SENDER, "a@b")),
        (b"to:a@b", Recipient(SENDER, "a@b")),
        (b"TO:<postmaster>", Recipient(Address("postmaster"), "postmaster")),
        (b"TO:<a@b> NOTIFY=NEVER", Recipient(SENDER, "a@b", frozenset(["NEVER"]))),
        (b"TO:<a@b> notify=success,Delay", Recipient(SENDER, "a@b", frozenset(["SUCCESS", "DELAY"]))),
        (b"TO:<a@b> ORCPT=rfc822;c+2Bd@e", Recipient(SENDER, "a@b", orcpt="rfc822;c+d@e")),
        (b"TO:<a@b> ORCPT=utf-8;j\\x{F6}rg@e", Recipient(SENDER, "a@b", orcpt="utf-8;jörg@e")),
    ],
)
def test_rcpt(argument: bytes, recipient: Recipient) -> None:
    """RCPT with its parameters; the spelling is kept."""
    assert parse_rcpt(argument) == recipient


@pytest.mark.parametrize(
    "argument",
    [
        b"",
        b"TO:<>",
        b"TO:<alice@>",
        b"TO:<a@b> NOTIFY=",
        b"TO:<a@b> NOTIFY=NEVER,DELAY",
        b"TO:<a@b> NOTIFY=DELAY,DELAY",
        b"TO:<a@b> NOTIFY=ALWAYS",
        b"TO:<a@b> ORCPT=a@b",
        b"TO:<a@b> ORCPT=;a@b",
        b"TO:<a@b> ORCPT=rfc822;",
        b"TO:<a@b> ORCPT=rfc822;x+0D+0ASubject:+20y",
        b"TO:<a@b> ORCPT=rfc822;x+00",
        b"TO:<a@b> ORCPT=utf-8;x\\x{0A}",
        b"TO:<a@b> ORCPT=utf-8;x\\x{D800}",
        b"TO:<a@b> ORCPT=utf-8;x\\x{FFFFFF}",
        b"TO:<a@b> SIZE=1",
        "TO:<jörg@b>".encode(),
    ],
)
def test_rcpt_refused(argument: bytes) -> None:
    """RFC 3461 §4; RELIABILITY B12."""
    with pytest.raises(SmtpError) as refusal:
        parse_rcpt(argument)
    assert 500 <= refusal.value.code < 600


def test_utf8_recipient_with_smtputf8() -> None:
    """RFC 6531 §3.3."""
    assert parse_rcpt("TO:<jörg@b>".encode(), smtputf8=True).address == Address("jörg", "b")


@pytest.mark.parametrize("name", [b"mx.example.org", b"[127.0.0.1]", b"MY_PC", b"x extra", b"[IPv6:::1]"])
def test_helo(name: bytes) -> None:
    """Bare NetBIOS names are taken (Outlook)."""
    assert parse_helo(name) == name.split()[0].decode()


@pytest.mark.parametrize("name", [b"", b"a\nX-Evil:", b"a\0b", b"a\tb", b"a" * 256])
def test_helo_refused(name: bytes) -> None:
    """No header gets in through HELO (TWISTED.md)."""
    with pytest.raises(SmtpError):
        parse_helo(name)


@pytest.mark.parametrize(
    ("argument", "chunk"),
    [
        (b"0 LAST", (0, True)),
        (b"10", (10, False)),
        (b"7 last", (7, True)),
        (b"9223372036854775807", (2**63 - 1, False)),
    ],
)
def test_bdat(argument: bytes, chunk: tuple[int, bool]) -> None:
    """RFC 3030 §2."""
    assert parse_bdat(argument) == chunk


@pytest.mark.parametrize(
    "argument", [b"", b"-1", b"x", b"1 2", b"10LAST", b"1 LAST x", b"9" * 20, b"9223372036854775808"]
)
def test_bdat_refused(argument: bytes) -> None:
    """Where the next command begins is unknown then: the connection must end."""
    with pytest.raises(SmtpError) as refusal:
        parse_bdat(argument)
    assert refusal.value.code == 521


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=50))
def test_xtext(text: str) -> None:
    """RFC 3461 §4: encoding is undone by decoding, and needs no blanks or equal signs."""
    encoded = encode_xtext(text)
    assert decode_xtext(encoded, "ENVID") == text
    assert " " not in encoded
    assert "=" not in encoded


@given(st.binary(max_size=60))
def test_any_argument_is_parsed_or_refused(argument: bytes) -> None:
    """Nothing but SmtpError escapes."""
    for parse in (parse_mail, parse_rcpt, parse_helo, parse_bdat):
        for prefix in (b"", b"FROM:<a@b> ", b"TO:<a@b> "):
            try:
                parse(prefix + argument)
            except SmtpError as refusal:
                assert refusal.code >= 500


@given(st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=40), st.booleans())
def test_utf8_addresses_come_back(text: str, is_utf8: bool) -> None:
    """RFC 6533 §3: what is encoded is decoded to the same, and is ASCII where it has to be."""
    encoded = encode_utf8_address(text, is_utf8)
    assert (is_utf8 or encoded.isascii()) and not set(encoded) & set(" +=")
    parsed = parse_rcpt(f"TO:<a@b> ORCPT=utf-8;{encoded}".encode(), is_utf8)
    assert parsed.orcpt == f"utf-8;{text}"


def test_utf8_address_forms() -> None:
    """utf-8-addr-xtext, utf-8-addr-unitext."""
    assert encode_utf8_address("jürg +=\\€@x") == r"j\x{FC}rg\x{20}\x{2B}\x{3D}\x{5C}\x{20AC}@x"
    assert encode_utf8_address("jürg+x@y", is_utf8=True) == r"jürg\x{2B}x@y"
