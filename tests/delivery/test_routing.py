"""Address classes, who exists, and the way out: ADDRESS_CLASS_README, transport(5), local(8)."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailserver.accounts.account import TemporaryAccountFailure
from mailserver.delivery.routing import AccountTable, AddressClass, Route, Routing
from mailserver.envelope import Address
from mailserver.tables.regexp import regexp_table
from mailserver.tables.table import TableError
from tests.queue.world import ORIGIN, Accounts, DictTable


def routing(tmp_path: Path, aliases: dict[str, str] | None = None, **changes: object) -> Routing:
    """A server for example.org with alice, and a relay for relay.test."""
    values: dict[str, object] = {
        "my_origin": ORIGIN,
        "is_my_destination": lambda domain: domain in (ORIGIN, "localhost"),
        "accounts": Accounts(tmp_path, "alice", "a+b", "v@box.test"),
        "alias_maps": (DictTable(aliases or {"team": "alice", "x+list": "alice"}),),
        "recipient_delimiter": "+-",
        "is_own_literal": lambda literal: literal == "192.0.2.1",
        "is_relay_domain": lambda domain: domain.endswith("relay.test"),
        "is_virtual_alias_domain": lambda domain: domain == "alias.test",
        "is_virtual_mailbox_domain": lambda domain: domain == "box.test",
    }
    return Routing(**(values | changes))  # type: ignore[arg-type]


def address(text: str) -> Address:
    local, _, domain = text.rpartition("@")
    return Address(local, domain) if local else Address(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("alice", AddressClass.LOCAL),
        ("alice@example.org", AddressClass.LOCAL),
        ("alice@EXAMPLE.org.", AddressClass.LOCAL),
        ("alice@[192.0.2.1]", AddressClass.LOCAL),
        ("alice@[192.0.2.2]", AddressClass.REMOTE),
        ("alice@alias.test", AddressClass.VIRTUAL_ALIAS),
        ("alice@box.test", AddressClass.VIRTUAL_MAILBOX),
        ("alice@sub.relay.test", AddressClass.RELAY),
        ("alice@other.test", AddressClass.REMOTE),
        ("alice%other.test@example.org", AddressClass.LOCAL),
        ("other.test!alice", AddressClass.LOCAL),
    ],
)
def test_classes(tmp_path: Path, text: str, expected: AddressClass) -> None:
    """A percent or bang is part of a local name, never a way to another host (B10)."""
    assert routing(tmp_path).classify(address(text)) is expected


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("alice@example.org", True),
        ("ALICE@example.org", True),
        ("alice+x@example.org", True),
        ("alice-x@example.org", True),
        ("a+b@example.org", True),
        ("team@example.org", True),
        ("team+x@example.org", True),
        ("x+list@example.org", True),
        ("x@example.org", False),
        ("nobody%other.test@example.org", False),
        ("nobody@other.test@example.org", False),
        ("postmaster", True),
        ("PostMaster@example.org", True),
        ("postmaster@box.test", False),
        ("nobody@alias.test", False),
        ("v@box.test", True),
        ("V+x@box.test", True),
        ("alice@box.test", False),
        ("any@relay.test", True),
        ("any@other.test", True),
    ],
)
def test_who_exists(tmp_path: Path, text: str, known: bool) -> None:
    """local_recipient_maps, virtual_mailbox_maps, relay_recipient_maps; postmaster: RFC 5321 §4.5.1."""
    assert routing(tmp_path).is_known(address(text)) is known


def test_tables_widen_and_narrow(tmp_path: Path) -> None:
    """relay_recipient_maps, virtual_alias_maps, luser_relay, local_recipient_maps, full or empty."""
    maps = (DictTable({"one@relay.test": "x"}),)
    assert routing(tmp_path, relay_recipient_maps=maps).is_known(Address("one", "relay.test"))
    assert not routing(tmp_path, relay_recipient_maps=maps).is_known(Address("two", "relay.test"))
    virtual = (DictTable({"info@alias.test": "alice", "@example.org": "alice"}),)
    assert routing(tmp_path, virtual_alias_maps=virtual).is_known(Address("info+x", "alias.test"))
    assert routing(tmp_path, virtual_alias_maps=virtual).is_known(Address("anyone", "example.org"))
    maps = (DictTable({"carol": "x", "dave@example.org": "x"}),)
    for name in ("carol", "CAROL+x", "dave", "alice", "erin"):
        is_known = routing(tmp_path, local_recipient_maps=maps).is_known(Address(name, "example.org"))
        assert is_known is (name not in ("alice", "erin"))
    maps = (*maps, AccountTable(Accounts(tmp_path, "alice")))
    assert routing(tmp_path, local_recipient_maps=maps).is_known(Address("alice", "example.org"))
    assert routing(tmp_path, luser_relay="alice").is_known(Address("anyone", "example.org"))
    assert routing(tmp_path, accept_all_local=True).is_known(Address("anyone", "example.org"))


def test_what_cannot_be_read_is_not_unknown(tmp_path: Path) -> None:
    """P5, F57."""
    with pytest.raises(TableError):
        routing(tmp_path, alias_maps=(DictTable(None),)).is_known(Address("x", "example.org"))
    accounts = Accounts(tmp_path)
    accounts.unreadable.add("x")
    with pytest.raises(TemporaryAccountFailure):
        routing(tmp_path, accounts=accounts).is_known(Address("x", "example.org"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("alice@example.org", Route("local", "example.org", "mydestination")),
        ("alice@box.test", Route("virtual", "box.test", "virtual_mailbox_domains")),
        ("alice@other.test", Route("smtp", "[mx.test]:26", "relayhost")),
        ("alice@exact.test", Route("smtp", "[h.test]", "transport_maps, aliases:1")),
        ("alice@sub.wild.test", Route("lmtp", "unix:lmtp", "transport_maps, aliases:2")),
        ("one+x@exact.test", Route("error", "5.1.1 gone", "transport_maps, aliases:3")),
        ("alice@only.test", Route("uucp", "only.test", "transport_maps, aliases:4")),
        ("alice@hop.test", Route("smtp", "other.hop", "transport_maps, aliases:5")),
    ],
)
def test_the_way_out(tmp_path: Path, text: str, expected: Route) -> None:
    """transport(5): user+ext@domain, user@domain, domain, .parent; either half may be missing."""
    table = DictTable(
        {
            "exact.test": "smtp:[h.test]",
            ".wild.test": "lmtp:unix:lmtp",
            "one@exact.test": "error:5.1.1 gone",
            "only.test": "uucp:",
            "hop.test": ":other.hop",
        }
    )
    own = routing(tmp_path, transport_maps=(table,), relayhost="[mx.test]:26")
    assert own.resolve(address(text)) == expected


def test_relocated_and_canonical_tables_are_asked(tmp_path: Path) -> None:
    """relocated(5), canonical(5): full address, user where the domain is ours, @domain."""
    table = DictTable({"gone": "new@other.test", "@old.test": "new.test"})
    own = routing(tmp_path, relocated_maps=(table,), canonical_maps=(table,))
    assert own.relocated_to(Address("gone", "example.org")) == "new@other.test"
    assert own.relocated_to(Address("gone", "other.test")) is None
    assert own.canonical_recipient(Address("gone", "example.org")) == Address("new", "other.test")
    assert own.canonical_recipient(Address("any", "other.test")) == Address("any", "other.test")
    domains = (DictTable({"@old.test": "@new.test"}),)
    sender = routing(tmp_path, sender_canonical_maps=domains).canonical_sender(Address("any", "old.test"))
    assert sender == Address("any", "new.test")


def test_reserved_names_are_not_split(tmp_path: Path) -> None:
    """owner_request_special, and the names that Postfix reserves."""
    own = routing(tmp_path)
    assert own.split("alice-x+y") == ("alice", "x+y")
    assert own.split("+alice") == ("+alice", "")
    for name in ("owner-list", "list-request", "mailer-daemon", "double-bounce"):
        assert own.split(name) == (name, "")


def test_extensions_go_on_where_they_are_wanted(tmp_path: Path) -> None:
    """propagate_unmatched_extensions: what the key lacked is added to the result, canonical(5)."""
    table = DictTable({"bob@example.org": "robert@other.test", "x+full@example.org": "y@other.test"})
    own = routing(tmp_path, canonical_maps=(table,))
    assert own.canonical_recipient(Address("bob+List", "example.org")) == Address("robert+List", "other.test")
    assert own.canonical_recipient(Address("x+full", "example.org")) == Address("y", "other.test")
    plain = routing(tmp_path, canonical_maps=(table,), propagate_unmatched_extensions=frozenset())
    assert plain.canonical_recipient(Address("bob+list", "example.org")) == Address("robert", "other.test")


def test_pattern_tables_see_whole_addresses_only(tmp_path: Path) -> None:
    """regexp_table(5): user+foo@domain is not broken up, so `^@` or a bare domain never matches."""
    path = tmp_path / "patterns"
    path.write_text("/^@example.org$/ catch\n/^(bob)@example.org$/ found\n/^relay.test$/ smtp:[wrong]\n")
    table = regexp_table(f"regexp:{path}", str(path))
    own = routing(tmp_path, virtual_alias_maps=(table,), transport_maps=(table,))
    assert own.find_virtual_alias(Address("ann", "example.org")) is None
    match = own.find_virtual_alias(Address("bob", "example.org"))
    assert match is not None and match.entry.value == "found"
    assert own.find_virtual_alias(Address("bob+x", "example.org")) is None
    assert own.resolve(Address("u", "relay.test")).nexthop == "relay.test"


@pytest.mark.parametrize(
    ("sender", "expected"),
    [
        (Address("alice", "example.org"), ("smtp", "[own.test]")),
        (Address("Alice+x", "example.org"), ("smtp", "[own.test]")),
        (Address("bob", "example.org"), ("smtp", "[domain.test]:26")),
        (Address("bob", "other.test"), ("smtp", "[usual.test]")),
        (Address("dunno", "example.org"), ("smtp", "[usual.test]")),
        (Address("slow", "example.org"), ("slow", "[usual.test]")),
        (None, ("smtp", "[bounces.test]")),
    ],
)
def test_the_sender_may_choose_the_way(
    tmp_path: Path, sender: Address | None, expected: tuple[str, str]
) -> None:
    """sender_dependent_relayhost_maps, sender_dependent_default_transport_maps; `<>`, DUNNO."""
    hosts = DictTable(
        {
            "alice@example.org": "[own.test]",
            "@example.org": "[domain.test]:26",
            "dunno@example.org": "DUNNO",
            "slow@example.org": "DUNNO",
            "<>": "[bounces.test]",
        }
    )
    own = routing(
        tmp_path,
        relayhost="[usual.test]",
        sender_dependent_relayhost_maps=(hosts,),
        sender_dependent_default_transport_maps=(DictTable({"slow@example.org": "slow:"}),),
    )
    route = own.resolve(Address("any", "far.test"), sender)
    assert (route.transport, route.nexthop) == expected


def test_transports_with_next_hops(tmp_path: Path) -> None:
    """default_transport, relay_transport, local_transport as `name:nexthop`, as null clients have them."""
    own = routing(
        tmp_path,
        relayhost="[mx.test]",
        default_transport="smtp:[gate.test]:27",
        relay_transport="relay",
        local_transport="error:5.1.1 mail is not kept here",
    )
    assert own.resolve(Address("a", "far.test")).nexthop == "[gate.test]:27"
    assert own.resolve(Address("a", "relay.test")) == Route("relay", "[mx.test]", "relayhost")
    route = own.resolve(Address("alice", "example.org"))
    assert (route.transport, route.nexthop) == ("error", "5.1.1 mail is not kept here")


def test_host_names_are_completed_where_asked(tmp_path: Path) -> None:
    """append_dot_mydomain: `user@host` is `user@host.$mydomain`; literals stay."""
    own = routing(tmp_path, append_dot_mydomain="example.net")
    assert own.complete(Address("a", "host")) == Address("a", "host.example.net")
    assert own.complete(Address("a", "host.test")) == Address("a", "host.test")
    assert own.complete(Address("a", "[192.0.2.1]")) == Address("a", "[192.0.2.1]")
    assert routing(tmp_path).complete(Address("a", "host")) == Address("a", "host")


def test_names_may_be_those_of_this_host(tmp_path: Path) -> None:
    """append_at_myorigin = no: `user` is `user@$myhostname`, whatever myorigin is."""
    own = routing(tmp_path, append_at_myorigin="mx.example.org")
    assert own.complete(Address("a")) == Address("a", "mx.example.org")
    assert routing(tmp_path).complete(Address("a")) == Address("a", ORIGIN)
