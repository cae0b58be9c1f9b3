"""Plans that are remembered: they hold while all that they came of is the same, and no longer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mailserver.accounts.account import Account
from mailserver.delivery.srs import Srs
from mailserver.queue.direct import Delivered
from mailserver.queue.file import QueueFile
from mailserver.queue.mailbox_plans import MOST_REMEMBERED, MailboxPlans
from mailserver.queue.record import Accepted
from tests.queue.test_direct import CONTENT, DirectWorld
from tests.queue.world import DictTable, envelope


@pytest.fixture
def world(tmp_path: Path) -> DirectWorld:
    return DirectWorld(tmp_path, "maildir", {"one": "alice"})


def _forward(world: DirectWorld) -> None:
    world.forward("alice", "bob\n")
    (world.base / "home" / "alice" / ".forward").chmod(0o644)


def _with_quota(world: DirectWorld) -> None:
    own = world.accounts.all["alice"]
    rule = {"userdb_quota_rule": "*:bytes=10"}
    world.accounts.all["alice"] = Account(own.name, own.uid, own.gid, own.home, extra=rule)


def test_the_second_message_asks_no_table(world: DirectWorld) -> None:
    """Tables are asked once for a sender and a recipient; another sender's way is found out by itself."""
    assert isinstance(world.take(world.incoming("one@example.org")), Delivered)
    asked = world.aliases.questions
    assert isinstance(world.take(world.incoming("one@example.org")), Delivered)
    assert world.aliases.questions == asked > 0
    world.take(world.incoming("one@example.org", sender="another@example.com"))
    assert world.aliases.questions > asked
    assert [each.partition(b"\n")[0] for each in world.messages()] == [
        b"Return-Path: <s@example.com>",
        b"Return-Path: <s@example.com>",
        b"Return-Path: <another@example.com>",
    ]


CHANGES: dict[str, Callable[[DirectWorld], object]] = {
    "the alias is another one": lambda world: world.aliases.values.update(one="bob"),  # type: ignore[union-attr]
    "the alias is for two": lambda world: world.aliases.values.update(one="alice, bob"),  # type: ignore[union-attr]
    "the alias is gone": lambda world: world.aliases.values.clear(),  # type: ignore[union-attr]
    "there is an alias for the account": lambda world: world.aliases.values.update(alice="bob"),  # type: ignore[union-attr]
    "the table cannot be read": lambda world: setattr(world.aliases, "values", None),
    "the account is gone": lambda world: world.accounts.all.pop("alice"),
    "the account cannot be known": lambda world: world.accounts.unreadable.add("alice"),
    "the account has a quota": _with_quota,
    "a .forward": _forward,
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changed_counts_for_the_next_message(world: DirectWorld, change: str) -> None:
    """An answer that is another one, or cannot be had, makes the plan anew: nothing goes the old way."""
    assert isinstance(world.take(world.incoming("one@example.org")), Delivered)
    CHANGES[change](world)
    taken = world.take(world.incoming("one@example.org"))
    is_bobs = change in ("the alias is another one", "there is an alias for the account")
    assert isinstance(taken, Delivered) == is_bobs
    assert (len(world.messages()), len(world.messages("bob"))) == (1, is_bobs)


def test_a_new_account_with_the_extension_in_its_name(world: DirectWorld) -> None:
    """That somebody did not exist is an answer, too."""
    world.take(world.incoming("alice+new@example.org"))
    own = world.accounts.all["bob"]
    world.accounts.all["alice+new"] = Account("alice+new", own.uid, own.gid, own.home)
    world.take(world.incoming("alice+new@example.org"))
    assert len(world.messages()) == 1 and len(world.messages("alice+new")) == 1


def test_senders_are_rewritten_by_the_present_table(world: DirectWorld) -> None:
    """Return-Path: is what sender_canonical_maps say now."""
    table = DictTable({"s@example.com": "first@example.com"})
    world.routing = replace(world.routing, sender_canonical_maps=(table,))
    world.restart()
    world.take(world.incoming())
    table.values = {"s@example.com": "second@example.com"}
    world.take(world.incoming())
    assert [each.partition(b"\n")[0] for each in world.messages()] == [
        b"Return-Path: <first@example.com>",
        b"Return-Path: <second@example.com>",
    ]


def test_a_loop_is_seen_behind_a_remembered_plan(world: DirectWorld) -> None:
    """Delivered-To: fields of the message count, whoever else had mail before."""
    assert isinstance(world.take(world.incoming()), Delivered)
    looping = world.incoming(content=b"Delivered-To: alice@example.org\n" + CONTENT)
    assert isinstance(world.take(looping), QueueFile)


class Unversioned:
    """A table that does not tell its version."""

    name = "tcp:somewhere"

    def __init__(self, table: DictTable) -> None:
        self.find, self.entries = table.find, table.entries


def _include(world: DirectWorld) -> None:
    path = world.base / "list"
    path.write_text("alice\n")
    world.aliases.values = {"one": f":include:{path}"}


def _without_version(world: DirectWorld) -> None:
    world.routing = replace(world.routing, alias_maps=(Unversioned(world.aliases),))


def _srs(world: DirectWorld) -> None:
    srs = Srs("example.org", lambda: b"secret", world.clock.seconds)
    world.routing = replace(world.routing, srs=srs)
    world.aliases.values = {"srs0=one": "alice"}


@pytest.mark.parametrize("prepare", [_include, _without_version, _srs])
def test_what_may_change_unseen_is_found_out_anew(
    world: DirectWorld, prepare: Callable[[DirectWorld], None]
) -> None:
    """:include: files, tables without a version and SRS addresses are asked for each message."""
    prepare(world)
    world.restart()
    recipient = "srs0=one@example.org" if prepare is _srs else "one@example.org"
    for _ in range(2):
        asked = world.aliases.questions
        assert isinstance(world.take(world.incoming(recipient)), Delivered)
        assert world.aliases.questions > asked


def test_memory_is_bounded(world: DirectWorld) -> None:
    """However many senders there are."""
    plans = MailboxPlans(world.services)
    for number in range(MOST_REMEMBERED + 5):
        accepted = Accepted(envelope("alice@example.org", sender=f"s{number}@example.com"), 0.0, "")
        assert plans.find(accepted, frozenset()) is not None
    assert len(plans._remembered) <= MOST_REMEMBERED
