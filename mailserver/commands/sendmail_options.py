"""sendmail(1)'s command line.

Options are parsed up to the first operand. Like `sendmail` itself this starts light: nothing is
imported but `os` and `sys`.
"""

import os
import sys

USAGE = "usage: sendmail [options] [recipient ...]"
HELP = """\
usage: sendmail [options] [recipient ...]

Hands the message on standard input to the mail system.
  -f SENDER, -r SENDER  the envelope sender (default: who you are)
  -F NAME               the full name for a From: field that is missing
  -t                    take recipients from To:, Cc: and Bcc: too
  -i, -oi               a line with a single dot does not end the message
  -N LIST, -R full|hdrs, -V ENVID   delivery status notifications
  -B 8BITMIME|7BIT      the body's type
  -bs                   speak SMTP on standard input
  -bv                   deliver nothing; mail a report of where mail for the recipients would go
  -v                    mail a report of the first attempt, too
  -bp                   as mailq         -bi, -I  as newaliases
  -q                    deliver the queue now       -qI ID, -qR SITE  a part of it
  -bd, -bl              start the mail system    -bh, -bH  do nothing
  -C DIR                the directory of main.cf
Other options of Sendmail are taken and ignored.

example:
  printf 'Subject: hi\\n\\nhello\\n' | sendmail -i alice@example.org
"""
_WITH_VALUE = "ABCFLNORVXbdefhopqr"  # as one word, or with the value in the next one
_MAY_STAND_ALONE = "qd"  # the value is in the same word, or there is none
_IGNORED_BODIES = ("8BITMIME", "7BIT")


class Failure(Exception):
    """The command cannot do its work. The text goes behind `fatal: `."""


class Options:
    """The command line. `sender` is None where none was given."""

    def __init__(self) -> None:
        self.mode = "m"
        self.sender: bytes | None = None
        self.full_name: bytes | None = None
        self.extracts = False
        self.records = False
        self.dot_ends = True
        self.config: str | None = None
        self.fields: list[tuple[bytes, bytes]] = []
        self.alias_database = ""
        self.flush = ""  # with mode q: "" for everything, "I…" or "R…"
        self.recipients: list[bytes] = []


def parse(arguments: "list[str]") -> Options:
    """The options, and the recipients behind them. Raises Failure."""
    options = Options()
    position = 0
    while position < len(arguments):
        word = arguments[position]
        if word == "--":
            position += 1
            break
        if not word.startswith("-") or word == "-":
            break
        position += 1
        while len(word) > 1:
            letter, rest = word[1], word[2:]
            if letter in _WITH_VALUE:
                if not rest and letter not in _MAY_STAND_ALONE:
                    if position >= len(arguments):
                        raise Failure(f"option -{letter} needs a value: {USAGE}")
                    rest = arguments[position]
                    position += 1
                _take(options, letter, rest)
                break
            _take(options, letter, "")
            word = "-" + rest
    options.recipients = [os.fsencode(each) for each in arguments[position:]]
    return options


def _take(options: Options, letter: str, value: str) -> None:
    """One option is in `options`. Raises Failure."""
    if letter in "fr":
        options.sender = os.fsencode(value)
    elif letter == "F":
        options.full_name = os.fsencode(value)
    elif letter == "t":
        options.extracts = True
    elif letter == "v":
        options.records = True
    elif letter == "i" or (letter == "o" and value == "i"):
        options.dot_ends = False
    elif letter == "o" and value.startswith("A"):
        if not value[1:]:
            raise Failure("-oA requires pathname")
        options.alias_database = value[1:]
    elif letter == "C":
        options.config = os.path.dirname(value) or "." if os.path.isfile(value) else value
    elif letter == "I":
        options.mode = "i"
    elif letter == "b":
        _take_mode(options, value)
    elif letter == "q":
        _take_flush(options, value)
    elif letter in "NRVB":
        _take_notice(options, letter, value)
    elif letter not in "AGLOUXcdehmnopsx":
        raise Failure(f"invalid option -- '{letter}': {USAGE}")


def _take_mode(options: Options, value: str) -> None:
    """Of several modes the last one counts. -bl is -bd; -bh and -bH are of no use here, and do nothing."""
    letter = value[:1]
    if letter not in ("m", "s", "p", "i", "v", "d", "l", "h", "H"):
        raise Failure(f"unsupported: -b{value}: {USAGE}")
    options.mode = {"l": "d", "H": "h"}.get(letter, letter)


def _take_flush(options: Options, value: str) -> None:
    """-q15m tells a daemon to look at its queue so often; ours needs not be told, and alone it is nothing."""
    if value[:1].isdecimal():
        options.mode = "d" if options.mode == "d" else "h"
        return
    if value and value[0] not in "IR":
        raise Failure(f"-q{value[0]} is not implemented")
    if value and not value[1:]:
        raise Failure(f"specify: -q{value[0]}{'queueid' if value[0] == 'I' else 'sitename'}")
    options.mode, options.flush = "q", value


def _take_notice(options: Options, letter: str, value: str) -> None:
    """-N, -R, -V and -B: what is no value of theirs is warned about, or refused, as Postfix does."""
    upper = value.upper()
    if letter == "B":
        if upper not in _IGNORED_BODIES:
            raise Failure("-B option needs 8BITMIME or 7BIT")
        options.fields.append((b"body", upper.encode()))
    elif letter == "N":
        words = upper.replace(" ", "").split(",")
        if words == ["NEVER"] or set(words) <= {"SUCCESS", "FAILURE", "DELAY"}:
            options.fields.append((b"notify", ",".join(words).encode()))
        else:
            _warn(f'bad -N option value "{value}": ignored')
    elif letter == "R":
        if upper in ("FULL", "HDRS"):
            options.fields.append((b"ret", upper.encode()))
        else:
            _warn(f'bad -R option value "{value}": ignored')
    elif len(value) > 100 or not (value.isascii() and value.isprintable()):
        _warn("bad -V option value: ignored")
    else:
        options.fields.append((b"envid", value.encode()))


def _warn(text: str) -> None:
    sys.stderr.write(f"sendmail: warning: {text}\n")
