"""`postalias` and `newaliases`: make and ask the indexes of alias files. postalias(1), newaliases(1)."""

from __future__ import annotations

import getopt
import os
import sys
from collections.abc import Sequence
from typing import Final

from mailserver.commands.maps import Program, run
from mailserver.config.read import ConfigError, read_unchecked
from mailserver.tables.source import alias_lines

_USAGE: Final = "usage: postalias [-finoprsuUvw] [-c config_dir] [-d key] [-q key] [map_type:]file..."
_HELP: Final = f"""\
{_USAGE}

Makes the index FILE.lmdb of an alias file with `name: value, value ...` lines; see `postmap --help` for
the options, which are the same.

examples:
  postalias hash:/etc/aliases
  postalias -q root hash:/etc/aliases
"""
_NEWALIASES_HELP: Final = """\
usage: newaliases [-v] [-C config_dir] [-oAmap_type:file]

Makes the indexes of all files in alias_database.

example:
  newaliases
"""

PROGRAM: Final = Program(
    "postalias", _USAGE, _HELP, alias_lines, lambda opener: opener.aliases, ":\t", "c:d:fFinNopq:rsuUvw"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run postalias; its exit status."""
    return run(PROGRAM, argv)


def newaliases(argv: Sequence[str] | None = None) -> int:
    """Run newaliases; its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["--help"]:
        print(_NEWALIASES_HELP, end="")
        return 0
    try:
        pairs, _ = getopt.getopt(arguments, "C:c:o:vIib:")
    except getopt.GetoptError as error:
        print(f"newaliases: invalid option -- '{error.opt}'", file=sys.stderr)
        print("newaliases: fatal: usage: newaliases [options]", file=sys.stderr)
        return 1
    directory = next((_directory(value) for letter, value in pairs if letter in ("-C", "-c")), None)
    files = [value[1:] for letter, value in pairs if letter == "-o" and value.startswith("A")]
    try:
        names = files or list(read_unchecked(directory, os.environ).words("alias_database"))
    except ConfigError as error:
        print(f"newaliases: fatal: {error}", file=sys.stderr)
        return 1
    if not names:
        return 0
    return main([*(("-c", directory) if directory else ()), "--", *names])


def _directory(name: str) -> str:
    """Sendmail's -C names a file; its directory is meant."""
    return name if os.path.isdir(name) else os.path.dirname(name) or "."


if __name__ == "__main__":
    sys.exit(main())
