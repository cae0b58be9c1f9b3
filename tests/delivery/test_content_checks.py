"""header_checks(5): what rules see, and what each action does to the message as it streams through."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.delivery.content_checks import CheckTables, ContentChecks
from mailserver.queue.cleanup import Cleanup, CleanupRules, ContentRefused
from mailserver.tables.regexp import regexp_table
from mailserver.tables.table import Table
from tests.queue.world import DictTable

OURS = b"Received: from x\n\tby mx; now\n"
MIME = b"""\
Subject: two parts
MIME-Version: 1.0
Content-Type: multipart/mixed;
\tboundary="b1"

preamble name="a.exe"
--b1
Content-Type: application/octet-stream;
 name="virus.exe"

body line
--b1
Content-Type: message/rfc822

Subject: inner
X-Spam: yes

inner body
--b1--
epilogue
"""


LINES = [
    b"--b1\n",
    b"--b1--\n",
    b"--b2\n",
    b"\n",
    b"A: b\n",
    b" c\n",
    b"x",
    b"--",
    b"Content-Type: message/rfc822\n",
    b'Content-Type: multipart/mixed; boundary="b2"\n',
]


def table(tmp_path: Path, *rules: str) -> tuple[Table, ...]:
    """A regexp table with those rules."""
    path = tmp_path / "rules"
    path.write_text("".join(f"{rule}\n" for rule in rules))
    return (regexp_table(f"regexp:{path}", str(path)),)


def cleaned(content: bytes, step: int = 0, **tables: object) -> tuple[bytes, Cleanup]:
    """The content as it is queued, fed in pieces of `step` octets; and the cleanup."""
    rules = CleanupRules(checks=CheckTables(**tables))  # type: ignore[arg-type]
    cleanup = Cleanup(rules, OURS)
    pieces = [content[at : at + step] for at in range(0, len(content), step)] if step else [content]
    return b"".join([*map(cleanup.feed, pieces), cleanup.finish()]), cleanup


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("/^Subject: old/ REPLACE Subject: new", b"Subject: new\nX: y\n\nbody\n"),
        ("/^Subject:/ PREPEND X-Seen: yes", b"X-Seen: yes\nSubject: old\n folded\nX: y\n\nbody\n"),
        ("/^X:/ IGNORE", b"Subject: old\n folded\n\nbody\n"),
        ("/^X:/ STRIP", b"Subject: old\n folded\n\nbody\n"),
        ("/^X:/ WARN look", b"Subject: old\n folded\nX: y\n\nbody\n"),
        ("/folded$/ IGNORE", b"X: y\n\nbody\n"),
        ("/^body/ REJECT", b"Subject: old\n folded\nX: y\n\nbody\n"),
        ("/y/ DUNNO", b"Subject: old\n folded\nX: y\n\nbody\n"),
    ],
)
def test_actions_on_header_fields(tmp_path: Path, rule: str, expected: bytes) -> None:
    """A rule sees one whole field, folds included, and nothing of the body."""
    content = b"Subject: old\n folded\nX: y\n\nbody\n"
    for step in (0, 1, 7):
        assert cleaned(content, step, header_checks=table(tmp_path, rule))[0] == OURS + expected


def test_our_own_received_field_is_seen_too(tmp_path: Path) -> None:
    """As in Postfix: whoever hides where mail came from hides what we add."""
    checks = table(tmp_path, "/^Received:/ IGNORE")
    assert cleaned(b"A: b\n\nx\n", header_checks=checks)[0] == b"A: b\n\nx\n"
    with pytest.raises(ContentRefused, match="too many hops"):
        cleaned(b"Received: x\n" * 60 + b"\nx\n", header_checks=checks)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("/^Subject: bad/ REJECT", "550 5.7.1 message content rejected"),
        ("/^Subject: bad/ REJECT not here", "550 5.7.1 not here"),
        ("/^Subject: bad/ REJECT 5.7.2 not here", "550 5.7.2 not here"),
        ("/^Subject: bad/ REJECT 4.7.1 later", "450 4.7.1 later"),
        ("/^Subject: bad/ FILTER nowhere", "451 4.3.0 Error: temporary lookup failure"),
        ("/^Subject: bad/ REPLACE no header", "451 4.3.0 Error: temporary lookup failure"),
        ("/^Subject: bad/ REDIRECT a b c", "451 4.3.0 Error: temporary lookup failure"),
    ],
)
def test_refusals(tmp_path: Path, rule: str, expected: str) -> None:
    """REJECT with its status; what cannot be carried out is temporary, never passed over."""
    with pytest.raises(ContentRefused) as refused:
        cleaned(b"Subject: bad\n\nx\n", header_checks=table(tmp_path, rule))
    assert str(refused.value) == expected


def test_a_table_that_cannot_be_read_is_temporary() -> None:
    """P5."""
    with pytest.raises(ContentRefused) as refused:
        cleaned(b"Subject: x\n\nx\n", header_checks=(DictTable(None),))
    assert refused.value.code == 451


def test_what_is_to_be_done_with_the_message(tmp_path: Path) -> None:
    """HOLD, DISCARD, REDIRECT, BCC; each with a line for the log."""
    rules = (
        "/^A:/ HOLD why",
        "/^B:/ DISCARD",
        "/^C:/ REDIRECT new@example.org",
        "/^D:/ BCC copy@example.org",
    )
    _, cleanup = cleaned(b"A: 1\nB: 2\nC: 3\nD: 4\n\n", header_checks=table(tmp_path, *rules))
    findings = cleanup.findings
    assert (findings.hold, findings.discard) == (True, True)
    assert (str(findings.redirect), list(map(str, findings.bcc))) == ("new@example.org", ["copy@example.org"])
    assert findings.notes[0] == ("hold", "header", "A: 1", "why")
    assert [note[0] for note in findings.notes] == ["hold", "discard", "redirect", "bcc"]


@pytest.mark.parametrize("step", [0, 1, 5, 64])
def test_parts_and_nested_messages(tmp_path: Path, step: int) -> None:
    """mime_header_checks see the headers of parts, nested_header_checks those of messages in messages."""
    names = table(tmp_path, '/name="[^"]*[.]exe"/ REPLACE Content-Type: text/plain')
    out, cleanup = cleaned(MIME, step, mime_header_checks=names)
    replaced = b'application/octet-stream;\n name="virus.exe"'
    assert out == OURS + MIME.replace(replaced, b"text/plain")
    assert [note[1] for note in cleanup.findings.notes] == ["mime header"]
    out, cleanup = cleaned(MIME, step, nested_header_checks=table(tmp_path, "/^(X-Spam|Subject)/ IGNORE"))
    assert out == OURS + MIME.replace(b"Subject: inner\nX-Spam: yes\n", b"")


@pytest.mark.parametrize("step", [0, 1, 5, 64])
def test_lines_of_the_body(tmp_path: Path, step: int) -> None:
    """body_checks: one line at a time, as far as their limit, which begins anew with each part."""
    rules = table(tmp_path, "/^preamble/ IGNORE", "/line$/ PREPEND before", "/^inner body/ REPLACE changed")
    out, _ = cleaned(MIME, step, body_checks=rules)
    expected = MIME.replace(b'preamble name="a.exe"\n', b"").replace(b"body line", b"before\nbody line")
    assert out == OURS + expected.replace(b"inner body", b"changed")
    late = b"A: b\n\n" + b"x\n" * 20 + b"line\n"
    assert cleaned(late, step, body_checks=rules, body_checks_size_limit=40)[0] == OURS + late


def test_memory_and_keys_are_bounded() -> None:
    """A line without end is looked at in pieces, and with few octets."""
    checks = ContentChecks(CheckTables(body_checks=(DictTable({}),), body_checks_size_limit=1 << 30))
    for _ in range(200):
        checks.body(b"x" * 4096)
        assert len(checks._held) <= 1 << 17


@settings(max_examples=200)
@given(
    st.lists(st.sampled_from(LINES), max_size=30),
    st.integers(1, 9),
)
def test_what_no_rule_matches_passes_as_it_is(lines: list[bytes], step: int) -> None:
    """Whatever the structure, and however the pieces are cut."""
    header = b'Content-Type: multipart/mixed; boundary="b1"\n\n'
    content = header + b"".join(lines)
    nothing = (DictTable({}),)
    names = ("header_checks", "mime_header_checks", "nested_header_checks", "body_checks")
    tables = dict.fromkeys(names, nothing)
    expected = OURS + content + (b"" if content.endswith(b"\n") else b"\n")
    assert cleaned(content, step, **tables)[0] == expected  # type: ignore[arg-type]
    tables.pop("body_checks")
    assert cleaned(content, step, **tables)[0] == expected  # type: ignore[arg-type]
