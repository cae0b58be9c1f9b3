"""Delivery reports and the fields that we write. stdlib's email is the reader."""

from __future__ import annotations

import email
import email.policy
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.message.fields import encoded, format_date, make_field
from mailserver.message.mime import parse
from mailserver.message.report import Kind, RecipientReport, Report, build_report

ORIGINAL = b"From: a@example.org\nSubject: hi\nX-Long: " + b"word " * 30 + b"\n\nbody\n.\nFrom here\n"
REPORT = Report(
    kind=Kind.FAILED,
    reporting_mta="mx.example.org",
    queue_id="4F1C2A0B3D",
    recipient="a@example.org",
    sender="a@example.org",
    recipients=(
        RecipientReport(
            "x@example.net", "5.1.1", "550 5.1.1 no such user", "rfc822;X@example.net", "mx.example.net"
        ),
        RecipientReport("local@mx.example.org", "5.2.2", "mailbox is full"),
    ),
    content=ORIGINAL,
    arrival=1_700_000_000,
    now=1_700_000_100,
    message_id="20231114.1@mx.example.org",
    envid="E 1",
)


def read(report: Report) -> Any:
    """The report as a client reads it, strictly."""
    octets = build_report(report)
    assert b"\r" not in octets
    return email.message_from_bytes(octets, policy=email.policy.default.clone(raise_on_defect=True))


def test_a_bounce() -> None:
    """RFC 3464 §2, RFC 6522 §3: three parts, one block a recipient."""
    message = read(REPORT)
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    assert message["From"] == "Mail Delivery System <MAILER-DAEMON@mx.example.org>"
    assert message["To"] == "a@example.org"
    assert message["Subject"] == "Undelivered Mail Returned to Sender"
    assert message["Auto-Submitted"] == "auto-replied"
    assert message["Message-Id"] == "<20231114.1@mx.example.org>"
    assert message["Date"] == "Tue, 14 Nov 2023 22:15:00 +0000"
    notice, status, original = message.iter_parts()
    assert "This is the mail system at host mx.example.org." in notice.get_content()
    assert "<x@example.net>: host mx.example.net said: 550 5.1.1 no such user" in notice.get_content()
    about, first, second = status.get_payload()
    assert about["Reporting-MTA"] == "dns; mx.example.org"
    assert about["Original-Envelope-Id"] == "E 1"
    assert about["X-Postfix-Queue-ID"] == "4F1C2A0B3D"
    assert first["Final-Recipient"] == "rfc822; x@example.net"
    assert first["Original-Recipient"] == "rfc822; X@example.net"
    assert (first["Action"], first["Status"]) == ("failed", "5.1.1")
    assert first["Remote-MTA"] == "dns; mx.example.net"
    assert first["Diagnostic-Code"] == "smtp; 550 5.1.1 no such user"
    assert second["Diagnostic-Code"] == "X-Postfix; mailbox is full"
    assert second["Remote-MTA"] is None
    assert original.get_content_type() == "message/rfc822"


def test_the_original_is_returned_octet_for_octet() -> None:
    """Our own parser finds it in the report, with the report's line ends converted."""
    content = build_report(REPORT).replace(b"\n", b"\r\n")
    part = parse(content).children[2]
    assert content[part.body.start : part.body.end] == ORIGINAL.replace(b"\n", b"\r\n")


@pytest.mark.parametrize("changes", [{"return_full": False}, {"return_limit": len(ORIGINAL) - 1}])
def test_only_the_header_is_returned(changes: dict[str, Any]) -> None:
    """RET=HDRS (RFC 3461 §4.3), and messages above the limit."""
    *_, original = read(replace(REPORT, **changes)).iter_parts()
    assert original.get_content_type() == "text/rfc822-headers"
    assert original.get_payload() == ORIGINAL[: ORIGINAL.index(b"\n\n") + 1].decode()


def test_a_huge_header_is_cut_at_a_line() -> None:
    """What is returned stays within the limit."""
    report = replace(REPORT, content=b"X-Line: yes\n" * 10_000 + b"\nbody\n")
    *_, original = read(report).iter_parts()
    assert len(original.get_payload()) <= report.return_limit
    assert original.get_payload().endswith("X-Line: yes\n")


def test_a_delay_and_a_success() -> None:
    """RFC 3464 §2.3.3, §2.3.9."""
    delayed = read(replace(REPORT, kind=Kind.DELAYED, retry_until=1_700_400_000))
    _, status, _ = delayed.iter_parts()
    assert delayed["Subject"] == "Delayed Mail (still being retried)"
    assert status.get_payload()[1]["Action"] == "delayed"
    assert status.get_payload()[1]["Will-Retry-Until"] == "Sun, 19 Nov 2023 13:20:00 +0000"
    relayed = read(replace(REPORT, kind=Kind.RELAYED, return_full=False))
    assert next(iter(relayed.iter_parts())).get_content().count("delivered") == 1


