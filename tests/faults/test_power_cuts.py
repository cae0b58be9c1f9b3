"""The power goes: what was acknowledged is on the disk, and no UID has moved. RELIABILITY F06 to F08.

At the moment of the answer the disk's image is copied and mounted as at the next boot (`tests.faults.disk`).
"""

from __future__ import annotations

import os
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.end_to_end.server import wait_for
from tests.faults.disk import Disk, after_the_cut, make_image, powered, standing_still
from tests.faults.host import Host, Ours, Postfix, Sender
from tests.faults.strace import CHANGING_CALLS, KILLED, inject
from tests.faults.test_system_calls import ACTS, NAMES, check_act, chosen, deliver
from tests.store.harness import FileHarness
from tests.store.test_kill_points import HARNESSES, View, prepare, see

pytestmark = pytest.mark.needs("root", "mount", "mkfs.ext4", "strace")


@pytest.fixture
def disk() -> Iterator[Disk]:
    with tempfile.TemporaryDirectory(prefix="power-") as name:
        Path(name).chmod(0o755)  # for Postfix's users
        with powered(make_image(Path(name) / "disk.img")) as disk:
            yield disk


HOSTS = {"mailserver": Ours, "Postfix": Postfix}


def cut_and_look(disk: Disk, host: Host, image: Path) -> Counter[str]:
    """The ids on the disk after a cut while the host is at work."""
    with standing_still(host.group):
        disk.cut(image)
    with after_the_cut(image) as path:
        return host.elsewhere(path).found()


@contextmanager
def started(host: Host) -> Iterator[Host]:
    """The host runs, and its configuration is on the disk."""
    host.start()
    os.sync()
    try:
        yield host
    finally:
        host.stop()


@pytest.mark.timeout(600)
@pytest.mark.needs("postfix")
@pytest.mark.parametrize("mail_format", ["mbox", "maildir"])
@pytest.mark.parametrize("moment", ["250", "status=sent"])
@pytest.mark.parametrize("name", HOSTS)
def test_at_the_moment_of_an_answer(
    disk: Disk,
    tmp_path: Path,
    name: str,
    mail_format: str,
    moment: str,
    thorough: bool,
    verdict: Callable[[str], None],
) -> None:
    """F06, F07: after 250, after status=sent: it is in the queue or the mailbox, twice at most."""
    if name == "Postfix" and not thorough:
        return  # the reference, not what is tested
    cuts = 100 if thorough else 5
    disk.path.chmod(0o755)
    with started(HOSTS[name](disk.path, mail_format)) as host:
        acknowledged: list[str] = []
        sender = Sender(host, "cut", acknowledged)
        missing: set[str] = set()
        most = 0
        for number in range(cuts):
            sender.send()
            if moment == "status=sent":
                wait_for(lambda: host.log_text().count("status=sent") >= len(acknowledged), "delivery")
            found = cut_and_look(disk, host, tmp_path / f"{number}.img")
            missing |= set(acknowledged) - set(found)
            most = max(most, *found.values())
    verdict(f"{cuts} cuts, {cuts} acknowledged, {len(missing)} missing, at most {most} copies")
    assert name == "Postfix" or (not missing and most <= 2)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mail_format", ["mbox", "maildir"])
def test_a_server_goes_on_after_the_cut(disk: Disk, mail_format: str) -> None:
    """F06: the next boot's server starts by itself, and delivers what only the queue had."""
    host = Ours(disk.path, mail_format)
    host.start()
    os.sync()
    acknowledged: list[str] = []
    sender = Sender(host, "cut", acknowledged)
    for _ in range(5):
        sender.send()
    with standing_still(host.group):
        image = disk.cut(disk.path.with_name("cut.img"))  # where the server's user can reach it
    host.kill()
    with after_the_cut(image) as path, started(host.elsewhere(path)) as again:
        wait_for(lambda: set(acknowledged) <= set(again.arrived()), "the mail")
        wait_for(lambda: not again.waiting(), "the queue to be empty", 15)
        assert max(again.arrived().values()) <= 2


