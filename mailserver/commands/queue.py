"""`mailserver queue`: what waits and why, once or live; deliver it now.

The plain listing has a line for each message; `mailq` and `postqueue -p` print Postfix's. For what
changes messages see `postsuper`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from mailserver.commands.errors import CommandError
from mailserver.commands.queue_access import QueueAccess, open_queue

Entry = Mapping[str, Any]

_EXAMPLES: Final = """\
examples:
  mailserver queue                 what waits, and why
  mailserver queue --watch         the same, live; Ctrl-C ends it
  mailserver queue --json | jq -r '.[].queue_id'
  mailserver queue flush           deliver everything now
  mailserver queue flush A395322E2FF
"""
_QUEUES: Final = ("active", "incoming", "deferred", "hold", "maildrop")
_UNITS: Final = ((86_400, "d"), (3600, "h"), (60, "m"))
_CLEAR: Final = "\x1b[H\x1b[2J"
_BOLD: Final = "\x1b[1m"
_PLAIN: Final = "\x1b[0m"


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of `mailserver queue`."""
    parser = subparsers.add_parser(
        "queue",
        help="show the queue, once or live, or deliver it now",
        description="Show what waits in the queue and why, or deliver it now.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("action", nargs="?", choices=("list", "flush"), default="list")
    parser.add_argument("queue_ids", nargs="*", metavar="QUEUE-ID", help="only these messages")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--watch", action="store_true", help="show it again and again")
    parser.add_argument("--interval", type=float, default=2.0, help="seconds between two views (default: 2)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """The queue is shown or flushed. Raises CommandError."""
    access = open_queue(arguments.config_directory)
    if arguments.action == "flush":
        if not arguments.queue_ids:
            access.flush()
            return 0
        for entry in _wanted(access, arguments.queue_ids):
            access.flush_id(entry["queue_id"])
        return 0
    if arguments.watch:
        return watch(access, arguments.queue_ids, arguments.interval)
    found = _wanted(access, arguments.queue_ids)
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        print("\n".join(lines(found, time.time())))
    return 0


def _wanted(access: QueueAccess, queue_ids: Sequence[str]) -> list[Entry]:
    found, was_asked = access.entries()
    if not was_asked:
        print("mailserver queue: the server does not run; read from the files", file=sys.stderr)
    missing = set(queue_ids) - {entry["queue_id"] for entry in found}
    if missing:
        raise CommandError(f"{', '.join(sorted(missing))}: no such message: `mailserver queue` lists them")
    return [entry for entry in found if not queue_ids or entry["queue_id"] in queue_ids]


def watch(
    access: QueueAccess,
    queue_ids: Sequence[str],
    interval: float,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """The queue is shown until the reader goes away or Ctrl-C."""
    has_terminal = sys.stdout.isatty()
    while True:
        found = [entry for entry in access.entries()[0] if not queue_ids or entry["queue_id"] in queue_ids]
        height = shutil.get_terminal_size().lines - 2 if has_terminal else None
        text = "\n".join(
            list(lines(found, time.time(), has_terminal and "NO_COLOR" not in os.environ))[:height]
        )
        print(f"{_CLEAR if has_terminal else ''}{time.strftime('%H:%M:%S')}  {text}", flush=True)
        sleep(interval)


def lines(entries: Sequence[Entry], now: float, has_colours: bool = False) -> Iterator[str]:
    """A summary, then a line for each message, the oldest first, with why it waits."""
    bold, plain = (_BOLD, _PLAIN) if has_colours else ("", "")
    yield f"{bold}{summary(entries)}{plain}"
    for entry in sorted(entries, key=lambda each: float(each["arrival_time"])):
        recipients = entry["recipients"]
        shown = ", ".join(each["address"] for each in recipients[:3])
        more = f" and {len(recipients) - 3} more" if len(recipients) > 3 else ""
        mark = "#" if entry["forced_expire"] else ""
        waited = age(now - entry["arrival_time"])
        name, size = entry["queue_name"], entry["message_size"]
        yield (
            f"{bold}{entry['queue_id']}{plain}{mark}  {name:8}  {waited:>4}  {size:>8}"
            f"  {entry['sender']} -> {shown}{more}"
        )
        reasons = Counter(each["delay_reason"] for each in recipients if each.get("delay_reason"))
        for reason, count in reasons.most_common(3):
            yield f"    {reason}" + (f"  ({count} recipients)" if count > 1 else "")


def summary(entries: Sequence[Entry]) -> str:
    """How many messages wait in which queue."""
    if not entries:
        return "the queue is empty"
    counts = Counter(entry["queue_name"] for entry in entries)
    parts = ", ".join(f"{counts[name]} {name}" for name in _QUEUES if counts[name])
    octets = sum(entry["message_size"] for entry in entries)
    messages = "message" if len(entries) == 1 else "messages"
    return f"{len(entries)} {messages} ({parts}), {octets // 1024} KiB"


def age(seconds: float) -> str:
    """A time in its largest unit."""
    for length, unit in _UNITS:
        if seconds >= length:
            return f"{int(seconds // length)}{unit}"
    return f"{max(int(seconds), 0)}s"
