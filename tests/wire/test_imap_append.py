"""APPEND, REPLACE and message URLs as values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.wire.imap_append import (
    Append,
    AppendedMessage,
    BadUrl,
    MessageUrl,
    Replace,
    Url,
    parse_message_url,
)
from mailserver.wire.imap_commands import BadCommand, parse_command
from mailserver.wire.imap_fetch import Section
from mailserver.wire.imap_framing import CommandText
from mailserver.wire.imap_sequence import SequenceSet

WHOLE = Section(is_peek=True)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        (b"/INBOX/;UID=1", MessageUrl("INBOX", None, 1, WHOLE)),
        (b";UID=1/;PARTIAL=1.2", MessageUrl(None, None, 1, WHOLE, 1, 2)),
        (b"/INBOX/;UID=1/;PARTIAL=0", MessageUrl("INBOX", None, 1, WHOLE)),
        (b"/inbox;UIDVALIDITY=7/;uid=20", MessageUrl("INBOX", 7, 20, WHOLE)),
        (
            b";UID=3/;SECTION=1.2.MIME",
            MessageUrl(None, None, 3, Section(part=(1, 2), text="MIME", is_peek=True)),
        ),
        (b"/a/b%20c/;UID=1/;SECTION=TEXT", MessageUrl("a/b c", None, 1, Section(text="TEXT", is_peek=True))),
        (
            b"/x/;UID=9/;SECTION=HEADER.FIELDS%20(To%20Cc)",
            MessageUrl("x", None, 9, Section(text="HEADER.FIELDS", fields=(b"To", b"Cc"), is_peek=True)),
        ),
    ],
)
def test_message_urls(text: bytes, url: MessageUrl) -> None:
    """RFC 5092 §5, RFC 4469 §3."""
    assert parse_message_url(Url(text)) == url


@pytest.mark.parametrize(
    "text",
    [b"", b"x", b"/INBOX", b"/INBOX/;UID=0", b"imap://a@b/INBOX/;UID=1", b"//host/INBOX/;UID=1",
        b"/../x/;UID=1",
     b"/%2E%2E/x/;UID=1", b"/a%00/;UID=1", b"/%ff/;UID=1", b";UID=1/;SECTION=0", b";UID=1/;SECTION=1%5D<0.1>",
     b"/a;UIDVALIDITY=0/;UID=1", b";UID=1/;PARTIAL=1.0", b";UID=1/;PARTIAL=", b";UID=1/;PARTIAL=1.",
     b"/" + b"a" * 3000 + b"/;UID=1"],
)  # fmt: skip
def test_bad_urls(text: bytes) -> None:
    """RFC 4469 §4.1: only messages of this account, by a name that can be one."""
    with pytest.raises(BadUrl):
        parse_message_url(Url(text))


@given(st.binary(max_size=60))
def test_any_url_is_parsed_or_refused(text: bytes) -> None:
    """Nothing else is ever raised."""
    try:
        parse_message_url(Url(b"/" + text + b"/;UID=1"))
    except BadUrl:
        pass


def parsed(text: bytes, *literals: bytes) -> object:
    return parse_command(CommandText(text, literals)).arguments


def test_catenate() -> None:
    """RFC 4469 §5."""
    text = b'a APPEND x (\\Seen) CATENATE (TEXT {1}\r\n URL "/y/;UID=1" TEXT {0}\r\n)'
    message = AppendedMessage(b"", frozenset({b"\\Seen"}), None, (b"a", Url(b"/y/;UID=1"), b""))
    assert parsed(text, b"a", b"") == Append("x", (message,))


def test_replace() -> None:
    """RFC 8508 §5: one message for one."""
    append = Append("x", (AppendedMessage(b"hi"),))
    assert parsed(b"a REPLACE 4 x {2}\r\n", b"hi") == Replace(SequenceSet(((4, 4),)), append)
    assert parsed(b"a UID REPLACE 4 x {2}\r\n", b"hi") == Replace(SequenceSet(((4, 4),)), append, True)


@pytest.mark.parametrize("text", [b"a REPLACE 1,2 x {2}\r\n", b"a REPLACE 1:2 x {2}\r\n",
    b"a REPLACE $ x {2}\r\n",
                                  b"a REPLACE x {2}\r\n", b"a REPLACE 1 x"])  # fmt: skip
def test_bad_replace(text: bytes) -> None:
    """RFC 8508 §5: a number, not a set."""
    with pytest.raises(BadCommand):
        parsed(text, b"hi")
