"""Expansion: local(8)'s order, its loops and bounds, and a reason for every step."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from mailserver.delivery.expand import CannotExpandNow, expand, forward_paths
from mailserver.delivery.explain import as_lines, as_values, explain
from mailserver.delivery.lookups import LiveLookups
from mailserver.delivery.plan import Leaf, LeafKind, Plan, decode_leaf, encode_leaf
from mailserver.envelope import Address
from tests.queue.world import DictTable, World


def plan_for(world: World, text: str, **rules: object) -> Plan:
    """The plan for an address, `rules` changed."""
    world.rules = replace(world.rules, **rules)  # type: ignore[arg-type]
    local, _, domain = text.rpartition("@")
    leaf = Leaf(LeafKind.PENDING, Address(local, domain) if local else Address(text))
    lookups = LiveLookups(world.routing, world.rules, world.agents)
    return expand(leaf, routing=world.routing, rules=world.rules, lookups=lookups)


def shown(plan: Plan) -> list[str]:
    """Each leaf in few words."""
    return [
        " ".join(
            filter(
                None,
                (
                    leaf.kind.value,
                    leaf.target.rpartition("/mail/")[2] if leaf.kind is LeafKind.MAILBOX else leaf.target,
                    f"as {leaf.owner.name}" if leaf.owner else str(leaf.recipient),
                    ",".join(map(str, leaf.addresses)),
                ),
            )
        )
        for leaf in plan.leaves
    ]


@pytest.mark.parametrize(
    ("address", "aliases", "expected"),
    [
        ("alice@example.org", {}, ["mailbox alice as alice"]),
        ("ALICE@EXAMPLE.ORG", {}, ["mailbox alice as alice"]),
        ("alice+x@example.org", {}, ["mailbox alice as alice"]),
        ("bob", {}, ["mailbox bob as bob"]),
        ("team@example.org", {"team": "alice, bob"}, ["mailbox alice as alice", "mailbox bob as bob"]),
        ("team+x@example.org", {"team": "alice", "team+x": "bob"}, ["mailbox bob as bob"]),
        ("team+y@example.org", {"team": "alice", "team+x": "bob"}, ["mailbox alice as alice"]),
        ("alice@example.org", {"alice": "alice, bob"}, ["mailbox alice as alice", "mailbox bob as bob"]),
        ("alice@example.org", {"alice": "\\alice, bob"}, ["mailbox alice as alice", "mailbox bob as bob"]),
        ("a@example.org", {"a": "b, b", "b": "c, alice", "c": "alice"}, ["mailbox alice as alice"]),
        ("x@example.org", {"x": "|cmd a"}, ["command cmd a as nobody"]),
        ("x@example.org", {"x": "/dev/null"}, ["file /dev/null as nobody"]),
        ("x@example.org", {"x": "y@other.test"}, ["remote other.test y@other.test"]),
        ("no@example.org", {}, ['failed unknown user: "no" no@example.org']),
        (
            "a@example.org",
            {"a": "b", "b": "a, alice"},
            ["failed alias database loop for b a@example.org", "mailbox alice as alice"],
        ),
        ("other@other.test", {"other": "alice"}, ["remote other.test other@other.test"]),
        ("x@example.org", {"x": "bob, a b c"}, ["mailbox bob as bob"]),
    ],
)
def test_where_mail_goes(tmp_path: Path, address: str, aliases: dict[str, str], expected: list[str]) -> None:
    """aliases(5), local(8); F46."""
    assert shown(plan_for(World(tmp_path, aliases), address)) == expected


def test_the_three_cycle_is_found_and_named(tmp_path: Path) -> None:
    """F46: the alias that closes the loop is named; Delivered-To stays the first address."""
    plan = plan_for(World(tmp_path, {"a": "b", "b": "c", "c": "a, b, bob"}), "a@example.org")
    assert shown(plan) == [
        "failed alias database loop for c a@example.org",
        "failed alias database loop for c b@example.org",
        "mailbox bob as bob",
    ]
    assert {leaf.delivered_to for leaf in plan.leaves} == {Address("a", "example.org")}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["mailbox alice as alice"]),
        ("# nothing\n", ["mailbox alice as alice"]),
        ("alice\n", ["mailbox alice as alice"]),
        ("\\alice, bob", ["mailbox alice as alice", "forward as alice bob@example.org"]),
        (
            "alice@example.org, x@other.test, bob",
            ["mailbox alice as alice", "forward as alice x@other.test,bob@example.org"],
        ),
        ('"|exit 75"', ["command exit 75 as alice"]),
        ("/home/alice/copy\nbob", ["file /home/alice/copy as alice", "forward as alice bob@example.org"]),
        ("bob, bob, BOB@example.org", ["forward as alice bob@example.org,BOB@example.org"]),
    ],
)
def test_dot_forward(tmp_path: Path, text: str, expected: list[str]) -> None:
    """ECOSYSTEM §5: own name, commands as the user, other addresses in one new message."""
    world = World(tmp_path)
    world.forward("alice", text)
    assert shown(plan_for(world, "alice@example.org")) == expected


def test_dot_forward_of_an_extension_comes_first(tmp_path: Path) -> None:
    """forward_path; no extension leads out of the home directory."""
    world = World(tmp_path)
    world.forward("alice", "carol")
    (tmp_path / "home" / "alice" / ".forward+x").write_text("bob")
    assert shown(plan_for(world, "alice+x@example.org")) == ["forward as alice bob@example.org"]
    assert shown(plan_for(world, "alice+y@example.org")) == ["forward as alice carol@example.org"]
    alice = world.accounts.all["alice"]
    path = "$home/.forward${recipient_delimiter}${extension}, $home/.forward"
    assert forward_paths(path, alice, "/../../bob/x", "+") == (f"{alice.home}/.forward",)
    assert forward_paths(path, alice, "", "+") == (f"{alice.home}/.forward",)


def test_includes(tmp_path: Path) -> None:
    """F51: an include of itself ends; commands in it are forbidden unless allowed."""
    listing = tmp_path / "list"
    listing.write_text(f"alice\n:include:{listing}\nbob@other.test\n|cmd\n")
    world = World(tmp_path, {"list": f":include:{listing}"})
    plan = plan_for(world, "list@example.org")
    assert shown(plan) == [
        "mailbox alice as alice",
        "remote other.test bob@other.test",
        "failed mail to command is restricted list@example.org",
    ]
    assert any(step.source == f"{listing}:3" or step.text.startswith("bob@other") for step in plan.steps)
    allowed = plan_for(world, "list@example.org", allow_mail_to_commands=frozenset({"include"}))
    assert "command cmd as nobody" in shown(allowed)
    listing.unlink()
    with pytest.raises(OSError, match="list"):
        plan_for(world, "list@example.org")


def test_a_thousand_nested_includes_end_at_the_limit(tmp_path: Path) -> None:
    """F51: one failure, no recursion error."""
    for number in range(1000):
        (tmp_path / f"l{number}").write_text(f":include:{tmp_path}/l{number + 1}\n")
    plan = plan_for(World(tmp_path, {"list": f":include:{tmp_path}/l0"}), "list@example.org")
    (leaf,) = plan.leaves
    assert (leaf.kind, leaf.dsn) == (LeafKind.FAILED, "5.4.6")


def test_a_long_chain_of_aliases_ends_at_the_limit(tmp_path: Path) -> None:
    """Depth 100."""
    plan = plan_for(World(tmp_path, {f"a{n}": f"a{n + 1}" for n in range(1000)}), "a0@example.org")
    (leaf,) = plan.leaves
    assert (leaf.kind, leaf.dsn, leaf.target) == (LeafKind.FAILED, "5.4.6", "alias database loop for a100")


def test_order_of_mailbox_parameters(tmp_path: Path) -> None:
    """local(8): mailbox_transport, mailbox_command, home_mailbox, mail_spool_directory."""
    world = World(tmp_path)
    (maildir,) = plan_for(world, "alice", mail_spool_directory="/var/mail/").leaves
    assert maildir.target == "/var/mail/alice/"
    (home,) = plan_for(world, "alice", home_mailbox="Maildir/").leaves
    assert home.target == f"{tmp_path}/home/alice/Maildir/"
    (command,) = plan_for(world, "alice", mailbox_command="/usr/bin/procmail").leaves
    assert (command.kind, command.target) == (LeafKind.COMMAND, "/usr/bin/procmail")
    assert command.owner is not None and command.owner.name == "alice"
    (transport,) = plan_for(world, "alice", mailbox_transport="lmtp:unix:private/lmtp").leaves
    assert (transport.kind, transport.transport, transport.target) == (
        LeafKind.REMOTE,
        "lmtp",
        "unix:private/lmtp",
    )


def test_unknown_users_have_a_last_resort(tmp_path: Path) -> None:
    """luser_relay, fallback_transport."""
    world = World(tmp_path)
    assert shown(plan_for(world, "no+x@example.org", luser_relay="bob+$local")) == ["mailbox bob as bob"]
    assert shown(plan_for(world, "no@example.org", luser_relay="gone")) == [
        'failed unknown user: "gone" gone@example.org'
    ]
    assert shown(plan_for(world, "no@example.org", luser_relay="$user@other.test")) == [
        "remote other.test no@other.test"
    ]
    (leaf,) = plan_for(world, "no@example.org", fallback_transport="smtp:other.test").leaves
    assert (leaf.kind, leaf.target) == (LeafKind.REMOTE, "other.test")


def test_virtual_aliases(tmp_path: Path) -> None:
    """virtual(5): whole addresses, @domain, chains that end, and then aliases."""
    table = DictTable(
        {
            "info@v.test": "team, x@v.test",
            "@all.test": "@v.test",
            "x@v.test": "x@v.test",
            "loop@v.test": "loop@v.test, bob",
        }
    )
    world = World(
        tmp_path,
        {"team": "alice"},
        virtual_alias_maps=(table,),
        is_virtual_alias_domain=lambda domain: domain in ("v.test", "all.test"),
    )
    unknown = "failed User unknown in virtual alias table"
    assert shown(plan_for(world, "info@v.test")) == ["mailbox alice as alice", f"{unknown} x@v.test"]
    assert shown(plan_for(world, "info@all.test")) == ["mailbox alice as alice", f"{unknown} x@v.test"]
    assert shown(plan_for(world, "no@v.test")) == [f"{unknown} no@v.test"]
    assert shown(plan_for(world, "loop@v.test")) == [f"{unknown} loop@v.test", "mailbox bob as bob"]


def test_rewritten_and_moved_recipients(tmp_path: Path) -> None:
    """canonical(5) first; relocated(5) is a permanent answer, 5.1.6."""
    canonical = DictTable({"first.last@example.org": "alice@example.org"})
    moved = DictTable({"bob@example.org": "bob@new.test"})
    world = World(tmp_path, canonical_maps=(canonical,), relocated_maps=(moved,))
    assert shown(plan_for(world, "first.last@example.org")) == ["mailbox alice as alice"]
    assert shown(plan_for(world, "bob")) == ["failed User has moved to bob@new.test bob@example.org"]


def test_owner_aliases(tmp_path: Path) -> None:
    """aliases(5): owner-NAME is the sender for NAME's list; expand_owner_alias uses its value."""
    world = World(tmp_path, {"list": "alice", "owner-list": "carol"})
    assert [leaf.sender for leaf in plan_for(world, "list@example.org").leaves] == ["owner-list@example.org"]
    plan = plan_for(world, "list@example.org", expand_owner_alias=True)
    assert [leaf.sender for leaf in plan.leaves] == ["carol@example.org"]


