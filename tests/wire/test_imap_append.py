"""APPEND and REPLACE as values."""

from __future__ import annotations

import pytest

from mailserver.wire.imap_append import Append, AppendedMessage, Replace
from mailserver.wire.imap_commands import BadCommand, parse_command
from mailserver.wire.imap_framing import CommandText
from mailserver.wire.imap_sequence import SequenceSet
from mailserver.wire.imap_url import Url


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
