"""`mailserver rawlog`: what an account's IMAP and POP3 sessions say, live or kept in files, redacted.

Passwords, literals and message content are left out. It concerns sessions that log in while it is on,
and ends by itself. The server needs no restart, and says in its log that it is on.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import time
from collections.abc import Iterator
from threading import Event
from typing import IO, Final

from mailserver.commands.errors import CommandError
from mailserver.commands.mailbox_accounts import Work, for_accounts
from mailserver.commands.session_access import UNAVAILABLE
from mailserver.config.read import ConfigError, read_unchecked
from mailserver.rawlog import SWITCH, deadline, directory_of
from mailserver.roles.instance import running_pid

_PAUSE: Final = 0.2  # seconds between two looks
_AGE: Final = re.compile(r"([0-9]{1,6})([smhd])")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_LONGEST: Final = 7 * 86_400  # seconds
_EXAMPLES: Final = """\
examples:
  mailserver rawlog alice                    her next sessions, live; Ctrl-C ends it
  mailserver rawlog alice --start --for 1d   into files, for a day
  mailserver rawlog alice --show             what they have so far
  mailserver rawlog alice --stop             end it, and remove the files
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of `mailserver rawlog`."""
    parser = subparsers.add_parser(
        "rawlog",
        help="watch what a user's sessions say, without passwords and content",
        description="Show the dialogue of an account's new IMAP and POP3 sessions, without passwords, "
        "literals and message content.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("user", metavar="USER", help="the account")
    action = parser.add_mutually_exclusive_group()
    for name, does in (
        ("start", "keep transcripts in files of the account's state directory"),
        ("show", "print the transcripts that are kept"),
        ("stop", "end it, and remove the transcripts"),
    ):
        action.add_argument(f"--{name}", dest="action", action="store_const", const=name, help=does)
    parser.add_argument(
        "--for", dest="seconds", type=_age, default=3600, metavar="TIME", help="30m, 2h, 1d (default: 1h)"
    )
    parser.set_defaults(run=run, action="follow")


def _age(text: str) -> int:
    found = _AGE.fullmatch(text)
    seconds = int(found[1]) * _UNITS[found[2]] if found else 0
    if not 0 < seconds <= _LONGEST:
        raise argparse.ArgumentTypeError(f"{text}: write 30m, 12h or 1d, at most 7d")
    return seconds


def run(arguments: argparse.Namespace) -> int:
    """The transcripts are shown, begun or ended, with the account's own rights. Raises CommandError."""
    acts = {"start": _start, "show": _show, "stop": _stop, "follow": _follow}
    if arguments.action == "follow":
        _require_server(arguments)
        # here, before the account's process is forked: both go on to the end
        arguments.is_over = Event()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *unused: arguments.is_over.set())
    return for_accounts(arguments, acts[arguments.action])


def _require_server(arguments: argparse.Namespace) -> None:
    """Raises CommandError where nothing would ever be shown. Whoever may not look finds out by waiting."""
    try:
        config = read_unchecked(arguments.config_directory, os.environ)
    except ConfigError as error:
        raise CommandError(str(error)) from error
    queue = config.string("queue_directory")
    may_look = not os.path.exists(queue) or os.access(queue, os.X_OK)
    if may_look and not running_pid(config):
        raise CommandError(
            "no server is running, so there are no sessions to show: start it with `mailserver run`",
            UNAVAILABLE,
        )


def _directory(work: Work) -> str:
    return directory_of(work.state_parent, work.account.name)


def _start(work: Work) -> int:
    directory = _directory(work)
    _switch_on(directory, work.arguments.seconds)
    print(f"transcripts of new sessions: {directory}", flush=True)
    return 0


def _switch_on(directory: str, seconds: float) -> None:
    os.makedirs(directory, mode=0o700, exist_ok=True)
    os.chmod(directory, 0o700)
    path = f"{directory}/{SWITCH}"
    with open(
        os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "w"
    ) as file:
        file.write(f"{time.time() + seconds:.0f}\n")
    os.rename(f"{path}.new", path)


def _show(work: Work) -> int:
    directory = _directory(work)
    for name in _transcripts(directory):
        print(f"== {name}")
        with open(f"{directory}/{name}", encoding="ascii") as file:
            print(file.read(), end="")
    left = deadline(directory) - time.time()
    print(f"on for another {left / 60:.0f} min" if left > 0 else "off", flush=True)
    return 0


def _transcripts(directory: str) -> list[str]:
    with contextlib.suppress(FileNotFoundError):
        return sorted(name for name in os.listdir(directory) if not name.startswith(SWITCH))
    return []


def _stop(work: Work) -> int:
    directory = _directory(work)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{directory}/{SWITCH}")
    for name in _transcripts(directory):
        os.unlink(f"{directory}/{name}")
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(directory)
    return 0


def _follow(work: Work) -> int:
    """New sessions are shown until Ctrl-C, or the time is over; then it is as if nothing had been."""
    directory = _directory(work)
    if deadline(directory) > time.time():
        raise CommandError("it is on already: look at what there is with --show, or end it with --stop")
    _switch_on(directory, work.arguments.seconds)
    print(f"waiting for sessions of {work.account.name}; Ctrl-C ends it", flush=True)
    try:
        for line in _growth(directory, work.arguments.is_over):
            print(line, flush=True)
    except BrokenPipeError:
        pass
    finally:
        _stop(work)
    return 0


def _growth(directory: str, is_over: Event) -> Iterator[str]:
    """The lines of all transcripts as they are written, each with its session's id, until it is over."""
    files: dict[str, IO[str]] = {}
    was_last = False
    while not was_last:
        was_last = is_over.is_set() or deadline(directory) < time.time()
        for name in _transcripts(directory):
            if name not in files:
                files[name] = open(f"{directory}/{name}", encoding="ascii")  # noqa: SIM115  (read until the end)
        for name, file in files.items():
            session = name.split("-", 2)[2]
            for line in file:
                yield f"{session} {line.rstrip()}"
        if not was_last:
            is_over.wait(_PAUSE)
