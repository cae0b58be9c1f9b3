"""SIGKILL of everything at random moments under load, ours beside Debian's Postfix. RELIABILITY F01.

The clients note an id when they have read its 250. At the end: acknowledged minus found is empty, and nobody
has more than two copies. The reference run is held to nothing; it stands in the table.
"""

from __future__ import annotations

import random
import smtplib
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.end_to_end.server import wait_for
from tests.faults.host import Host, Ours, Postfix, Sender

SENDERS = 6
HOSTS = {"mailserver": Ours, "Postfix": Postfix}


@pytest.fixture
def directory() -> Iterator[Path]:
    """One that every user may enter, since local(8) of Postfix delivers as them."""
    with tempfile.TemporaryDirectory(prefix="kills-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def load(host: Host, round_: int, acknowledged: list[str], stop: threading.Event) -> list[threading.Thread]:
    """Senders at work until they are told to stop; the host may go away."""

    def work(number: int) -> None:
        sender = Sender(host, f"kill.{round_}.{number}", acknowledged)
        while not stop.is_set():
            try:
                sender.send()
            except (OSError, smtplib.SMTPException):
                stop.wait(0.01)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(SENDERS)]
    for thread in threads:
        thread.start()
    return threads


@pytest.mark.timeout(1800)
@pytest.mark.needs("root", "postfix")
@pytest.mark.parametrize("mail_format", ["mbox", "maildir"])
@pytest.mark.parametrize("name", HOSTS)
def test_killed_under_load(
    directory: Path,
    name: str,
    mail_format: str,
    chance: random.Random,
    thorough: bool,
    verdict: Callable[[str], None],
) -> None:
    """F01: P1, P2 and P3 hold, it accepts again at once, and no mailbox stays locked."""
    if name == "Postfix" and not thorough:
        return  # the reference, not what is tested
    kills = 100 if thorough else 5
    host = HOSTS[name](directory, mail_format)
    acknowledged: list[str] = []
    slowest = 0.0
    for round_ in range(kills):
        before = time.monotonic()
        host.start()
        slowest = max(slowest, time.monotonic() - before)
        stop = threading.Event()
        threads = load(host, round_, acknowledged, stop)
        target = len(acknowledged) + 10
        wait_for(lambda target=target: len(acknowledged) >= target, "messages to be taken")
        time.sleep(chance.uniform(0, 0.5))
        host.kill()
        stop.set()
        for thread in threads:
            thread.join()
    host.start()
    is_ours = name == "mailserver"
    try:
        patience = 120.0 if is_ours else 30.0
        deadline = time.monotonic() + patience
        while set(acknowledged) - set(host.arrived()) and time.monotonic() < deadline:
            time.sleep(0.5)
        late = len(set(acknowledged) - set(host.arrived()))
        found = host.found()
    finally:
        host.stop()
    lost = len(set(acknowledged) - set(found))
    copies = Counter(host.arrived().values())
    verdict(
        f"{kills} kills, {len(acknowledged)} acknowledged, {lost} lost, "
        f"{sum(count for times, count in copies.items() if times > 1)} twice, at most {max(copies)} copies, "
        f"{late} still locked out after {patience:.0f} s, up again in {slowest:.1f} s"
    )
    if is_ours:
        assert lost == 0 and late == 0
        assert max(copies) <= 2
