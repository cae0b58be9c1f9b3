"""SIGKILL, and errors, at any system call of a delivery or a client's change. RELIABILITY F03-F05, F15, F16.

What came back is done; what did not is done or not; nothing else changed, and no UID shows
another content. The mailbox can be used at once.
"""

from __future__ import annotations

import mailbox
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from mailserver.delivery.job import Action, Job, Owner
from mailserver.delivery.local import LocalAgents
from mailserver.envelope import Status
from mailserver.store.contract import (
    DELETED,
    SEEN,
    AccountStore,
    NewMessage,
    NoSuchMailbox,
    StoreMode,
    Uid,
)
from tests.faults.strace import CHANGING_CALLS, KILLED, inject
from tests.store.contract_suite import contents
from tests.store.harness import FileHarness, MaildirHarness, MboxHarness
from tests.store.test_kill_points import NEW, View, prepare, see

pytestmark = pytest.mark.needs("strace")
ERRORS = ("ENOSPC", "EIO", "EDQUOT")
USUAL_CALLS = ("openat", "write", "pwrite64", "fsync", "fdatasync", "rename", "unlink")
WRITES = ("write", "pwrite64", "fsync", "fdatasync", "rename", "ftruncate")
MOST = 400  # calls of one kind that no act reaches


def _append(store: AccountStore) -> None:
    store.open("INBOX").append([NewMessage(NEW)])


def _copy(store: AccountStore) -> None:
    store.open("INBOX").copy([Uid(1), Uid(2)], store.open("Work"))


def _move(store: AccountStore) -> None:
    store.open("INBOX").move([Uid(1), Uid(2)], store.open("Work"))


def _store(store: AccountStore) -> None:
    store.open("INBOX").change_flags([Uid(1), Uid(3)], frozenset({SEEN, b"Word"}), StoreMode.ADD)


def _expunge(store: AccountStore) -> None:
    box = store.open("INBOX")
    box.change_flags([Uid(2)], frozenset({DELETED}), StoreMode.ADD)
    box.expunge()


def _rename(store: AccountStore) -> None:
    store.rename("Work", "Play")


def _pop3_quit(store: AccountStore) -> None:
    store.open("INBOX").remove([Uid(1), Uid(3)])


# What must be true of (before, after) where the act came back, and what may be gone where it did not.
ACTS: dict[str, tuple[Callable[[AccountStore], None], set[int]]] = {
    "append": (_append, set()),
    "copy": (_copy, set()),
    "move": (_move, {1, 2}),
    "store": (_store, set()),
    "expunge": (_expunge, {2}),
    "rename": (_rename, set()),
    "pop3-quit": (_pop3_quit, {1, 3}),
}
NAMES = ("INBOX", "Work", "Play")


def chosen(thorough: bool, chance: random.Random, calls: tuple[str, ...]) -> list[tuple[str, list[int]]]:
    """Calls, and which of them to hit: all one after the other, or one at random of a few kinds."""
    if thorough:
        return [(call, list(range(1, MOST))) for call in calls]
    common = [call for call in calls if call in USUAL_CALLS]
    return [(call, [chance.randrange(1, 4)]) for call in chance.sample(common, 2)]


def check_act(name: str, before: View, harness: FileHarness, is_done: bool) -> None:
    """Only what was asked for has happened, wholly where the act came back."""
    store = harness.crash()
    after = see(store, *NAMES)
    _, may_go = ACTS[name]
    inbox = {uid: content for (_, _, uid), content in contents_of(store, "INBOX").items()}
    for key, content in before.items():
        if key in after:
            assert after[key] == content
        else:
            assert key[2] in may_go
    extra = [content for key, content in after.items() if key not in before]
    originals = set(before.values()) | ({NEW} if name == "append" else set())
    assert set(extra) <= originals
    if name == "move":  # at no moment in neither
        assert set(before.values()) <= set(after.values())
    if is_done:
        done = {
            "append": lambda: NEW in extra,
            "copy": lambda: len(extra) == 2,
            "move": lambda: len(extra) == 2 and set(inbox) == {3},
            "store": lambda: SEEN in store.open("INBOX").messages[Uid(3)].flags,
            "expunge": lambda: set(inbox) == {1, 3},
            "rename": lambda: "Play" in [folder.name for folder in store.folders()],
            "pop3-quit": lambda: set(inbox) == {2},
        }
        assert done[name]()
    store.open("INBOX").append([NewMessage(NEW)])  # and all can go on
    harness.registry.shut()


def contents_of(store: AccountStore, name: str) -> View:
    try:
        box = store.open(name)
    except NoSuchMailbox:
        return {}
    found = {(box.mailbox_id, box.uidvalidity, uid): content for uid, content in contents(box).items()}
    store.close(box)
    return found


