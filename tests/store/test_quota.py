"""Quotas: the rule's grammar, what is counted, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mailserver.store.contract import DELETED, NewMessage, OverQuota, Quota, StoreMode, Uid
from mailserver.store.maildir import deposit
from mailserver.store.quota import Limits, parse_rule, rule_of, usage_at_delivery
from tests.store.harness import FileHarness, MaildirHarness, MboxHarness

CONTENT = b"Subject: s\r\n\r\n" + b"x" * 984 + b"\r\n"  # 1000 octets


@pytest.fixture(params=[MaildirHarness, MboxHarness])
def make_harness(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], FileHarness]:
    def make(rule: str) -> FileHarness:
        harness: FileHarness = request.param(tmp_path)
        harness.account.extra["userdb_quota_rule"] = rule  # type: ignore[index]
        harness.restart()
        request.addfinalizer(lambda: harness.registry.shut())
        return harness

    return make


@pytest.mark.parametrize(
    ("rule", "limits"),
    [
        *(("*:storage=1G", Limits(1 << 30)), ("*:storage=10", Limits(10240)), ("*:bytes=10", Limits(10))),
        *(("*:storage=1GB", Limits(1 << 30)), ("?:storage=5m:messages=7", Limits(5 << 20, 7))),
        *(("*:messages=20", Limits(0, 20)), ("Trash:storage=+10%", Limits()), ("*:storage=0", Limits())),
    ],
)
def test_rules(rule: str, limits: Limits) -> None:
    """Dovecot's grammar; what concerns one mailbox concerns nobody here."""
    assert parse_rule(rule) == limits


@pytest.mark.parametrize("rule", ["*:storage=lots", "*:", "*:storage=-1", "*:storage"])
def test_bad_rules(rule: str) -> None:
    """Are refused, with the right form."""
    with pytest.raises(ValueError, match="storage=1G"):
        parse_rule(rule)


def test_the_rule_for_all_mail_is_taken() -> None:
    """Dovecot numbers further rules."""
    extra = {"userdb_quota_rule": "Trash:storage=+10%%", "userdb_quota_rule2": "*:storage=1G"}
    assert rule_of(extra) == "*:storage=1G"
    assert rule_of({}) == ""


def test_append_and_copy_keep_within_it(make_harness: Callable[[str], FileHarness]) -> None:
    """All mailboxes together; exactly full is allowed; expunging makes room; a move is always possible."""
    store = make_harness("*:bytes=3000").store
    inbox, trash = store.open("INBOX"), store.open("Trash")
    inbox.append([NewMessage(CONTENT)] * 2)
    trash.append([NewMessage(CONTENT)])
    assert store.quota() == Quota(3000, 3, 3000, 0)
    with pytest.raises(OverQuota):
        trash.append([NewMessage(b"a: b\r\n\r\n")])
    with pytest.raises(OverQuota):
        inbox.copy([Uid(1)], trash)
    inbox.move([Uid(1)], trash)
    assert store.quota() == Quota(3000, 3, 3000, 0)
    trash.change_flags(trash.uids, frozenset({DELETED}), StoreMode.ADD)
    trash.expunge()
    inbox.copy([Uid(2)], trash)
    assert len(trash.uids) == 1


def test_what_others_delivered_counts(make_harness: Callable[[str], FileHarness]) -> None:
    """Also in mailboxes that nobody opened yet."""
    harness = make_harness("*:messages=2")
    harness.deliver(b"Subject: 1\n\nx\n")  # type: ignore[attr-defined]
    harness.deliver(b"Subject: 2\n\nx\n")  # type: ignore[attr-defined]
    with pytest.raises(OverQuota):
        harness.store.open("Sent").append([NewMessage(CONTENT)])


def test_without_a_rule_nothing_is_limited(make_harness: Callable[[str], FileHarness]) -> None:
    """There are no figures either; a rule that nobody understands is told and limits nothing."""
    harness = make_harness("*:storage=lots")
    assert harness.store.quota() is None
    assert any("storage=1G" in text for _, text in harness.log.lines)


def test_warnings(make_harness: Callable[[str], FileHarness]) -> None:
    """Once at 80 %, once at 95 %."""
    harness = make_harness("*:bytes=10000")
    inbox = harness.store.open("INBOX")
    for _ in range(10):
        inbox.append([NewMessage(CONTENT)])
    told = [text for _, text in harness.log.lines if "quota" in text]
    assert [text.rpartition("quota: ")[2] for text in told] == [
        "80 % of 10000 used",
        "100 % of 10000 used",
    ]


def test_usage_at_delivery(tmp_path: Path) -> None:
    """What state.db knows, and what came since; without state.db the files themselves."""
    harness = MaildirHarness(tmp_path)
    inbox = str(harness.inbox_path) + "/"
    harness.store.open("Sent").append([NewMessage(CONTENT)])
    harness.deliver(CONTENT)
    assert usage_at_delivery(str(harness.state_path), inbox) == (1000 + 997, 2)
    harness.store.open("INBOX")
    assert usage_at_delivery(str(harness.state_path), inbox) == (2000, 2)
    deposit(inbox, [b"y" * 500], "h")
    assert usage_at_delivery(str(harness.state_path), inbox) == (2500, 3)
    assert usage_at_delivery(str(tmp_path / "nowhere"), inbox) == (997 + 500, 2)
    harness.registry.shut()
    mbox = tmp_path / "mbox"
    mbox.write_bytes(b"From x\n" * 10)
    assert usage_at_delivery(str(tmp_path / "nowhere"), str(mbox))[0] == 70
