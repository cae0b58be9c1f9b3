"""SIGKILL before any step of any change: nothing acknowledged is lost, no UID moves. RELIABILITY F04, F05.

The change runs in a child process that ends without any tidying before the Nth call of a system
call that writes, and before and after each commit of state.db. The parent opens what is left.
"""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mailserver.store.contract import (
    DELETED,
    FLAGGED,
    SEEN,
    AccountStore,
    Mailbox,
    NewMessage,
    NoSuchMailbox,
    StoreMode,
    Uid,
)
from mailserver.store.state import State
from tests.store.contract_suite import FIRST, SECOND, THIRD, append, contents, flags
from tests.store.harness import FileHarness, MaildirHarness, MboxHarness

FATAL_CALLS = (
    *("open", "write", "pwrite", "writev", "fsync", "fdatasync", "rename", "replace", "link", "unlink"),
    *("mkdir", "rmdir", "ftruncate", "truncate", "utime", "sendfile", "copy_file_range"),
)
MORE_THAN_ANY = 200
NEW = b"Subject: new\r\n\r\nNew\r\n"
HARNESSES = {"maildir": MaildirHarness, "mbox": MboxHarness}

View = dict[tuple[str, int, int], bytes]  # (MAILBOXID, UIDVALIDITY, UID) -> content


class Fuse:
    """Ends the process before the Nth step."""

    def __init__(self, steps: int) -> None:
        self._left = steps

    def step(self) -> None:
        self._left -= 1
        if self._left == 0:
            os._exit(9)

    def arm(self) -> None:
        for name in FATAL_CALLS:
            call = getattr(os, name)
            setattr(os, name, functools.partial(self._fatal, call))
        transaction = State.transaction

        @contextmanager
        def fatal_transaction(state: State) -> Iterator[None]:
            self.step()
            with transaction(state):
                yield
                self.step()
            self.step()

        State.transaction = fatal_transaction  # type: ignore[method-assign]

    def _fatal(self, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        self.step()
        return call(*args, **options)


def run_until(steps: int, harness: FileHarness, act: Callable[[AccountStore], object]) -> bool:
    """Whether the act came back; the child may have ended before that."""
    harness.registry.shut()
    child = os.fork()
    if child == 0:
        try:
            store = harness.crash()
            Fuse(steps).arm()
            act(store)
            os._exit(0)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, 9)
    return code == 0


def see(store: AccountStore, *names: str) -> View:
    """Everything that clients know of these mailboxes; those that are not there are left out."""
    view: View = {}
    for name in names:
        try:
            box = store.open(name)
        except NoSuchMailbox:
            continue
        for uid, content in contents(box).items():
            view[box.mailbox_id, box.uidvalidity, uid] = content
        store.close(box)
    return view


def prepare(root: Path, kind: str) -> FileHarness:
    harness = HARNESSES[kind](root)
    inbox = harness.store.open("INBOX")
    append(inbox, FIRST, SECOND, with_flags=flags(FLAGGED))
    harness.deliver(THIRD)
    inbox.refresh()
    harness.store.create("Work")
    append(harness.store.open("Work"), FIRST)
    return harness


@pytest.fixture(params=["maildir", "mbox"])
def kill(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Iterator[Any]]:
    """Runs an act with every step made fatal; yields what is left of each run."""

    def runs(
        act: Callable[[AccountStore], object], *names: str
    ) -> Iterator[tuple[bool, View, AccountStore, View]]:
        for steps in range(1, MORE_THAN_ANY):
            root = tmp_path / "run"
            root.mkdir()
            harness = prepare(root, request.param)
            before = see(harness.store, *names)
            came_back = run_until(steps, harness, act)
            store = harness.crash()
            yield came_back, before, store, see(store, *names)
            harness.registry.shut()
            shutil.rmtree(root)
            if came_back:
                return
        pytest.fail("the act has no end")

    return runs


def assert_no_uid_moved(before: View, after: View) -> None:
    assert all(after[known] == content for known, content in before.items() if known in after)


def inbox_of(store: AccountStore) -> Mailbox:
    return store.open("INBOX")


def test_append(kill: Callable[..., Iterator[Any]]) -> None:
    """Acknowledged: there, once. Not acknowledged: there once, or not. Never in part."""

    def act(store: AccountStore) -> None:
        inbox_of(store).append([NewMessage(NEW, flags(SEEN))])

    for came_back, before, _, after in kill(act, "INBOX"):
        assert before.items() <= after.items()
        extra = [content for known, content in after.items() if known not in before]
        assert extra in ([[NEW]] if came_back else [[], [NEW]])