def run_act(tmp_path: Path, kind: str, name: str, call: str, fault: str, number: int) -> tuple[int, bool]:
    root = tmp_path / f"{call}-{number}"
    root.mkdir()
    harness = prepare(root, kind)
    before = see(harness.store, *NAMES)
    harness.registry.shut()

    def act() -> None:
        ACTS[name][0](harness.crash())

    status, struck = inject(root, call, fault, act)
    check_act(name, before, harness, status == 0)
    return status, struck


@pytest.mark.parametrize("name", ACTS)
@pytest.mark.parametrize("kind", ["maildir", "mbox"])
def test_killed_at_a_system_call(
    tmp_path: Path,
    kind: str,
    name: str,
    chance: random.Random,
    thorough: bool,
    verdict: Callable[[str], None],
) -> None:
    """F05: SIGKILL before the N-th call of a kind."""
    kills = 0
    for call, numbers in chosen(thorough, chance, CHANGING_CALLS):
        for number in numbers:
            status, struck = run_act(tmp_path, kind, name, call, f"signal=KILL:when={number}", number)
            assert status in (0, KILLED), (call, number)
            if not struck:
                break
            kills += 1
    verdict(f"{kills} kills, nothing lost")


@pytest.mark.parametrize("name", ["append", "expunge", "move"])
@pytest.mark.parametrize("kind", ["maildir", "mbox"])
def test_an_error_at_a_system_call(
    tmp_path: Path,
    kind: str,
    name: str,
    chance: random.Random,
    thorough: bool,
    verdict: Callable[[str], None],
) -> None:
    """F15, F16: it is never a success, and never half a message."""
    errors = 0
    for call, numbers in chosen(thorough, chance, WRITES):
        for number in numbers:
            fault = f"error={chance.choice(ERRORS)}:when={number}"
            status, struck = run_act(tmp_path, kind, name, call, fault, number)
            assert status in (0, 1), (call, number)
            if not struck:
                break
            errors += 1
    verdict(f"{errors} errors, nothing lost")


# Delivery.


def deliver(target: str, directory: Path, number: int) -> None:
    """local(8)'s work; raises unless it is delivered."""
    content = b"X-Test-Id: %d\nSubject: s\n\nFrom here\nbody %d\n" % (number, number)
    path = directory / "content"
    path.write_bytes(content)
    job = Job(
        Action.MAILBOX, Owner("alice", os.getuid(), os.getgid(), "/"), target, "a@a.example", "alice",
        b"Return-Path: <a@a.example>\n", 0, len(content),
    )  # fmt: skip
    descriptor = os.open(path, os.O_RDONLY)
    outcome = LocalAgents("mx.example.org").perform(job, descriptor)
    os.close(descriptor)
    if outcome.status is not Status.DELIVERED:
        assert outcome.dsn.startswith("4.") or outcome.dsn == "5.2.2", outcome
        raise OSError(outcome.text)


@pytest.mark.parametrize("fault", ["signal=KILL", "error=ENOSPC", "error=EIO", "error=EDQUOT"])
@pytest.mark.parametrize("harness", [MboxHarness, MaildirHarness])
def test_delivery(
    tmp_path: Path,
    harness: type[MaildirHarness] | type[MboxHarness],
    fault: str,
    chance: random.Random,
    thorough: bool,
    verdict: Callable[[str], None],
) -> None:
    """F03, F04: the file parses, earlier mail is as it was, at most one copy more; nothing partial in new."""
    account = harness(tmp_path)
    target = str(account.inbox_path) + ("/" if harness is MaildirHarness else "")
    account.registry.shut()
    deliver(target, tmp_path, 0)
    acked, tried, number = {0}, {0}, 0
    for call, numbers in chosen(thorough, chance, CHANGING_CALLS):
        for when in numbers:
            number += 1
            tried.add(number)

            def act(number: int = number) -> None:
                deliver(target, tmp_path, number)

            status, struck = inject(tmp_path, call, f"{fault}:when={when}", act)
            if status == 0:
                acked.add(number)
            if not struck:
                break
    deliver(target, tmp_path, number + 1)
    box: mailbox.Mailbox[mailbox.Message] = (
        mailbox.mbox(target) if harness is MboxHarness else mailbox.Maildir(target, create=False)
    )
    found = [int(message["X-Test-Id"]) for message in box if message["X-Test-Id"]]
    assert acked | {number + 1} <= set(found) <= tried | {number + 1}
    assert len(found) == len(set(found))
    for message in box:
        if message["X-Test-Id"] and int(message["X-Test-Id"]) in acked:
            assert f"body {message['X-Test-Id']}\n" in str(message)
    if harness is MboxHarness:
        assert Path(target).read_bytes().endswith(b"\n\n")
    verdict(f"{len(tried) - 1} faults, {len(acked) - 1} delivered all the same")