def test_an_empty_alias_waits(tmp_path: Path) -> None:
    """A slip in the alias file is a local fault, not the sender's."""
    with pytest.raises(CannotExpandNow):
        plan_for(World(tmp_path, {"list": ""}), "list@example.org")


def test_every_leaf_goes_to_the_journal_and_back(tmp_path: Path) -> None:
    """What one release writes is what the next reads."""
    listing = tmp_path / "list"
    listing.write_text("x@other.test\n")
    aliases = {"all": f"alice, bob, no, |cmd, /f, :include:{listing}", "owner-all": "carol"}
    world = World(tmp_path, aliases)
    world.forward("bob", "carol, y@other.test")
    leaves = plan_for(world, "all@example.org").leaves
    assert len({leaf.kind for leaf in leaves}) == 6
    assert [decode_leaf(json.loads(json.dumps(encode_leaf(leaf)))) for leaf in leaves] == list(leaves)


def test_ten_thousand_addresses_are_linear(tmp_path: Path) -> None:
    """RELIABILITY 2.11: an alias of 10,000 addresses."""
    names = ", ".join(f"u{number}@other.test, u{number}@other.test" for number in range(10_000))
    world = World(tmp_path, {"all": names})
    began = time.process_time()
    plan = plan_for(world, "all@example.org", duplicate_filter_limit=0)
    assert len(plan.leaves) == 10_000
    assert time.process_time() - began < 2


