"""Filters name filters, and take no more time and memory than other searches. RFC 5466 §5."""

from __future__ import annotations

from tests.imapd.harness import Client, Server


def keeping(**values: str) -> Client:
    """A client that has selected INBOX and keeps these filters."""
    client = Server().select()
    for name, value in values.items():
        line = f'SETMETADATA "" (/private/filters/values/{name} "{value}")'
        assert b"a OK" in client.ask(b"a " + line.encode()), value
    return client


def test_each_level_ten_times_the_last() -> None:
    """What would be ten thousand keys is refused before it is made."""
    ten = {f"l{level}": " ".join([f"FILTER l{level + 1}"] * 10) for level in range(8)}
    client = keeping(**ten, l8="SEEN")
    assert client.ask(b"b SEARCH FILTER l7") == b"* SEARCH\r\nb OK Search completed.\r\n"
    assert b"b BAD " in client.ask(b"b SEARCH FILTER l0")


def test_ten_deep_and_not_deeper() -> None:
    """A long chain without a loop ends too."""
    client = keeping(**{f"l{level}": f"FILTER l{level + 1}" for level in range(12)}, l12="ALL")
    assert b"b OK" in client.ask(b"b SEARCH FILTER l3")
    assert b"b NO [UNDEFINED-FILTER l11]" in client.ask(b"b SEARCH FILTER l1")


def test_parentheses_add_up() -> None:
    """Nested keys are as deep together as in one program."""
    nested = "(" * 20 + "FILTER deeper" + ")" * 20
    client = keeping(deep=nested, deeper="NOT " * 20 + "SEEN", deepest="NOT " * 40 + "SEEN")
    assert b"b OK" in client.ask(b"b SEARCH FILTER deep")
    client.ask(
        b'a SETMETADATA "" (/private/filters/values/deep "%b")' % nested.replace("deeper", "deepest").encode()
    )
    assert b"b NO " in client.ask(b"b SEARCH FILTER deep")


def test_what_an_older_release_kept_is_judged_when_it_is_used() -> None:
    """No search program: NO, and the session goes on."""
    client = keeping()
    client.server.store.annotate("", {"/private/filters/values/old": b"\xff {99}\r\nx"})
    assert b"b NO " in client.ask(b"b SEARCH FILTER old")
    assert b"c OK" in client.ask(b"c NOOP")
