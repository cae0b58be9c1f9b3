"""`mailserver test ADDRESS`: send a small message the way that users' programs do, and watch it.

It goes through the drop directory, the queue and a delivery like any other; its lines of the mail log
are shown, with those of the messages that came of it. Exit status 0 where it was delivered, 1 where it
bounced, waits, or was not seen in time.
"""

from __future__ import annotations

import argparse
import os
import secrets
import time

from mailserver.commands import sendmail
from mailserver.commands.errors import CommandError
from mailserver.commands.history import History, as_lines, history, queue_ids
from mailserver.commands.log_lines import parse_result, usual_logs
from mailserver.commands.queue_access import user_name
from mailserver.commands.sendmail_options import Failure
from mailserver.config.config import Config
from mailserver.config.read import ConfigError, read_config
from mailserver.maillog import ListLog
from mailserver.queue.directory import QueueDirectory
from mailserver.roles.parts import Parts

_PAUSE = 0.1  # seconds between two looks at the log


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of `mailserver test`."""
    parser = subparsers.add_parser(
        "test",
        help="send a message to an address and watch what becomes of it",
        description="Send a small message to ADDRESS and show every step that it takes.",
        epilog="examples:\n  mailserver test alice\n  mailserver test --from '' staff@example.org",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("address", metavar="ADDRESS")
    parser.add_argument("--from", dest="sender", help="the envelope sender (default: who you are)")
    parser.add_argument("--wait", type=float, default=30, metavar="SECONDS", help="how long (default: 30)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """The message is sent, and its history printed. Raises CommandError."""
    try:
        config = read_config(arguments.config_directory, os.environ)
        queue = Parts(config, ListLog()).queue
    except ConfigError as error:
        raise CommandError(str(error)) from error
    sender = user_name() if arguments.sender is None else arguments.sender
    message_id = _send(config, arguments.address, sender)
    logs = usual_logs(config)[-1:]
    if not logs:
        print(
            f"sent as {message_id}; there is no log file to watch: `mailserver queue` shows whether it waits"
        )
        return 0
    told = _watch(message_id, logs, queue, time.monotonic() + arguments.wait)
    if told is None:
        raise CommandError(f"nothing in {logs[0]} yet: `postfix status` says whether the server runs")
    print("\n".join(as_lines(told)))
    return int(not _is_delivered(told))


def _send(config: Config, address: str, sender: str) -> str:
    """The Message-ID of the message, which is in the drop directory. Raises CommandError."""
    message_id = f"<test-{secrets.token_hex(8)}@{config.string('myhostname')}>"
    text = f"Subject: Test\nTo: {address}\nMessage-ID: {message_id}\n\nSent by `mailserver test`.\n"
    fields = [(b"sender", os.fsencode(sender)), (b"recipient", os.fsencode(address))]
    try:
        sendmail.submit({"queue_directory": config.string("queue_directory")}, fields, text.encode())
    except Failure as error:
        raise CommandError(str(error)) from error
    return message_id


def _watch(message_id: str, logs: list[str], queue: QueueDirectory, end: float) -> History | None:
    """The message's history once it has come to rest, or at the end of our patience."""
    while True:
        found = [history(queue_id, logs, queue) for queue_id in queue_ids(message_id, logs)]
        told = found[0] if found else None
        if (told is not None and _is_at_rest(told)) or time.monotonic() > end:
            return told
        time.sleep(_PAUSE)


def _is_at_rest(told: History) -> bool:
    """Whether it has left the queue or waits for another attempt, and so has what came of it."""
    has_left = any(line.text == "removed" for line in told.lines)
    is_deferred = told.waiting is not None and told.waiting["queue_name"] in ("deferred", "hold")
    return (has_left or is_deferred) and all(map(_is_at_rest, told.followers))


def _is_delivered(told: History) -> bool:
    results = [result for line in told.lines if (result := parse_result(line))]
    is_sent = bool(results) and all(result.status == "sent" for result in results)
    return is_sent and told.waiting is None and all(map(_is_delivered, told.followers))
