"""The command line of postconf(1): its help, its letters, and which of them exclude each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from mailserver.commands.errors import CommandError
from mailserver.commands.postfix_command import PostfixCommand

OPTIONS: Final = "aAbc:C:deEfFhHlmMno:pPtT:vxX#"
CLASSES: Final = ("builtin", "service", "user", "all")
_USAGE: Final = (
    "usage: postconf [-a (server SASL types)] [-A (client SASL types)] [-b (bounce templates)]"
    " [-c config_dir] [-C param_class] [-d (parameter defaults)] [-e (edit configuration)] [-f (fold lines)]"
    " [-F (master.cf fields)]"
    " [-h (no names)] [-H (no values)] [-l (lock types)] [-m (map types)] [-M (master.cf)]"
    " [-n (non-default parameters)]"
    " [-o name=value (override parameter value)] [-p (main.cf, default)] [-P (master.cf parameters)]"
    " [-t (bounce templates)] [-T compile-version|run-version|public-key-algorithms]"
    " [-v (verbose)] [-x (expand parameter values)] [-X (exclude)] [-# (comment-out)] [name...]"
)
_HELP: Final = """\
usage: postconf [options] [name ...]

Shows parameters of main.cf, all or those that are named, or edits them.
  -n             those that main.cf sets           -d  the defaults
  -h             values only    -H  names only     -x  with $name expanded    -f  long lines folded
  -e NAME=VALUE  set (also without -e)             -X NAME  remove            -# NAME  comment out
  -M [NAME/TYPE] rows of master.cf                 -F  their fields           -P  their -o settings
  -Me NAME/TYPE='ROW', -MX and -M# NAME/TYPE       edit rows
  -F NAME/TYPE/FIELD=VALUE, -P NAME/TYPE/PARAMETER=VALUE, -PX NAME/TYPE/PARAMETER
                 edit a field, a setting of one service
  -m             table types    -l  lock types     -a -A  SASL types
  -t, -b [FILE]  texts of delivery reports, as written and as sent: bounce_template_file
  -C CLASS       builtin, service, user or all     -T run-version  the TLS library
  -c DIR         the directory of main.cf          -o NAME=VALUE  as if main.cf said so

examples:
  postconf -n
  postconf -hx mydestination
  postconf -e 'mynetworks = 127.0.0.0/8, 192.0.2.0/24'
  postconf -P 'submission/inet/smtpd_tls_security_level=encrypt'
"""
COMMAND: Final = PostfixCommand("postconf", _USAGE, _HELP)
# At most one of each group.
_ONE_OF: Final = ("aAbFlmMpPtT", "denX#", "deoX#", "efX#", "ehX#", "eHX#", "exX#", "hH")
# Letters, and what they do not go with.
_NOT_WITH: Final = {
    "aAblmtT": "defhHnoxX#",
    "F": "dnX#",
    "M": "dn",
    "P": "dn#",
}


@dataclass(slots=True)
class Options:
    """The command line: its letters, and what they take. `e` is there where a name has a value, too."""

    letters: frozenset[str] = frozenset()
    directory: str | None = None
    overrides: dict[str, str] = field(default_factory=dict)
    classes: frozenset[str] = frozenset()
    query: str = ""  # -T


def parse(arguments: list[str]) -> tuple[Options, list[str]]:
    """The options, and the names behind them. Raises CommandError."""
    pairs, names = COMMAND.options(arguments, OPTIONS)
    letters = {letter[1] for letter, _ in pairs}
    if any("=" in name for name in names):
        letters.add("e")
    options = Options(frozenset(letters))
    for letter, value in pairs:
        if letter == "-c":
            options.directory = value
        elif letter == "-o":
            name, text = assignment(value, "-o")
            options.overrides[name] = text
        elif letter == "-C":
            options.classes |= _classes(value)
        elif letter == "-T":
            options.query = value
    _check(options.letters)
    return options, names


def _check(letters: frozenset[str]) -> None:
    """Raises CommandError where letters exclude each other."""
    for group in _ONE_OF:
        found = [letter for letter in group if letter in letters]
        if len(found) > 1:
            raise CommandError(
                "specify one of " + " ".join(f"-{letter}" for letter in sorted(found, key=_order))
            )
    for group, others in _NOT_WITH.items():
        for letter in group:
            bad = [other for other in others if letter in letters and other in letters]
            if bad:
                raise CommandError(
                    f"with option -{letter}, do not specify {' '.join(f'-{other}' for other in bad)}"
                )


def _order(letter: str) -> tuple[str, bool]:
    return ("~" if letter == "#" else letter.lower(), letter.isupper())


def _classes(text: str) -> frozenset[str]:
    words = text.replace(",", " ").split()
    for word in words:
        if word not in CLASSES:
            raise CommandError(f'unknown -C option value "{word}" in "{text}"')
    return frozenset(words)


def assignment(text: str, option: str = "-e") -> tuple[str, str]:
    """The two sides of `name = value`. Raises CommandError."""
    name, equals, value = text.partition("=")
    name, value = name.strip(), value.strip()
    if not equals or any(character.isspace() for character in name):
        raise CommandError(f"missing '=' after attribute name: \"{text}\"")
    if not name:
        raise CommandError(f'missing attribute name: "{text}"')
    if "\n" in value:
        raise CommandError(f"{option} accepts no multi-line input")
    return name, value


def assignments(texts: Sequence[str], warn: Callable[[str], None]) -> dict[str, str]:
    """Several; of two for one name the last counts. Raises CommandError."""
    found: dict[str, str] = {}
    for text in texts:
        name, value = assignment(text)
        if name in found:
            warn(f"ignoring earlier request: '{name} = {found[name]}'")
        found[name] = value
    return found
