"""`postmap`: make and ask the indexes of lookup tables. postmap(1)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

from mailserver.commands.maps import Program, run
from mailserver.commands.postfix_command import PostfixCommand
from mailserver.tables.source import map_lines

_USAGE: Final = "usage: postmap [-bfFhimnNoprsuUvw] [-c config_dir] [-d key] [-q key] [map_type:]file..."
_HELP: Final = f"""\
{_USAGE}

Makes the index FILE.lmdb of a text file with `key value` lines; a running server uses it at once.
  -q KEY   print the value of KEY (- reads keys from standard input); exit status 1 where there is none
  -s       print all entries
  -d KEY   remove KEY (- reads keys from standard input)
  -i       add the entries on standard input        -r  replace entries that are there
  -c DIR   the directory of main.cf                  -w  do not warn of duplicates
  -f       keep upper case in keys                   -p  mode 0644 instead of the source's
  -o       stay root for another user's source       -n  no NUL behind keys and values
  -F       values are file names: store the contents -h -b  with -q -: header fields, body lines

examples:
  postmap hash:/etc/mailserver/access
  postmap -q 192.168.1 hash:/etc/mailserver/access
"""

PROGRAM: Final = Program(PostfixCommand("postmap", _USAGE, _HELP), map_lines, lambda opener: opener.table)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit status."""
    return run(PROGRAM, argv)


if __name__ == "__main__":
    sys.exit(main())
