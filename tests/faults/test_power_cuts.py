"""The power goes: what was acknowledged is on the disk, and no UID has moved. RELIABILITY F06 to F08.

At the moment of the answer the disk's image is copied and mounted as at the next boot (`tests.faults.disk`).
"""

from __future__ import annotations

import mailbox
import os
import random
import re
import signal
import smtplib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from mailserver.queue.directory import MESSAGE_STATES, QueueDirectory
from tests.end_to_end.server import Server, running, wait_for
from tests.faults.disk import Disk, after_the_cut, make_image, powered, standing_still
from tests.faults.strace import CHANGING_CALLS, KILLED, inject
from tests.faults.test_everybody import message
from tests.faults.test_system_calls import ACTS, NAMES, check_act, chosen, deliver
from tests.store.harness import FileHarness
from tests.store.test_kill_points import HARNESSES, View, prepare, see

pytestmark = pytest.mark.needs("root", "mount", "mkfs.ext4", "strace")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with powered(make_image(tmp_path / "disk.img")) as disk:
        yield disk


def queued(home: Path) -> list[str]:
    """The ids in the queue of a host, after the scan that a start makes."""
    queue = QueueDirectory(str(home / "queue"))
    queue.scan()
    contents = [each.message.read_content() for each in queue.listing(MESSAGE_STATES)]
    return [word for content in contents for word in re.findall(r"X-Test-Id: (\S+)", content.decode())]


def delivered(home: Path, mail_format: str) -> list[str]:
    """The ids in alice's INBOX, as any program reads it."""
    path = home / "spool" / "mail" / "alice"
    box: mailbox.Mailbox[mailbox.Message] = (
        mailbox.mbox(path, create=False) if mail_format == "mbox" else mailbox.Maildir(path, create=False)
    )
    return [str(each["X-Test-Id"]) for each in box if each["X-Test-Id"]]


class Sender:
    """Sends alice a message at a time; what was acknowledged."""

    def __init__(self, server: Server) -> None:
        self._client = smtplib.SMTP("127.0.0.1", server.ports["smtp"], timeout=60)
        self.acknowledged: list[str] = []

    def send(self) -> None:
        """The answer 250 was just read."""
        name = f"cut{len(self.acknowledged):04}"
        self._client.sendmail("carol@example.net", ["alice@example.org"], message(name))
        self.acknowledged.append(name)


def cut_and_look(disk: Disk, server: Server, image: Path, mail_format: str) -> Counter[str]:
    """The ids on the disk after a cut while the server is at work."""
    assert server.process is not None
    with standing_still(server.process.pid):
        disk.cut(image)
    with after_the_cut(image) as path:
        home = path / server.directory.name
        return Counter(delivered(home, mail_format)) + Counter(queued(home))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mail_format", ["mbox", "maildir"])
@pytest.mark.parametrize("moment", ["250", "status=sent"])
def test_at_the_moment_of_an_answer(
    disk: Disk,
    tmp_path: Path,
    mail_format: str,
    moment: str,
    thorough: bool,
    verdict: Callable[[str], None],
) -> None:
    """F06, F07: after 250, and after status=sent, each message is in the queue or the mailbox; two copies at most."""
    cuts = 200 if thorough else 5
    with running(disk.path / "home", mail_format) as server:
        os.sync()  # the configuration
        sender = Sender(server)
        for number in range(cuts):
            sender.send()
            if moment == "status=sent":
                wait_for(
                    lambda: server.log_text().count("status=sent") >= len(sender.acknowledged), "delivery"
                )
            found = cut_and_look(disk, server, tmp_path / f"{number}.img", mail_format)
            assert not set(sender.acknowledged) - set(found)
            assert max(found.values()) <= 2
    verdict(f"{cuts} cuts, {cuts} acknowledged, nothing missing, file systems clean")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mail_format", ["mbox", "maildir"])
def test_a_server_goes_on_after_the_cut(disk: Disk, tmp_path: Path, mail_format: str) -> None:
    """F06: the next boot's server starts by itself, and delivers what only the queue had."""
    with running(disk.path / "home", mail_format) as server:
        os.sync()  # the configuration
        sender = Sender(server)
        for _ in range(5):
            sender.send()
        assert server.process is not None
        with standing_still(server.process.pid):
            image = disk.cut(tmp_path / "cut.img")
        server.stop(signal.SIGKILL)
    with after_the_cut(image) as path:
        again = Server.__new__(Server)
        again.__dict__.update(server.__dict__, directory=path / "home", log=tmp_path / "again.log")
        again.start()
        try:
            wanted = set(sender.acknowledged)
            wait_for(lambda: wanted <= set(delivered(path / "home", mail_format)), "the mail")
            wait_for(lambda: not queued(path / "home"), "the queue to be empty", 10)
        finally:
            again.stop()
        assert max(Counter(delivered(path / "home", mail_format)).values()) <= 2


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
