"""The queue as operators' commands show it: one value for each message, in the form of `postqueue -j`.

    {"queue_name": "deferred", "queue_id": "A395322E2FF", "arrival_time": 1795486924,
     "message_size": 262, "forced_expire": false, "sender": "a@example.com",
     "recipients": [{"address": "b@example.net", "delay_reason": "connect to …"}]}

Only recipients that still wait are listed. A message that somebody works on is in `active`,
although that is no directory. The null sender is MAILER-DAEMON. postqueue(1), showq(8).
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Callable, Iterator
from typing import Any, Final

from mailserver.queue import drop_file
from mailserver.queue.directory import Listed, QueueDirectory, State
from mailserver.queue.progress import Progress
from mailserver.queue.record import Damaged

_NULL_SENDER: Final = "MAILER-DAEMON"
_STATES: Final = (State.INCOMING, State.DEFERRED, State.HOLD)
_READ: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def entries(queue: QueueDirectory) -> Iterator[dict[str, Any]]:
    """Every message of the queue: maildrop, incoming, deferred, hold. *Blocking.* Raises OSError."""
    yield from drops(queue)
    for listed in queue.listing(_STATES):
        with contextlib.suppress(Damaged):
            yield describe(listed)


def lines(queue: QueueDirectory) -> Iterator[str]:
    """The same, each as a line of JSON with its line end."""
    for entry in entries(queue):
        yield json.dumps(entry) + "\n"


def describe(listed: Listed) -> dict[str, Any]:
    """The values of one message, whose file is closed then. Raises Damaged."""
    message = listed.message
    message.close()
    progress = Progress(message.accepted, message.records)
    sender = message.accepted.envelope.sender
    return {
        "queue_name": "active" if listed.is_active else listed.state.value,
        "queue_id": message.queue_id,
        "arrival_time": int(message.accepted.arrival),
        "message_size": message.content_length,
        "forced_expire": progress.is_forced_to_expire,
        "sender": _NULL_SENDER if sender is None else str(sender),
        "recipients": [_recipient(progress, leaf) for leaf in progress.open_leaves()],
    }


def _recipient(progress: Progress, leaf: int) -> dict[str, str]:
    found = {"address": str(progress.leaves[leaf].recipient)}
    outcome = progress.outcomes[leaf]
    if outcome is not None and outcome.text:
        found["delay_reason"] = outcome.text
    return found


def drops(queue: QueueDirectory) -> Iterator[dict[str, Any]]:
    """What waits in maildrop for the server, as far as it can be read. Raises OSError."""
    directory = f"{queue.path}/{State.MAILDROP.value}"
    for name in sorted(os.listdir(directory)):
        with contextlib.suppress(OSError, drop_file.Malformed):
            found = _describe_drop(f"{directory}/{name}", name)
            if found is not None:
                yield found


def _describe_drop(path: str, name: str) -> dict[str, Any] | None:
    with open(os.open(path, _READ), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or not status.st_mode & stat.S_IXUSR:
            return None
        line = file.readline(drop_file.LONGEST_FIRST_LINE)
        octets, size, _ = drop_file.decode_first_line(line)
        fields = drop_file.decode_envelope(file.read(octets))
    texts = [(key, value.decode("utf-8", "replace")) for key, value in fields]
    return {
        "queue_name": State.MAILDROP.value,
        "queue_id": name,
        "arrival_time": int(status.st_mtime),
        "message_size": size,
        "forced_expire": False,
        "sender": next((value for key, value in texts if key == b"sender"), "") or _NULL_SENDER,
        "recipients": [{"address": value} for key, value in texts if key == b"recipient"],
    }


def waiting_for(queue: QueueDirectory, wanted: Callable[[str], bool]) -> list[str]:
    """The ids of deferred messages with a recipient whose domain is wanted. *Blocking.* Raises OSError."""
    found = []
    for listed in queue.listing((State.DEFERRED,)):
        with contextlib.suppress(Damaged):
            entry = describe(listed)
            if any(wanted(each["address"].rpartition("@")[2]) for each in entry["recipients"]):
                found.append(listed.message.queue_id)
    return found
