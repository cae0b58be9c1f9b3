"""IMAP URLs as values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.wire.imap_fetch import Section
from mailserver.wire.imap_url import Authority, BadUrl, MessageUrl, Url, parse_absolute_url, parse_message_url

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


TOKEN = b"0123456789abcdef" * 4
RUMP = b"imap://joe;AUTH=*@Mail.Example:1143/a%20b;UIDVALIDITY=7/;UID=20/;SECTION=1.2;EXPIRE=2031-01-31T23:59:59Z"


def test_authorized_url() -> None:
    """RFC 4467 §9, RFC 5092 §11: the parts, and the rump octet by octet."""
    rump = RUMP + b";URLAUTH=submit+J%C3%B6"
    url = parse_absolute_url(rump + b":internal:" + TOKEN.upper())
    assert (url.user, url.host, url.port) == ("joe", "mail.example", 1143)
    assert url.message == Url(b"/a%20b;UIDVALIDITY=7/;UID=20/;SECTION=1.2")
    assert url.authority == Authority("SUBMIT", "Jö", 1927670399, rump, "INTERNAL", TOKEN.decode())
    assert parse_absolute_url(RUMP.partition(b";EXPIRE")[0]).authority is None
    anonymous = parse_absolute_url(b"imap://j@[::1]/x/;uid=1/;partial=0.5;urlauth=anonymous").authority
    assert anonymous == Authority(
        "ANONYMOUS", "", None, b"imap://j@[::1]/x/;uid=1/;partial=0.5;urlauth=anonymous"
    )


@pytest.mark.parametrize(
    "text",
    [b"", b"imap://", b"imap://host/INBOX/;UID=1", b"imap://a:b@h/x/;UID=1", b"http://a@h/x/;UID=1",
     b"imap://a@h/", b"imap://a@h/x", b"imap://a@h/x/", b"imap://a@h/x?ALL", b"imap://a@h/x/;UID=1;URLAUTH=",
     b"imap://a@h/x/;UID=1;URLAUTH=user+", b"imap://a@h/x/;UID=1;URLAUTH=nobody",
     b"imap://a@h/x/;UID=1;EXPIRE=2031-01-31T23:59:59Z",  # for whom?
     b"imap://a@h/x/;UID=1;EXPIRE=tomorrow;URLAUTH=anonymous",
     b"imap://a@h/x/;UID=1;EXPIRE=2031-02-31T23:59:59Z;URLAUTH=anonymous",
     b"imap://a@h/x/;UID=1;EXPIRE=2031-01-31;URLAUTH=anonymous",
     b"imap://a@h/x/;UID=1;URLAUTH=anonymous:internal", b"imap://a@h/x/;UID=1;URLAUTH=anonymous:internal:",
     b"imap://a@h/x/;UID=1;URLAUTH=anonymous:internal:" + b"0" * 31,
     b"imap://a@h/x/;UID=1;URLAUTH=anonymous:internal:" + b"0" * 257,
     b"imap://a@h/x/;UID=1;URLAUTH=anonymous:internal:" + TOKEN + b" ",
     b"imap://a@h/x/;UID=1;URLAUTH=anonymous;URLAUTH=anonymous:internal:" + TOKEN,
     b"imap://a@h/x/;UID=1;URLAUTH=anonymous/;SECTION=1:internal:" + TOKEN,
     b"imap://%ff@h/x/;UID=1", b"imap://a%00@h/x/;UID=1", b"imap://a@h/" + b"x" * 2000 + b"/;UID=1"],
)  # fmt: skip
def test_what_is_no_message_of_an_account(text: bytes) -> None:
    """RFC 4467 §7: servers, lists, mailboxes, searches, and what is garbled."""
    with pytest.raises(BadUrl):
        parse_absolute_url(text)


@given(st.binary(max_size=40), st.integers(min_value=0, max_value=200))
def test_any_absolute_url_is_parsed_or_refused(piece: bytes, place: int) -> None:
    """Nothing else is raised, wherever octets are put in or the URL is cut; its rump is its beginning."""
    whole = RUMP + b";URLAUTH=user+joe:internal:" + TOKEN
    for text in (whole[:place] + piece + whole[place:], whole[:place], piece + whole, whole + piece):
        try:
            url = parse_absolute_url(text)
        except BadUrl:
            continue
        assert url.authority is None or text.startswith(url.authority.rump)
