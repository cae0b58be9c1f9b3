"""`postlock`: run a command while an mbox is locked, as delivery and sessions lock it. postlock(1).

Both locks are taken, the dotlock and fcntl(2)'s, and kept alive for as long as the command runs.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

from mailserver.commands.errors import CommandError
from mailserver.commands.postfix_command import PostfixCommand
from mailserver.config.read import read_unchecked
from mailserver.maillog import ListLog
from mailserver.roles.parts import Parts
from mailserver.store.contract import MailboxBusy
from mailserver.store.locking import exclusive

FAILURE: Final = 75
_REFRESH: Final = 10.0  # seconds
_STYLES: Final = frozenset({"dotlock", "fcntl"})
_USAGE: Final = "usage: postlock [-c config_dir] [-l lock_style] [-v] folder command..."
_HELP: Final = """\
usage: postlock [-c DIR] FILE COMMAND [ARGUMENT ...]

Runs the command while the mbox is locked; the exit status is the command's, and 75 where there is no lock.
  -c DIR    the directory of main.cf
  -l STYLE  dotlock, fcntl: both are taken whatever is said here

example:
  postlock /var/spool/mail/alice cp /var/spool/mail/alice /backup/
"""
_COMMAND: Final = PostfixCommand("postlock", _USAGE, _HELP, failure=FAILURE, misuse=FAILURE)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit status."""
    return _COMMAND.run(_run, argv)


def _run(arguments: list[str]) -> int:
    options, words = _COMMAND.options(arguments, "c:l:v")
    style = dict(options).get("-l", "")
    if len(words) < 2:
        raise _COMMAND.misused()
    if not set(style.replace(",", " ").split()) <= _STYLES:
        raise CommandError(f'unknown mailbox_delivery_lock value "{style}" in "{style}"', FAILURE)
    try:
        return _locked(dict(options).get("-c"), words[0], words[1:])
    except MailboxBusy as error:
        raise CommandError(f"open file {words[0]}: {error}", FAILURE) from error
    except OSError as error:
        raise CommandError(f"open file {words[0]}: {error.strerror}", FAILURE) from error


def _locked(directory: str | None, path: str, command: Sequence[str]) -> int:
    """The command's exit status. Raises ConfigError, MailboxBusy, OSError, CommandError: it did not run."""
    rules = Parts(read_unchecked(directory, os.environ), ListLog()).store.lock_rules
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    with exclusive(os.path.abspath(path), lambda: os.open(path, flags, 0o600), rules) as held:
        try:
            process = subprocess.Popen(command)
        except OSError as error:
            raise CommandError(f"execvp {command[0]}: {error.strerror}") from error
        while True:
            try:
                status = process.wait(_REFRESH)
            except subprocess.TimeoutExpired:
                held.refresh()
            else:
                return status if status >= 0 else 1


if __name__ == "__main__":
    sys.exit(main())