def test_so_many_addresses_are_remembered_as_the_filter_may_hold(tmp_path: Path) -> None:
    """duplicate_filter_limit: what comes after them may get a second copy."""
    world = World(tmp_path, {"all": ", ".join(f"{name}@other.test" for name in "abcabc")})
    assert len(plan_for(world, "all@example.org").leaves) == 3
    assert len(plan_for(world, "all@example.org", duplicate_filter_limit=2).leaves) == 4


def test_virtual_aliases_are_bounded(tmp_path: Path) -> None:
    """virtual_alias_recursion_limit, virtual_alias_expansion_limit: the mail waits, as Postfix has it."""
    chain = {f"n{n}@v.test": f"n{n + 1}@v.test" for n in range(19)}
    wide = {"wide@v.test": ", ".join(f"u{n}@other.test" for n in range(5)), "two@v.test": "wide@v.test, bob"}
    bomb = {f"b{n}@v.test": f"b{n + 1}@v.test, b{n + 1}@v.test" for n in range(40)}
    table = DictTable({**chain, **wide, **bomb})
    world = World(tmp_path, virtual_alias_maps=(table,), is_virtual_alias_domain="v.test".__eq__)
    assert len(plan_for(world, "n0@v.test", virtual_alias_recursion_limit=20).leaves) == 1
    with pytest.raises(CannotExpandNow, match=r"unreasonable virtual_alias_maps map nesting for n0@v\.test"):
        plan_for(world, "n0@v.test", virtual_alias_recursion_limit=19)
    assert len(plan_for(world, "two@v.test", virtual_alias_expansion_limit=6).leaves) == 6
    with pytest.raises(CannotExpandNow, match="unreasonable virtual_alias_maps map expansion size for two@"):
        plan_for(world, "two@v.test", virtual_alias_expansion_limit=5)
    with pytest.raises(CannotExpandNow, match="expansion size"):
        plan_for(World(tmp_path, virtual_alias_maps=(table,)), "b0@v.test")


