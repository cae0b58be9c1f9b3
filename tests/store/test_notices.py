"""Change notices: other programs' deliveries reach the listeners of open mailboxes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailserver.maillog import ListLog
from mailserver.store.contract import Mailbox
from mailserver.store.inotify import IN_CREATE, IN_DELETE, Inotify
from mailserver.store.notices import Notices
from mailserver.threads import Inline, WorkerThreads
from tests.reactor_loop import Loop, own_loop
from tests.store.contract_suite import FIRST, SECOND, append, contents
from tests.store.harness import FileHarness, MaildirHarness, MboxHarness


@pytest.fixture
def log() -> ListLog:
    return ListLog()


@pytest.fixture
def loop() -> Iterator[Loop]:
    with own_loop() as loop:
        yield loop


@pytest.fixture
def notices(loop: Loop, log: ListLog) -> Iterator[Notices]:
    threads = WorkerThreads(loop.reactor, 2)
    notices = Notices(loop.reactor, threads, log, interval=1e6)
    notices.start()
    yield notices
    notices.stop()
    threads.stop()


@pytest.fixture(params=[MaildirHarness, MboxHarness])
def harness(request: pytest.FixtureRequest, tmp_path: Path, notices: Notices) -> Iterator[FileHarness]:
    harness: FileHarness = request.param(tmp_path, watcher=notices)
    yield harness
    harness.registry.shut()


def listen(box: Mailbox) -> list[int]:
    heard: list[int] = []
    box.subscribe(lambda: heard.append(len(box.uids)))
    return heard


def settled(loop: Loop) -> None:
    """What was asked of the reactor so far is done."""
    done: list[bool] = []
    loop.reactor.callLater(0.15, done.append, True)
    assert loop.until(lambda: bool(done))


def test_a_delivery_by_others_is_heard(loop: Loop, harness: FileHarness) -> None:
    """IDLE announces mail that procmail or mail(1) delivered, with no poll. DESIGN decision 8."""
    harness.deliver(FIRST)  # type: ignore[attr-defined]
    box = harness.store.open("INBOX")
    settled(loop)
    heard = listen(box)
    harness.deliver(FIRST)  # type: ignore[attr-defined]
    assert loop.until(lambda: bool(heard))
    assert contents(box) == {1: FIRST, 2: FIRST}
    harness.deliver(FIRST)  # type: ignore[attr-defined]
    assert loop.until(lambda: heard[-1] == 3)


def test_closed_mailboxes_are_not_watched(loop: Loop, harness: FileHarness, notices: Notices) -> None:
    """The last session gone, nothing is refreshed any more; two sessions, one gone: still heard."""
    box = harness.store.open("INBOX")
    harness.store.close(harness.store.open("INBOX"))
    settled(loop)
    heard = listen(box)
    append(harness.store.open("INBOX"), FIRST)
    harness.store.close(box)
    settled(loop)
    assert heard and notices._watched
    harness.store.close(box)
    settled(loop)
    heard.clear()
    harness.deliver(SECOND)  # type: ignore[attr-defined]
    settled(loop)
    assert not heard
    notices._poll()  # until then the watches linger
    assert not notices._watched and not notices._on_path


def test_a_mailbox_opened_again_is_heard_of_at_once(
    loop: Loop, harness: FileHarness, notices: Notices
) -> None:
    """Lingering watches serve the next session, mail that came in between included."""
    harness.store.close(harness.store.open("INBOX"))
    settled(loop)
    harness.deliver(FIRST)  # type: ignore[attr-defined]
    settled(loop)
    box = harness.store.open("INBOX")
    settled(loop)
    assert len(box.uids) == 1
    heard = listen(box)
    harness.deliver(SECOND)  # type: ignore[attr-defined]
    assert loop.until(lambda: bool(heard) and heard[-1] == 2)


def test_nudge(loop: Loop, log: ListLog, tmp_path: Path) -> None:
    """What this process delivers is heard without inotify."""
    notices = Notices(loop.reactor, Inline(), log, interval=1e6)
    harness = MaildirHarness(tmp_path, watcher=notices)
    notices._watch_path = lambda path: True  # type: ignore[method-assign]
    box = harness.store.open("INBOX")
    settled(loop)
    heard = listen(box)
    harness.deliver(FIRST)
    assert not heard
    notices.nudge(str(harness.inbox_path) + "/")
    assert loop.until(lambda: heard == [1])
    harness.registry.shut()


def test_the_slow_poll_is_the_net(
    loop: Loop, log: ListLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No inotify: mail is found at the next poll, and chores are done."""

    def refuse(path: str) -> None:
        raise OSError(28, "No space left on device")  # too many watches

    notices = Notices(loop.reactor, Inline(), log, interval=0.2)
    notices.start()
    assert isinstance(notices._inotify, Inotify)
    monkeypatch.setattr(notices._inotify, "watch", refuse)
    chores: list[bool] = []
    notices.chores.append(lambda: chores.append(True))
    harness = MaildirHarness(tmp_path, watcher=notices)
    box = harness.store.open("INBOX")
    heard = listen(box)
    harness.deliver(FIRST)
    assert loop.until(lambda: bool(heard and chores))
    assert any("cannot watch" in text for _, text in log.lines)
    harness.registry.shut()
    notices.stop()


