"""The texts of delivery reports, as an administrator may write them: bounce(5). Values only, no file.

    failure_template = <<EOF
    Subject: Undelivered Mail Returned to Sender

    This is the mail system at host $myhostname.
    EOF

There is one for failures, delays, successes and verifications (sendmail -bv and -v). What a file does not
say stays as in BUILT_IN. `$name` is expanded by whoever knows parameters; `$retry_until`, our own, is the
time after which a delayed message is returned.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

_CLOSE: Final = "\n                   The mail system\n"
_HOST: Final = "This is the mail system at host $myhostname.\n\n"
_BEGIN: Final = re.compile(r"(\w+)[ \t]*=[ \t]*<<[ \t]*(\S+)[ \t]*")
_FIELDS: Final = {
    "charset": "charset",
    "from": "sender",
    "subject": "subject",
    "postmaster-subject": "postmaster_subject",
}


@dataclass(frozen=True, slots=True)
class Template:
    """One template. `text` has LF line ends; `charset` is what it is sent in."""

    subject: str
    text: str
    postmaster_subject: str = ""
    sender: str = "Mail Delivery System <MAILER-DAEMON>"
    charset: str = "us-ascii"


BUILT_IN: Final[Mapping[str, Template]] = MappingProxyType(
    {
        "failure_template": Template(
            "Undelivered Mail Returned to Sender",
            f"""{_HOST}\
Your message could not be delivered to the recipients named below, and
no further attempt will be made. A copy of it is attached.

If you need help, please write to postmaster and include this report.
You may delete your own text from the attached message.
{_CLOSE}""",
            "Postmaster Copy: Undelivered Mail",
        ),
        "delay_template": Template(
            "Delayed Mail (still being retried)",
            f"""{_HOST}\
####################################################################
# THIS IS A WARNING ONLY. YOU DO NOT NEED TO SEND YOUR MESSAGE AGAIN. #
####################################################################

Your message has not yet reached the recipients named below.
Delivery will be tried again until $retry_until.

If you need help, please write to postmaster and include this report.
{_CLOSE}""",
            "Postmaster Warning: Delayed Mail",
        ),
        "success_template": Template(
            "Successful Mail Delivery Report",
            f"""{_HOST}\
You asked to be told: your message was delivered to the recipients
named below. It may still be filtered or forwarded at its destination.
{_CLOSE}""",
        ),
        "verify_template": Template(
            "Mail Delivery Status Report",
            f"{_HOST}Enclosed is the mail delivery report that you requested.\n{_CLOSE}",
        ),
    }
)


def parse_templates(text: str) -> tuple[dict[str, Template], list[str]]:
    """All templates, those of the file in place of the built-in ones, and what is wrong with it."""
    found, warnings = dict(BUILT_IN), list[str]()
    lines = iter(enumerate(text.split("\n"), 1))
    for number, line in lines:
        if not line.strip() or line.startswith("#"):
            continue
        begin = _BEGIN.fullmatch(line)
        if begin is None:
            warnings.append(f"line {number}: write template_name = <<EOF, not: {line[:60]}")
            continue
        inside, is_closed = _up_to(begin[2], lines)
        if not is_closed:
            warnings.append(f'line {number}: missing "{begin[2]}" end marker')
        if begin[1] not in BUILT_IN:
            warnings.append(f"line {number}: unknown template: {begin[1]}: one of {', '.join(BUILT_IN)}")
            continue
        found[begin[1]] = _template(BUILT_IN[begin[1]], inside, f"line {number}: {begin[1]}", warnings)
    return found, warnings


def _up_to(marker: str, lines: Iterator[tuple[int, str]]) -> tuple[list[str], bool]:
    inside: list[str] = []
    for _, line in lines:
        if line == marker:
            return inside, True
        inside.append(line)
    return inside, False


def _template(usual: Template, lines: list[str], where: str, warnings: list[str]) -> Template:
    """The template of these lines: header, an empty line, text."""
    values: dict[str, str] = {}
    end = lines.index("") if "" in lines else len(lines)
    for line in lines[:end]:
        name, colon, value = line.partition(":")
        field = _FIELDS.get(name.strip().lower())
        if field is None or not colon or not value.strip() or not line.isascii() or not line.isprintable():
            warnings.append(f"{where}: ignored template header: {line[:60]}")
        else:
            values[field] = value.strip()
    text = "".join(f"{line}\n" for line in lines[end + 1 :])
    template = replace(usual, text=text or usual.text, **values)
    try:
        codecs.lookup(template.charset)
    except LookupError:
        warnings.append(f"{where}: unknown charset: {template.charset}")
        template = replace(template, charset="utf-8")
    if template.charset == "us-ascii" and not text.isascii():
        warnings.append(f"{where}: 8-bit message text in us-ascii: sent as utf-8")
        template = replace(template, charset="utf-8")
    return template


def as_text(name: str, template: Template) -> str:
    """The template as a file has it, `postconf -t`."""
    fields = {"Charset": template.charset, "From": template.sender, "Subject": template.subject}
    if template.postmaster_subject:
        fields["Postmaster-Subject"] = template.postmaster_subject
    header = "".join(f"{field}: {value}\n" for field, value in fields.items())
    return f"{name} = <<EOF\n{header}\n{template.text}EOF\n"
