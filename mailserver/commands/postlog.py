"""`postlog`: a line in the mail log, for scripts. postlog(1)."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import Final

from mailserver.commands.errors import CommandError
from mailserver.commands.postfix_command import PostfixCommand
from mailserver.config.read import read_unchecked
from mailserver.maillog import FileLog, MailLog, SyslogLog

_USAGE: Final = "usage: postlog [-c config_dir] [-i] [-p priority] [-t tag] [-v] [text]"
_HELP: Final = """\
usage: postlog [-c DIR] [-p PRIORITY] [-t TAG] [TEXT ...]

Writes the text, or each line of standard input, to the log of main.cf, and to a terminal on standard error.
  -p PRIORITY  info (the default), warn, error, fatal, panic: the word before the text
  -t TAG       who says it (default: postfix/postlog)
  -c DIR       the directory of main.cf

example:
  postlog -p warn -t backup "no backup for two days"
"""
_COMMAND: Final = PostfixCommand("postlog", _USAGE, _HELP)
_WORDS: Final = {"info": "", "warn": "warning: ", "warning": "warning: "} | {
    word: f"{word}: " for word in ("error", "fatal", "panic")
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit status."""
    return _COMMAND.run(_run, argv)


def _run(arguments: list[str]) -> int:
    options, words = _COMMAND.options(arguments, "c:ip:t:v")
    values = dict(options)
    priority = values.get("-p", "info")
    if priority not in _WORDS:
        raise CommandError(f"unknown priority: {priority}: write one of {', '.join(_WORDS)}")
    service, log = _log(values.get("-c"), values.get("-t"))
    for line in [" ".join(words)] if words else (line.rstrip("\n") for line in sys.stdin):
        text = _WORDS[priority] + line
        log.write(service, text)
        if sys.stderr.isatty():
            print(f"{values.get('-t') or 'postlog'}: {text}", file=sys.stderr)
    if priority in ("fatal", "panic"):
        time.sleep(1)  # as all of Postfix's programs: whoever starts it over and over fills no log
    return 0


def _log(directory: str | None, tag: str | None) -> tuple[str, MailLog]:
    """The log, and the service under which it makes the tag. Raises ConfigError."""
    config = read_unchecked(directory, os.environ)
    prefix, _, service = (tag or f"{config.string('syslog_name')}/postlog").rpartition("/")
    path = config.string("maillog_file")
    if not path:
        return service, SyslogLog(prefix, prefix)
    try:
        return service, FileLog(path, prefix, prefix, host=config.string("myhostname").split(".")[0])
    except OSError as error:
        raise config.error("maillog_file", f"{path}: {error.strerror}: become root, or its owner") from error


if __name__ == "__main__":
    sys.exit(main())