def test_a_replaced_file_is_watched_again(loop: Loop, tmp_path: Path, notices: Notices) -> None:
    """mutt rewrites an mbox by rename: the new file is watched."""
    harness = MboxHarness(tmp_path, watcher=notices)
    harness.deliver(FIRST)
    box = harness.store.open("INBOX")
    settled(loop)
    heard = listen(box)
    new = harness.inbox_path.with_name("new")
    new.write_bytes(harness.inbox_path.read_bytes())
    os.rename(new, harness.inbox_path)
    settled(loop)
    harness.deliver(FIRST)
    assert loop.until(lambda: bool(heard) and heard[-1] == 2)
    harness.registry.shut()


def test_the_first_mail_is_heard(loop: Loop, tmp_path: Path, notices: Notices) -> None:
    """A spool file that others make, or remove and make again, during IDLE: no poll is waited for."""
    harness = MboxHarness(tmp_path, watcher=notices)
    harness.inbox_path.unlink(missing_ok=True)
    box = harness.store.open("INBOX")
    settled(loop)
    heard = listen(box)
    harness.inbox_path.with_name("bob").touch()
    harness.deliver(FIRST)
    assert loop.until(lambda: heard[-1:] == [1])
    harness.inbox_path.unlink()
    assert loop.until(lambda: heard[-1:] == [0])
    harness.deliver(SECOND)
    assert loop.until(lambda: heard[-1:] == [1])
    harness.store.close(box)
    settled(loop)
    notices._poll()
    assert notices._inotify is not None and not notices._inotify._watches and not notices._inotify._expected
    harness.registry.shut()


def test_what_is_expected_is_seen_once(loop: Loop, tmp_path: Path) -> None:
    """Others' files in the directory are no news, nor is anything after it was ignored."""
    seen: list[str] = []
    watcher = Inotify(loop.reactor, lambda path, mask: seen.append(os.path.basename(path)))
    watcher.startReading()
    watcher.expect(str(tmp_path / "alice"))
    watcher.expect(str(tmp_path / "bob"))
    (tmp_path / "carol").touch()
    (tmp_path / "alice").touch()
    assert loop.until(lambda: "alice" in seen)
    watcher.ignore(str(tmp_path / "alice"))
    watcher.ignore(str(tmp_path / "bob"))
    (tmp_path / "bob").touch()
    settled(loop)
    assert "bob" not in seen and "carol" not in seen
    watcher.stop()


def test_a_deleted_watch_does_not_stop_the_rest(loop: Loop, tmp_path: Path) -> None:
    """twisted.internet.inotify closes itself when a watched directory is deleted; ours does not."""
    seen: list[str] = []
    watcher = Inotify(loop.reactor, lambda path, mask: seen.append(os.path.basename(path)))
    watcher.startReading()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        watcher.watch(str(tmp_path / name))
    (tmp_path / "one").rmdir()
    assert loop.until(lambda: "one" in seen)
    (tmp_path / "two" / "file").touch()
    assert loop.until(lambda: "two" in seen)
    watcher.ignore(str(tmp_path / "one"))
    watcher.ignore(str(tmp_path / "two"))
    with pytest.raises(FileNotFoundError):
        watcher.watch(str(tmp_path / "three"))
    watcher.stop()


@pytest.mark.parametrize("expected", [(), ("alice",)])
def test_a_burst_is_seen_as_one_with_all_that_it_held(
    loop: Loop, tmp_path: Path, expected: tuple[str, ...]
) -> None:
    """Arrivals among hundreds of removals are seen, and so is a file that was expected among them."""
    seen: dict[str, int] = {}
    watcher = Inotify(loop.reactor, lambda path, mask: seen.update({os.path.basename(path): mask}))
    (tmp_path / "box").mkdir()
    for number in range(300):
        (tmp_path / "box" / str(number)).touch()
    watcher.watch(str(tmp_path / "box"))
    for name in expected:
        watcher.expect(str(tmp_path / name))
    for number in range(300):
        (tmp_path / "box" / str(number)).unlink()
    (tmp_path / "box" / "new").touch()
    (tmp_path / "alice").touch()
    watcher.startReading()
    assert loop.until(lambda: seen.get("box", 0) & IN_CREATE and set(expected) <= seen.keys())
    assert seen["box"] & IN_DELETE
    watcher.stop()