def test_copy(kill: Callable[..., Iterator[Any]]) -> None:
    """The source stays; the copies are whole."""

    def act(store: AccountStore) -> None:
        inbox_of(store).copy([Uid(1), Uid(2)], store.open("Work"))

    for came_back, before, store, after in kill(act, "INBOX", "Work"):
        assert before.items() <= after.items()
        copies = sorted(content for known, content in after.items() if known not in before)
        allowed = [[FIRST, SECOND]] if came_back else [[], [FIRST], [SECOND], [FIRST, SECOND]]
        assert copies in allowed
        if came_back:
            assert store.open("Work").messages[Uid(2)].flags == flags(FLAGGED)


def test_move(kill: Callable[..., Iterator[Any]]) -> None:
    """At no moment is the message in neither mailbox. RFC 6851 §3.3."""

    def act(store: AccountStore) -> None:
        inbox_of(store).move([Uid(2)], store.open("Work"))

    for came_back, before, store, after in kill(act, "INBOX", "Work"):
        assert_no_uid_moved(before, after)
        assert 1 <= list(after.values()).count(SECOND) <= 2
        assert list(after.values()).count(FIRST) == 2
        if came_back:
            assert list(inbox_of(store).uids) == [1, 3]
            assert contents(store.open("Work")) == {1: FIRST, 2: SECOND}


def test_expunge(kill: Callable[..., Iterator[Any]]) -> None:
    """Only what was asked for is gone; what was acknowledged stays gone."""

    def act(store: AccountStore) -> None:
        inbox = inbox_of(store)
        inbox.change_flags([Uid(1), Uid(3)], flags(DELETED), StoreMode.ADD)
        inbox.expunge()

    for came_back, before, _, after in kill(act, "INBOX"):
        assert_no_uid_moved(before, after)
        assert after.keys() <= before.keys()
        assert SECOND in after.values()
        if came_back:
            assert list(after.values()) == [SECOND]


def test_flags(kill: Callable[..., Iterator[Any]]) -> None:
    """Acknowledged flags hold; others are the old ones or the new ones."""

    def act(store: AccountStore) -> None:
        inbox_of(store).change_flags([Uid(1)], flags(SEEN, b"Work"), StoreMode.REPLACE)

    for came_back, before, store, after in kill(act, "INBOX"):
        assert after == before
        new, old = flags(SEEN, b"Work"), flags(FLAGGED)
        assert inbox_of(store).messages[Uid(1)].flags in ([new] if came_back else [old, new])


def test_rename(kill: Callable[..., Iterator[Any]]) -> None:
    """The mailbox is there under one of its names, with its UIDs."""

    def act(store: AccountStore) -> None:
        store.rename("Work", "Job/Old")

    for came_back, before, store, after in kill(act, "Work", "Job/Old"):
        assert after == before
        names = {folder.name for folder in store.folders() if folder.selectable}
        assert ("Work" in names) + ("Job/Old" in names) == 1
        assert not came_back or "Job/Old" in names


def test_create_below_a_mailbox(kill: Callable[..., Iterator[Any]]) -> None:
    """Getting a first child costs a mailbox nothing."""

    def act(store: AccountStore) -> None:
        store.create("Work/Child")

    for came_back, before, store, _ in kill(act, "Work"):
        names = {folder.name for folder in store.folders()}
        assert see(store, "Work") == before
        assert not came_back or "Work/Child" in names


def test_delete(kill: Callable[..., Iterator[Any]]) -> None:
    """The mailbox is there, whole, or it is gone."""

    def act(store: AccountStore) -> None:
        store.delete("Work")

    for came_back, before, store, after in kill(act, "Work"):
        assert after in (before, {})
        assert not came_back or after == {}
        if not after:
            names = [folder.name for folder in store.folders()]
            if "Work" not in names:
                store.create("Work")
            assert contents(store.open("Work")) == {}


def test_settling(kill: Callable[..., Iterator[Any]]) -> None:
    """Closing the last session changes nothing that a client knows."""

    def act(store: AccountStore) -> None:
        inbox = inbox_of(store)
        inbox.change_flags([Uid(3)], flags(SEEN), StoreMode.ADD)
        while inbox.users:  # type: ignore[attr-defined]
            store.close(inbox)

    for came_back, before, store, after in kill(act, "INBOX"):
        assert after == before
        assert not came_back or inbox_of(store).messages[Uid(3)].flags == flags(SEEN)
