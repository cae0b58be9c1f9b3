"""What rules for outgoing mail make of a message: as Postfix 3.7 sent the same with the same tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from mailserver.delivery.content_checks import CheckTables
from mailserver.delivery.outgoing_content import OutgoingContent, OutgoingRules
from mailserver.delivery.transport import Outgoing
from mailserver.envelope import Address, Envelope, Recipient
from mailserver.tables.open import open_table
from mailserver.tables.table import TableError
from tests.queue.world import DictTable

HEADER = """\
Subject: v
X-Rej: v
X-Ign: v
X-Rep: v
X-Pre: v
X-Warn: v
X-Strip: v
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=b
"""
BODY = """\
pre secret
--b
Content-Description: x
X-Ign: stays

a secret thing
rej
ign
end
--b
Content-Type: message/rfc822

Subject: inner
X-Ign: n

secret
--b--
"""
RULES = {
    "header_checks": r"""
/^X-Rej:/ REJECT no
/^X-Ign:/ IGNORE
/^X-Rep:/ REPLACE X-New: 1
/^X-Pre:/ PREPEND X-Before: 1
/^X-Warn:/ WARN hey
/^X-Strip:/ STRIP gone
/^Content-Type:/ REPLACE Content-Type: text/x-y
""",
    "body_checks": "/secret/ REPLACE xxx\n/rej/ REJECT\n/ign/ IGNORE\n",
    "mime_header_checks": "/^Content-Desc/ REPLACE X-MIME: 1\n",
    "nested_header_checks": "/^Subject/ REPLACE Subject: nested\n",
}
SENT_HEADER = """\
Subject: v
X-Rej: v
X-New: 1
X-Before: 1
X-Pre: v
X-Warn: v
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=b
"""
SENT_BODY = """\
xxx
--b
X-MIME: 1
X-Ign: stays

xxx
rej
end
--b
Content-Type: message/rfc822

Subject: nested
X-Ign: n

xxx
--b--
"""


def checks(directory: Path, rules: Mapping[str, str]) -> CheckTables:
    tables = {}
    for name, text in rules.items():
        (directory / name).write_text(text)
        tables[name] = (open_table(f"regexp:{directory}/{name}"),)
    return CheckTables(**tables)


def sent(directory: Path, content: str, rules: OutgoingRules) -> tuple[str, OutgoingContent]:
    """The content that goes out, read in small pieces from a queue file that has more in it."""
    path = directory / "file"
    path.write_bytes(b"before" + content.encode() + b"behind")
    with path.open("rb") as file:
        envelope = Envelope(None, (Recipient(Address("b", "far.test")),))
        mail = Outgoing("ID", "smtp", "far.test", envelope, file.fileno(), 6, len(content.encode()))
        found = OutgoingContent(mail, rules)
        pieces = [found.read(offset, 7) for offset in range(0, found.octets, 7)]
        assert [len(each) for each in pieces[:-1]] == [7] * (len(pieces) - 1)
        assert found.read(found.octets, 10) == b"" or not rules.checks.look_at_body
        found.close()
    return b"".join(pieces)[: found.octets].decode(), found


def test_every_action(tmp_path: Path) -> None:
    """In header, parts and nested messages; what would change time or destination is told, and not done."""
    content, found = sent(tmp_path, f"{HEADER}\n{BODY}", OutgoingRules(checks(tmp_path, RULES)))
    assert content == f"{SENT_HEADER}\n{SENT_BODY}"
    assert [(action, text) for action, _, _, text in found.findings.notes] == [
        ("unsupported", "REJECT no"),
        ("replace", "X-New: 1"),
        ("prepend", "X-Before: 1"),
        ("warning", "hey"),
        ("strip", "gone"),
        ("replace", "xxx"),
        ("replace", "X-MIME: 1"),
        ("replace", "xxx"),
        ("unsupported", "REJECT"),
        ("replace", "Subject: nested"),
        ("replace", "xxx"),
    ]


def test_header_rules_leave_the_body_where_it_is(tmp_path: Path) -> None:
    """Then generic maps follow."""
    own = OutgoingRules(
        checks(tmp_path, {"header_checks": "/^From:/ REPLACE From: a@in.test\n"}),
        lambda address: Address(address.local, "out.test"),
    )
    assert sent(tmp_path, f"From: x@y.test\nTo: b\n\n{BODY}", own)[0] == (
        f"From: a@out.test\nTo: b\n\n{BODY}"
    )


@pytest.mark.parametrize("body", ["", "secret", "one\nsecret\ntwo\n", "x" * 200_000 + "\nsecret\n"])
@pytest.mark.parametrize("header", ["", "A: b\n", "A: b\n" * 300_000])
def test_body_rules_see_every_body(tmp_path: Path, header: str, body: str) -> None:
    """With a header, without one, and with one that is longer than any that is looked at."""
    own = OutgoingRules(checks(tmp_path, {"body_checks": "/secret/ REPLACE xxx\n"}))
    own = OutgoingRules(CheckTables(body_checks=own.checks.body_checks, body_checks_size_limit=1 << 30))
    assert sent(tmp_path, f"{header}\n{body}", own)[0].rstrip("\n") == (
        f"{header}\n{body}".replace("secret", "xxx").rstrip("\n")
    )


def test_no_rules_change_nothing(tmp_path: Path) -> None:
    """Nor is anything read before it is sent."""
    assert sent(tmp_path, f"{HEADER}\n{BODY}", OutgoingRules())[0] == f"{HEADER}\n{BODY}"


def test_a_table_that_fails_is_told(tmp_path: Path) -> None:
    """The mail waits: none goes out unchecked."""
    with pytest.raises(TableError):
        sent(tmp_path, "A: b\n\n", OutgoingRules(CheckTables(header_checks=(DictTable(None),))))
