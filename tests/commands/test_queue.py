"""mailserver queue: the listing for people, live, and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mailserver.commands.main import main
from mailserver.commands.queue import age, lines, summary, watch
from mailserver.commands.queue_access import open_queue
from mailserver.queue.directory import QueueDirectory, State
from tests.queue.world import envelope

NOW = 1_795_000_000.0


def entry(queue_id: str, queue: str, waited: float, *recipients: tuple[str, str]) -> dict[str, object]:
    return {
        "queue_name": queue,
        "queue_id": queue_id,
        "arrival_time": NOW - waited,
        "message_size": 2048,
        "forced_expire": False,
        "sender": "s@x",
        "recipients": [{"address": a, **({"delay_reason": r} if r else {})} for a, r in recipients],
    }


def test_lines() -> None:
    """The oldest first, reasons with how many recipients they hold up, long lists cut."""
    many = [(f"r{number}@x", "full" if number else "down") for number in range(5)]
    shown = list(lines([entry("B2", "hold", 5, ("a@b", "")), entry("A1", "deferred", 7200, *many)], NOW))
    assert shown == [
        "2 messages (1 deferred, 1 hold), 4 KiB",
        "A1  deferred    2h      2048  s@x -> r0@x, r1@x, r2@x and 2 more",
        "    full  (4 recipients)",
        "    down",
        "B2  hold        5s      2048  s@x -> a@b",
    ]
    assert list(lines([], NOW)) == ["the queue is empty"] and summary([]) == "the queue is empty"
    assert "\x1b" in next(lines([], NOW, has_colours=True))


@pytest.mark.parametrize(
    ("seconds", "text"), [(-3, "0s"), (59, "59s"), (60, "1m"), (7199, "1h"), (200_000, "2d")]
)
def test_ages(seconds: float, text: str) -> None:
    """The largest unit."""
    assert age(seconds) == text


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "main.cf").write_text("queue_directory = $config_directory/queue\n")
    (tmp_path / "master.cf").write_text("")
    queue = QueueDirectory(str(tmp_path / "queue"))
    queue.prepare()
    message = queue.create(envelope("bob@example.org"))
    message.write(b"Subject: x\n\nx\n")
    committed = message.commit()
    queue.move(committed, State.DEFERRED)
    committed.close()
    return tmp_path


def test_json(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All messages, or those that are named."""
    assert main(["-c", str(home), "queue", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["recipients"] == [{"address": "bob@example.org"}]
    assert main(["-c", str(home), "queue", "list", found["queue_id"]]) == 0
    assert found["queue_id"] in capsys.readouterr().out
    assert main(["-c", str(home), "queue", "list", "FFFFFFFFFFF"]) == 1
    assert "no such message" in capsys.readouterr().err


def test_flush(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A message that there is not is named; where no server runs nothing can be delivered."""
    assert main(["-c", str(home), "queue", "flush", "FFFFFFFFFFF"]) == 1
    assert "FFFFFFFFFFF: no such message" in capsys.readouterr().err
    assert main(["-c", str(home), "queue", "flush"]) == 69


def test_watch(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is shown again and again, until it is interrupted."""
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        watch(open_queue(str(home)), [], 0.5, pause)
    assert pauses == [0.5] * 3
    assert capsys.readouterr().out.count("1 message (1 deferred), 0 KiB") == 3