@pytest.mark.parametrize(
    "table",
    [
        {"a@v.test": "b@v.test", "b@v.test": "a@v.test"},
        {"a@v.test": "bob, b@v.test", "b@v.test": "c@v.test", "c@v.test": "B@v.test"},
        {"@v.test": "@w.test", "@w.test": "@v.test"},
    ],
)
def test_a_loop_of_virtual_aliases_waits(tmp_path: Path, table: dict[str, str]) -> None:
    """What nests without end is a slip in the table: a temporary failure, as Postfix has it."""
    world = World(tmp_path, virtual_alias_maps=(DictTable(table),), is_virtual_alias_domain=lambda name: True)
    with pytest.raises(CannotExpandNow, match=r"unreasonable virtual_alias_maps map nesting for a@v\.test"):
        plan_for(world, "a@v.test")
    lookups = LiveLookups(world.routing, world.rules, world.agents)
    explanation = explain(Address("a", "v.test"), world.routing, world.rules, lookups)
    assert explanation.verdict == "451 4.3.0 temporary failure"
    assert "nesting" in "".join(as_lines(explanation))


def test_a_virtual_alias_may_name_itself_once(tmp_path: Path) -> None:
    """Whatever leads back to an address that expanded into itself stays there, as in Postfix's cleanup(8)."""
    table = DictTable(
        {"bob@example.org": "bob@example.org, b@v.test", "b@v.test": "BOB, alice", "t+x@v.test": "no"}
        | {"t@v.test": "t@v.test"}
    )
    world = World(tmp_path, virtual_alias_maps=(table,), is_virtual_alias_domain="v.test".__eq__)
    assert shown(plan_for(world, "bob")) == ["mailbox bob as bob", "mailbox alice as alice"]
    unknown = "failed User unknown in virtual alias table"
    assert shown(plan_for(world, "t+y@v.test")) == [f"{unknown} t+y@v.test"]


def test_mail_that_comes_back_by_way_of_aliases_fails(tmp_path: Path) -> None:
    """A virtual alias names an alias that names it: a forwarding loop, as Postfix's local(8) finds it."""
    table = DictTable({"a@v.test": "team"})
    world = World(tmp_path, {"team": "a@v.test, bob"}, virtual_alias_maps=(table,))
    assert shown(plan_for(world, "a@v.test")) == [
        "failed mail forwarding loop for a@v.test a@v.test",
        "mailbox bob as bob",
    ]


def test_results_of_virtual_aliases_may_be_so_long(tmp_path: Path) -> None:
    """virtual_alias_address_length_limit."""
    table = DictTable({"a@v.test": f"{'x' * 20}@v.test"})
    world = World(tmp_path, virtual_alias_maps=(table,), is_virtual_alias_domain="v.test".__eq__)
    assert len(plan_for(world, "a@v.test", virtual_alias_address_length_limit=27).leaves) == 1
    with pytest.raises(CannotExpandNow, match="unreasonable virtual_alias_maps map result x"):
        plan_for(world, "a@v.test", virtual_alias_address_length_limit=26)


