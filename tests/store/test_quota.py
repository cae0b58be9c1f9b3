"""Quotas: what is counted, what is refused, and who is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mailserver.store.contract import DELETED, NewMessage, OverQuota, Quota, StoreMode, Uid
from mailserver.store.maildir import deposit
from mailserver.store.quota import QuotaKeeper, start_warning, usage_at_delivery
from mailserver.store.quota_rules import parse_rules, parse_warnings
from tests.end_to_end.server import wait_for
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


def test_a_mailbox_with_more_room(make_harness: Callable[[str], FileHarness]) -> None:
    """`Trash:storage=+10%` as Dovecot has it: a full account may still fill Trash a little further."""
    harness = make_harness("*:bytes=2000")
    harness.account.extra["userdb_quota_rule2"] = "Trash:bytes=+50%%"  # type: ignore[index]
    store = harness.restart()
    inbox, trash = store.open("INBOX"), store.open("Trash")
    inbox.append([NewMessage(CONTENT)] * 2)
    with pytest.raises(OverQuota):
        inbox.append([NewMessage(CONTENT)])
    trash.append([NewMessage(CONTENT)])
    with pytest.raises(OverQuota):
        trash.append([NewMessage(CONTENT)])
    assert store.quota() == Quota(3000, 3, 2000, 0)


def test_a_mailbox_that_does_not_count(make_harness: Callable[[str], FileHarness]) -> None:
    """`Junk:ignore`: its mail is neither counted nor refused."""
    harness = make_harness("*:bytes=2000")
    harness.account.extra["userdb_quota_rule2"] = "Junk:ignore"  # type: ignore[index]
    store = harness.restart()
    store.open("Junk").append([NewMessage(CONTENT)] * 3)
    store.open("INBOX").append([NewMessage(CONTENT)] * 2)
    assert store.quota() == Quota(2000, 2, 2000, 0)
    harness.registry.shut()
    rules = parse_rules("*:bytes=2000, Junk:ignore")
    target = str(harness.inbox_path) + "/" * isinstance(harness, MaildirHarness)
    octets, messages = usage_at_delivery(str(harness.state_path), target, rules)
    assert messages <= 2 and octets < 2500


def script(directory: Path) -> tuple[Path, Path]:
    """A script that notes its arguments and its user's variables, and where."""
    notes = directory / "notes"
    path = directory / "warn"
    path.write_text(f'#!/bin/sh\necho "$* $USER" >> {notes}\n')
    path.chmod(0o755)
    return path, notes


def test_a_warning_is_run_once_for_each_mark(tmp_path: Path) -> None:
    """quota_warning: from below 80 %, from below 95 %, and when there is room again; the first that fits."""
    path, notes = script(tmp_path)
    used = [0]
    keeper = QuotaKeeper(
        parse_rules("*:bytes=1000"),
        lambda rules: (used[0], 1),
        lambda text: pytest.fail(text),
        parse_warnings(f"storage=95% {path} 95 %u, storage=80% {path} 80 %n, -storage=100% {path} below %u"),
        "alice@example.org",
        "/home/alice",
    )
    for after in (500, 790, 820, 830, 960, 1000, 700, 850):
        if after > used[0]:
            keeper.check(after - used[0], 1)
        used[0] = after
    keeper.quota()
    expected = ["80 alice alice@example.org", "95 alice@example.org alice@example.org"]
    expected += ["below alice@example.org alice@example.org", "80 alice alice@example.org"]
    wait_for(lambda: notes.exists() and len(notes.read_text().splitlines()) == 4, "the scripts")
    assert sorted(notes.read_text().splitlines()) == sorted(expected)


def test_a_warning_that_cannot_be_run_is_told(tmp_path: Path) -> None:
    """A missing script costs nobody's mail."""
    told: list[str] = []
    start_warning([str(tmp_path / "none"), "95"], "alice", "/", told.append)
    start_warning(["/bin/true", "%{nonsense}"], "alice", "/", told.append)
    assert ["cannot be run" in told[0], "unknown variable" in told[1]] == [True, True]
