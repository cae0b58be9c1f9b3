"""UTF-8 headers for readers of ASCII. RFC 6858."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.message.downgrade import downgraded
from mailserver.message.header import fields, header_end
from mailserver.message.text import decode_words

TRACE = "Received: from a by b\r\n with utf8smtps id 1\r\n"
NOBODY = "invalid@internationalized-address.invalid"


def one(line: str) -> str:
    """What becomes of a field; "" where it is left out."""
    content = downgraded(f"{line}\r\n{TRACE}X: \u00e4\r\n\r\nbody\r\n".encode())
    assert content.isascii() and content.endswith(b"\r\n\r\nbody\r\n")
    kept = [field.raw.decode() for field in fields(content[: header_end(content)])][:-2]
    return "".join(kept).replace("\r\n ", " ").removesuffix("\r\n")


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("Subject: plain", "Subject: plain"),
        ("Subject: Gr\u00fc\u00dfe", "Subject: =?utf-8?b?R3LDvMOfZQ==?="),
        ("From: J\u00f6 <jo@example.org>", "From: =?utf-8?b?SsO2?= <jo@example.org>"),
        ("From: j\u00f6@example.org", f"From: =?utf-8?b?asO2QGV4YW1wbGUub3Jn?= <{NOBODY}>"),
        ("To: a@b, \"O, \u00d6\" <\u00f6@x>", f"To: a@b, =?utf-8?b?Tywgw5YgPMO2QHg+?= <{NOBODY}>"),
        ("Cc: \u00e4s: a@b, \"x, y\" <c@d>;, e@f", 'Cc: =?utf-8?b?w6Rz?=: a@b, "x, y" <c@d>;, e@f'),
        ("Content-Type: text/plain; name=\"\u00e4 b.txt\"; charset=utf-8",
         "Content-Type: text/plain; name*=utf-8''%C3%A4%20b.txt; charset=utf-8"),
        ("Message-ID: <\u00e4@x>", ""),
        ("References: <a@x> <\u00e4@x>", ""),
    ],
)  # fmt: skip
def test_what_becomes_of_fields(line: str, shown: str) -> None:
    """§2.1 addresses, §2.2 parameters, §2.3 text, §2.4 the rest."""
    assert one(line) == shown


def test_what_needs_nothing_stays() -> None:
    """ASCII headers, and 8-bit ones that are no UTF-8 or did not come by SMTPUTF8; bodies always."""
    trace = TRACE.encode()
    for content in (
        trace + b"Subject: \xe4\r\n\r\nx",
        b"Received: from a by b with ESMTP\r\nSubject: \xc3\xa4\r\n\r\n",
        b"Subject: x\r\n\r\n\xc3\xa4\r\n",
        b"Subject: \xe4\r\n\r\nx",
        b"\r\n\xc3\xa4",
        b"",
        b"x",
    ):
        assert downgraded(content) is content
    assert downgraded(f"{TRACE}X: \u00e4\r\n\r\n\u00e4".encode()).endswith(b"\r\n\r\n\xc3\xa4")


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"])))
def test_any_subject_can_be_read(text: str) -> None:
    """Whatever it says is said again, on ASCII lines that are not too long."""
    content = downgraded(f"Subject: {text}\r\n{TRACE}X: \u00e4\r\n\r\n".encode())
    field = fields(content)[0]
    assert max(map(len, content.split(b"\r\n"))) < 998 and content.isascii()
    assert "".join(decode_words(field.value).split()) == "".join(text.split()) or "=?" in text


@given(st.binary(max_size=200))
def test_anything_is_shown(junk: bytes) -> None:
    """Never an exception, never a longer header than its lines."""
    assert isinstance(downgraded(b"From: " + junk), bytes)
    assert isinstance(downgraded(f"{TRACE}To: \u00e4 ".encode() + junk + b"\r\n\r\n"), bytes)
