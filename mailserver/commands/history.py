"""Everything that happened to one message: its lines of the mail log, what came of it, and where it is now.

A forwarded copy and a notification are messages of their own; their histories follow, indented.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from mailserver.commands import log_lines
from mailserver.commands.log_lines import Line
from mailserver.queue import listing
from mailserver.queue.directory import MESSAGE_STATES, QueueDirectory
from mailserver.queue.identity import is_queue_id

_NEXT: Final = re.compile(r"(?:forwarded as |notification: )([0-9A-Za-z]+)")
DEEPEST: Final = 20


@dataclass(frozen=True, slots=True)
class History:
    """One message. `waiting` is its entry of the queue's listing, None where it has left."""

    queue_id: str
    lines: tuple[Line, ...]
    waiting: dict[str, Any] | None
    next_attempt: float
    followers: tuple[History, ...]


def is_message(text: str) -> bool:
    """Whether the text is a queue id or a Message-ID in angle brackets, and no address."""
    return is_queue_id(text) or (text.startswith("<") and text.endswith(">"))


def queue_ids(text: str, logs: list[str]) -> list[str]:
    """The queue ids of that queue id or Message-ID, oldest first."""
    if is_queue_id(text):
        return [text]
    field = f"message-id={text}"
    found = (line.queue_id for line in log_lines.read(logs, field.encode()) if line.text == field)
    return [queue_id for queue_id in dict.fromkeys(found) if queue_id]


def history(queue_id: str, logs: list[str], queue: QueueDirectory, depth: int = 0) -> History | None:
    """The message's history; None where neither log nor queue knows it. Raises CommandError."""
    lines = tuple(line for line in log_lines.read(logs, queue_id.encode()) if line.queue_id == queue_id)
    waiting, next_attempt = _look(queue_id, queue)
    if not lines and waiting is None:
        return None
    named = dict.fromkeys(match for line in lines for match in _NEXT.findall(line.text))
    followers = (
        [history(each, logs, queue, depth + 1) for each in named if is_queue_id(each) and each != queue_id]
        if depth < DEEPEST
        else []
    )
    return History(queue_id, lines, waiting, next_attempt, tuple(each for each in followers if each))


def _look(queue_id: str, queue: QueueDirectory) -> tuple[dict[str, Any] | None, float]:
    for state in MESSAGE_STATES:
        listed = queue.look(queue_id, state)
        if listed is not None:
            next_attempt = os.fstat(listed.message.descriptor).st_mtime
            return listing.describe(listed), next_attempt
    return None, 0.0


def as_lines(of: History, indent: str = "") -> Iterator[str]:
    """The history for people."""
    yield f"{indent}{of.queue_id}"
    for line in of.lines:
        yield f"{indent}  {line.when}  {line.service:8} {line.text}"
    if of.waiting is not None:
        yield from (f"{indent}  {text}" for text in _waiting_lines(of.waiting, of.next_attempt))
    for follower in of.followers:
        yield from as_lines(follower, f"{indent}    ")


def _waiting_lines(waiting: dict[str, Any], next_attempt: float) -> Iterator[str]:
    state = waiting["queue_name"]
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(next_attempt))
    yield f"now in {state}" + (f", next attempt {when}" if state == "deferred" else "")
    for recipient in waiting["recipients"]:
        reason = recipient.get("delay_reason", "")
        yield f"  {recipient['address']} waits" + (f": {reason}" if reason else "")


def as_values(of: History) -> dict[str, Any]:
    """The history for programs, ready for json.dumps."""
    return {
        "queue_id": of.queue_id,
        "log": [{"time": line.when, "service": line.service, "text": line.text} for line in of.lines],
        "queue": of.waiting,
        "next_attempt": int(of.next_attempt) or None,
        "followers": [as_values(follower) for follower in of.followers],
    }
