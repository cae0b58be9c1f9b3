"""What the benchmarks' figures rest on: clients that find the ends of answers, and processor time."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from threading import Thread

import pytest

from benchmarks.clients import ImapClient
from benchmarks.measure import Sample, Workload
from benchmarks.messages import fill_maildir, fill_mbox, message, messages
from benchmarks.processes import memory, processor_seconds, tree
from benchmarks.report import Row, cells


def _talk(listener: socket.socket, answers: list[bytes]) -> None:
    with listener.accept()[0] as client:
        client.sendall(b"* OK ready\r\n")
        for answer in answers:
            client.recv(1000)
            for octet in answer:
                client.sendall(bytes([octet]))


def test_imap_answers_end_with_their_tagged_line() -> None:
    """A tag inside the answer is not its end; NO is an error."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        answers = [
            b"* 1 FETCH (BODY[] {12}\r\nx0001 OK no\r\n)\r\nx0001 OK done\r\n",
            b"x0002 NO failed\r\n",
        ]
        server = Thread(target=_talk, args=(listener, answers))
        server.start()
        client = ImapClient(listener.getsockname()[1])
        assert client.command("FETCH 1 BODY[]") == answers[0]
        with pytest.raises(ConnectionError, match="failed"):
            client.command("NOOP")
        client.close()
        server.join()


def test_processor_time_includes_children_that_ended() -> None:
    """Time that a worker spent is its parent's when it is gone."""
    burn = "import time\nwhile time.process_time() < 0.2: pass"
    program = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {burn!r}])\nprint()\ninput()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stdin is not None
        process.stdout.readline()
        assert list(tree([process.pid])) == [process.pid]
        # The kernel counts in ticks, so that a little of what was spent may be missing.
        assert processor_seconds([process.pid]) > 0.1
        assert memory([process.pid]) > 1 << 20
        process.stdin.write(b"\n")
    assert processor_seconds([process.pid]) == 0


def test_both_formats_hold_the_same_messages(tmp_path: Path) -> None:
    """Every server and format is measured on the same mail."""
    fill_mbox(tmp_path / "mbox", messages(5))
    fill_maildir(tmp_path / "maildir", messages(5))
    files = sorted((tmp_path / "maildir" / "cur").iterdir(), key=os.path.getmtime)
    assert [file.read_bytes() for file in files] == [message(number) for number in range(5)]
    assert (tmp_path / "mbox").read_bytes().count(b"\nMessage-ID: <") == 5


@pytest.mark.parametrize(
    ("smaller_is_better", "ours", "peers", "ratio"),
    [(False, 30.0, 10.0, "3.00"), (True, 5.0, 10.0, "2.00"), (False, 1.0, None, "-")],
)
def test_a_ratio_above_one_is_better(
    smaller_is_better: bool, ours: float, peers: float | None, ratio: str
) -> None:
    """Whatever is measured; without a peer there is none."""
    workload = Workload("w", "workload", lambda server: Sample(), 2.0, smaller_is_better)
    row = Row(workload, "mbox", Sample(figure=ours), Sample(figure=peers) if peers is not None else None)
    assert cells(row)[6] == ratio
    assert cells(row)[7] == ("0.5" if smaller_is_better else "2")
