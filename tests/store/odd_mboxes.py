"""Odd mboxes: what old, foreign and broken programs leave behind, and mail that means ill."""

from __future__ import annotations

from typing import Final

LINE: Final = b"From a@a.example Tue Nov 24 02:22:04 2026\n"
_DATES: Final = {
    "two-spaces": b"a@a.example  Tue Nov 24 02:22:04 2026",
    "no-seconds": b"a@a.example Tue Nov 24 02:22 2026",
    "padded-day": b"a@a.example Tue Nov  4 02:22:04 2026",
    "short-day": b"a@a.example Tue Nov 4 02:22:04 2026",
    "zone-in-letters": b"a@a.example Tue Nov 24 02:22:04 PST 2026",
    "late-zone-in-letters": b"a@a.example Tue Nov 24 02:22:04 2026 PST",
    "late-zone": b"a@a.example Tue Nov 24 02:22:04 2026 +0200",
    "both-zones": b"a@a.example Tue Nov 24 02:22:04 CEST 2026 +0200",
    "zone-with-digits": b"a@a.example Tue Nov 24 02:22:04 GMT+2 2026",
    "comment": b"a@a.example Tue Nov 24 02:22:04 2026 -0500 (EST)",
    "remote-from": b"a!b Tue Nov 24 02:22:04 2026 remote from host",
    "remote-from-no-seconds": b"a!b Tue Nov 24 02:22 PDT 2026 remote from host",
    "dash": b"- Tue Nov 24 02:22:04 2026",
    "empty-sender": b" Tue Nov 24 02:22:04 2026",
    "quoted-sender": b'"a b"@a.example Tue Nov 24 02:22:04 2026',
    "rfc-822": b"a@a.example Tue, 24 Nov 2026 02:22:04 +0100",
    "rfc-822-no-seconds": b"a@a.example Tue, 24 Nov 2026 02:22 +0100",
    "lower-case": b"a@a.example tue nov 24 02:22:04 2026",
    "other-language": b"a@a.example Die Nov 24 02:22:04 2026",
    "long-ago": b"a@a.example Tue Nov 24 02:22:04 1996",
    "overflow": b"a@a.example Tue Nov 31 25:61:61 2026",
    "long-sender": b"a" * 300 + b" Tue Nov 24 02:22:04 2026",
    # and what divides no message
    "sender-of-two-words": b"a b Tue Nov 24 02:22:04 2026",
    "year-of-two-digits": b"a@a.example Tue Nov 24 02:22:04 26",
    "dots": b"a@a.example Tue Nov 24 02.22.04 2026",
    "iso": b"a@a.example 2026-11-24 02:22:04",
    "no-weekday": b"a@a.example 24 Nov 2026 02:22:04 +0100",
    "tab": b"a@a.example\tTue Nov 24 02:22:04 2026",
    "no-date": b"a@a.example",
    "text": b"here on it goes",
}


def message(name: bytes, body: bytes = b"body\n", fields: bytes = b"", line: bytes = LINE) -> bytes:
    """One of a mailbox, with LF line ends, the empty line behind it included."""
    header = b"From: a@a.example\nSubject: %b\nMessage-ID: <%b@a.example>\n" % (name, name)
    return line + header + fields + b"\n" + body + b"\n"


def _two(body: bytes = b"body\n", fields: bytes = b"") -> bytes:
    return message(b"one", body, fields) + message(b"two")


def _numbered(base: bytes, *uids: bytes) -> bytes:
    """Messages with those X-UIDs (none for an empty one), the first with that X-IMAPbase."""
    names = (b"one", b"two", b"three")
    fields = [b"X-UID: %b\n" % uid if uid else b"" for uid in uids]
    if base:
        fields[0] = b"X-IMAPbase: %b\n" % base + fields[0]
    return b"".join(message(name, fields=each) for name, each in zip(names, fields, strict=False))


