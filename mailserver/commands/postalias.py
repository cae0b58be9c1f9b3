"""`postalias` and `newaliases`: make and ask the indexes of alias files. postalias(1), newaliases(1)."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final

from mailserver.commands.maps import Program, run
from mailserver.commands.postfix_command import PostfixCommand
from mailserver.config.read import read_unchecked
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
    PostfixCommand("postalias", _USAGE, _HELP),
    alias_lines,
    lambda opener: opener.aliases,
    ":\t",
    "c:d:fFinNopq:rsuUvw",
)
_NEWALIASES: Final = PostfixCommand("newaliases", "usage: newaliases [options]", _NEWALIASES_HELP)


def main(argv: Sequence[str] | None = None) -> int:
    """Run postalias; its exit status."""
    return run(PROGRAM, argv)


def newaliases(argv: Sequence[str] | None = None) -> int:
    """Run newaliases; its exit status."""
    return _NEWALIASES.run(_make_all, argv)


def _make_all(arguments: list[str]) -> int:
    pairs, _ = _NEWALIASES.options(arguments, "C:c:o:vIib:")
    directory = next((_directory(value) for letter, value in pairs if letter in ("-C", "-c")), None)
    files = [value[1:] for letter, value in pairs if letter == "-o" and value.startswith("A")]
    names = files or list(read_unchecked(directory, os.environ).words("alias_database"))
    return main([*(("-c", directory) if directory else ()), "--", *names]) if names else 0


def _directory(name: str) -> str:
    """Sendmail's -C names a file; its directory is meant."""
    return name if os.path.isdir(name) else os.path.dirname(name) or "."


if __name__ == "__main__":
    sys.exit(main())
