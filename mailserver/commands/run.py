"""`mailserver run`: the server in the foreground, as `twistd -n mailserver`, with fewer words.

It prints what it listens on and lines to paste into clients, then the mail log.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping

from twisted.scripts import twistd

from mailserver.commands.errors import CommandError
from mailserver.config.listeners import Listener, listeners
from mailserver.config.read import Config, ConfigError, read_config

_NAMES = {"smtpd": "SMTP", "pop3d": "POP3", "imapd": "IMAP"}


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of `mailserver run`."""
    parser = subparsers.add_parser(
        "run",
        help="start the server in the foreground",
        description="Start the server in the foreground; stop it with Ctrl-C.",
        epilog="example:\n  mailserver -c ./var run",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Does not return while the server runs."""
    try:
        config = read_config(arguments.config_directory, os.environ)
        lines = list(greeting(config))
    except ConfigError as error:
        raise CommandError(str(error)) from error
    print("\n".join(lines), flush=True)
    quiet = "--logger=mailserver.roles.quiet_log.observer"
    sys.argv = ["twistd", "--nodaemon", "--pidfile=", quiet, "mailserver", "-c", config.directory]
    twistd.run()
    return 0


def greeting(config: Config) -> Iterator[str]:
    """What listens where, and what to type into clients."""
    found = listeners(config)
    yield f"mailserver for {config.string('myhostname')}, configuration {config.directory}"
    for listener in found:
        kind = _NAMES[listener.service] + (" with TLS" if listener.implicit_tls else "")
        yield f"  {kind:14} {_shown(listener.address)}:{listener.port}   ({os.path.basename(listener.where)})"
    ports = {(each.service, each.implicit_tls): each for each in reversed(found)}
    yield from _lines_to_paste(ports)


def _lines_to_paste(ports: Mapping[tuple[str, bool], Listener]) -> Iterator[str]:
    smtp, imap, tls = ports.get(("smtpd", False)), ports.get(("imapd", False)), ports.get(("imapd", True))
    submission = ports.get(("smtpd", True))
    if smtp:
        where = f"{_client(smtp.address)}:{smtp.port}"
        yield "Send:"
        yield f"  swaks --server {where} --to alice@example.org --from you@example.net"
        yield f"  printf 'Subject: hi\\n\\nhello\\n' | curl -sS smtp://{where} \\"
        yield "      --mail-from you@example.net --mail-rcpt alice@example.org -T -"
    if imap:
        yield "Read:"
        yield f"  mutt -f imap://alice@{_client(imap.address)}:{imap.port}/INBOX"
        yield f"  curl -u alice imap://{_client(imap.address)}:{imap.port}/INBOX"
    if tls and submission:
        yield "Thunderbird (Account, Manual configuration):"
        for way, listener in (("incoming  IMAP", tls), ("outgoing  SMTP", submission)):
            where = f"{_client(listener.address)}  port {listener.port}"
            yield f"  {way}  {where}  SSL/TLS  normal password  alice"


def _shown(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _client(address: str) -> str:
    return "127.0.0.1" if address in ("0.0.0.0", "::") else _shown(address)