_PSEUDO: Final = (
    b"From MAILER-DAEMON Tue Nov 24 02:22:04 2026\nDate: 24 Nov 2026 02:22:04 +0000\n"
    b"From: Mail System Internal Data <MAILER-DAEMON@a.example>\n"
    b"Subject: DON'T DELETE THIS MESSAGE -- FOLDER INTERNAL DATA\nMessage-ID: <1@a.example>\n"
    b"X-IMAP: 1275660208 0000000042 Work\nStatus: RO\n\n"
    b"This text is part of the internal format of your mail folder.\n\n"
)
_BASE: Final = b"1275660208 0000000042"

ODD: Final[dict[str, bytes]] = {
    "in-order": _two(),
    "no-final-line-end": message(b"one") + message(b"two", b"last line")[:-1],
    "no-final-empty-line": _two()[:-1],
    "crlf": _two().replace(b"\n", b"\r\n"),
    "some-crlf": message(b"one", b"a\r\nb\n") + message(b"two").replace(b"\n", b"\r\n"),
    "crlf-from-line": message(b"one") + message(b"two", line=LINE[:-1] + b"\r\n"),
    "from-in-body": _two(b"text\nFrom here on\n\nFrom there on\n>From quoted\n>>From twice\n"),
    "from-line-in-body": _two(b"text\n" + LINE + b"more\n"),
    "from-line-in-body-after-empty-line": _two(b"text\n\n" + LINE + b"more\n"),
    "from-line-in-header": message(b"one", line=LINE + b">" + LINE) + message(b"two"),
    "no-empty-line-between": message(b"one")[:-1] + message(b"two")[:-1] + message(b"three"),
    "more-empty-lines": message(b"one", b"body\n\n\n\n") + message(b"two", b"body\n\n") + b"\n\n",
    "empty-lines-before": b"\n\n" + _two(),
    "garbage-before": b"garbage\nmore: of it\n" + _two(),
    "garbage-alone": b"garbage\nonly\n",
    "empty": b"",
    "line-end-alone": b"\n",
    "pseudo-alone": _PSEUDO,
    "pseudo": _PSEUDO
    + message(b"one", fields=b"X-UID: 7\nStatus: RO\nX-Keywords: Work\n")
    + message(b"two", fields=b"X-UID: 42\n")
    + message(b"three"),
    "truncated-header": message(b"one") + LINE + b"From: a@a.example\nSubj",
    "truncated-from-line": message(b"one") + LINE[:20],
    "from-line-alone": message(b"one") + LINE[:-1],
    "length-right": _two(b"ab\n\n" + LINE + b"c\n", b"Content-Length: 47\n"),
    "length-too-small": _two(b"0123456789\n0123456789\n", b"Content-Length: 5\n"),
    "length-too-large": _two(b"0123456789\n", b"Content-Length: 5000\n"),
    "length-of-nonsense": message(b"one", fields=b"Content-Length: -3\n")
    + message(b"two", fields=b"Content-Length: 99999999999999999999\n"),
    "length-into-the-next": _two(b"0123456789\n", b"Content-Length: 40\n"),
    "base": message(
        b"one", fields=b"X-IMAPbase: 1275660208 0000000042 Work Later\nX-UID: 3\nStatus: RO\nX-Status: AF\n"
    )
    + message(b"two", fields=b"X-UID: 42\nStatus: O\nX-Keywords: Later Work\n")
    + message(b"three"),
    "base-of-nonsense": _numbered(b"nonsense", b"3", b"42"),
    "base-of-zero": _numbered(b"0 0000000042", b"3", b"42"),
    "base-too-large": _numbered(b"1275660208 4294967280", b"3", b"42"),
    "base-too-small": _numbered(b"1275660208 0000000002", b"3", b"42"),
    "base-twice": _numbered(_BASE + b"\nX-IMAPbase: 1275660209 0000000043\nX-UID: 3", b"5", b"42"),
    "base-not-first": message(b"one", fields=b"X-UID: 3\n")
    + message(b"two", fields=b"X-IMAPbase: 1275660208 0000000042\nX-UID: 42\n"),
    "uids-without-base": _numbered(b"", b"9", b"12"),
    "uid-twice": _numbered(_BASE, b"3", b"3", b"5"),
    "uid-falling": _numbered(_BASE, b"9", b"3", b"12"),
    "uid-too-large": _numbered(b"1275660208 0000000010", b"9", b"4000000000", b"12"),
    "uid-missing": _numbered(_BASE, b"9", b"", b"12"),
    "uid-of-nonsense": _numbered(_BASE, b"x", b"99999999999", b"0"),
    "nul-and-8-bit": message(b"\xe4\xf6", b"nul \0 here \xff\xfe\n", b"X-Odd: \0\x01\xc3\xa4\n")
    + message(b"two"),
    "nuls-behind": _two() + b"\0" * 4096,
    "long-line": _two(b"x" * 300_000 + b"\n"),
    "long-field": _two(fields=b"X-Long: " + b"z" * 100_000 + b"\nStatus: RO\n"),
    "huge-header": _two(
        fields=b"".join(b"X-%d: %b\n" % (n, b"y" * 900) for n in range(200)) + b"Status: RO\n"
    ),
    "no-header": LINE + b"\nbody alone\n\n" + message(b"two"),
    "no-colon": LINE + b"no colon here\nSubject: one\n\nbody\n\n" + message(b"two"),
    "no-body": message(b"one", b"")[:-1] + message(b"two"),
    "empty-body": message(b"one", b"") + message(b"two"),
    "nothing-in-it": LINE + b"\n" + LINE + LINE + b"\n" + message(b"two"),
    "status": b"".join(
        message(b"s%d" % number, fields=fields)
        for number, fields in enumerate(
            (
                b"Status: R\n",
                b"Status: O\nX-Status: \n",
                b"status: RO\nx-status: DT\n",
                b"Status: xyzRO\n folded\nX-Status: Q\n",
                b"Status:RO\nX-Status:F\n",
            )
        )
    ),
    **{
        f"date-{name}": message(b"one") + message(b"two", line=b"From " + date + b"\n") + message(b"three")
        for name, date in _DATES.items()
    },
    "date-hour-of-one-digit": message(b"one")
    + message(b"two", line=b"From a@a.example Tue Nov 04 2:22:04 2026\n"),
    "date-zone-before-year": message(b"one")
    + message(b"two", line=b"From a@a.example Tue Nov 24 02:22:04 +0200 2026\n"),
    "date-without-sender": message(b"one") + message(b"two", line=b"From Tue Nov 24 02:22:04 2026\n"),
}

# What Dovecot 2.3 reads otherwise, and why we do not follow.
DIFFERENCES: Final[dict[str, str]] = {
    "base-too-large": "it believes a last UID that leaves none; it is not adopted here",
    "from-line-alone": "it is text to it without its line end; mutt sees a message, as we do",
    "nothing-in-it": "a From_ line right after another is a header field to it; to mutt and us a message",
    "date-hour-of-one-digit": "mutt takes it",
    "date-without-sender": "mutt takes it",
    "date-zone-before-year": "it leaves that zone out of the date",
}
# `Mailbox isn't a valid mbox file`: it must begin with `From `. Here such mail is read.
REFUSED: Final = frozenset({"empty-lines-before", "garbage-before", "garbage-alone", "line-end-alone"})
# No From_ lines to mutt, before our changes as after: RFC 822's order, and what is no English weekday.
UNSEEN_BY_MUTT: Final = frozenset({"date-rfc-822", "date-rfc-822-no-seconds", "date-other-language"})
# Numbers that Dovecot did not believe before the first message was gone, and does now.
BELIEVED_AT_LAST: Final = frozenset({"base-not-first", "uid-twice", "uid-falling"})
