"""Text for searches, and the keys that SORT and THREAD compare."""

from __future__ import annotations

import base64
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.message.dates import sent_date
from mailserver.message.fields import encoded, format_date
from mailserver.message.sort_keys import base_subject, display_key, mailbox_key, message_ids, references
from mailserver.message.text import decode_words, fold, from_charset, searchable


@pytest.mark.parametrize(("value", "text"), [
    (b"plain", "plain"),
    (b"=?iso-8859-1?Q?Andr=E9_x?= Pirard", "André x Pirard"),
    (b"=?utf-8?b?SsO8?=\r\n =?utf-8?b?cmc=?= x", "Jürg x"),
    (b"=?utf-8?b?w?= =?utf-8?q?=BC?=", "�"),
    (b"=?utf-8?q?=C3?= =?utf-8?q?=BC?=", "ü"),
    (b"a =?utf-8*en?q?b?= c", "a b c"),
    (b"=?x-unknown?q?caf=E9?=", "café"),
    (b"=?idna?q?xn--a?=", "xn--a"),
    (b"=?iso-2022-jp?B?GyRCRnxLXBsoQg==?=", "日本"),
    (b"caf\xe9 caf\xc3\xa9", "cafÃ©"[:3] + "é cafÃ©"),
    (b"caf\xc3\xa9", "café"),
    (b"=?utf-8?x?y?= =?broken", "=?utf-8?x?y?= =?broken"),
])  # fmt: skip
def test_encoded_words(value: bytes, text: str) -> None:
    """RFC 2047 §6, RFC 2231 §5; what is broken stays readable."""
    assert decode_words(value.replace(b"\r\n", b"")) == text


@given(st.text(max_size=80))
def test_encoded_words_round_trip(text: str) -> None:
    """What `fields.encoded` writes, `decode_words` reads, but for control characters and outer blanks."""
    clean = encoded(text)
    assert clean.isascii()
    if not text.isascii():
        assert encoded(decode_words(clean.encode())) == clean


@pytest.mark.parametrize(
    "charset", ["zip", "hex", "punycode", "unicode_escape", "", "\0", "x" * 100, "rot13"]
)
def test_charsets_that_are_none(charset: str) -> None:
    """Python's other codecs are no charsets; the text is read all the same."""
    assert from_charset(b"caf\xe9", charset) == "café"


def test_folding_levels_case_and_forms() -> None:
    """RFC 5255 §4.6: i;unicode-casemap."""
    assert fold("STRASSE") == fold("straße")
    assert fold("\u00e9") == fold("E\u0301")
    assert fold("ﬁn") == "fin"
    assert fold("ABC") == "abc"


def test_what_a_search_sees() -> None:
    """Text parts of any encoding and charset; headers, names of files in them; no attachments.

    RFC 9051 §6.4.4: BODY finds nothing in a header field, that of a part or of a message within neither.
    """
    latin = base64.encodebytes("Grüße".encode("latin-1")).replace(b"\n", b"\r\n")
    content = (
        b"Subject: =?utf-8?q?J=C3=BC?=\r\n =?utf-8?q?rg?=\r\n"
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
        b"preamble\r\n--b\r\nContent-Type: text/plain; charset=iso-8859-1\r\n"
        b"Content-Transfer-Encoding: base64\r\n\r\n" + latin + b"--b\r\nContent-Type: text/html\r\n"
        b"Content-Transfer-Encoding: quoted-printable\r\n\r\nsoft=\r\nbreak\r\n"
        b"--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: Inner\r\n\r\ninner body\r\n"
        b"--b\r\nContent-Type: image/png; name=plain.png\r\n"
        b"Content-Disposition: attachment; filename*0*=utf-8''%C3%BCber; filename*1=%20uns.png\r\n\r\n"
        b"pixels\r\n--b--\r\n"
    )
    header, body = searchable(content)
    for text in ("Jürg", "subject: inner", "plain.png", "über uns.png"):
        assert fold(text) in header
    for text in ("Grüße", "softbreak", "inner body"):
        assert fold(text) in body
    for text in ("pixels", "subject: inner", "plain.png", "image/png"):
        assert fold(text) not in body
    assert "pixels" not in header


@given(st.binary(max_size=200))
def test_any_octets_can_be_searched(content: bytes) -> None:
    """Never an error."""
    searchable(content)
    searchable(b"Content-Type: text/plain; charset=" + content)
    decode_words(content)


QP = b"Content-Transfer-Encoding: quoted-printable\r\n\r\n"