def test_explain_shows_each_step_with_its_line(tmp_path: Path) -> None:
    """`mailserver explain`: the reason and file:line of every step; sends nothing."""
    world = World(tmp_path, {"x": "y", "team": "alice, bob@other.test"})
    world.forward("alice", "\\alice, carol")
    lookups = LiveLookups(world.routing, world.rules, world.agents)
    explanation = explain(Address("team"), world.routing, world.rules, lookups)
    home = tmp_path / "home" / "alice"
    assert list(as_lines(explanation)) == [
        "team@example.org: local address: accept",
        "  team@example.org: alias team for alice, bob@other.test  (aliases:2)",
        f"    alice@example.org: forwarded by alice  ({home}/.forward:1)",
        f"      alice@example.org: mailbox {tmp_path}/mail/alice, as alice  (mail_spool_directory)",
        f"      carol@example.org: in a new message  ({home}/.forward:1)",
        "    bob@other.test: smtp to other.test  (the domain's MX records)",
        f"=> mailbox {tmp_path}/mail/alice, as alice",
        "=> relay bob@other.test by smtp to other.test",
        "=> forward carol@example.org in a new message",
    ]
    values = as_values(explanation)
    assert json.loads(json.dumps(values)) == values
    assert [each["action"] for each in values["destinations"]] == ["mailbox", "relay", "forward"]
    unknown = explain(Address("no", "example.org"), world.routing, world.rules, lookups)
    assert unknown.verdict == "refuse: 550 5.1.1 User unknown in local recipient table"
    world.aliases.values = None
    broken = list(as_lines(explain(Address("no"), world.routing, world.rules, lookups)))
    assert broken == [
        "no@example.org: local address: 451 4.3.0 temporary failure",
        "  inline:test: cannot be read",
    ]


def test_single_users_have_their_own_way(tmp_path: Path) -> None:
    """mailbox_command_maps, mailbox_transport_maps, fallback_transport_maps go before their parameters."""
    world = World(tmp_path)
    rules = {
        "mailbox_command": "everyone",
        "mailbox_command_maps": (DictTable({"alice": "procmail -a x"}),),
        "mailbox_transport_maps": (DictTable({"bob": "lmtp:unix:/run/lmtp"}),),
        "fallback_transport_maps": (DictTable({"old": "smtp:[old.test]"}),),
    }
    assert shown(plan_for(world, "alice@example.org", **rules)) == ["command procmail -a x as alice"]
    assert shown(plan_for(world, "bob@example.org")) == ["remote unix:/run/lmtp bob@example.org"]
    assert shown(plan_for(world, "carol@example.org")) == ["command everyone as carol"]
    assert shown(plan_for(world, "old@example.org")) == ["remote [old.test] old@example.org"]
    assert shown(plan_for(world, "new@example.org")) == ['failed unknown user: "new" new@example.org']


def test_local_is_a_transport_like_any_other(tmp_path: Path) -> None:
    """transport(5): `local:` in a table delivers here; `local_transport = error:...` nothing at all."""
    table = DictTable({"alice@example.org": "local:", "far.test": "local:"})
    assert shown(plan_for(World(tmp_path, transport_maps=(table,)), "alice@example.org")) == [
        "mailbox alice as alice"
    ]
    closed = World(tmp_path, local_transport="error:5.1.1 not here")
    assert shown(plan_for(closed, "alice@example.org")) == ["failed not here alice@example.org"]
    with pytest.raises(CannotExpandNow, match="later"):
        plan_for(World(tmp_path, local_transport="retry:later"), "alice@example.org")


def test_an_alias_may_end_the_owner_of_the_one_around_it(tmp_path: Path) -> None:
    """reset_owner_alias: without it a list within a list keeps the outer owner."""
    world = World(tmp_path, {"outer": "inner", "owner-outer": "bob", "inner": "alice"})
    senders = [leaf.sender for leaf in plan_for(world, "outer@example.org").leaves]
    assert senders == ["owner-outer@example.org"]
    assert [leaf.sender for leaf in plan_for(world, "outer@example.org", reset_owner_alias=True).leaves] == [
        None
    ]


def test_extensions_reach_aliases_and_forwards(tmp_path: Path) -> None:
    """propagate_unmatched_extensions = virtual, alias, forward."""
    places = frozenset({"virtual", "alias", "forward"})
    world = World(
        tmp_path,
        {"team": "bob"},
        propagate_unmatched_extensions=places,
        virtual_alias_maps=(DictTable({"info@example.org": "team@example.org"}),),
    )
    world.forward("alice", "carol@other.test")
    plan = plan_for(world, "info+x@example.org")
    assert [str(leaf.recipient) for leaf in plan.leaves] == ["bob+x@example.org"]
    assert plan_for(world, "alice+x@example.org").leaves[0].addresses == (Address("carol+x", "other.test"),)
