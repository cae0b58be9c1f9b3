"""The grammar of quota rules and warnings, and what they come to."""

from __future__ import annotations

import pytest

from mailserver.store.quota_rules import Limits, due, parse_rules, parse_warnings, relimited, rules_of


@pytest.mark.parametrize(
    ("rule", "limits"),
    [
        *(("*:storage=1G", Limits(1 << 30)), ("*:storage=10", Limits(10240)), ("*:bytes=10", Limits(10))),
        *(("*:storage=1GB", Limits(1 << 30)), ("?:storage=5m:messages=7", Limits(5 << 20, 7))),
        *(("*:messages=20", Limits(0, 20)), ("Trash:storage=+10%", Limits()), ("*:storage=0", Limits())),
        *(("", Limits()), ("Junk:ignore, *:messages=3", Limits(0, 3))),
    ],
)
def test_rules(rule: str, limits: Limits) -> None:
    """Dovecot's grammar: what is said of one mailbox is no limit for all."""
    assert parse_rules(rule).limits == limits


@pytest.mark.parametrize("rule", ["*:storage=lots", "*:", "*:storage=-1", "*:storage", "*:storage=10%"])
def test_bad_rules(rule: str) -> None:
    """Are refused, with the right form."""
    with pytest.raises(ValueError, match="storage=1G"):
        parse_rules(rule)


@pytest.mark.parametrize(
    ("rule", "limits"),
    [
        *(("Trash:storage=+10%", Limits(1100, 10)), ("Trash:storage=+10%%", Limits(1100, 10))),
        *(("Trash:bytes=+24", Limits(1024, 10)), ("Tr*:bytes=-24", Limits(976, 10))),
        *(("Trash:messages=+5", Limits(1000, 15)), ("Trash:bytes=5", Limits(5, 10))),
        *(("Trash:storage=50%", Limits(500, 10)), ("Sent:storage=+10%", Limits(1000, 10))),
    ],
)
def test_a_mailbox_of_its_own(rule: str, limits: Limits) -> None:
    """More, less, or another limit for what is stored there; the first rule that names it."""
    assert parse_rules(f"*:bytes=1000:messages=10, {rule}").limits_in("Trash") == limits
    assert parse_rules(f"*:bytes=1000:messages=10, {rule}").limits_in("INBOX") == Limits(1000, 10)


def test_more_than_unlimited_is_unlimited() -> None:
    """A share of no limit is none."""
    assert parse_rules("Trash:storage=+10%").limits_in("Trash") == Limits()


def test_an_accounts_rules_stand_for_the_common_ones() -> None:
    """Each in its place: userdb_quota_rule for the first, userdb_quota_rule2 for the second."""
    common = "*:storage=1G, Trash:storage=+10%"
    assert rules_of({}, common) == common
    assert rules_of({"userdb_quota_rule": "*:storage=2G"}, common) == "*:storage=2G, Trash:storage=+10%"
    assert rules_of({"userdb_quota_rule3": "Junk:ignore"}, common) == f"{common}, Junk:ignore"
    assert rules_of({"userdb_quota_rule": ""}, common) == "Trash:storage=+10%"
    assert rules_of({"userdb_uid": "5"}) == ""


def test_warnings_are_due_when_their_mark_is_passed() -> None:
    """From below, or with a minus from above; the first one only. Without a limit never."""
    warnings = parse_warnings(
        "storage=95%% /w 95, storage=80% /w 80, messages=3 /w many, -storage=80% /w less"
    )
    limits = Limits(1000, 5)
    passed = [((0, 0), (790, 1)), ((790, 1), (800, 1)), ((700, 1), (990, 1)), ((990, 2), (995, 3))]
    assert [due(warnings, limits, before, after)[1:] for before, after in passed] == [
        (),
        ("80",),
        ("95",),
        ("many",),
    ]
    assert due(warnings, limits, (800, 0), (799, 0)) == ("/w", "less")
    assert due(warnings, Limits(), (0, 0), (10**9, 0)) == ()


@pytest.mark.parametrize("text", ["storage=95%", "95% /bin/x", "storage=lots /bin/x"])
def test_bad_warnings(text: str) -> None:
    """Are refused, with the right form."""
    with pytest.raises(ValueError, match="storage="):
        parse_warnings(text)


@pytest.mark.parametrize(
    ("rule", "limits", "made"),
    [
        ("", Limits(1 << 20, 5), "*:storage=1024k:messages=5"),
        (
            "*:storage=1G:messages=2,Trash:storage=+10%,Junk:ignore",
            Limits(0, 5),
            "*:messages=5,Trash:storage=+10%,Junk:ignore",
        ),
        ("?:storage=1G", Limits(), "*:storage=0"),
    ],
)
def test_new_limits_in_an_old_rule(rule: str, limits: Limits, made: str) -> None:
    """What the rule says of single mailboxes stays; no limit is one that says so, before a common rule."""
    assert relimited(rule, limits) == made
    assert parse_rules(made).limits == limits
