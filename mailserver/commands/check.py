"""`mailserver check`: what is wrong with the configuration, and what the server would do with it.

One line for each problem, with the cure, then a summary. Exit status 1 where the server would not start.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any

from mailserver.accounts.account import TemporaryAccountFailure
from mailserver.commands.checks import Checks
from mailserver.config.read import ConfigError

_EXAMPLES = """\
examples:
  mailserver check
  mailserver -c ./var check --json
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of `mailserver check`."""
    parser = subparsers.add_parser(
        "check",
        help="say what is wrong with the configuration",
        description="Say what is wrong with the configuration and its files. Changes nothing.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Problems and summary are printed; 1 where one of them is fatal."""
    checks = Checks(arguments.config_directory)
    values = summary(checks)
    if arguments.json:
        problems = [{"text": each.text, "fatal": each.is_fatal} for each in checks.problems]
        print(json.dumps({"problems": problems, "summary": values}, indent=2))
    else:
        print("\n".join([*lines(checks), *table(values)]))
    return int(checks.is_fatal)


def lines(checks: Checks) -> Iterator[str]:
    """A line for each problem."""
    for problem in checks.problems:
        yield f"{'fatal' if problem.is_fatal else 'warning'}: {problem.text}"


def summary(checks: Checks) -> dict[str, Any]:
    """What the server is, or would be. Empty where the configuration cannot be read."""
    config = checks.config
    if config is None:
        return {}
    return {
        "name": config.string("myhostname"),
        "configuration": config.directory,
        "running": checks.pid or None,
        "listeners": [
            f"{each.service} {each.address}:{each.port}{' tls' if each.implicit_tls else ''}"
            for each in checks.listeners
        ],
        "tls": sorted(
            {
                pair.certificate
                for each in checks.listeners
                for pair in checks.parts.tls.key_pair_files(each.config)
            }
        ),
        "accounts": _account_count(checks),
        "spool": config.string("home_mailbox") or config.string("mail_spool_directory"),
        "queue": config.string("queue_directory"),
        "relay_safe": checks.relay_is_safe,
    }


def certificates(checks: Checks) -> list[str]:
    """The files of certificates in use."""
    views = [each.config for each in checks.listeners]
    return sorted({pair.certificate for view in views for pair in checks.parts.tls.key_pair_files(view)})


def _account_count(checks: Checks) -> int | None:
    try:
        return len(list(checks.parts.accounts.names()))
    except (TemporaryAccountFailure, ConfigError):
        return None


def table(values: dict[str, Any]) -> Iterator[str]:
    """The summary for people."""
    if not values:
        return
    yield f"{'name':13} {values['name']}"
    yield f"{'configuration':13} {values['configuration']}"
    pid = values["running"]
    yield f"{'server':13} {f'running, pid {pid}' if pid else 'not running'}"
    for number, listener in enumerate(values["listeners"]):
        yield f"{'listeners' if number == 0 else '':13} {listener}"
    yield f"{'TLS':13} {', '.join(values['tls']) or 'no certificate'}"
    accounts = values["accounts"]
    yield f"{'accounts':13} {'unknown' if accounts is None else accounts}"
    yield f"{'spool':13} {values['spool']}"
    yield f"{'queue':13} {values['queue']}"
    yield f"{'relay safe':13} {'yes' if values['relay_safe'] else 'no'}"