@pytest.mark.timeout(20)
@pytest.mark.parametrize("content", [
    QP + b" " * 500_000 + b"x",
    QP + b"=" * 500_000,
    b"Content-Transfer-Encoding: base64\r\n\r\n" + b"=" * 500_000,
    b"Subject: " + b"=?" * 500_000 + b"\r\n\r\n",
    b"Subject: " + b"=?a?q?" * 100_000 + b"\r\n\r\n",
    b"Subject: " + b"=?utf-8?q?x?= " * 30_000 + b"\r\n\r\n",
    b"Subject: x" + b"\r\n " * 300_000 + b"\r\n\r\n",
], ids=range(7))  # fmt: skip
def test_hostile_text_is_read_in_linear_time(content: bytes) -> None:
    """Quadratic ones would take minutes; the time-out is the test."""
    searchable(content)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("subject", [b"[a", b"re:", b"[x]", b"(fwd)", b"[fwd:", b" ", b"re [", b"<a", b'<"'])
def test_hostile_subjects_and_ids_are_read_in_linear_time(subject: bytes) -> None:
    """The same for the keys of SORT and THREAD."""
    base_subject(subject * 300_000)
    message_ids(subject * 300_000)
    sent_date(subject * 300_000)


@pytest.mark.parametrize(("subject", "base", "is_reply"), [
    (b"Re: [x] foo (fwd)", "foo", True),
    (b"[fwd: Re: bar]", "bar", True),
    (b"[a][b]", "[b]", False),
    (b"Re [list] : x", "x", True),
    (b"[list] Re: x", "x", True),
    (b"Fwd: fw: [l] =?utf-8?q?RE=3A?= x", "x", True),
    (b"", "", False),
    (b"Re:", "", True),
    (b"  two   spaces\t\ttab ", "two spaces tab", False),
    (b"re: re: re: [a] [b] c", "c", True),
    (b"Subject (fwd) (FWD) ", "subject", True),
    (b"Regarding: x", "regarding: x", False),
])  # fmt: skip
def test_base_subjects(subject: bytes, base: str, is_reply: bool) -> None:
    """RFC 5256 §2.1."""
    assert base_subject(subject) == (base, is_reply)


@pytest.mark.parametrize(("value", "posix", "day"), [
    (b"Mon, 1 Jan 2024 10:00:00 +0130 (comment)", 1704097800, date(2024, 1, 1)),
    (b"1 Jan 99", 915148800, date(1999, 1, 1)),
    (b"Tue, 3-Nov-2017 12:00 EST", 1509728400, date(2017, 11, 3)),
    (b"Fri, 21 Nov 1997 09(comment):   55  :  06 -0600", 880127706, date(1997, 11, 21)),
    (b"31 Dec 49 23:59:60 Z", 2524608000, date(2049, 12, 31)),
    (b"1 January 124 00:00:00 GMT", 1704067200, date(2024, 1, 1)),
    (b"garbage", None, None),
    (b"31 Feb 2020 00:00:00 GMT", None, None),
    (b"1 Foo 2020", None, None),
    (b"1 Jan 2020 25:00", None, None),
    (b"", None, None),
    (b"\xff" * 500, None, None),
])  # fmt: skip
def test_sent_dates(value: bytes, posix: int | None, day: date | None) -> None:
    """RFC 5322 §3.3 and §4.3; RFC 5256 §2.2."""
    found = sent_date(value)
    assert (found and found.posix, found and found.day) == (posix, day)


@given(st.integers(0, 4_000_000_000), st.integers(-720, 840))
def test_dates_round_trip(posix: int, zone_minutes: int) -> None:
    """What we write, we read."""
    found = sent_date(format_date(posix, zone_minutes).encode())
    assert found is not None and found.posix == posix


def test_address_keys_and_message_ids() -> None:
    """RFC 5256 §3, RFC 5957 §3."""
    assert mailbox_key(b"Joe <JOE@x>, a@b") == "joe"
    assert mailbox_key(b"Group: Joe <JOE@x>;") == "group"  # the first addr-mailbox that ENVELOPE has
    assert mailbox_key(b"") == mailbox_key(b"<>") == ""
    assert display_key(b"=?utf-8?q?J=C3=96?= <a@b>") == fold("jö")
    assert display_key(b"a@B") == "a@b"
    assert message_ids(b'<a@b> rubbish <"c"@d> <e f> <g@h>') == (b"a@b", b"c@d", b"g@h")
    assert references(b"", b"Your mail <a@b> and <c@d>") == (b"a@b",)
    assert references(b"<a@b> <c@d>", b"<e@f>") == (b"a@b", b"c@d")
