"""`mailserver reload`: the running server takes a changed main.cf, master.cf and dovecot.conf.

All of it or nothing: a configuration that cannot be served is refused with its line, and the old one
runs on. What changed is shown. Sessions and deliveries under way are not ended.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import time
from dataclasses import asdict
from typing import Final

from mailserver.commands.errors import CommandError
from mailserver.config.config import Config
from mailserver.config.read import ConfigError, read_unchecked
from mailserver.roles.instance import running_pid
from mailserver.roles.reload import Outcome, outcome_of, read_outcome

ANSWER_SECONDS: Final = 180.0
_PAUSE: Final = 0.05


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of `mailserver reload`."""
    parser = subparsers.add_parser(
        "reload",
        help="take a changed configuration into the running server",
        description=(
            "The running server reads main.cf, master.cf and dovecot.conf again. What cannot be served is "
            "refused, with its line, and the old one runs on. What changed is shown; sessions go on."
        ),
        epilog="examples:\n  mailserver reload\n  mailserver -c ./var reload --json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="what changed, as one JSON object")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print what changed; 1 where it was refused."""
    try:
        config = read_unchecked(arguments.config_directory, os.environ)
        pid = running_pid(config)
    except ConfigError as error:
        raise CommandError(f"{error}; the running server goes on as it is") from error
    if not pid:
        queue = config.string("queue_directory")
        raise CommandError(
            f"no server has the queue {queue} of {config.directory}: start it, or name its queue"
        )
    outcome = ask(config, pid)
    if arguments.json:
        print(json.dumps(asdict(outcome)))
    else:
        print("\n".join(outcome.lines()) or "nothing differs; the log was opened anew")
    return int(bool(outcome.error))


def ask(config: Config, pid: int) -> Outcome:
    """What the server with that pid says of the reload that begins now. Raises CommandError."""
    queue = config.string("queue_directory")
    asked_at = time.monotonic()
    try:
        read_outcome(queue)
        os.kill(pid, signal.SIGHUP)
    except PermissionError as error:
        raise CommandError(f"no permission to signal process {pid}: become root, or its user") from error
    except ProcessLookupError as error:
        raise CommandError(f"process {pid} has just ended: postfix status tells more") from error
    while time.monotonic() < asked_at + ANSWER_SECONDS:
        found = read_outcome(queue)
        if found.get("began", 0.0) >= asked_at:
            return outcome_of(found)
        if running_pid(config) != pid:
            raise CommandError(f"process {pid} ended before it answered: the mail log says why")
        time.sleep(_PAUSE)
    raise CommandError(f"process {pid} has not answered for {ANSWER_SECONDS:.0f} s: see the mail log")
