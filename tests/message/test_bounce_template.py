"""bounce(5): templates of delivery reports."""

from __future__ import annotations

from dataclasses import replace

from mailserver.message.bounce_template import BUILT_IN, as_text, parse_templates
from mailserver.message.report import Kind, build_report
from tests.message.test_report import REPORT, read

FILE = """\
# ours
failure_template = <<END
charset: iso-8859-1
FROM: MAILER-DAEMON (Mail)
Subject: Zur\u00fcck
Postmaster-Subject: copy
Color: red

Nicht zugestellt: \u00fcber $myhostname

Ende
END

verify_template = <<EOF
Subject: Report

EOF
what_template = <<EOF
x
EOF
nonsense
delay_template = <<EOF

Wait until $retry_until
"""


def test_a_file() -> None:
    """What it says counts, what it does not say stays; what is wrong is named with its line."""
    found, warnings = parse_templates(FILE)
    failure = found["failure_template"]
    assert (failure.charset, failure.sender, failure.postmaster_subject) == (
        "iso-8859-1", "MAILER-DAEMON (Mail)", "copy",
    )  # fmt: skip
    assert failure.subject == BUILT_IN["failure_template"].subject  # not in ASCII
    assert failure.text == "Nicht zugestellt: \u00fcber $myhostname\n\nEnde\n"
    assert found["verify_template"] == replace(BUILT_IN["verify_template"], subject="Report")
    assert found["delay_template"].text.startswith("Wait until $retry_until\n")
    assert found["success_template"] == BUILT_IN["success_template"]
    assert [warning.partition(":")[0] for warning in warnings] == [
        "line 2", "line 2", "line 18", "line 21", "line 22",
    ]  # fmt: skip


def test_what_is_shown_is_read() -> None:
    """`postconf -t` shows what a file may hold."""
    text = "\n".join(as_text(name, template) for name, template in BUILT_IN.items())
    assert parse_templates(text) == (dict(BUILT_IN), [])
    odd = "delay_template = <<EOF\nCharset: nosuch\n\n\u00fc\nEOF\nfailure_template = <<EOF\n\n\u00fc\nEOF\n"
    found, warnings = parse_templates(odd)
    assert len(warnings) == 2
    assert found["delay_template"].charset == found["failure_template"].charset == "utf-8"


def test_reports_have_the_text() -> None:
    """In its character set; the address of From: is complete; where UTF-8 is needed all is in UTF-8."""
    template = parse_templates(FILE)[0]["failure_template"]
    message = read(replace(REPORT, template=template))
    whole = build_report(replace(REPORT, template=template))
    assert b"\nFrom: MAILER-DAEMON@mx.example.org (Mail)\n" in whole
    notice, *_ = message.iter_parts()
    assert notice.get_content_charset() == "iso-8859-1"
    assert notice.get_content().startswith("Nicht zugestellt: \u00fcber mx.example.org\n\nEnde\n\n<x@")
    octets = build_report(replace(REPORT, template=template, sender="\u00e4@example.org"))
    assert b"charset=utf-8\n" in octets and "\u00fcber".encode() in octets


def test_the_time_of_a_delay() -> None:
    """$retry_until is the end of the retries."""
    late = replace(REPORT, kind=Kind.DELAYED, retry_until=1_700_086_400.0)
    notice, *_ = read(late).iter_parts()
    assert "Delivery will be tried again until Wed, 15 Nov 2023 22:13:20 +0000.\n" in notice.get_content()
