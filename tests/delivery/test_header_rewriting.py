"""canonical_maps and masquerade_domains on headers: what is rewritten, and that nothing else changes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.delivery.header_rewriting import HeaderRewriting
from mailserver.delivery.routing import Masquerade
from mailserver.envelope import Address
from mailserver.queue.cleanup import Cleanup, CleanupRules, ContentRefused
from tests.queue.world import DictTable, World


def rewriting(tmp_path: Path, entries: dict[str, str] | None) -> HeaderRewriting:
    """By a canonical table, for senders and recipients alike."""
    routing, tables = World(tmp_path).routing, (DictTable(entries),)
    return HeaderRewriting(lambda each: routing.canonical(tables, each), lambda each: each)


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("From: old@example.org", "From: New.Name@example.org"),
        ("From: Old <old@example.org>", "From: Old <New.Name@example.org>"),
        ('From: "old@example.org" <old@example.org>', 'From: "old@example.org" <New.Name@example.org>'),
        ("From: OLD@Example.ORG (me)", "From: New.Name@example.org (me)"),
        ("Reply-To: x@far.test,\n old@example.org", "Reply-To: x@far.test,\n New.Name@example.org"),
        ("Resent-Sender: old+x@example.org", "Resent-Sender: New.Name+x@example.org"),
        ("From: bold@example.org", "From: bold@example.org"),
        ("From: old@example.org.test", "From: old@example.org.test"),
        ("To: old@example.org", "To: old@example.org"),
        ("Subject: old@example.org", "Subject: old@example.org"),
        ("From: not an address", "From: not an address"),
        ("From: two@domain.test", "From: two@new.test"),
    ],
)
def test_addresses_are_rewritten_where_they_stand(tmp_path: Path, field: str, expected: str) -> None:
    """canonical(5), header_sender: names, comments and folds keep their octets."""
    rewrite = rewriting(tmp_path, {"old@example.org": "New.Name@example.org", "@domain.test": "@new.test"})
    assert rewrite(f"{field}\nX: y\n".encode()) == f"{expected}\nX: y\n".encode()


@given(st.text(alphabet='aA@<>(),;:"\\ .\n\t', max_size=60))
def test_nothing_breaks_it(text: str) -> None:
    """Any value: the same without a rule, never an exception, never a new line."""
    rewrite = HeaderRewriting(lambda each: each, lambda each: each)
    header = f"From: {text}\nTo: {text}\n".encode()
    assert rewrite(header) == header
    changed = HeaderRewriting(lambda each: Address("x", "y.test"), lambda each: each)(header)
    assert changed.count(b"\n") == header.count(b"\n")


def test_only_our_own_clients_headers_are_rewritten(tmp_path: Path) -> None:
    """local_header_rewrite_clients: a signed header from elsewhere stays as it is; a bad table is 451."""
    rules = CleanupRules(rewrite=rewriting(tmp_path, {"old@example.org": "new@example.org"}))
    content = b"From: old@example.org\n\nFrom: old@example.org\n"
    for is_local, expected in ((True, content.replace(b"old", b"new", 1)), (False, content)):
        cleanup = Cleanup(rules, b"", None, is_local)
        assert cleanup.feed(content) + cleanup.finish() == expected
    cleanup = Cleanup(CleanupRules(rewrite=rewriting(tmp_path, None)), b"", None, is_local=True)
    cleanup.feed(content)
    with pytest.raises(ContentRefused) as refused:
        cleanup.finish()
    assert refused.value.code == 451


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("a@host.example.com", "a@example.com"),
        ("a@EXAMPLE.com", "a@example.com"),
        ("a@x.host.other.test", "a@x.host.other.test"),
        ("a@www.example.net", "a@www.example.net"),
        ("a@h.example.net", "a@example.net"),
        ("root@host.example.com", "root@host.example.com"),
        ("a@badexample.com", "a@badexample.com"),
    ],
)
def test_masquerading(address: str, expected: str) -> None:
    """masquerade_domains: the first that fits counts, `!host` is left alone; masquerade_exceptions."""
    masquerade = Masquerade(("example.com", "!www.example.net", "example.net"), frozenset({"root"}))
    assert str(masquerade(Address(*address.split("@")))) == expected
