"""Postfix's own test programs at both ends: smtp-source(1) sends to us, and we relay to smtp-sink(1).

smtp-sink misbehaves at one command of the dialogue after the other. Mail that it did not take waits, and goes
to a better one that comes to the same place; mail that it refuses for good comes back.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailserver.commands import postqueue
from tests.end_to_end.server import DEADLINE, Server, free_ports, running, wait_for

pytestmark = pytest.mark.needs("smtp-source", "smtp-sink")

PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
SESSIONS, MESSAGES, OCTETS = 8, 80, 6000


@pytest.fixture(scope="module")
def sink_port() -> int:
    return free_ports(1)[0]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, sink_port: int) -> Iterator[Server]:
    settings = (
        f"relayhost = [127.0.0.1]:{sink_port}",
        "luser_relay = alice",
        "minimal_backoff_time = 1h",
        "maximal_backoff_time = 1h",
    )
    with running(tmp_path_factory.mktemp("source") / "home", "maildir", *settings) as server:
        yield server


def source(server: Server, *options: str) -> None:
    """smtp-source has sent, and every reply was as it should be."""
    target = f"127.0.0.1:{server.ports['smtp']}"
    done = subprocess.run(
        ["smtp-source", *options, target],
        env={"PATH": PATH},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert done.returncode == 0, done.stderr


@contextlib.contextmanager
def sink(directory: Path, port: int, *options: str) -> Iterator[Path]:
    """A running smtp-sink, and the directory in which it keeps each transaction's dump."""
    directory.mkdir()
    user = ["-u", "root"] if os.geteuid() == 0 else []
    process = subprocess.Popen(
        ["smtp-sink", *user, *options, "-d", f"{directory}/dump.", f"127.0.0.1:{port}", "100"],
        env={"PATH": PATH},
    )
    try:
        wait_for(lambda: answers(port), "smtp-sink")
        yield directory
    finally:
        process.kill()
        process.wait()


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def taken(dumps: Path, sender: str) -> list[str]:
    """The Message-IDs of that sender's messages that the sink has kept, in no order."""
    texts = [path.read_text("latin-1") for path in dumps.iterdir()]
    found = [
        re.search(r"^Message-Id: <(.*)>$", text, re.MULTILINE) for text in texts if f"<{sender}>" in text
    ]
    return [match[1] for match in found if match]


def queue_ids(server: Server, sender: str) -> set[str]:
    """The messages of that sender that were in the queue."""
    return set(re.findall(rf"(\w+): from=<{re.escape(sender)}>, size=", server.log_text()))


def logged(server: Server, ids: set[str], what: str) -> set[str]:
    """Those of the messages about which the log has such a line."""
    return {each for each in ids if re.search(rf" {each}: {what}", server.log_text())}


@pytest.mark.parametrize("options", [(), ("-d",), ("-N",), ("-r", "3")], ids=lambda options: "".join(options))
def test_from_many_sessions(server: Server, options: tuple[str, ...]) -> None:
    """New and kept connections, recipients that nobody knows and luser_relay gathers: a copy for each."""
    new = server.inbox("alice") / "new"

    def arrived() -> int:
        return sum(path.stat().st_size > OCTETS for path in new.iterdir())

    sizes = ("-s", str(SESSIONS), "-m", str(MESSAGES), "-l", str(OCTETS))
    expected = arrived() + MESSAGES * (3 if "-r" in options else 1)
    source(server, *options, *sizes, "-f", "a@example.net", "-t", "everybody@example.org")
    wait_for(lambda: arrived() == expected, f"{expected} messages in {new}")


@pytest.mark.parametrize("stage", ["connect", "ehlo,helo", "mail", "rcpt", "data", ".", "quit"])
@pytest.mark.parametrize("kind", ["-q", "-Q", "-r"])
def test_a_sink_that_is_not_well(
    server: Server, sink_port: int, tmp_path: Path, kind: str, stage: str
) -> None:
    """It hangs up, does so with 421, or says 4xx: nothing is lost, and nothing sent again that it had taken.

    RFC 5321 §4.2.1, §4.5.4.1.
    """
    sender = f"{stage.partition(',')[0].replace('.', 'dot')}{kind}@example.net"
    with sink(tmp_path / "bad", sink_port, kind, stage) as bad:
        source(server, "-s", "2", "-m", "4", "-l", "2000", "-f", sender, "-t", "b@example.com")
        wait_for(lambda: len(queue_ids(server, sender)) == 4, "four messages")
        ids = queue_ids(server, sender)
        wait_for(lambda: logged(server, ids, "to=.* status=") == ids, "every attempt to end")
        sent = logged(server, ids, "to=.* status=sent ")
        first = taken(bad, sender)
    assert sent == (ids if stage == "quit" else set())
    with sink(tmp_path / "good", sink_port) as good:
        assert postqueue.main(["-c", str(server.directory), "-f"]) == 0
        wait_for(lambda: logged(server, ids, "removed") == ids, "an empty queue")
        second = taken(good, sender)
    arrived = first + second if stage == "quit" else second
    assert len(arrived) == len(set(arrived)) == 4


@pytest.mark.parametrize("stage", ["rcpt", "data", "."])
def test_a_sink_that_refuses(server: Server, sink_port: int, tmp_path: Path, stage: str) -> None:
    """5xx is final: each sender hears of it. RFC 3464."""
    sender = f"bob+{stage.replace('.', 'dot')}@example.org"
    inbox = server.inbox("bob") / "new"
    before = len(list(inbox.iterdir())) if inbox.exists() else 0
    with sink(tmp_path / "sink", sink_port, "-f", stage):
        source(server, "-s", "2", "-m", "4", "-f", sender, "-t", "b@example.com")
        wait_for(lambda: inbox.exists() and len(list(inbox.iterdir())) == before + 4, "four notifications")
    ids = queue_ids(server, sender)
    assert logged(server, ids, "to=.* status=bounced ") == ids == logged(server, ids, "removed")


@pytest.mark.parametrize("options", ["-8", "-e", "-E", "-p", "-N", "-a -C -F", "-P", "-w 1"])
def test_a_sink_that_can_do_less(server: Server, sink_port: int, tmp_path: Path, options: str) -> None:
    """Without 8BITMIME, ESMTP, enhanced codes, PIPELINING or DSN; behind a PIX; slow: all arrive, once."""
    sender = f"x{options.replace(' ', '')}@example.net"
    with sink(tmp_path / "sink", sink_port, *options.split()) as dumps:
        source(server, "-s", "2", "-m", "4", "-l", "2000", "-f", sender, "-t", "b@example.com")
        wait_for(lambda: len(queue_ids(server, sender)) == 4, "four messages")
        ids = queue_ids(server, sender)
        wait_for(lambda: logged(server, ids, "removed") == ids, "an empty queue")
        arrived = taken(dumps, sender)
    assert len(arrived) == len(set(arrived)) == 4