def test_addresses_beyond_ascii() -> None:
    """RFC 6533 §3: utf-8 address type, message/global-delivery-status, message/global."""
    report = replace(REPORT, recipients=(RecipientReport("jürg@example.net", "5.1.1", "unknown"),))
    assert report.needs_utf8
    octets = build_report(report)
    assert "Final-Recipient: utf-8; jürg@example.net".encode() in octets
    assert b"Content-Type: message/global-delivery-status\n" in octets
    assert b"Content-Type: message/global\n" in octets
    assert b"Content-Type: message/global-headers\n" in build_report(replace(report, return_full=False))


def test_an_original_beyond_ascii() -> None:
    """RFC 6533 §4: a header in UTF-8, sent with SMTPUTF8, makes the report one; else it stays 8bit."""
    content = "Subject: Grüße\n\nhello\n".encode()
    report = replace(REPORT, content=content, smtputf8=True)
    assert report.needs_utf8 and b"Content-Type: message/global\n" in build_report(report)
    assert not replace(report, smtputf8=False).needs_utf8
    assert not replace(report, content=b"Subject: x\n\nGr\xc3\xbc\xc3\x9fe\n").needs_utf8


def test_an_original_recipient_beyond_ascii() -> None:
    """RFC 6533 §3: 7-bit in message/delivery-status, as it is in message/global-delivery-status."""
    recipient = RecipientReport("jurg@example.net", "5.1.1", "unknown", "utf-8;jürg+x@example.net")
    octets = build_report(replace(REPORT, recipients=(recipient,)))
    assert b"Original-Recipient: utf-8; j\\x{FC}rg\\x{2B}x@example.net\n" in octets
    assert b"Content-Type: message/delivery-status\n" in octets
    octets = build_report(replace(REPORT, recipients=(recipient,), sender="jürg@example.org"))
    assert "Original-Recipient: utf-8; jürg+x@example.net\n".encode() in octets


def test_eight_bit_originals_are_labelled() -> None:
    """RFC 2045 §6.4: the whole and the part say 8bit."""
    assert (
        build_report(replace(REPORT, content=b"Subject: x\n\ncaf\xe9\n")).count(
            b"Content-Transfer-Encoding: 8bit\n"
        )
        == 2
    )


def test_the_boundary_is_in_no_part() -> None:
    """RFC 2046 §5.1.1: an original that quotes our boundary cannot end the report."""
    quoted = build_report(REPORT)
    message = read(replace(REPORT, content=quoted))
    assert len(list(message.iter_parts())) == 3


@given(st.text(max_size=40), st.text(max_size=40))
def test_nobody_can_add_a_field(address: str, text: str) -> None:
    """Line ends in addresses, replies and ids become spaces."""
    hostile = RecipientReport(
        address + "\r\nBcc: x", "5.0.0", text + "\n\nX-Evil: y", f"rfc822;{address}\nZ: z"
    )
    octets = build_report(
        replace(
            REPORT, recipients=(hostile,), envid=text + "\nEvil: 1", recipient="a@b\nBcc: c", message_id=text
        )
    )
    for line in octets.split(b"\n"):
        assert not line.startswith((b"Bcc", b"X-Evil", b"Evil", b"Z:"))


@given(st.text(max_size=300))
def test_a_field_is_one_field(value: str) -> None:
    """RFC 5322 §2.2: folded lines begin with a space, none is too long."""
    octets = make_field("X-Test", value)
    lines = octets.split(b"\n")
    assert lines.pop() == b""
    assert lines[0].startswith(b"X-Test:")
    assert all(line.startswith(b" ") for line in lines[1:])
    assert all(line.strip() for line in lines[1:])
    assert all(len(line) <= 998 for line in lines)


def test_long_values_are_folded_at_spaces() -> None:
    """RFC 5322 §2.1.1."""
    octets = make_field("Subject", "word " * 40)
    assert all(len(line) <= 78 for line in octets.split(b"\n"))
    assert b"".join(octets.split(b"\n")).split()[1:] == [b"word"] * 40
    assert make_field("X", "y" * 2000).count(b"\n") == 3
    assert make_field("X", "é", utf8=True) == "X: é\n".encode()
    assert make_field("Subject", encoded("é")) == b"Subject: =?utf-8?b?w6k=?=\n"


def test_dates() -> None:
    """RFC 5322 §3.3."""
    assert format_date(0) == "Thu, 1 Jan 1970 00:00:00 +0000"
    assert format_date(1_700_000_000.9, -210) == "Tue, 14 Nov 2023 18:43:20 -0330"