def look_after(image: Path, kind: str, name: str, before: View, is_done: bool) -> None:
    """The store works on what the cut left, and has what RELIABILITY P1, P2 and P6 ask."""
    with after_the_cut(image) as path:
        harness = HARNESSES[kind](path)
        harness.registry.shut()
        check_act(name, before, harness, is_done)


@pytest.fixture
def account(disk: Disk, kind: str) -> tuple[FileHarness, View]:
    harness = prepare(disk.path, kind)
    before = see(harness.store, *NAMES)
    harness.registry.shut()
    os.sync()
    return harness, before


@pytest.mark.parametrize("name", ACTS)
@pytest.mark.parametrize("kind", ["maildir", "mbox"])
def test_at_the_moment_of_ok(
    disk: Disk, account: tuple[FileHarness, View], tmp_path: Path, kind: str, name: str
) -> None:
    """F08: at OK of APPEND, COPY, MOVE, STORE, EXPUNGE, RENAME, and at +OK of QUIT: it is done."""
    harness, before = account
    ACTS[name][0](harness.crash())
    image = disk.cut(tmp_path / "cut.img")
    harness.registry.shut()
    look_after(image, kind, name, before, is_done=True)


@pytest.mark.parametrize("kind", ["maildir", "mbox"])
def test_at_the_end_of_a_delivery(
    disk: Disk, account: tuple[FileHarness, View], tmp_path: Path, kind: str
) -> None:
    """F07: the queue file goes only when the mailbox has the message for good."""
    harness, _ = account
    deliver(str(harness.inbox_path) + "/" * (kind == "maildir"), disk.path, 7)
    with after_the_cut(disk.cut(tmp_path / "cut.img")) as path:
        after = HARNESSES[kind](path)
        box = after.store.open("INBOX")
        assert any(b"X-Test-Id: 7\r\n" in box.read(uid) for uid in list(box.uids))
        after.registry.shut()


@pytest.mark.parametrize("name", ACTS)
@pytest.mark.parametrize("kind", ["maildir", "mbox"])
def test_state_on_another_disk(tmp_path: Path, kind: str, name: str) -> None:
    """F08: as above where no commit of state.db writes the journal of the mail's disk."""
    with ExitStack() as stack:
        mail = stack.enter_context(powered(make_image(tmp_path / "mail.img")))
        state = stack.enter_context(powered(make_image(tmp_path / "state.img"), mail.path / "state"))
        harness = prepare(mail.path, kind)
        before = see(harness.store, *NAMES)
        harness.registry.shut()
        os.sync()
        ACTS[name][0](harness.crash())
        images = mail.cut(tmp_path / "mail-cut.img"), state.cut(tmp_path / "state-cut.img")
        harness.registry.shut()
    with ExitStack() as stack:
        path = stack.enter_context(after_the_cut(images[0]))
        stack.enter_context(after_the_cut(images[1], path / "state"))
        harness = HARNESSES[kind](path)
        harness.registry.shut()
        check_act(name, before, harness, is_done=True)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ACTS)
@pytest.mark.parametrize("kind", ["maildir", "mbox"])
def test_in_the_midst_of_it(
    disk: Disk,
    account: tuple[FileHarness, View],
    tmp_path: Path,
    kind: str,
    name: str,
    chance: random.Random,
    thorough: bool,
    verdict: Callable[[str], None],
) -> None:
    """F08: before the N-th call of a kind: done or not, never in part, and earlier mail as it was."""
    _, before = account
    cuts = 0
    for call, numbers in chosen(thorough, chance, CHANGING_CALLS):
        for number in numbers:
            with powered(disk.cut(tmp_path / "run.img")) as running_disk:
                harness = HARNESSES[kind](running_disk.path)
                harness.registry.shut()

                def act(harness: FileHarness = harness) -> None:
                    ACTS[name][0](harness.crash())

                status, struck = inject(tmp_path, call, f"signal=KILL:when={number}", act)
                image = running_disk.cut(tmp_path / "cut.img")
            assert status in (0, KILLED), (call, number)
            look_after(image, kind, name, before, status == 0)
            if not struck:
                break
            cuts += 1
    verdict(f"{cuts} cuts, nothing lost")
